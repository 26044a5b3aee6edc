//! Groups of int4: values of -8 to 7, and the scale that meets the weights best.
//!
//! Sixteen steps are few, so the scale is searched for. The weight of largest magnitude may become -8 or 7, with a scale of either sign,
//! or be cut off for the sake of the others. For each choice of values that a first scale gives, the scale of least squared error follows,
//! and the values are rounded to that, as the bfloat16 that is stored.

use siskin_runtime::math;
use siskin_runtime::tensor::{GROUP_SIZE, scale_of};

/// What the largest magnitude is made, at the least, in quarters of a step: 8.75 at the most, where a quarter of a step is cut off.
const QUARTERS_LEAST: u8 = 20;
const QUARTERS: std::ops::RangeInclusive<u8> = QUARTERS_LEAST..=35;

/// How far at most a weight may lie from its value, as a share of the group's largest magnitude.
#[cfg(test)]
pub(super) const FARTHEST: f32 = 0.2;

/// Sums that go on side by side, as vectors do.
const LANES: usize = 8;

/// Quantises one group, of at most 32 weights; gives its scale, a bfloat16, which may be negative.
pub(super) fn quantize_group(weights: &[f32], values: &mut [i8]) -> u16 {
    let (int8_scale, _) = scale_of(weights);
    if int8_scale == 0.0 {
        return 0;
    }
    let largest = weights.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
    let mut padded = [0.0; GROUP_SIZE];
    padded[..weights.len()].copy_from_slice(weights);
    let mut best = (f32::INFINITY, 0);
    for quarters in QUARTERS {
        for sign in [1.0, -1.0] {
            let bits = best_scale(&padded, sign * f32::from(quarters) * 0.25 / largest);
            let error = squared_error(&padded, bits);
            if error < best.0 {
                best = (error, bits);
            }
        }
    }
    let inverse = 1.0 / math::bf16_to_f32(best.1);
    for (value, &weight) in values.iter_mut().zip(weights) {
        *value = rounded(weight * inverse) as i8;
    }
    best.1
}

/// A weight's value, by the number of steps that it is.
#[inline(always)]
fn rounded(steps: f32) -> f32 {
    (math::round_i32(steps) as f32).clamp(-8.0, 7.0)
}

/// The scale of least squared error for the values that `inverse` gives, rounded to a bfloat16.
fn best_scale(weights: &[f32; GROUP_SIZE], inverse: f32) -> u16 {
    let (mut products, mut squares) = ([0.0; LANES], [0.0; LANES]);
    for weights in weights.as_chunks::<LANES>().0 {
        for ((&weight, product), square) in weights.iter().zip(&mut products).zip(&mut squares) {
            let value = rounded(weight * inverse);
            *product += weight * value;
            *square += value * value;
        }
    }
    nearest_bf16(products.iter().sum::<f32>() / squares.iter().sum::<f32>())
}

fn squared_error(weights: &[f32; GROUP_SIZE], bits: u16) -> f32 {
    let scale = math::bf16_to_f32(bits);
    let inverse = 1.0 / scale;
    let mut errors = [0.0; LANES];
    for weights in weights.as_chunks::<LANES>().0 {
        for (&weight, error) in weights.iter().zip(&mut errors) {
            let off = weight - rounded(weight * inverse) * scale;
            *error += off * off;
        }
    }
    errors.iter().sum()
}

fn nearest_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights as a lattice of 16 steps leaves them, as in a file of another tool.
    #[test]
    fn a_lattice_is_met_exactly() {
        for sign in [1.0, -1.0] {
            for extreme in [-8, 7] {
                let lattice: Vec<i8> = (0..32).map(|i| if i == 5 { extreme } else { (i * 7 % 14 - 7) as i8 }).collect();
                let weights: Vec<f32> = lattice.iter().map(|&v| sign * f32::from(v) * 0.015625).collect();
                let mut values = [0; 32];
                let scale = math::bf16_to_f32(quantize_group(&weights, &mut values));
                let back: Vec<f32> = values.iter().map(|&v| f32::from(v) * scale).collect();
                assert_eq!(back, weights);
            }
        }
    }

    #[test]
    fn the_error_is_below_that_of_the_largest_magnitude() {
        let weights: [f32; 32] = std::array::from_fn(|i| ((i * i) as f32 * 0.37).sin() * (1.0 + (i % 5) as f32));
        let largest = weights.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
        let mut values = [0; 32];
        let bits = quantize_group(&weights, &mut values);
        assert!(squared_error(&weights, bits) < 0.9 * squared_error(&weights, nearest_bf16(largest / 7.0)));
    }
}
