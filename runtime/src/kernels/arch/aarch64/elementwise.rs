//! The f32 kernels, four elements at a time: AArch64's NEON is IEEE 754 in full. A multiplication and an addition stay two instructions.

use core::arch::aarch64::*;
use core::f32::consts::LOG2_E;

use super::memory::{load_f32 as load, store_f32 as store};
use crate::kernels::generic;
use crate::math::{self, ROUND_MAGIC};

/// See [`crate::kernels::Kernels::rmsnorm`]: the eight lanes are two vectors.
#[target_feature(enable = "neon")]
pub fn rmsnorm(out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let (whole, rest) = x.as_chunks::<8>();
    let (mut low, mut high) = (vdupq_n_f32(0.0), vdupq_n_f32(0.0));
    for x in whole {
        // SAFETY: `x` is 32 readable bytes.
        let float32x4x2_t(a, b) = unsafe { vld1q_f32_x2(x.as_ptr()) };
        low = vaddq_f32(low, vmulq_f32(a, a));
        high = vaddq_f32(high, vmulq_f32(b, b));
    }
    let mut lanes = [0.0; 8];
    // SAFETY: `lanes` is 32 writable bytes.
    unsafe { vst1q_f32_x2(lanes.as_mut_ptr(), float32x4x2_t(low, high)) };
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x * x;
    }
    let inverse = math::inv_sqrt(generic::fold_lanes(lanes) / x.len() as f32 + eps);
    let (out, out_rest) = out.as_chunks_mut::<4>();
    let (gain, gain_rest) = gain.as_chunks::<4>();
    let (x, x_rest) = x.as_chunks::<4>();
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        store(out, vmulq_f32(vmulq_n_f32(load(x), inverse), load(gain)));
    }
    for ((out, x), gain) in out_rest.iter_mut().zip(x_rest).zip(gain_rest) {
        *out = x * inverse * gain;
    }
}

/// See [`crate::kernels::Kernels::swiglu`].
#[target_feature(enable = "neon")]
pub fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32]) {
    let (out, out_rest) = out.as_chunks_mut::<4>();
    let (gate, gate_rest) = gate.as_chunks::<4>();
    let (up, up_rest) = up.as_chunks::<4>();
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        store(out, vmulq_f32(silu(load(gate)), load(up)));
    }
    generic::swiglu(out_rest, gate_rest, up_rest);
}

/// [`math::silu`] of four numbers.
#[target_feature(enable = "neon")]
#[inline]
fn silu(x: float32x4_t) -> float32x4_t {
    const LIMIT: u32 = 64.0f32.to_bits() << 1;
    let t = vmulq_n_f32(x, -LOG2_E);
    let magic = vdupq_n_f32(ROUND_MAGIC);
    let shifted = vaddq_f32(t, magic);
    let f = vsubq_f32(t, vsubq_f32(shifted, magic));
    let mut p = vdupq_n_f32(1.339_086_6e-3);
    for coefficient in [9.676_036e-3, 5.550_33e-2, 2.402_212_1e-1, 6.931_472e-1, 1.0] {
        p = vaddq_f32(vmulq_f32(p, f), vdupq_n_f32(coefficient));
    }
    let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted));
    let power = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), exponent));
    let inner = vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0), power));
    // Where `x` is far out or not a number: 0 below zero, `x` otherwise.
    let is_far = vcgeq_u32(vshlq_n_u32::<1>(vreinterpretq_u32_f32(x)), vdupq_n_u32(LIMIT));
    let far = vbicq_u32(vreinterpretq_u32_f32(x), vcltzq_f32(x));
    vbslq_f32(is_far, vreinterpretq_f32_u32(far), inner)
}

/// See [`crate::kernels::Kernels::rotate`].
#[target_feature(enable = "neon")]
pub fn rotate(x: &mut [f32], cos_sin: &[f32]) {
    let half = x.len() / 2;
    if !half.is_multiple_of(4) || cos_sin.len() != x.len() {
        return generic::rotate(x, cos_sin);
    }
    let (low, high) = x.split_at_mut(half);
    let (cos, sin) = cos_sin.split_at(half);
    let pairs = low.as_chunks_mut::<4>().0.iter_mut().zip(high.as_chunks_mut::<4>().0);
    for ((low, high), (cos, sin)) in pairs.zip(cos.as_chunks::<4>().0.iter().zip(sin.as_chunks::<4>().0)) {
        let (a, b, cos, sin) = (load(low), load(high), load(cos), load(sin));
        store(low, vsubq_f32(vmulq_f32(a, cos), vmulq_f32(b, sin)));
        store(high, vaddq_f32(vmulq_f32(b, cos), vmulq_f32(a, sin)));
    }
}

/// See [`crate::kernels::Kernels::add`].
#[target_feature(enable = "neon")]
pub fn add(x: &mut [f32], y: &[f32]) {
    let (x, x_rest) = x.as_chunks_mut::<4>();
    let (y, y_rest) = y.as_chunks::<4>();
    for (x, y) in x.iter_mut().zip(y) {
        store(x, vaddq_f32(load(x), load(y)));
    }
    generic::add(x_rest, y_rest);
}
