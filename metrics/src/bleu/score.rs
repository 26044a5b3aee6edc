//! From counts to a score.

use std::fmt;

use crate::error::MetricError;

/// What stands for a logarithm of 0. It is large enough that its exponential is 0.
const LN_OF_ZERO: f64 = -9_999_999_999.0;

/// What is done with an order of n-grams that has no match (Chen and Cherry, 2014).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Smoothing {
    /// Nothing: the score is 0.
    None,
    /// So many matches are taken for none; sacrebleu has 0.1 where nothing is said.
    Floor(f64),
    /// So many matches and n-grams are added from order 2 on; sacrebleu has 1 where nothing is said.
    AddK(f64),
    /// The first order without a match counts half a match, the next a quarter, and so on.
    Exp,
}

impl Smoothing {
    /// [`Smoothing::Floor`] as sacrebleu has it where no value is given.
    pub const DEFAULT_FLOOR: Self = Self::Floor(0.1);
    /// [`Smoothing::AddK`] as sacrebleu has it where no value is given.
    pub const DEFAULT_ADD_K: Self = Self::AddK(1.0);

    pub(super) fn check(self) -> Result<(), MetricError> {
        match self {
            Self::Floor(value) | Self::AddK(value) if !(value.is_finite() && value >= 0.0) => {
                Err(MetricError::setting("the value of the smoothing", value, "a number from 0 on"))
            }
            _ => Ok(()),
        }
    }
}

/// As signatures name it.
impl fmt::Display for Smoothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Floor(value) => write!(f, "floor[{value:.2}]"),
            Self::AddK(value) => write!(f, "add-k[{value:.2}]"),
            Self::Exp => f.write_str("exp"),
        }
    }
}

/// A BLEU score and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct BleuScore {
    /// Of 100.
    pub score: f64,
    /// By order, from 1: n-grams that match, with what the smoothing added.
    pub counts: Vec<f64>,
    /// By order: n-grams of the hypotheses, with what the smoothing added.
    pub totals: Vec<f64>,
    /// By order: precisions, of 100; 0 where there is no match at all.
    pub precisions: Vec<f64>,
    /// What a length below the references' leaves of the score, at most 1.
    pub brevity_penalty: f64,
    /// Tokens of the hypotheses.
    pub hypothesis_len: u64,
    /// Tokens of the references that are nearest in length.
    pub reference_len: u64,
}

impl BleuScore {
    pub(super) fn new(
        matches: &[u64],
        totals: &[u64],
        [hypothesis_len, reference_len]: [u64; 2],
        smoothing: Smoothing,
        effective_order: bool,
    ) -> Self {
        let to_f64 = |counts: &[u64]| counts.iter().map(|&count| count as f64).collect::<Vec<f64>>();
        let mut score = Self {
            score: 0.0,
            counts: to_f64(matches),
            totals: to_f64(totals),
            precisions: vec![0.0; matches.len()],
            brevity_penalty: brevity_penalty(hypothesis_len, reference_len),
            hypothesis_len,
            reference_len,
        };
        if matches.iter().any(|&count| count > 0) {
            let n_orders = score.set_precisions(smoothing, effective_order);
            let logarithms = score.precisions[..n_orders].iter().map(|&p| if p == 0.0 { LN_OF_ZERO } else { p.ln() });
            score.score = score.brevity_penalty * (logarithms.sum::<f64>() / n_orders as f64).exp();
        }
        score
    }

    /// Smooths counts and sets the precisions; gives the number of orders whose mean counts.
    fn set_precisions(&mut self, smoothing: Smoothing, effective_order: bool) -> usize {
        let mut n_orders = self.precisions.len();
        let mut fraction = 1.0;
        for order_idx in 0..self.precisions.len() {
            let (count, total) = (&mut self.counts[order_idx], &mut self.totals[order_idx]);
            if let (Smoothing::AddK(k), 1..) = (smoothing, order_idx) {
                *count += k;
                *total += k;
            }
            if *total == 0.0 {
                break;
            }
            if effective_order {
                n_orders = order_idx + 1;
            }
            self.precisions[order_idx] = match smoothing {
                _ if *count != 0.0 => 100.0 * *count / *total,
                Smoothing::Exp => {
                    fraction *= 2.0;
                    100.0 / (fraction * *total)
                }
                Smoothing::Floor(floor) => 100.0 * floor / *total,
                Smoothing::None | Smoothing::AddK(_) => 0.0,
            };
        }
        n_orders
    }

    /// Tokens of the hypotheses for each of the references'.
    pub fn length_ratio(&self) -> f64 {
        if self.reference_len == 0 { 0.0 } else { self.hypothesis_len as f64 / self.reference_len as f64 }
    }
}

/// exp(1 - r / c) for hypotheses shorter than their references.
fn brevity_penalty(hypothesis_len: u64, reference_len: u64) -> f64 {
    match hypothesis_len {
        len if len >= reference_len => 1.0,
        0 => 0.0,
        len => (1.0 - reference_len as f64 / len as f64).exp(),
    }
}

/// The line that sacrebleu prints, without its signature.
impl fmt::Display for BleuScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precisions: Vec<String> = self.precisions.iter().map(|precision| format!("{precision:.1}")).collect();
        let (score, ratio) = (self.score, self.length_ratio());
        write!(f, "BLEU = {score:.2} {} (BP = {:.3} ratio = {ratio:.3} ", precisions.join("/"), self.brevity_penalty)?;
        write!(f, "hyp_len = {} ref_len = {})", self.hypothesis_len, self.reference_len)
    }
}
