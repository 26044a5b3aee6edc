//! The integer kernels of attention, four positions or elements at a time.

use core::arch::aarch64::*;

use super::memory::{load_i8, load_i16, load_i32, load_u16, store_i32};
use crate::kernels::generic;
use crate::math;

/// See [`crate::kernels::Kernels::score_dots`]. For heads of whole vectors of 8; four keys at a time share the query.
#[target_feature(enable = "neon")]
pub fn score_dots(q: &[i16], k: &[i8], dots: &mut [i32]) {
    let head_dim = q.len();
    if head_dim == 0 || !head_dim.is_multiple_of(8) {
        return generic::score_dots(q, k, dots);
    }
    let q = q.as_chunks::<8>().0;
    let (fours, rest) = dots.as_chunks_mut::<4>();
    let (four_keys, rest_keys) = k.split_at((fours.len() * 4 * head_dim).min(k.len()));
    for (dots, k) in fours.iter_mut().zip(four_keys.chunks_exact(4 * head_dim)) {
        let mut sums = [vdupq_n_s32(0); 4];
        for (piece, q) in q.iter().enumerate() {
            for (key, sum) in sums.iter_mut().enumerate() {
                *sum = dot_8(*sum, q, &k[key * head_dim + 8 * piece..]);
            }
        }
        let [a, b, c, d] = sums;
        let whole = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
        store_i32(dots, whole);
    }
    for (dot, k) in rest.iter_mut().zip(rest_keys.chunks_exact(head_dim)) {
        let pieces = q.iter().zip(k.chunks_exact(8));
        *dot = vaddvq_s32(pieces.fold(vdupq_n_s32(0), |sum, (q, k)| dot_8(sum, q, k)));
    }
}

/// Adds the products of eight elements to four lanes.
#[target_feature(enable = "neon")]
#[inline]
fn dot_8(sum: int32x4_t, q: &[i16; 8], k: &[i8]) -> int32x4_t {
    let k = load_8(k);
    let q = load_i16(q);
    vmlal_high_s16(vmlal_s16(sum, vget_low_s16(q), vget_low_s16(k)), q, k)
}

/// The first eight bytes, widened.
#[target_feature(enable = "neon")]
#[inline]
fn load_8(bytes: &[i8]) -> int16x8_t {
    vmovl_s8(load_i8(bytes.first_chunk().expect("the caller counts in eights")))
}

/// See [`crate::kernels::Kernels::score_exponents`].
#[target_feature(enable = "neon")]
pub fn score_exponents(scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
    require!(scores.len() == key_scales.len());
    let (mantissa, right_of_zero) = generic::fixed_point(per_unit);
    let (fours, rest) = scores.as_chunks_mut::<4>();
    let (four_scales, rest_scales) = key_scales.as_chunks::<4>();
    let mut greatest = vdupq_n_s32(i32::MIN);
    let mut greatest_far = i32::MIN;
    for (scores, scales) in fours.iter_mut().zip(four_scales) {
        let (m, e) = split_bf16(scales);
        let right = vsubq_s32(vdupq_n_s32(right_of_zero), vreinterpretq_s32_u32(e));
        // Shifts that are none, or so far that they saturate, are rare: they take the definition's way.
        if vmaxvq_u32(vreinterpretq_u32_s32(right)) >= 32 {
            greatest_far = greatest_far.max(generic::score_exponents(scores, scales, per_unit));
            continue;
        }
        let dots = load_i32(scores);
        let factor = vmulq_n_s32(vreinterpretq_s32_u32(m), mantissa);
        let (low, high) = (vmull_s32(vget_low_s32(dots), vget_low_s32(factor)), vmull_high_s32(dots, factor));
        let upper = vuzp2q_s32(vreinterpretq_s32_s64(low), vreinterpretq_s32_s64(high));
        let exponents = vshlq_s32(upper, vnegq_s32(right));
        greatest = vmaxq_s32(greatest, exponents);
        store_i32(scores, exponents);
    }
    let greatest_of_rest = generic::score_exponents(rest, rest_scales, per_unit);
    vmaxvq_s32(greatest).max(greatest_far).max(greatest_of_rest)
}

/// Mantissas and exponents of four scales: see [`math::split_bf16`].
#[target_feature(enable = "neon")]
#[inline]
fn split_bf16(scales: &[u16; 4]) -> (uint32x4_t, uint32x4_t) {
    let bits = vmovl_u16(load_u16(scales));
    let mantissa = vorrq_u32(vandq_u32(bits, vdupq_n_u32(0x7f)), vdupq_n_u32(0x80));
    (mantissa, vshrq_n_u32::<7>(bits))
}

/// See [`crate::kernels::Kernels::softmax_weights`].
#[target_feature(enable = "neon")]
pub fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    require!(scores.len() == value_scales.len());
    let (fours, rest) = scores.as_chunks_mut::<4>();
    let (four_scales, rest_scales) = value_scales.as_chunks::<4>();
    let mut total = vdupq_n_u32(0);
    for (scores, scales) in fours.iter_mut().zip(four_scales) {
        let exponents = load_i32(scores);
        let probability = exp2_neg_q16(vreinterpretq_u32_s32(vsubq_s32(vdupq_n_s32(greatest), exponents)));
        total = vaddq_u32(total, probability);
        let (m, e) = split_bf16(scales);
        let shift = vminq_u32(vsubq_u32(vdupq_n_u32(8 + greatest_exponent), e), vdupq_n_u32(31));
        let shifted = shift_right(vmulq_u32(probability, m), shift);
        let weights = vshrq_n_u32::<1>(vaddq_u32(shifted, vdupq_n_u32(1)));
        store_i32(scores, vreinterpretq_s32_u32(weights));
    }
    let total_of_rest = generic::softmax_weights(rest, greatest, rest_scales, greatest_exponent);
    vaddvq_u32(total).wrapping_add(total_of_rest)
}

/// See [`math::exp2_neg_q16`].
#[target_feature(enable = "neon")]
#[inline]
fn exp2_neg_q16(t: uint32x4_t) -> uint32x4_t {
    // At most 65535 is shifted, so 16 and more, which mean 0, may as well be 31.
    let whole = vminq_u32(vshrq_n_u32::<16>(t), vdupq_n_u32(31));
    let f = vandq_u32(t, vdupq_n_u32(0xffff));
    let mut p = vshrq_n_u32::<16>(vmulq_n_u32(f, math::EXP2_Q16[0]));
    for &coefficient in &math::EXP2_Q16[1..] {
        p = vshrq_n_u32::<16>(vmulq_u32(vsubq_u32(vdupq_n_u32(coefficient), p), f));
    }
    shift_right(vsubq_u32(vdupq_n_u32(65_535), p), whole)
}

/// `x >> by`, each lane by its own, for `by` of at most 31.
#[target_feature(enable = "neon")]
#[inline]
fn shift_right(x: uint32x4_t, by: uint32x4_t) -> uint32x4_t {
    vshlq_u32(x, vnegq_s32(vreinterpretq_s32_u32(by)))
}

/// See [`crate::kernels::Kernels::weighted_values`]. For heads of whole vectors of 8: weights have 15 bits, so they meet values in 16-bit lanes.
#[target_feature(enable = "neon")]
pub fn weighted_values(weights: &[i32], v: &[i8], sums: &mut [i32]) {
    let head_dim = sums.len();
    if !head_dim.is_multiple_of(8) {
        return generic::weighted_values(weights, v, sums);
    }
    require!(v.len() == weights.len() * head_dim);
    let (wide, rest) = sums.as_chunks_mut::<32>();
    let mut first = 0;
    for sums in wide {
        value_piece::<4>(weights, v, head_dim, first, sums);
        first += sums.len();
    }
    for sums in rest.as_chunks_mut::<8>().0 {
        value_piece::<1>(weights, v, head_dim, first, sums);
        first += sums.len();
    }
}

/// The sums of `8 * N` elements of a head from element `first`, four positions at a time.
#[target_feature(enable = "neon")]
#[inline]
fn value_piece<const N: usize>(weights: &[i32], v: &[i8], head_dim: usize, first: usize, sums: &mut [i32]) {
    let mut lanes = [[vdupq_n_s32(0); 2]; N];
    let (fours, rest) = weights.as_chunks::<4>();
    let (four_values, rest_values) = v.split_at(fours.len() * 4 * head_dim);
    for (weights, v) in fours.iter().zip(four_values.chunks_exact(4 * head_dim)) {
        let weights = vmovn_s32(load_i32(weights));
        let v = &v[first..];
        add_values::<N, 0>(&mut lanes, weights, v);
        add_values::<N, 1>(&mut lanes, weights, &v[head_dim..]);
        add_values::<N, 2>(&mut lanes, weights, &v[2 * head_dim..]);
        add_values::<N, 3>(&mut lanes, weights, &v[3 * head_dim..]);
    }
    for (&weight, v) in rest.iter().zip(rest_values.chunks_exact(head_dim)) {
        add_values::<N, 0>(&mut lanes, vdup_n_s16(weight as i16), &v[first..]);
    }
    for (sums, lanes) in sums.as_chunks_mut::<8>().0.iter_mut().zip(lanes) {
        // SAFETY: `sums` is 32 writable bytes.
        unsafe { vst1q_s32_x2(sums.as_mut_ptr(), int32x4x2_t(lanes[0], lanes[1])) };
    }
}

/// Adds the first `8 * N` of `v`, times lane `LANE` of `weights`.
#[target_feature(enable = "neon")]
#[inline]
fn add_values<const N: usize, const LANE: i32>(lanes: &mut [[int32x4_t; 2]; N], weights: int16x4_t, v: &[i8]) {
    for (piece, lanes) in lanes.iter_mut().enumerate() {
        let v = load_8(&v[8 * piece..]);
        lanes[0] = vmlal_lane_s16::<LANE>(lanes[0], vget_low_s16(v), weights);
        lanes[1] = vmlal_high_lane_s16::<LANE>(lanes[1], v, weights);
    }
}
