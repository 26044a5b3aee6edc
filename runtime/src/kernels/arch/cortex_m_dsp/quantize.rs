//! From f32 to integers of 16 bits: the largest magnitude, then two values a word.

use core::arch::asm;

use crate::cut::Cut;
use crate::math;
use crate::tensor;

/// See [`crate::kernels::Kernels::quantize_to`].
pub fn quantize_to(limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
    require!(x.len() == values.len());
    let (eights, rest) = x.as_chunks::<8>();
    let magnitude = tensor::magnitude_bits(rest).max(magnitude_bits(eights));
    let (scale, inverse) = tensor::scale_to(limit, magnitude);
    // Several words are stored at once: whole words are where they must lie.
    let n_whole = if values.as_ptr().addr().is_multiple_of(4) { eights.len() } else { 0 };
    let (eight_values, rest_values) = values.parts_mut(8 * n_whole);
    round_eights(inverse, eights, eight_values.as_chunks_mut().0);
    for (value, &x) in rest_values.iter_mut().zip(x.cut(8 * n_whole..)) {
        *value = math::round_i32(x * inverse) as i16;
    }
    scale
}

/// Compares one element of [`magnitude_bits`]: what is rarely greater is kept out of the way, behind the loop.
macro_rules! compare {
    ($x:literal, $greater:literal, $back:literal) => {
        concat!("cmp r2, ", $x, ", lsl #1\n blo ", $greater, "f\n ", $back, ":")
    };
}

/// Where [`compare`] goes with a greater element.
macro_rules! take_greater {
    ($x:literal, $greater:literal, $back:literal) => {
        concat!($greater, ": lsl r2, ", $x, ", #1\n b ", $back, "b")
    };
}

/// The bits of the largest magnitude in `x`. Compared without the sign, which is shifted out.
fn magnitude_bits(x: &[[f32; 8]]) -> u32 {
    if x.is_empty() {
        return 0;
    }
    let range = x.as_ptr_range();
    let mut largest = 0;
    // SAFETY: it reads `x`.
    unsafe {
        asm!(
            "2: ldm r0!, {{r3, r4, r5, r8, r9, r10, r11, r12}}",
            compare!("r3", "31", "41"),
            compare!("r4", "32", "42"),
            compare!("r5", "33", "43"),
            compare!("r8", "34", "44"),
            compare!("r9", "35", "45"),
            compare!("r10", "36", "46"),
            compare!("r11", "37", "47"),
            compare!("r12", "38", "48"),
            "cmp r0, r1\n bne 2b\n b 3f",
            take_greater!("r3", "31", "41"),
            take_greater!("r4", "32", "42"),
            take_greater!("r5", "33", "43"),
            take_greater!("r8", "34", "44"),
            take_greater!("r9", "35", "45"),
            take_greater!("r10", "36", "46"),
            take_greater!("r11", "37", "47"),
            take_greater!("r12", "38", "48"),
            "3:",
            inout("r0") range.start => _,
            in("r1") range.end,
            inout("r2") largest,
            out("r3") _, out("r4") _, out("r5") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _,
            options(nostack, readonly),
        );
    }
    largest >> 1
}

/// [`math::round_i32`] of `x * inverse`: the low half of the sum with `1.5 * 2^23`, whose own low half is 0. `values` start at a whole word.
fn round_eights(inverse: f32, x: &[[f32; 8]], values: &mut [[i16; 8]]) {
    let x = x.get(..values.len()).unwrap_or(x);
    if x.is_empty() {
        return;
    }
    let range = x.as_ptr_range();
    // SAFETY: it reads `x`, and writes as many `values`, of which there are no fewer.
    unsafe {
        asm!(
            "vmov s0, s1, r2, r3",
            "2: vldmia r0!, {{s4-s11}}",
            "vmul.f32 s4, s4, s0\n vmul.f32 s5, s5, s0\n vmul.f32 s6, s6, s0\n vmul.f32 s7, s7, s0",
            "vmul.f32 s8, s8, s0\n vmul.f32 s9, s9, s0\n vmul.f32 s10, s10, s0\n vmul.f32 s11, s11, s0",
            "vadd.f32 s4, s4, s1\n vadd.f32 s5, s5, s1\n vadd.f32 s6, s6, s1\n vadd.f32 s7, s7, s1",
            "vadd.f32 s8, s8, s1\n vadd.f32 s9, s9, s1\n vadd.f32 s10, s10, s1\n vadd.f32 s11, s11, s1",
            "vmov r2, r3, s4, s5\n vmov r5, r8, s6, s7\n vmov r9, r10, s8, s9\n vmov r11, r12, s10, s11",
            "pkhbt r2, r2, r3, lsl #16\n pkhbt r5, r5, r8, lsl #16",
            "pkhbt r9, r9, r10, lsl #16\n pkhbt r11, r11, r12, lsl #16",
            "stm r1!, {{r2, r5, r9, r11}}",
            "cmp r0, r4\n bne 2b",
            inout("r0") range.start => _,
            inout("r1") values.as_mut_ptr() => _,
            inout("r2") inverse.to_bits() => _,
            inout("r3") math::ROUND_MAGIC.to_bits() => _,
            in("r4") range.end,
            out("r5") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _,
            out("s0") _, out("s1") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _, out("s8") _, out("s9") _,
            out("s10") _, out("s11") _,
            options(nostack),
        );
    }
}
