//! What is done element by element, 16 at a time, and the norm's sum, in the 8 lanes that define it.

use core::arch::x86_64::*;

use crate::kernels::generic;
use crate::math;
use crate::tensor;

/// The bits of the largest magnitude in `x`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn magnitude_bits(x: &[f32]) -> u32 {
    let (whole, rest) = x.as_chunks::<16>();
    let mut most = _mm512_setzero_si512();
    for x in whole {
        // SAFETY: 16 readable floats.
        let bits = unsafe { _mm512_loadu_si512(x.as_ptr().cast()) };
        most = _mm512_max_epu32(most, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fff_ffff)));
    }
    _mm512_reduce_max_epu32(most).max(tensor::magnitude_bits(rest))
}

/// [`math::round_i32`] of 16 elements times `inverse`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn rounded(x: &[f32; 16], inverse: f32) -> __m512i {
    // SAFETY: 16 readable floats.
    let scaled = _mm512_mul_ps(unsafe { _mm512_loadu_ps(x.as_ptr()) }, _mm512_set1_ps(inverse));
    let shifted = _mm512_castps_si512(_mm512_add_ps(scaled, _mm512_set1_ps(math::ROUND_MAGIC)));
    _mm512_sub_epi32(shifted, _mm512_set1_epi32(math::ROUND_MAGIC.to_bits() as i32))
}

/// See [`crate::kernels::Kernels::quantize_to`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn quantize_to(limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
    let (scale, inverse) = tensor::scale_to(limit, magnitude_bits(x));
    let ((whole, rest), (whole_values, rest_values)) = (x.as_chunks::<16>(), values.as_chunks_mut::<16>());
    for (x, values) in whole.iter().zip(whole_values) {
        // SAFETY: 16 writable values.
        unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(rounded(x, inverse))) };
    }
    for (value, &x) in rest_values.iter_mut().zip(rest) {
        *value = math::round_i32(x * inverse) as i16;
    }
    scale
}

/// See [`crate::kernels::Kernels::quantize_to_int8`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn quantize_to_int8(x: &[f32], values: &mut [i8]) -> f32 {
    let (scale, inverse) = tensor::scale_to(tensor::INT8_LIMIT, magnitude_bits(x));
    let ((whole, rest), (whole_values, rest_values)) = (x.as_chunks::<16>(), values.as_chunks_mut::<16>());
    for (x, values) in whole.iter().zip(whole_values) {
        // SAFETY: 16 writable values.
        unsafe { _mm_storeu_si128(values.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(rounded(x, inverse))) };
    }
    for (value, &x) in rest_values.iter_mut().zip(rest) {
        *value = math::round_i32(x * inverse) as i8;
    }
    scale
}

/// See [`crate::kernels::Kernels::rmsnorm`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn rmsnorm(out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let (eights, rest) = x.as_chunks::<8>();
    let mut sums = _mm256_setzero_ps();
    for x in eights {
        // SAFETY: 8 readable floats.
        let x = unsafe { _mm256_loadu_ps(x.as_ptr()) };
        sums = _mm256_add_ps(sums, _mm256_mul_ps(x, x));
    }
    let mut lanes = [0.0; 8];
    // SAFETY: 8 writable floats.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums) };
    generic::scale_by_rms(out, x, gain, generic::inverse_rms(lanes, rest, x.len(), eps));
}

/// See [`crate::kernels::Kernels::swiglu`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32]) {
    let n_whole = out.len().min(gate.len()).min(up.len()) / 16 * 16;
    let (out, out_rest) = out.split_at_mut(n_whole);
    let (gate, gate_rest) = gate.split_at(n_whole);
    let (up, up_rest) = up.split_at(n_whole);
    let inputs = gate.as_chunks::<16>().0.iter().zip(up.as_chunks::<16>().0);
    for (out, (gate, up)) in out.as_chunks_mut::<16>().0.iter_mut().zip(inputs) {
        // SAFETY: 16 readable and 16 writable floats.
        unsafe {
            let silu = silu(_mm512_loadu_ps(gate.as_ptr()));
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(silu, _mm512_loadu_ps(up.as_ptr())));
        }
    }
    generic::swiglu(out_rest, gate_rest, up_rest);
}

/// [`math::silu`] in every lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn silu(x: __m512) -> __m512 {
    let magic = _mm512_set1_ps(math::ROUND_MAGIC);
    let t = _mm512_mul_ps(x, _mm512_set1_ps(-core::f32::consts::LOG2_E));
    let shifted = _mm512_add_ps(t, magic);
    let f = _mm512_sub_ps(t, _mm512_sub_ps(shifted, magic));
    let [first, rest @ ..] = math::SILU_POWERS;
    let mut p = _mm512_set1_ps(first);
    for coefficient in rest {
        p = _mm512_add_ps(_mm512_mul_ps(p, f), _mm512_set1_ps(coefficient));
    }
    let power = _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted)));
    let within = _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0), _mm512_castsi512_ps(power)));
    let doubled = _mm512_slli_epi32::<1>(_mm512_castps_si512(x));
    let is_beyond = _mm512_cmpge_epu32_mask(doubled, _mm512_set1_epi32(math::SILU_LIMIT as i32));
    let is_negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, _mm512_setzero_ps());
    let beyond = _mm512_mask_mov_ps(x, is_negative, _mm512_setzero_ps());
    _mm512_mask_mov_ps(within, is_beyond, beyond)
}
