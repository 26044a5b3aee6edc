//! How far one model's predictions are from another's: finer than the difference of their perplexities.

use super::{EncodedText, EvalError, Evaluation, LogitsSource, log_sum_exp, windows};

/// Two models beside each other on one text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Score of the reference.
    pub reference: Evaluation,
    /// Score of the other.
    pub other: Evaluation,
    /// Mean over positions of `KL(reference || other)`, in nats.
    pub mean_kl_nats: f64,
    /// Share of positions where both find the same token likeliest, 0 to 1.
    pub same_top_share: f64,
}

impl Comparison {
    /// How much larger the other's perplexity is, as a share of the reference's: 0.01 is one per cent worse.
    pub fn perplexity_increase(&self) -> f64 {
        self.other.perplexity() / self.reference.perplexity() - 1.0
    }
}

/// Scores both models on `text` in windows of `window_len` and compares their distributions at each position.
///
/// # Errors
/// [`EvalError`]: as [`super::evaluate`], or the models' vocabularies differ in size.
pub fn compare(
    reference: &mut dyn LogitsSource,
    other: &mut dyn LogitsSource,
    text: EncodedText<'_>,
    window_len: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Comparison, EvalError> {
    if reference.vocab_size() != other.vocab_size() {
        return Err(EvalError::VocabSizes { reference: reference.vocab_size(), other: other.vocab_size() });
    }
    EvalError::check_tokens(text.tokens, reference.vocab_size())?;
    let empty = Evaluation { n_tokens: 0, n_bytes: text.n_bytes, total_nats: 0.0 };
    let (mut reference_score, mut other_score) = (empty, empty);
    let (mut total_kl, mut n_same_top) = (0.0, 0usize);
    let context_len = reference.context_len().min(other.context_len());
    for (start, inputs, targets) in windows(text.tokens, window_len, context_len)? {
        reference.start_window(inputs)?;
        other.start_window(inputs)?;
        for (offset, &target) in targets.iter().enumerate() {
            let (p, q) = (reference.next_logits()?, other.next_logits()?);
            let not_finite = EvalError::NotFinite { token_idx: start + offset };
            let (Some((log_sum_p, top_p)), Some((log_sum_q, top_q))) = (log_sum_exp(p), log_sum_exp(q)) else {
                return Err(not_finite);
            };
            reference_score.total_nats += log_sum_p - f64::from(p[target as usize]);
            other_score.total_nats += log_sum_q - f64::from(q[target as usize]);
            total_kl += kl_nats(p, log_sum_p, q, log_sum_q);
            n_same_top += usize::from(top_p == top_q);
            reference_score.n_tokens += 1;
            progress(reference_score.n_tokens);
        }
    }
    let n_tokens = reference_score.n_tokens;
    Ok(Comparison {
        reference: reference_score,
        other: Evaluation { n_tokens, ..other_score },
        mean_kl_nats: total_kl / n_tokens as f64,
        same_top_share: n_same_top as f64 / n_tokens as f64,
    })
}

/// `sum p (ln p - ln q)` of two rows of logits, given the logs of their sums.
fn kl_nats(p: &[f32], log_sum_p: f64, q: &[f32], log_sum_q: f64) -> f64 {
    let term = |(&p, &q): (&f32, &f32)| {
        let log_p = f64::from(p) - log_sum_p;
        log_p.exp() * (log_p - (f64::from(q) - log_sum_q))
    };
    p.iter().zip(q).map(term).sum()
}
