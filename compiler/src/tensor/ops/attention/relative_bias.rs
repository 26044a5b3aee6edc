//! T5's relative positions (Raffel et al. 2019): a trained score a head for each bucket of distances.
//!
//! Small distances have a bucket each, larger ones share logarithmically wider buckets, and all from `max_distance` on the last.

use crate::tensor::params::ParamId;

/// Scores added before the softmax, by the distance from query to key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeBias {
    /// The scores, `(n_buckets, n_heads)`.
    pub table: ParamId,
    /// Whether keys after the query have buckets of their own: half of them.
    pub bidirectional: bool,
    /// Distance from which all share the last bucket.
    pub max_distance: usize,
}

impl RelativeBias {
    /// The buckets of the distances `-(n_queries - 1) ..= n_keys - 1`, in that order.
    pub(super) fn buckets(&self, n_queries: usize, n_keys: usize, n_buckets: usize) -> Vec<usize> {
        let first = 1 - n_queries as isize;
        (first..n_keys as isize)
            .map(|distance| bucket(distance, n_buckets, self.bidirectional, self.max_distance))
            .collect()
    }
}

/// The bucket of a key `distance` positions after its query.
pub(crate) fn bucket(distance: isize, n_buckets: usize, bidirectional: bool, max_distance: usize) -> usize {
    let (n, first) = match (bidirectional, distance > 0) {
        (true, true) => (n_buckets / 2, n_buckets / 2),
        (true, false) => (n_buckets / 2, 0),
        (false, _) => (n_buckets, 0),
    };
    let distance = if bidirectional { distance.unsigned_abs() } else { (-distance).max(0) as usize };
    let n_exact = n / 2;
    if distance < n_exact {
        return first + distance;
    }
    // In single precision, as the models were trained: a distance on a border falls on the same side.
    let octaves = (max_distance as f64 / n_exact as f64).ln() as f32;
    let share = (distance as f32 / n_exact as f32).ln() / octaves;
    first + (n_exact + (share * (n - n_exact) as f32) as usize).min(n - 1)
}
