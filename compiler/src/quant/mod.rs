//! Post-training quantisation: f32 matrices to int8 or int4, round to nearest, no zero point.
//!
//! int8 values lie in -127..=127, so that a weight and its negation are both there and products of two fit 15 bits. int4 values take all of
//! -8..=7.

mod int4;

use siskin_runtime::WeightFormat;
use siskin_runtime::math;
use siskin_runtime::tensor::{GROUP_SIZE, scale_of};

/// A quantised `(rows, cols)` matrix, row-major and independent of any board.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedMatrix {
    /// Output elements.
    pub rows: usize,
    /// Input elements.
    pub cols: usize,
    /// What the values and the scales are.
    pub format: WeightFormat,
    /// `(rows, cols)`, each within the format's limits.
    pub values: Vec<i8>,
    /// The scales that turn values back into weights.
    pub scales: QuantizedScales,
}

/// Scales, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum QuantizedScales {
    /// `(rows,)`.
    PerRow(Vec<f32>),
    /// bfloat16 `(rows, cols.div_ceil(32))`.
    PerGroup(Vec<u16>),
}

/// Quantises `weights`, `(rows, cols)` and finite, each row (or group) on its own.
///
/// # Panics
/// If `weights` is not `rows * cols` long.
pub fn quantize_matrix(weights: &[f32], rows: usize, cols: usize, format: WeightFormat) -> QuantizedMatrix {
    assert_eq!(weights.len(), rows * cols);
    let mut values = vec![0; weights.len()];
    let group_size = format.group_size(cols);
    let groups = weights.chunks(cols).flat_map(|row| row.chunks(group_size));
    let targets = values.chunks_mut(cols).flat_map(|row| row.chunks_mut(group_size));
    let scales = match format {
        WeightFormat::Int8 => QuantizedScales::PerRow(groups.zip(targets).map(|(w, q)| quantize_row(w, q)).collect()),
        WeightFormat::Int8G32 => {
            QuantizedScales::PerGroup(groups.zip(targets).map(|(w, q)| quantize_group(w, q)).collect())
        }
        WeightFormat::Int4G32 => {
            QuantizedScales::PerGroup(groups.zip(targets).map(|(w, q)| int4::quantize_group(w, q)).collect())
        }
    };
    QuantizedMatrix { rows, cols, format, values, scales }
}

fn quantize_row(weights: &[f32], values: &mut [i8]) -> f32 {
    let (scale, inverse) = scale_of(weights);
    round_into(weights, inverse, values);
    scale
}

/// Scales beyond the smallest that are tried for a group: about a seventh larger at the most.
const SCALES_TRIED: u16 = 16;

/// The scale is a bfloat16 before the values are rounded to it, so its few bits cost no accuracy.
///
/// Of the scales from the smallest that holds the group's largest magnitude, the one with the least squared error is taken:
/// a slightly larger step often meets the weights better, above all those that come from a 4-bit lattice.
fn quantize_group(weights: &[f32], values: &mut [i8]) -> u16 {
    debug_assert!(weights.len() <= GROUP_SIZE);
    let (scale, _) = scale_of(weights);
    if scale == 0.0 {
        return 0;
    }
    let least = math::bf16_at_least(scale);
    let error = |bits: u16| {
        let scale = math::bf16_to_f32(bits);
        let inverse = 1.0 / scale;
        let off = |&w: &f32| w - math::round_i32(w * inverse) as f32 * scale;
        weights.iter().map(|w| off(w) * off(w)).sum::<f32>()
    };
    let best = (least..least + SCALES_TRIED).map(|bits| (error(bits), bits)).min_by(|a, b| a.0.total_cmp(&b.0));
    let bits = best.map_or(least, |(_, bits)| bits);
    round_into(weights, 1.0 / math::bf16_to_f32(bits), values);
    bits
}

fn round_into(weights: &[f32], inverse: f32, values: &mut [i8]) {
    for (value, &weight) in values.iter_mut().zip(weights) {
        *value = math::round_i32(weight * inverse) as i8;
    }
}

impl QuantizedMatrix {
    /// The weights that the values stand for, `(rows, cols)`.
    pub fn dequantize(&self) -> Vec<f32> {
        let scale = |row: usize, col: usize| match &self.scales {
            QuantizedScales::PerRow(scales) => scales[row],
            QuantizedScales::PerGroup(scales) => {
                math::bf16_to_f32(scales[row * self.cols.div_ceil(GROUP_SIZE) + col / GROUP_SIZE])
            }
        };
        let place = |i: usize| (i / self.cols, i % self.cols);
        self.values.iter().enumerate().map(|(i, &v)| f32::from(v) * scale(place(i).0, place(i).1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_is_within_half_a_step() {
        let (rows, cols) = (5, 77);
        let weights: Vec<f32> =
            (0..rows * cols).map(|i| ((i * i) as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect();
        for format in WeightFormat::ALL {
            let quantized = quantize_matrix(&weights, rows, cols, format);
            let group_size = format.group_size(cols);
            for (i, (&w, back)) in weights.iter().zip(quantized.dequantize()).enumerate() {
                let (row, col) = (i / cols, i % cols);
                let first = row * cols + col / group_size * group_size;
                let group = &weights[first..(first + group_size).min((row + 1) * cols)];
                let largest = group.iter().fold(0.0f32, |most, w| most.max(w.abs()));
                let limit = match format {
                    WeightFormat::Int8 => largest / 127.0 * 0.5001,
                    // The scales that are tried reach 17/128 above the least.
                    WeightFormat::Int8G32 => largest / 127.0 * 0.5 * (1.0 + 17.0 / 128.0),
                    // Half of the largest step, or what the smallest cuts off.
                    WeightFormat::Int4G32 => largest * int4::FARTHEST,
                };
                assert!((w - back).abs() <= limit, "{format:?} at {row},{col}: {w} is {back}");
            }
            let (least, greatest) = format.weight_limits();
            assert!(quantized.values.iter().all(|v| (least..=greatest).contains(v)));
        }
    }

    #[test]
    fn a_zero_row_stays_zero() {
        for format in WeightFormat::ALL {
            let quantized = quantize_matrix(&[0.0; 40], 1, 40, format);
            assert!(quantized.dequantize().iter().all(|&w| w == 0.0));
        }
    }
}
