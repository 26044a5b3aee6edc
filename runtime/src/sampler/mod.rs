//! Choosing the next token from its logits: greedy or random, bit-exact on every target, in the memory of the logits.
//!
//! The steps, in the order that llama.cpp made usual (each one off by default):
//!
//! 1. **Repetition penalty** `r`: a token among the last [`REPETITION_WINDOW`] has its logit divided by `r` where it is
//!    positive, multiplied by `r` where it is not; once, however often it occurred.
//! 2. **Top-k**: the `k` largest logits stay.
//! 3. **Top-p**: of what is left, the fewest most probable tokens whose probabilities sum to at least `p` stay.
//! 4. **Min-p**: what is left stays where it is at least `p` times as probable as the most probable token.
//! 5. **Temperature** `t`: the draw takes token `i` with probability proportional to `exp(logit[i] / t)`.
//!
//! Temperature is last, so it flattens or sharpens among the survivors and cannot let an improbable token back in.
//! Of equal logits, the lower id is the better. A logit that is not a number is never chosen.
//!
//! Nothing is sorted, and no scratch memory is wanted: logits are replaced by their distance below the largest, whose bits
//! order as integers, and a cut in that order is found digit by digit (`select`). Probabilities are whole multiples of
//! `2^-40` of the largest, so their sums are exact in any order, and every target draws the same token.

mod rng;
mod select;
mod stop;

use core::fmt;

use heapless::HistoryBuf;

use crate::TokenId;
use rng::Xoshiro128PlusPlus;
use select::{EXCLUDED, Prefix};

pub(crate) fn most_probable(logits: &[f32]) -> TokenId {
    select::largest(logits).0
}

pub use stop::{StopError, StopMatcher};

/// How many of the latest tokens the repetition penalty looks back on, prompt included.
pub const REPETITION_WINDOW: usize = 64;

/// How the next token is chosen: every value was checked when it was set.
///
/// ```
/// use siskin_runtime::sampler::Sampling;
///
/// let sampling = Sampling::random(0.8)?.with_top_k(40)?.with_top_p(0.95)?;
/// # Ok::<(), siskin_runtime::sampler::SamplingError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    temperature: f32,
    /// 0 keeps every token.
    top_k: u32,
    /// 1 keeps every token.
    top_p: f32,
    /// 0 keeps every token.
    min_p: f32,
    /// 1 penalises nothing.
    repetition_penalty: f32,
}

impl Sampling {
    /// Takes the largest logit, always.
    pub const fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }

    /// Draws with logits divided by `temperature`: 1 is the model's own distribution, 0 is greedy.
    pub fn random(temperature: f32) -> Result<Self, SamplingError> {
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(SamplingError::Temperature);
        }
        Ok(Self { temperature, ..Self::greedy() })
    }

    /// Keeps the `top_k` largest logits; more than the vocabulary holds keeps all.
    pub fn with_top_k(self, top_k: u32) -> Result<Self, SamplingError> {
        if top_k == 0 {
            return Err(SamplingError::TopK);
        }
        Ok(Self { top_k, ..self })
    }

    /// Keeps the fewest most probable tokens that together reach `top_p`, in (0, 1]; 1 keeps all.
    pub fn with_top_p(self, top_p: f32) -> Result<Self, SamplingError> {
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SamplingError::TopP);
        }
        Ok(Self { top_p, ..self })
    }

    /// Keeps tokens at least `min_p`, in [0, 1], times as probable as the most probable; 0 keeps all.
    pub fn with_min_p(self, min_p: f32) -> Result<Self, SamplingError> {
        if !(0.0..=1.0).contains(&min_p) {
            return Err(SamplingError::MinP);
        }
        Ok(Self { min_p, ..self })
    }

    /// Makes the last [`REPETITION_WINDOW`] tokens less likely by `penalty`, above 0; 1 changes nothing, below 1 favours them.
    pub fn with_repetition_penalty(self, penalty: f32) -> Result<Self, SamplingError> {
        if !(penalty.is_finite() && penalty > 0.0) {
            return Err(SamplingError::RepetitionPenalty);
        }
        Ok(Self { repetition_penalty: penalty, ..self })
    }

    /// Whether nothing is left to chance.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// What logits are divided by; 0 is greedy.
    pub fn temperature(&self) -> f32 {
        self.temperature
    }

    /// How many of the largest logits stay; `None` keeps all.
    pub fn top_k(&self) -> Option<u32> {
        (self.top_k != 0).then_some(self.top_k)
    }

    /// The probability that the kept tokens reach together; 1 keeps all.
    pub fn top_p(&self) -> f32 {
        self.top_p
    }

    /// The least probability kept, relative to the largest; 0 keeps all.
    pub fn min_p(&self) -> f32 {
        self.min_p
    }

    /// By how much recent tokens are made less likely; 1 is not at all.
    pub fn repetition_penalty(&self) -> f32 {
        self.repetition_penalty
    }
}

/// A sampling parameter outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SamplingError {
    /// The temperature is negative, infinite or not a number.
    Temperature,
    /// Top-k would keep no token.
    TopK,
    /// Top-p is outside (0, 1].
    TopP,
    /// Min-p is outside [0, 1].
    MinP,
    /// The repetition penalty is not a positive finite number.
    RepetitionPenalty,
}

impl fmt::Display for SamplingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Temperature => "temperature must be a finite number of at least 0 (0 is greedy)",
            Self::TopK => "top-k must be at least 1 (leave it out to keep every token)",
            Self::TopP => "top-p must be above 0 and at most 1 (1 keeps every token)",
            Self::MinP => "min-p must be between 0 and 1 (0 keeps every token)",
            Self::RepetitionPenalty => "repetition penalty must be a finite number above 0 (1 penalises nothing)",
        })
    }
}

impl core::error::Error for SamplingError {}

/// Draws tokens: a [`Sampling`], the state of its random numbers, and the tokens it may not repeat lightly.
///
/// Equal samplers given equal logits draw equal tokens, on every target. A random draw takes exactly one 64-bit number.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: Xoshiro128PlusPlus,
    recent: HistoryBuf<TokenId, REPETITION_WINDOW>,
}

impl Sampler {
    /// A sampler whose random numbers (xoshiro128++, seeded through splitmix64) start at `seed`.
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Self { sampling, rng: Xoshiro128PlusPlus::from_seed(seed), recent: HistoryBuf::new() }
    }

    /// Tells the repetition penalty of tokens that were not drawn here: the prompt's.
    pub fn observe(&mut self, tokens: &[TokenId]) {
        self.recent.extend_from_slice(tokens);
    }

    /// Chooses the next token from `logits`, `(vocab_size,)`, and remembers it.
    ///
    /// `logits` is working memory: after a random draw it holds each token's probability relative to the most probable one's,
    /// 0 where it was filtered out; after a greedy one, the penalised logits. With no logit above minus infinity, the
    /// choice is token 0.
    pub fn next(&mut self, logits: &mut [f32]) -> TokenId {
        self.penalise(logits);
        let token = if self.sampling.is_greedy() { select::largest(logits).0 } else { self.draw(logits) };
        self.recent.write(token);
        token
    }

    fn penalise(&self, logits: &mut [f32]) {
        let penalty = self.sampling.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let recent = self.recent.as_slice();
        for (idx, token) in recent.iter().enumerate() {
            if recent[..idx].contains(token) {
                continue;
            }
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    fn draw(&mut self, logits: &mut [f32]) -> TokenId {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let (best, _) = select::distances_in_place(logits);
        let distances = &mut *logits;
        if top_k != 0 && (top_k as usize) < distances.len() {
            Prefix::of_count(distances, top_k).keep(distances);
        }
        if top_p < 1.0 {
            Prefix::of_probability(distances, top_p).keep(distances);
        }
        if min_p > 0.0 {
            for distance in &mut *distances {
                if select::probability(*distance) < min_p {
                    *distance = EXCLUDED;
                }
            }
        }
        let mut total = 0;
        for value in &mut *logits {
            *value = select::probability(*value / temperature);
            total += select::weight(*value);
        }
        let mut remaining = self.rng.below(total);
        for (token, &probability) in logits.iter().enumerate() {
            let weight = select::weight(probability);
            if remaining < weight {
                return token as TokenId;
            }
            remaining -= weight;
        }
        best
    }
}
