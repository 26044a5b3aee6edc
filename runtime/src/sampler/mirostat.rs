//! Mirostat 2: a limit to the surprise of a token, which follows a mean surprise.

use core::f32::consts::{LN_2, LOG2_E};

use crate::{TokenId, math};

use super::{Mirostat, select};

/// The running limit, `mu` in the paper, in bits.
#[derive(Clone, Debug)]
pub(super) struct SurpriseLimit {
    target: Mirostat,
    limit_bits: f32,
}

impl SurpriseLimit {
    pub(super) fn new(target: Mirostat) -> Self {
        Self { target, limit_bits: 2.0 * target.tau }
    }

    /// Drops tokens whose share of `total` is below `2^-limit`, all but `best`. Gives the weight of what is kept.
    pub(super) fn keep(&self, probabilities: &mut [f32], best: TokenId, total: u64) -> u64 {
        let least = (total as f32 * math::exp(-self.limit_bits * LN_2)) as u64;
        let mut kept = 0;
        for (token, probability) in probabilities.iter_mut().enumerate() {
            let weight = select::weight(*probability);
            if weight < least && token as TokenId != best {
                *probability = 0.0;
            } else {
                kept += weight;
            }
        }
        kept
    }

    /// Takes note of the token that was drawn: its `weight`, above 0, in the `total` of what was kept.
    pub(super) fn follow(&mut self, weight: u64, total: u64) {
        let surprise_bits = (math::ln(total as f32) - math::ln(weight as f32)) * LOG2_E;
        self.limit_bits -= self.target.eta * (surprise_bits - self.target.tau);
    }
}
