//! Choosing the next token from its logits: greedy or random, bit-exact on every target, in the memory of the logits.
//!
//! The steps, in the order that llama.cpp made usual (each one off by default):
//!
//! 1. **Logit biases** are added; a bias of minus infinity bans a token.
//! 2. **Penalties** on the last [`PENALTY_WINDOW`] tokens, prompt included. Repetition `r`: a token among them has its logit
//!    divided by `r` where it is positive, multiplied by `r` where it is not. Then frequency `f` and presence `p`: a token that
//!    occurs `n` times among them loses `n * f + p`.
//! 3. **Top-k**: the `k` largest logits stay.
//! 4. **Locally typical** (Meister et al. 2023): of what is left, the fewest tokens whose surprise `-ln q` is nearest to the entropy,
//!    and whose probabilities sum to at least `p`, stay.
//! 5. **Top-p**: of what is left, the fewest most probable tokens whose probabilities sum to at least `p` stay.
//! 6. **Min-p**: what is left stays where it is at least `p` times as probable as the most probable token left.
//! 7. **Temperature** `t`: token `i` has a probability proportional to `exp(logit[i] / t)`.
//! 8. **Mirostat 2** (Basu et al. 2021): tokens whose surprise `-log2 q` exceeds a limit are dropped, all but the most probable. After
//!    the draw the limit, at first `2 * tau`, falls by `eta` times what the drawn token's surprise, among what was kept, is above `tau`.
//!
//! A [`Constraint`], such as a grammar, takes the tokens that it refuses out after the second step.
//!
//! Temperature comes after the filters, so it flattens or sharpens among the survivors and cannot let an improbable token back in.
//! Greedy takes the largest logit after the second step. Of equal tokens, the lower id is the better, in every filter. A logit that is
//! not a number is never chosen.
//!
//! Nothing is sorted, and no scratch memory is wanted: logits are replaced by their distance below the largest, whose bits
//! order as integers, and a cut in that order is found digit by digit (`select`). Probabilities are whole multiples of
//! `2^-40` of the largest, so their sums are exact in any order, and every target draws the same token.

mod constraint;
mod mirostat;
mod penalties;
mod rng;
mod sampling;
mod select;
mod stop;

use crate::TokenId;
use mirostat::SurpriseLimit;
use rng::Xoshiro128PlusPlus;
use select::{EXCLUDED, Prefix};

/// The token with the largest logit; the lowest id of equals.
pub(crate) fn most_probable(logits: &[f32]) -> TokenId {
    select::largest(logits).0
}

pub use constraint::{Advance, Constraint, Unconstrained};
pub use penalties::{EncodedBias, LogitBias};
pub use sampling::{Mirostat, Sampling, SamplingError};
pub(crate) use select::{largest, probability, weight};
pub use stop::{StopError, StopMatcher};

/// How many of the latest tokens the penalties look back on, prompt included.
pub const PENALTY_WINDOW: usize = 64;

/// Draws tokens: a [`Sampling`], the state of its random numbers, and the tokens it may not repeat lightly.
///
/// Equal samplers given equal logits draw equal tokens, on every target. A random draw takes exactly one 64-bit number.
#[derive(Clone, Debug)]
pub struct Sampler<'s> {
    sampling: Sampling,
    biases: &'s [EncodedBias],
    rng: Xoshiro128PlusPlus,
    recent: penalties::Recent,
    surprise: Option<SurpriseLimit>,
}

impl<'s> Sampler<'s> {
    /// A sampler whose random numbers (xoshiro128++, seeded through splitmix64) start at `seed`.
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Self {
            sampling,
            biases: &[],
            rng: Xoshiro128PlusPlus::from_seed(seed),
            recent: penalties::Recent::new(),
            surprise: sampling.mirostat().map(SurpriseLimit::new),
        }
    }

    /// Adds these ([`LogitBias::encode`]) to the logits, each time. Tokens that the vocabulary does not have are passed over.
    pub fn with_biases(self, biases: &'s [EncodedBias]) -> Self {
        Self { biases, ..self }
    }

    /// Tells the penalties of tokens that were not drawn here: the prompt's.
    pub fn observe(&mut self, tokens: &[TokenId]) {
        tokens.iter().for_each(|&token| self.recent.push(token));
    }

    /// Chooses the next token from `logits`, `(vocab_size,)`, and remembers it.
    ///
    /// `logits` is working memory: after a random draw it holds each token's probability relative to the most probable one's,
    /// 0 where it was filtered out; after a greedy one, the biased and penalised logits. With no logit above minus infinity, the
    /// choice is token 0.
    pub fn next(&mut self, logits: &mut [f32]) -> TokenId {
        self.next_within(logits, &Unconstrained, usize::MAX)
    }

    /// Like [`Sampler::next`], as if the logits of all tokens that `constraint` refuses were minus infinity, with `n_left` tokens left to
    /// draw, this one included. With no other logit above minus infinity, the choice is token 0.
    pub fn next_within(&mut self, logits: &mut [f32], constraint: &impl Constraint, n_left: usize) -> TokenId {
        self.next_of(logits, constraint, n_left, false)
    }

    /// The same where logits may be restricted to the constraint's tokens already.
    #[inline(always)]
    pub(crate) fn next_of(
        &mut self,
        logits: &mut [f32],
        constraint: &impl Constraint,
        n_left: usize,
        is_restricted: bool,
    ) -> TokenId {
        penalties::add_biases(logits, self.biases);
        penalties::penalise(logits, &self.sampling, self.recent.as_slice());
        let token = if self.sampling.is_greedy() {
            let best = select::largest(logits).0;
            if is_restricted || constraint.allows(best, n_left) {
                best
            } else {
                constraint.restrict(logits, n_left);
                select::largest(logits).0
            }
        } else {
            if !is_restricted {
                constraint.restrict(logits, n_left);
            }
            self.draw(logits)
        };
        self.recent.push(token);
        token
    }

    fn draw(&mut self, logits: &mut [f32]) -> TokenId {
        let best = filter(logits, &self.sampling);
        let mut total = 0;
        for value in &mut *logits {
            *value = select::probability(*value / self.sampling.temperature());
            total += select::weight(*value);
        }
        if let Some(surprise) = &self.surprise {
            total = surprise.keep(logits, best, total);
        }
        let mut remaining = self.rng.below(total);
        for (token, &probability) in logits.iter().enumerate() {
            let weight = select::weight(probability);
            if remaining < weight {
                if let Some(surprise) = &mut self.surprise {
                    surprise.follow(weight, total);
                }
                return token as TokenId;
            }
            remaining -= weight;
        }
        best
    }
}

/// Replaces every logit by its distance below the largest that is left, [`EXCLUDED`] where a filter drops it. Gives the best token left.
fn filter(logits: &mut [f32], sampling: &Sampling) -> TokenId {
    let mut best = select::distances_in_place(logits).0;
    let distances = logits;
    if let Some(top_k) = sampling.top_k()
        && (top_k as usize) < distances.len()
    {
        Prefix::of_count(distances, top_k).keep(distances);
    }
    if sampling.typical_p() < 1.0 {
        let center = select::mean_distance(distances);
        Prefix::of_probability(distances, center, sampling.typical_p()).keep(distances);
        best = select::rebase(distances);
    }
    if sampling.top_p() < 1.0 {
        Prefix::of_probability(distances, 0.0, sampling.top_p()).keep(distances);
    }
    if sampling.min_p() > 0.0 {
        for distance in distances {
            if select::probability(*distance) < sampling.min_p() {
                *distance = EXCLUDED;
            }
        }
    }
    best
}
