//! Normal numbers for first values.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A normal number by Box and Muller's transform, in `f64`.
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (2.0 * core::f64::consts::PI * rng.random::<f64>()).cos()
}
