//! From f32 to integers: the largest magnitude, then 16 values at a time.

use core::arch::aarch64::vcvtns_s32_f32;
use core::arch::asm;

use crate::kernels::generic;
use crate::tensor;

/// Sixteen numbers in `$a` to `$d`, times the inverse, rounded half to even, as the bytes of `$out`.
macro_rules! round_16 {
    ($a:literal, $b:literal, $c:literal, $d:literal, $out:literal) => {
        concat!(
            "fmul ",
            $a,
            ".4s, ",
            $a,
            ".4s, v4.s[0]\n fmul ",
            $b,
            ".4s, ",
            $b,
            ".4s, v4.s[0]\n",
            "fmul ",
            $c,
            ".4s, ",
            $c,
            ".4s, v4.s[0]\n fmul ",
            $d,
            ".4s, ",
            $d,
            ".4s, v4.s[0]\n",
            "fcvtns ",
            $a,
            ".4s, ",
            $a,
            ".4s\n fcvtns ",
            $b,
            ".4s, ",
            $b,
            ".4s\n",
            "fcvtns ",
            $c,
            ".4s, ",
            $c,
            ".4s\n fcvtns ",
            $d,
            ".4s, ",
            $d,
            ".4s\n",
            "tbl ",
            $out,
            ".16b, {{",
            $a,
            ".16b-",
            $d,
            ".16b}}, v5.16b\n"
        )
    };
}

/// Adds sixteen numbers in `$a` to `$d` to the largest magnitudes in v16, lane by lane.
macro_rules! largest_16 {
    ($a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "fabs ",
            $a,
            ".4s, ",
            $a,
            ".4s\n fabs ",
            $b,
            ".4s, ",
            $b,
            ".4s\n",
            "fabs ",
            $c,
            ".4s, ",
            $c,
            ".4s\n fabs ",
            $d,
            ".4s, ",
            $d,
            ".4s\n",
            "umax ",
            $a,
            ".4s, ",
            $a,
            ".4s, ",
            $b,
            ".4s\n umax ",
            $c,
            ".4s, ",
            $c,
            ".4s, ",
            $d,
            ".4s\n",
            "umax v16.4s, v16.4s, ",
            $a,
            ".4s\n umax v16.4s, v16.4s, ",
            $c,
            ".4s\n"
        )
    };
}

/// See [`crate::kernels::Kernels::quantize_to`].
#[target_feature(enable = "neon")]
pub fn quantize_to(limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
    require!(x.len() == values.len());
    let (scale, inverse) = tensor::scale_to(limit, magnitude_bits(x));
    // With no scale, what is not finite rounds in the definition's own way.
    if scale == 0.0 {
        return generic::quantize_to(limit, x, values);
    }
    let (whole, rest) = x.as_chunks::<16>();
    let (whole_values, rest_values) = values.as_chunks_mut::<16>();
    round_to_halves(inverse, whole, whole_values);
    for (value, &x) in rest_values.iter_mut().zip(rest) {
        *value = vcvtns_s32_f32(x * inverse) as i16;
    }
    scale
}

/// See [`crate::kernels::Kernels::quantize_to_int8`].
#[target_feature(enable = "neon")]
pub fn quantize_to_int8(x: &[f32], values: &mut [i8]) -> f32 {
    require!(x.len() == values.len());
    let (scale, inverse) = tensor::scale_to(tensor::INT8_LIMIT, magnitude_bits(x));
    if scale == 0.0 {
        return generic::quantize_to_int8(x, values);
    }
    let (whole, rest) = x.as_chunks::<16>();
    let (whole_values, rest_values) = values.as_chunks_mut::<16>();
    round_to_bytes(inverse, whole, whole_values);
    for (value, &x) in rest_values.iter_mut().zip(rest) {
        *value = vcvtns_s32_f32(x * inverse) as i8;
    }
    scale
}

/// [`crate::math::round_i32`] of `x * inverse`, whose own rounding the instruction has; a table of the lowest bytes narrows 16 numbers.
#[inline]
fn round_to_bytes(inverse: f32, x: &[[f32; 16]], values: &mut [[i8; 16]]) {
    const LOWEST: [u8; 16] = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60];
    let n = x.len().min(values.len());
    // SAFETY: it reads `n` of `x`, and writes `n` of `values`.
    unsafe {
        asm!(
            "ldr q5, [{lowest}]",
            "subs {n}, {n}, #4\n b.lo 3f",
            "2: ld1 {{v16.4s-v19.4s}}, [{x}], #64\n ld1 {{v20.4s-v23.4s}}, [{x}], #64",
            "ld1 {{v24.4s-v27.4s}}, [{x}], #64\n ld1 {{v28.4s-v31.4s}}, [{x}], #64",
            round_16!("v16", "v17", "v18", "v19", "v0"), round_16!("v20", "v21", "v22", "v23", "v1"),
            round_16!("v24", "v25", "v26", "v27", "v2"), round_16!("v28", "v29", "v30", "v31", "v3"),
            "st1 {{v0.16b-v3.16b}}, [{values}], #64",
            "subs {n}, {n}, #4\n b.hs 2b",
            "3: ands {n}, {n}, #3\n b.eq 5f",
            "4: ld1 {{v16.4s-v19.4s}}, [{x}], #64",
            round_16!("v16", "v17", "v18", "v19", "v0"),
            "str q0, [{values}], #16",
            "subs {n}, {n}, #1\n b.ne 4b",
            "5:",
            n = inout(reg) n => _, x = inout(reg) x.as_ptr() => _, values = inout(reg) values.as_mut_ptr() => _,
            lowest = in(reg) LOWEST.as_ptr(), in("v4") inverse,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v5") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}

/// The bits of the largest magnitude in `x`: see [`tensor::magnitude_bits`].
#[inline]
fn magnitude_bits(x: &[f32]) -> u32 {
    let (whole, rest) = x.as_chunks::<16>();
    let largest: u32;
    // SAFETY: it reads `whole`.
    unsafe {
        asm!(
            "movi v16.4s, #0",
            "subs {n}, {n}, #2\n b.lo 3f",
            "2: ld1 {{v0.4s-v3.4s}}, [{x}], #64\n ld1 {{v4.4s-v7.4s}}, [{x}], #64",
            largest_16!("v0", "v1", "v2", "v3"), largest_16!("v4", "v5", "v6", "v7"),
            "subs {n}, {n}, #2\n b.hs 2b",
            "3: tbz {n}, #0, 4f",
            "ld1 {{v0.4s-v3.4s}}, [{x}]",
            largest_16!("v0", "v1", "v2", "v3"),
            "4: umaxv s16, v16.4s\n fmov {largest:w}, s16",
            n = inout(reg) whole.len() => _, x = inout(reg) whole.as_ptr() => _, largest = out(reg) largest,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v16") _,
            options(nostack, readonly),
        );
    }
    largest.max(tensor::magnitude_bits(rest))
}

/// As [`round_to_bytes`], to the low halves of the numbers.
#[inline]
fn round_to_halves(inverse: f32, x: &[[f32; 16]], values: &mut [[i16; 16]]) {
    let n = x.len().min(values.len());
    // SAFETY: it reads `n` of `x`, and writes `n` of `values`.
    unsafe {
        asm!(
            "cbz {n}, 3f",
            "2: ld1 {{v16.4s-v19.4s}}, [{x}], #64",
            "fmul v16.4s, v16.4s, v4.s[0]\n fmul v17.4s, v17.4s, v4.s[0]",
            "fmul v18.4s, v18.4s, v4.s[0]\n fmul v19.4s, v19.4s, v4.s[0]",
            "fcvtns v16.4s, v16.4s\n fcvtns v17.4s, v17.4s\n fcvtns v18.4s, v18.4s\n fcvtns v19.4s, v19.4s",
            "uzp1 v16.8h, v16.8h, v17.8h\n uzp1 v17.8h, v18.8h, v19.8h",
            "st1 {{v16.8h, v17.8h}}, [{values}], #32",
            "subs {n}, {n}, #1\n b.ne 2b",
            "3:",
            n = inout(reg) n => _, x = inout(reg) x.as_ptr() => _, values = inout(reg) values.as_mut_ptr() => _,
            in("v4") inverse, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            options(nostack),
        );
    }
}
