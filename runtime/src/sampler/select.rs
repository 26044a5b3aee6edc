//! Finding the best tokens in place: by rank or by probability, without sorting and without an index.
//!
//! Tokens are ordered by *distance*, how far a logit lies below the largest, or by how far the distance is from a center; then by id.
//! Neither is ever negative, so its bits order as an unsigned integer, and the end of the wanted prefix is found by weighing sixteen
//! buckets at a time:
//!
//! ```text
//! for each of the 8 hexadecimal digits of the bits, highest first:
//!     weigh the tokens that share the digits found so far, by their next digit
//!     take the digit whose bucket holds the target; subtract the buckets before it
//! ```
//!
//! Eight passes over the vocabulary, 128 bytes of stack, and only the first pass weighs more than one bucket.

use crate::kernels::Kernels;
use crate::{TokenId, math};

/// The distance of a token that may not be drawn.
pub(super) const EXCLUDED: f32 = f32::INFINITY;

/// Binary digits of a probability: relative to the largest, it is a multiple of `2^-40`, and a vocabulary's sum fits `u64`.
const WEIGHT_BITS: u32 = 40;

/// `exp(-28) < 2^-40`: from this distance on, a token weighs nothing.
const WEIGHTLESS_DISTANCE: f32 = 28.0;

/// The index and value of the largest logit; the lowest index of equals. NaN counts as minus infinity.
pub(crate) fn largest(logits: &[f32]) -> (TokenId, f32) {
    let (kernels, (whole, rest)) = (Kernels::detect(), logits.as_chunks::<{ Largest::BLOCK }>());
    let mut largest = Largest { idx: 0, logit: f32::NEG_INFINITY, order: -INFINITY };
    for (block_idx, block) in whole.iter().enumerate() {
        // Most blocks need no closer look.
        if largest.order < 0 || kernels.greatest_bits(block) > largest.order {
            largest.look_at(block_idx * Largest::BLOCK, block);
        }
    }
    largest.look_at(whole.len() * Largest::BLOCK, rest);
    (largest.idx as TokenId, largest.logit)
}

/// The bits of infinity, in the order of [`Largest::order_of`].
const INFINITY: i32 = f32::INFINITY.to_bits() as i32;

/// The largest logit so far.
struct Largest {
    idx: usize,
    logit: f32,
    /// [`Largest::order_of`] it: of numbers that are not negative their bits, which lie above the others' as integers.
    order: i32,
}

impl Largest {
    /// Logits that are looked at together.
    const BLOCK: usize = 16;

    /// An integer that orders as the number does, both zeros alike: cores without an FPU compare those at once. NaN lies above infinity, or
    /// below the other.
    fn order_of(logit: f32) -> i32 {
        let bits = logit.to_bits() as i32;
        if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits }
    }

    /// Looks at the logits from `first` on, one by one.
    fn look_at(&mut self, first: usize, logits: &[f32]) {
        for (i, &logit) in logits.iter().enumerate() {
            let order = Self::order_of(logit);
            if order > self.order && order <= INFINITY {
                *self = Self { idx: first + i, logit, order };
            }
        }
    }
}

/// Replaces every logit by its distance below the largest, [`EXCLUDED`] where it is minus infinity or NaN. Gives [`largest`].
pub(super) fn distances_in_place(logits: &mut [f32]) -> (TokenId, f32) {
    let (best, max) = largest(logits);
    for logit in logits {
        let distance = max - *logit;
        *logit = if *logit == max && max > f32::NEG_INFINITY {
            0.0
        } else if distance.is_nan() {
            EXCLUDED
        } else {
            distance
        };
    }
    (best, max)
}

/// The probability at `distance`, relative to the most probable token's; 0 where it would be below `2^-40`.
pub(crate) fn probability(distance: f32) -> f32 {
    if distance < WEIGHTLESS_DISTANCE { math::exp(-distance) } else { 0.0 }
}

/// `probability`, in [0, 1], in units of `2^-40`, rounded down.
pub(crate) fn weight(probability: f32) -> u64 {
    (probability * (1_u64 << WEIGHT_BITS) as f32) as u64
}

/// The mean of the distances, each as often as its token is drawn; 0 where nothing can be drawn.
///
/// A token's surprise is its distance plus the logarithm of the sum of all probabilities, so the entropy, the mean surprise, is that
/// logarithm above this: surprise is as far from entropy as distance is from here, and no logarithm is needed.
pub(super) fn mean_distance(distances: &[f32]) -> f32 {
    let (mut total, mut moment) = (0, 0);
    for &distance in distances {
        let probability = probability(distance);
        if probability > 0.0 {
            total += weight(probability);
            moment += weight(probability * distance);
        }
    }
    if total == 0 { 0.0 } else { moment as f32 / total as f32 }
}

/// Measures distances from the smallest anew, and gives its token; the lowest id of equals, 0 where all are excluded.
pub(super) fn rebase(distances: &mut [f32]) -> TokenId {
    let mut best = (0, EXCLUDED);
    for (idx, &distance) in distances.iter().enumerate() {
        if distance < best.1 {
            best = (idx as TokenId, distance);
        }
    }
    if best.1 < EXCLUDED {
        distances.iter_mut().for_each(|distance| *distance -= best.1);
    }
    best.0
}

/// What a token adds to a prefix, and how much the prefix wants.
#[derive(Clone, Copy)]
enum Measure {
    Count,
    Probability,
}

impl Measure {
    fn of(self, distance: f32) -> u64 {
        match self {
            Self::Count => 1,
            Self::Probability => weight(probability(distance)),
        }
    }
}

/// The shortest prefix, in order of the distance from a center and then of id, that reaches a target.
pub(super) struct Prefix {
    measure: Measure,
    center: f32,
    /// Tokens nearer to the center are all inside, farther ones all outside.
    last_key: u32,
    /// What tokens at exactly that place have yet to add.
    missing: u64,
}

/// Orders distances by how far they are from `center`.
fn key(distance: f32, center: f32) -> u32 {
    (distance - center).to_bits() & 0x7fff_ffff
}

impl Prefix {
    /// The `count` nearest tokens.
    pub(super) fn of_count(distances: &[f32], count: u32) -> Self {
        Self::find(distances, 0.0, Measure::Count, u64::from(count))
    }

    /// The fewest tokens nearest to `center` whose probabilities reach `share`, in (0, 1], of the sum of all that are not excluded.
    pub(super) fn of_probability(distances: &[f32], center: f32, share: f32) -> Self {
        let measure = Measure::Probability;
        let total = distances.iter().map(|&distance| measure.of(distance)).sum();
        // Exact from 2^-8 up; a smaller share is rounded down to a multiple of 2^-32.
        let share = (share * (1_u64 << 32) as f32) as u64;
        Self::find(distances, center, measure, share_of(total, share.max(1)))
    }

    fn find(distances: &[f32], center: f32, measure: Measure, target: u64) -> Self {
        const DIGIT_BITS: u32 = 4;
        let (mut found, mut mask, mut missing) = (0_u32, 0_u32, target);
        for shift in (0..u32::BITS).step_by(DIGIT_BITS as usize).rev() {
            let mut buckets = [0_u64; 1 << DIGIT_BITS];
            for &distance in distances {
                let key = key(distance, center);
                if key & mask == found && distance < EXCLUDED {
                    buckets[(key >> shift) as usize % buckets.len()] += measure.of(distance);
                }
            }
            let mut digit = 0;
            while digit + 1 < buckets.len() && buckets[digit] < missing {
                missing -= buckets[digit];
                digit += 1;
            }
            found |= (digit as u32) << shift;
            mask |= (buckets.len() as u32 - 1) << shift;
        }
        Self { measure, center, last_key: found, missing }
    }

    /// Excludes what lies outside; `distances` are those it was found in.
    pub(super) fn keep(mut self, distances: &mut [f32]) {
        for distance in distances {
            let key = key(*distance, self.center);
            if key == self.last_key && self.missing > 0 {
                self.missing = self.missing.saturating_sub(self.measure.of(*distance));
            } else if key >= self.last_key {
                *distance = EXCLUDED;
            }
        }
    }
}

/// `ceil(total * share / 2^32)`, for a `share` of at most `2^32` and a `total` of at most `2^60`.
fn share_of(total: u64, share: u64) -> u64 {
    let (high, low) = (total >> 32, total & u64::from(u32::MAX));
    high * share + (low * share).div_ceil(1 << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exact_at_the_ends_of_its_range() {
        for total in [0, 1, 2, u64::from(u32::MAX), 1 << 32, (1 << 40) + 12345, 1 << 60] {
            assert_eq!(share_of(total, 1 << 32), total);
            for share in [1, 3, 1 << 31, (1 << 32) - 1] {
                let exact = (u128::from(total) * u128::from(share)).div_ceil(1 << 32);
                assert_eq!(u128::from(share_of(total, share)), exact, "{total} * {share}");
            }
        }
    }

    #[test]
    fn distances_leave_no_nan() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases: [([f32; 3], [f32; 3], u32); 6] = [
            ([1.0, 3.0, 2.5], [2.0, 0.0, 0.5], 1),
            ([nan, 1.0, -inf], [inf, 0.0, inf], 1),
            ([inf, 1.0, inf], [0.0, inf, 0.0], 0),
            ([nan, nan, nan], [inf; 3], 0),
            ([-inf, -inf, -inf], [inf; 3], 0),
            ([f32::MAX, f32::MIN, nan], [0.0, inf, inf], 0),
        ];
        for (mut logits, distances, best) in cases {
            let input = logits;
            assert_eq!(distances_in_place(&mut logits).0, best, "{input:?}");
            assert_eq!(logits, distances, "{input:?}");
        }
    }

    #[test]
    fn the_largest_is_the_first_of_the_greatest_in_any_block() {
        let (inf, nan, zero) = (f32::INFINITY, f32::NAN, f32::from_bits(1));
        let fills = [-inf, nan, -nan, -3.0, -0.0, 0.0, zero, 2.5];
        for (fill, n) in fills.into_iter().flat_map(|fill| [1, 15, 16, 17, 33, 48].map(|n| (fill, n))) {
            for (at, top) in (0..n).flat_map(|at| [-2.5, -0.0, 0.0, zero, 2.5, inf].map(|top| (at, top))) {
                let mut logits = [fill; 48];
                logits[at..].fill(top);
                let first = logits[..n].iter().position(|&x| logits[..n].iter().all(|&y| x >= y || y.is_nan()));
                let want = first.filter(|&first| logits[first] > -inf).unwrap_or(0);
                assert_eq!(largest(&logits[..n]).0, want as TokenId, "{fill} {n} {at} {top}");
            }
        }
    }
}
