//! Numbers that a saved state must give back to the last bit.

use serde::{Deserialize, Serialize};

/// A number that is written as its bits: decimals may come back one unit off, and infinities not at all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub(super) struct Exact(pub f64);

impl From<u64> for Exact {
    fn from(bits: u64) -> Self {
        Self(f64::from_bits(bits))
    }
}

impl From<Exact> for u64 {
    fn from(exact: Exact) -> Self {
        exact.0.to_bits()
    }
}
