//! What can be wrong with what is to be scored.

use thiserror::Error;

/// Why there is no score.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum MetricError {
    /// No segments, labels or values.
    #[error("there is nothing to score")]
    Empty,
    /// Predictions and what they are compared with are not as many.
    #[error("{n_predictions} predictions cannot be compared with {n_references} references: give one for each")]
    Lengths {
        /// How many predictions, hypotheses or confidences there are.
        n_predictions: usize,
        /// How many references or true labels there are.
        n_references: usize,
    },
    /// A segment without a reference.
    #[error("segment {segment_idx} has no reference")]
    NoReference {
        /// Its place, from 0.
        segment_idx: usize,
    },
    /// A setting that the metric does not have.
    #[error("{name} cannot be {value}: {allowed}")]
    Setting {
        /// What is set.
        name: &'static str,
        /// To what.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A value that is no number of the kind wanted.
    #[error("value {idx} is {value}, not {wanted}")]
    Value {
        /// Its place, from 0.
        idx: usize,
        /// What it is.
        value: f64,
        /// What it should be.
        wanted: &'static str,
    },
}

impl MetricError {
    /// Checks that there is something to compare, and as much of the one as of the other.
    pub(crate) fn check_lengths(n_predictions: usize, n_references: usize) -> Result<(), Self> {
        if n_predictions != n_references {
            return Err(Self::Lengths { n_predictions, n_references });
        }
        if n_predictions == 0 { Err(Self::Empty) } else { Ok(()) }
    }

    pub(crate) fn setting(name: &'static str, value: impl ToString, allowed: &'static str) -> Self {
        Self::Setting { name, value: value.to_string(), allowed }
    }
}
