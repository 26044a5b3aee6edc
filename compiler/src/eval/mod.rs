//! How well a model predicts a text, and how far two models' predictions are apart.
//!
//! The text's tokens are cut into windows of `window_len` inputs that do not overlap. Every token but the text's first is
//! predicted once: a window's first target is its second token, and the next window starts at this one's last target.
//! Sums run in the order of the text, so the figures do not depend on the number of threads.

mod compare;
mod packed;
mod perplexity;
pub mod task;

use siskin_runtime::TokenId;

pub use compare::{Comparison, compare};
pub use packed::PackedLogits;
pub use perplexity::{Evaluation, evaluate};

/// A text to evaluate on.
#[derive(Clone, Copy, Debug)]
pub struct EncodedText<'a> {
    /// Its tokens, with any that the model wants before a text.
    pub tokens: &'a [TokenId],
    /// Its length in UTF-8 bytes: what bits per byte divides by.
    pub n_bytes: usize,
}

/// Something that gives next-token logits: a float checkpoint or a packed model.
pub trait LogitsSource {
    /// Length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Longest window.
    fn context_len(&self) -> usize;

    /// Begins a window with an empty context.
    ///
    /// # Errors
    /// [`EvalError`]: a token outside the vocabulary, or more tokens than the context holds.
    fn start_window(&mut self, tokens: &[TokenId]) -> Result<(), EvalError>;

    /// Logits after the window's next token, `(vocab_size,)`: the first call gives those after its first token.
    ///
    /// # Errors
    /// [`EvalError`]; also when called more often than the window has tokens.
    fn next_logits(&mut self) -> Result<&[f32], EvalError>;
}

/// Why an evaluation could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// There is nothing to predict.
    #[error("the text has {n_tokens} tokens, but at least 2 are needed to predict one from another")]
    TextTooShort {
        /// Tokens in the text.
        n_tokens: usize,
    },
    /// A window is empty or beyond the context.
    #[error("a window of {window_len} tokens was asked for, but the model takes 1 to {context_len}")]
    WindowLen {
        /// The length asked for.
        window_len: usize,
        /// The model's context.
        context_len: usize,
    },
    /// A token is outside the vocabulary: the text was encoded by another model's tokenizer.
    #[error("token {token} at position {position} is outside the model's {vocab_size} tokens")]
    TokenOutOfRange {
        /// The token.
        token: TokenId,
        /// Its index among the tokens given.
        position: usize,
        /// Tokens of the model.
        vocab_size: usize,
    },
    /// The two models to compare do not predict the same tokens.
    #[error("the models have {reference} and {other} tokens, so their predictions cannot be compared")]
    VocabSizes {
        /// Tokens of the reference.
        reference: usize,
        /// Tokens of the other.
        other: usize,
    },
    /// More logits were asked for than the window has tokens.
    #[error("all logits of the window were already read")]
    WindowEnded,
    /// A model gave an infinity or NaN.
    #[error("the logits after token {token_idx} of the text are not finite")]
    NotFinite {
        /// Index into the text's tokens.
        token_idx: usize,
    },
    /// A source's own failure.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
}

impl EvalError {
    /// Checks a window's tokens against a source's limits.
    ///
    /// # Errors
    /// [`EvalError::WindowLen`] or [`EvalError::TokenOutOfRange`].
    pub fn check_window(tokens: &[TokenId], vocab_size: usize, context_len: usize) -> Result<(), Self> {
        if tokens.is_empty() || tokens.len() > context_len {
            return Err(Self::WindowLen { window_len: tokens.len(), context_len });
        }
        Self::check_tokens(tokens, vocab_size)
    }

    /// Checks that every token is in the vocabulary.
    fn check_tokens(tokens: &[TokenId], vocab_size: usize) -> Result<(), Self> {
        match tokens.iter().position(|&token| token as usize >= vocab_size) {
            Some(position) => Err(Self::TokenOutOfRange { token: tokens[position], position, vocab_size }),
            None => Ok(()),
        }
    }
}

/// The windows of a text: index of the first input, inputs, and targets of the same length.
fn windows(
    tokens: &[TokenId],
    window_len: usize,
    context_len: usize,
) -> Result<impl Iterator<Item = (usize, &[TokenId], &[TokenId])>, EvalError> {
    if tokens.len() < 2 {
        return Err(EvalError::TextTooShort { n_tokens: tokens.len() });
    }
    if window_len == 0 || window_len > context_len {
        return Err(EvalError::WindowLen { window_len, context_len });
    }
    let inputs = tokens[..tokens.len() - 1].chunks(window_len);
    let targets = tokens[1..].chunks(window_len);
    Ok(inputs.zip(targets).enumerate().map(move |(idx, (inputs, targets))| (idx * window_len, inputs, targets)))
}

/// Log of the sum of the exponentials of `logits`, and the index of the largest (the first of equals).
///
/// `None` if any logit is not finite.
fn log_sum_exp(logits: &[f32]) -> Option<(f64, usize)> {
    let mut top = 0;
    for (idx, &logit) in logits.iter().enumerate() {
        if !logit.is_finite() {
            return None;
        }
        if logit > logits[top] {
            top = idx;
        }
    }
    let max = f64::from(*logits.get(top)?);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    Some((max + sum.ln(), top))
}
