//! Perplexity and bits per byte.

use super::{EncodedText, EvalError, LogitsSource, log_sum_exp, windows};

/// A model's score on a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Tokens that were predicted: all but the text's first.
    pub n_tokens: usize,
    /// Length of the whole text in UTF-8 bytes.
    pub n_bytes: usize,
    /// Sum of `-ln p(token)` over the predicted tokens.
    pub total_nats: f64,
}

impl Evaluation {
    /// `exp` of the mean nats a predicted token.
    pub fn perplexity(&self) -> f64 {
        (self.total_nats / self.n_tokens as f64).exp()
    }

    /// Nats of all predicted tokens, in bits, over the bytes of the text: comparable across vocabularies.
    pub fn bits_per_byte(&self) -> f64 {
        self.total_nats / (core::f64::consts::LN_2 * self.n_bytes as f64)
    }
}

/// Scores `source` on `text` in windows of `window_len`; `progress` hears how many tokens are predicted so far.
///
/// # Errors
/// [`EvalError`]: the text is too short, the window does not fit the model, or the model failed.
pub fn evaluate(
    source: &mut dyn LogitsSource,
    text: EncodedText<'_>,
    window_len: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, EvalError> {
    let mut score = Evaluation { n_tokens: 0, n_bytes: text.n_bytes, total_nats: 0.0 };
    EvalError::check_tokens(text.tokens, source.vocab_size())?;
    for (start, inputs, targets) in windows(text.tokens, window_len, source.context_len())? {
        source.start_window(inputs)?;
        for (offset, &target) in targets.iter().enumerate() {
            let logits = source.next_logits()?;
            let (log_sum, _) = log_sum_exp(logits).ok_or(EvalError::NotFinite { token_idx: start + offset })?;
            score.total_nats += log_sum - f64::from(logits[target as usize]);
            score.n_tokens += 1;
            progress(score.n_tokens);
        }
    }
    Ok(score)
}
