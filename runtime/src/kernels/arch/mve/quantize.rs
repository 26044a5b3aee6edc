//! From f32 to integers of 8 or 16 bits: the largest magnitude, then four values at a time.

use super::vector_asm;
use crate::kernels::generic;
use crate::kv_cache::ScaleFormat;
use crate::math;
use crate::tensor;

/// See [`crate::kernels::Kernels::quantize_to_int8`].
pub fn quantize_to_int8(x: &[f32], values: &mut [i8]) -> f32 {
    require!(x.len() == values.len());
    let (scale, inverse) = tensor::scale_to(tensor::INT8_LIMIT, magnitude_bits(x));
    round!("vstrb.32 q0, [r1], #4", inverse, x, values);
    scale
}

/// See [`crate::kernels::Kernels::quantize_to`].
pub fn quantize_to(limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
    require!(x.len() == values.len());
    let (scale, inverse) = tensor::scale_to(limit, magnitude_bits(x));
    round!("vstrh.32 q0, [r1], #8", inverse, x, values);
    scale
}

/// See [`crate::kernels::Kernels::store`]. Without a scale all products are 0, or not numbers, whose low byte is 0.
pub fn store(x: &[f32], values: &mut [i8], scales: ScaleFormat) -> u16 {
    require!(x.len() == values.len());
    let (scale, _) = tensor::scale_to(tensor::INT8_LIMIT, magnitude_bits(x));
    let bits = scales.at_least(scale);
    if scales.is_greatest(bits) {
        return generic::store(x, values, scales);
    }
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / math::bf16_to_f32(bits) };
    round!("vstrb.32 q0, [r1], #4", inverse, x, values);
    bits
}

/// The low bits of [`math::round_i32`] of `x * inverse`: those of the sum with `1.5 * 2^23`, whose own low half is 0.
///
/// Flushing changes nothing: an `x` or a product below the normal numbers rounds to 0, since `inverse` is at most `2^115`.
macro_rules! round {
    ($store:literal, $inverse:expr, $x:expr, $values:expr) => {
        // SAFETY: it reads `x`, and writes as many values: the caller has compared the lengths.
        unsafe {
            vector_asm!(
                "wls lr, lr, 3f",
                concat!(
                    "2:\n .rept 4\n vldrw.u32 q0, [r0], #16\n vmul.f32 q0, q0, r2\n vadd.f32 q0, q0, r3\n ",
                    $store,
                    "\n .endr\n le lr, 2b"
                ),
                "3: wlstp.32 lr, r4, 5f",
                concat!(
                    "4: vldrw.u32 q0, [r0], #16\n vmul.f32 q0, q0, r2\n vadd.f32 q0, q0, r3\n ",
                    $store,
                    "\n letp lr, 4b"
                ),
                "5:",
                inout("r0") $x.as_ptr() => _,
                inout("r1") $values.as_mut_ptr() => _,
                in("r2") $inverse.to_bits(),
                in("r3") math::ROUND_MAGIC.to_bits(),
                in("r4") $x.len() % 16,
                inout("lr") $x.len() / 16 => _,
            );
        }
    };
}
use round;

/// The bits of the largest magnitude in `x`.
///
/// As signed integers the positive numbers' bits order rightly, as unsigned ones the negative numbers', above all positive ones.
pub fn magnitude_bits(x: &[f32]) -> u32 {
    let (mut greatest_signed, mut greatest_unsigned) = (0u32, 0u32);
    // SAFETY: it reads `x`.
    unsafe {
        vector_asm!(
            "wls lr, lr, 3f",
            "2:\n .rept 4\n vldrw.u32 q0, [r0], #16\n vmaxv.s32 r2, q0\n vmaxv.u32 r3, q0\n .endr\n le lr, 2b",
            "3: wlstp.32 lr, r4, 5f",
            "4: vldrw.u32 q0, [r0], #16\n vmaxv.s32 r2, q0\n vmaxv.u32 r3, q0\n letp lr, 4b",
            "5:",
            inout("r0") x.as_ptr() => _,
            inout("r2") greatest_signed,
            inout("r3") greatest_unsigned,
            in("r4") x.len() % 16,
            inout("lr") x.len() / 16 => _,
        );
    }
    greatest_signed.max(greatest_unsigned & 0x7fff_ffff)
}

/// See [`crate::kernels::Kernels::greatest_bits`].
pub fn greatest_bits(x: &[f32]) -> i32 {
    let mut greatest = i32::MIN;
    // SAFETY: it reads `x`.
    unsafe {
        vector_asm!(
            "wlstp.32 lr, lr, 3f\n 2: vldrw.u32 q0, [r0], #16\n vmaxv.s32 r2, q0\n letp lr, 2b\n 3:",
            inout("r0") x.as_ptr() => _,
            inout("r2") greatest,
            inout("lr") x.len() => _,
        );
    }
    greatest
}
