//! From f32 to integers: the largest magnitude, then 16 values at a time.

use core::arch::aarch64::*;

use crate::kernels::generic;
use crate::tensor;

/// See [`crate::kernels::Kernels::quantize_to`].
#[target_feature(enable = "neon")]
pub fn quantize_to(limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
    assert!(x.len() == values.len());
    let (scale, inverse) = tensor::scale_to(limit, magnitude_bits(x));
    // With no scale, what is not finite rounds in the definition's own way.
    if scale == 0.0 {
        return generic::quantize_to(limit, x, values);
    }
    let (whole, rest) = x.as_chunks::<16>();
    let (whole_values, rest_values) = values.as_chunks_mut::<16>();
    for (values, x) in whole_values.iter_mut().zip(whole) {
        let [a, b, c, d] = rounded(x, inverse);
        let halves = int16x8x2_t(low_halves(a, b), low_halves(c, d));
        // SAFETY: `values` is 32 writable bytes.
        unsafe { vst1q_s16_x2(values.as_mut_ptr(), halves) };
    }
    for (value, &x) in rest_values.iter_mut().zip(rest) {
        *value = vcvtns_s32_f32(x * inverse) as i16;
    }
    scale
}

/// See [`crate::kernels::Kernels::quantize_to_int8`].
#[target_feature(enable = "neon")]
pub fn quantize_to_int8(x: &[f32], values: &mut [i8]) -> f32 {
    assert!(x.len() == values.len());
    let (scale, inverse) = tensor::scale_to(tensor::INT8_LIMIT, magnitude_bits(x));
    if scale == 0.0 {
        return generic::quantize_to_int8(x, values);
    }
    let (whole, rest) = x.as_chunks::<16>();
    let (whole_values, rest_values) = values.as_chunks_mut::<16>();
    // The lowest byte of each of 16 numbers.
    const LOWEST: [u8; 16] = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60];
    // SAFETY: `LOWEST` is 16 readable bytes.
    let lowest = unsafe { vld1q_u8(LOWEST.as_ptr()) };
    for (values, x) in whole_values.iter_mut().zip(whole) {
        let [a, b, c, d] = rounded(x, inverse).map(|numbers| vreinterpretq_s8_s32(numbers));
        // SAFETY: `values` is 16 writable bytes.
        unsafe { vst1q_s8(values.as_mut_ptr(), vqtbl4q_s8(int8x16x4_t(a, b, c, d), lowest)) };
    }
    for (value, &x) in rest_values.iter_mut().zip(rest) {
        *value = vcvtns_s32_f32(x * inverse) as i8;
    }
    scale
}

/// The bits of the largest magnitude in `x`: see [`tensor::magnitude_bits`].
#[target_feature(enable = "neon")]
#[inline]
fn magnitude_bits(x: &[f32]) -> u32 {
    let (whole, rest) = x.as_chunks::<16>();
    let mut largest = vdupq_n_u32(0);
    for x in whole {
        let [a, b, c, d] = load(x).map(|x| vreinterpretq_u32_f32(vabsq_f32(x)));
        largest = vmaxq_u32(largest, vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d)));
    }
    vmaxvq_u32(largest).max(tensor::magnitude_bits(rest))
}

/// [`crate::math::round_i32`] of `x * inverse`: rounding half to even is the instruction's own.
#[target_feature(enable = "neon")]
#[inline]
fn rounded(x: &[f32; 16], inverse: f32) -> [int32x4_t; 4] {
    load(x).map(|x| vcvtnq_s32_f32(vmulq_n_f32(x, inverse)))
}

#[target_feature(enable = "neon")]
#[inline]
fn load(x: &[f32; 16]) -> [float32x4_t; 4] {
    // SAFETY: `x` is 64 readable bytes.
    let float32x4x4_t(a, b, c, d) = unsafe { vld1q_f32_x4(x.as_ptr()) };
    [a, b, c, d]
}

/// The low halves of eight numbers.
#[target_feature(enable = "neon")]
#[inline]
fn low_halves(a: int32x4_t, b: int32x4_t) -> int16x8_t {
    vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b))
}
