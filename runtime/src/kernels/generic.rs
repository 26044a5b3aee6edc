//! The executable form of NUMERICS.md: plain loops, any weight layout. Every backend must give these bits.

use super::Activation;
use super::backend::Backend;
use crate::kv_cache::{ScaleFormat, UE5M3_LEAST};
use crate::layout::WeightLayout;
use crate::math;
use crate::tensor::{self, ActivationsQ8, MatrixQ8};

/// The plain loops, as a backend.
#[derive(Clone, Copy, Debug)]
pub struct Generic;

impl Backend for Generic {
    const NAME: &'static str = "generic";
    const LAYOUT: WeightLayout = WeightLayout::RowMajor;

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        matmul_rows(out, first_row, w, x);
    }
}

/// Positions whose weighted values are summed in `i32` before they are carried to f32: `512 * 32640 * 127 < 2^31`.
pub const VALUE_BLOCK: usize = 512;

/// `out[t, r - first_row] = sum_c w[r, c] * x[t, c]` for the rows from `first_row`, `out.len() / n_tokens` of them.
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    if n_rows == 0 {
        return;
    }
    for (token_idx, out) in out.chunks_mut(n_rows).enumerate() {
        for (i, out) in out.iter_mut().enumerate() {
            *out = dot(w, first_row + i, x, token_idx);
        }
    }
}

/// One output element: each group's dot product is exact in `i32`, then scaled and summed in f32, group after group.
fn dot(w: &MatrixQ8<'_>, row: usize, x: &ActivationsQ8<'_>, token_idx: usize) -> f32 {
    let group_size = w.format().group_size(w.cols());
    // Adding to -0 leaves every first term as it is.
    let mut sum = -0.0;
    for (group, &x_scale) in x.scales(token_idx).iter().enumerate() {
        let first = group * group_size;
        let last = (first + group_size).min(w.cols());
        let mut acc = 0i32;
        for col in first..last {
            acc = acc.wrapping_add(i32::from(w.value(row, col)) * i32::from(x.value(token_idx, col)));
        }
        sum += acc as f32 * (w.scale(row, group) * x_scale);
    }
    sum
}

/// See [`super::Kernels::quantize_to`].
pub fn quantize_to(limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
    let (scale, inverse) = tensor::scale_to(limit, tensor::magnitude_bits(x));
    for (value, &x) in values.iter_mut().zip(x) {
        *value = math::round_i32(x * inverse) as i16;
    }
    scale
}

/// See [`super::Kernels::quantize_to_int8`].
pub fn quantize_to_int8(x: &[f32], values: &mut [i8]) -> f32 {
    let (scale, inverse) = tensor::scale_of(x);
    for (value, &x) in values.iter_mut().zip(x) {
        *value = math::round_i32(x * inverse) as i8;
    }
    scale
}

/// See [`super::Kernels::score_dots`].
pub fn score_dots(q: &[i16], k: &[i8], dots: &mut [i32]) {
    for (dot, k) in dots.iter_mut().zip(k.chunks_exact(q.len().max(1))) {
        *dot = q.iter().zip(k).map(|(&q, &k)| i32::from(q) * i32::from(k)).sum();
    }
}

/// See [`super::Kernels::weighted_values`].
#[inline(always)]
pub fn weighted_values(weights: &[i32], v: &[i8], sums: &mut [i32]) {
    sums.fill(0);
    for (&weight, v) in weights.iter().zip(v.chunks_exact(sums.len().max(1))) {
        for (sum, &v) in sums.iter_mut().zip(v) {
            *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(v)));
        }
    }
}

/// Scores saturate here where their shift is to the left: far beyond what a softmax can tell apart.
pub(crate) const SCORE_LIMIT: i32 = 1 << 30;

/// See [`super::Kernels::score_exponents`]: the upper half of a 64-bit product, then a shift, both rounded down.
pub fn score_exponents(scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
    let (mantissa, right_of_zero) = fixed_point(per_unit);
    let mut greatest = i32::MIN;
    for (score, &key_scale) in scores.iter_mut().zip(key_scales) {
        let (m, e) = math::split_bf16(key_scale);
        let factor = m as i32 * mantissa;
        let upper = ((i64::from(*score) * i64::from(factor)) >> 32) as i32;
        *score = shift_right(upper, right_of_zero - e as i32);
        greatest = greatest.max(*score);
    }
    greatest
}

/// A positive `x` as a mantissa below `2^23`, rounded down, and how far right the upper half of `dot * m * mantissa` is to be
/// shifted to give `dot * m * 2^-134 * x` in units of `2^-16`.
pub(crate) fn fixed_point(x: f32) -> (i32, i32) {
    let bits = x.to_bits();
    let mantissa = if bits == 0 { 0 } else { ((bits & 0x7f_ffff) | 0x80_0000) >> 1 };
    // x = mantissa * 2^(exponent - 149), the units have 2^16, and the upper half has 2^-32.
    (mantissa as i32, 134 + 149 - 16 - 32 - (bits >> 23) as i32)
}

/// `x / 2^by`, rounded down; within [`SCORE_LIMIT`] where `by` is negative.
#[inline(always)]
pub(crate) fn shift_right(x: i32, by: i32) -> i32 {
    if (by as u32) < 32 { x >> by } else { shift_far(x, by) }
}

#[cold]
fn shift_far(x: i32, by: i32) -> i32 {
    if by >= 0 {
        return x >> 31;
    }
    let left = by.unsigned_abs().min(30);
    let limit = SCORE_LIMIT >> left;
    x.clamp(-limit, limit) << left
}

/// See [`super::Kernels::greatest_scale`].
pub fn greatest_scale(scales: &[u16]) -> u16 {
    scales.iter().fold(0, |greatest, &scale| greatest.max(scale))
}

/// See [`super::Kernels::softmax_weights`].
pub fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    let mut total = 0u32;
    for (score, &value_scale) in scores.iter_mut().zip(value_scales) {
        let probability = math::exp2_neg_q16(greatest.wrapping_sub(*score) as u32);
        total = total.wrapping_add(probability);
        let (m, e) = math::split_bf16(value_scale);
        // Rounded half up: what is shifted out last is added.
        let shift = (8 + greatest_exponent).wrapping_sub(e).min(31);
        *score = (((probability * m) >> shift).wrapping_add(1) >> 1) as i32;
    }
    total
}

/// See [`super::Kernels::scale_integers`].
pub fn scale_integers(out: &mut [f32], sums: &[i32], factor: f32) {
    for (out, &sum) in out.iter_mut().zip(sums) {
        *out = sum as f32 * factor;
    }
}

/// See [`super::Kernels::store`].
pub fn store(x: &[f32], values: &mut [i8], scales: ScaleFormat) -> u16 {
    let (scale, _) = tensor::scale_of(x);
    let bits = scales.at_least(scale);
    if scale == 0.0 {
        values.fill(0);
        return bits;
    }
    let inverse = 1.0 / math::bf16_to_f32(bits);
    if scales.is_greatest(bits) {
        store_cut(x, values, inverse);
        return bits;
    }
    for (value, &x) in values.iter_mut().zip(x) {
        *value = math::round_i32(x * inverse) as i8;
    }
    bits
}

/// Where the greatest scale may be too small.
#[cold]
fn store_cut(x: &[f32], values: &mut [i8], inverse: f32) {
    for (value, &x) in values.iter_mut().zip(x) {
        *value = math::round_i32((x * inverse).clamp(-tensor::INT8_LIMIT, tensor::INT8_LIMIT)) as i8;
    }
}

/// See [`super::Kernels::unpack_ue5m3`].
pub fn unpack_ue5m3(scales: &[u8], unpacked: &mut [u16]) {
    for (unpacked, &scale) in unpacked.iter_mut().zip(scales) {
        *unpacked = UE5M3_LEAST + (u16::from(scale) << 4);
    }
}

/// See [`super::Kernels::rmsnorm`].
pub fn rmsnorm(out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let mut lanes = [0.0f32; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    scale_by_rms(out, x, gain, inverse_rms(lanes, rest, x.len(), eps));
}

/// The inverse root mean square of `n` elements: `lanes` has summed the squares of all but the `rest`, fewer than 8.
#[inline(always)]
pub(crate) fn inverse_rms(mut lanes: [f32; 8], rest: &[f32], n: usize, eps: f32) -> f32 {
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x * x;
    }
    math::inv_sqrt(fold_lanes(lanes) / n as f32 + eps)
}

/// `out = (x * inverse) * gain`.
#[inline(always)]
pub(crate) fn scale_by_rms(out: &mut [f32], x: &[f32], gain: &[f32], inverse: f32) {
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = x * inverse * gain;
    }
}

/// See [`super::Kernels::layernorm`].
pub fn layernorm(out: &mut [f32], x: &[f32], gain: &[f32], bias: &[f32], eps: f32) {
    let len = x.len() as f32;
    let mean = sum_of(x, |x| x) / len;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / len;
    let inverse = math::inv_sqrt(variance + eps);
    for ((out, x), (gain, bias)) in out.iter_mut().zip(x).zip(gain.iter().zip(bias)) {
        *out = (x - mean) * inverse * gain + bias;
    }
}

/// The sum of a function's values in 8 interleaved lanes.
#[inline(always)]
fn sum_of(x: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for chunk in whole {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += value(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += value(x);
    }
    fold_lanes(lanes)
}

/// Sums 8 lanes in the one order that is also a vector's: halves, then quarters, then pairs.
pub(crate) fn fold_lanes(l: [f32; 8]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// See [`super::Kernels::rotate`].
pub fn rotate(x: &mut [f32], cos_sin: &[f32]) {
    let half = x.len() / 2;
    let (low, high) = x.split_at_mut(half);
    let (cos, sin) = cos_sin.split_at(half.min(cos_sin.len()));
    for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
        let (x, y) = (*a, *b);
        *a = x * cos - y * sin;
        *b = y * cos + x * sin;
    }
}

/// See [`super::Kernels::swiglu`].
pub fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = math::silu(gate) * up;
    }
}

/// See [`super::Kernels::greatest_bits`].
pub fn greatest_bits(x: &[f32]) -> i32 {
    x.iter().fold(i32::MIN, |greatest, x| greatest.max(x.to_bits() as i32))
}

/// See [`super::Kernels::add`].
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// See [`super::Kernels::activate`].
pub fn activate(activation: Activation, x: &mut [f32]) {
    let mut each = |value: fn(f32) -> f32| x.iter_mut().for_each(|x| *x = value(*x));
    match activation {
        Activation::Relu => each(|x| if x > 0.0 { x } else { 0.0 }),
        Activation::Gelu => each(math::gelu),
        Activation::GeluTanh => each(math::gelu_tanh),
        Activation::Silu => each(math::silu),
        Activation::Tanh => each(math::tanh),
    }
}

/// See [`super::Kernels::multiply`].
pub fn multiply(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x *= y;
    }
}

/// See [`super::Kernels::recur`].
pub fn recur(state: &mut [f32], input: &[f32], recurrent: &[f32]) {
    let dim = state.len();
    let gates = |x: &[f32], at: usize, i: usize| x.get(at * dim + i).copied().unwrap_or(0.0);
    for (i, state) in state.iter_mut().enumerate() {
        let reset = math::sigmoid(gates(input, 0, i) + gates(recurrent, 0, i));
        let update = math::sigmoid(gates(input, 1, i) + gates(recurrent, 1, i));
        let candidate = math::tanh(gates(input, 2, i) + reset * gates(recurrent, 2, i));
        *state = (1.0 - update) * candidate + update * *state;
    }
}
