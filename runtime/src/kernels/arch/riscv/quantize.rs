//! From f32 to integers of 16 bits: the largest magnitude, then four numbers a turn, those below zero beside the others.

use core::arch::asm;

use crate::kernels::soft_float::arithmetic::{Rounded, TOP};
use crate::kernels::soft_float::{self, round_to_int16, scale_to};

/// Numbers a turn.
const TURN: usize = 4;

/// See [`crate::kernels::Kernels::quantize_to`].
pub fn quantize_to(limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
    if x.is_empty() || !x.len().is_multiple_of(TURN) || values.len() < x.len() {
        return soft_float::quantize_to(limit, x, values);
    }
    let (scale, inverse) = scale_to(limit, doubled_magnitude(x) >> 1);
    match Rounded::new(inverse) {
        // SAFETY: there is a value for each number, of which there are whole turns, and not none.
        Some(factor) => unsafe { round_turns(x, values.as_mut_ptr(), factor) },
        None => round_to_int16(inverse, x, values),
    }
    scale
}

/// The bits of the largest magnitude in `x`, times 2: whole turns, and not none.
fn doubled_magnitude(x: &[f32]) -> u32 {
    debug_assert!(!x.is_empty() && x.len().is_multiple_of(TURN));
    let range = x.as_ptr_range();
    let mut most = 0;
    // SAFETY: it reads `x`.
    unsafe {
        asm!(
            "2: lw a0, 0(t0)\n slli a0, a0, 1\n bltu t2, a0, 4f",
            "3: lw a0, 4(t0)\n slli a0, a0, 1\n bltu t2, a0, 6f",
            "5: lw a0, 8(t0)\n slli a0, a0, 1\n bltu t2, a0, 8f",
            "7: lw a0, 12(t0)\n slli a0, a0, 1\n bltu t2, a0, 19f",
            "9: addi t0, t0, 16\n bne t0, t1, 2b\n j 29f",
            "4: mv t2, a0\n j 3b",
            "6: mv t2, a0\n j 5b",
            "8: mv t2, a0\n j 7b",
            "19: mv t2, a0\n j 9b",
            "29:",
            inout("t0") range.start => _,
            in("t1") range.end,
            inout("t2") most,
            out("a0") _,
            options(nostack, readonly),
        );
    }
    most
}

/// The number in `a0` times the factor, rounded, in `a2`; goes to `$zero` where it is far below 1, and to `$doubt` next to a half. `$point`
/// is what its exponent, with the sign above it, is taken off.
macro_rules! rounded {
    ($point:literal, $zero:literal, $doubt:literal) => {
        concat!(
            "srli a1, a0, 23\n sub a1, ",
            $point,
            ", a1\n bgeu a1, t4, ",
            $zero,
            "f\n slli a2, a0, 8\n or a2, a2, t5\n mulhu a2, a2, t6\n srl a2, a2, a1\n add a2, a2, s2\n slli a3, a2, 16\n",
            "bltu a3, s3, ",
            $doubt,
            "f\n srli a2, a2, 16\n"
        )
    };
}

/// One number of a turn. What is not common lies behind the loop.
macro_rules! number {
    ($at:literal, $below_zero:literal, $zero:literal, $doubt:literal, $store:literal, $value_at:literal) => {
        concat!(
            "lw a0, ",
            $at,
            "(t0)\n bltz a0, ",
            $below_zero,
            "f\n",
            rounded!("t3", $zero, $doubt),
            $store,
            ": sh a2, ",
            $value_at,
            "(t1)\n"
        )
    };
}

/// The other ways that a number of a turn may go.
macro_rules! aside {
    ($below_zero:literal, $zero:literal, $doubt:literal, $store:literal) => {
        concat!(
            $below_zero,
            ": ",
            rounded!("s4", $zero, $doubt),
            "neg a2, a2\n j ",
            $store,
            "b\n",
            $zero,
            ": li a2, 0\n j ",
            $store,
            "b\n",
            $doubt,
            ": jal a4, 60f\n j ",
            $store,
            "b\n"
        )
    };
}

/// Rounds the products of the numbers and `factor`, below `2^15`, to the nearest integers. As
/// [`crate::kernels::soft_float::round_scaled`] does, the product has 16 bits behind the point.
///
/// # Safety
/// There are whole turns of numbers, and not none; `values` is valid for as many writes.
#[inline(always)]
unsafe fn round_turns(x: &[f32], values: *mut i16, factor: Rounded) {
    const BELOW_POINT: i32 = 16;
    /// The cut-off, and half a unit in the last place of a product of 15 bits before the point.
    const DOUBT: u32 = 66;
    debug_assert!(!x.is_empty() && x.len().is_multiple_of(TURN));
    let range = x.as_ptr_range();
    // full * 2^(exponent - 158) * mantissa * 2^(factor's - 157), of which the upper half counts 2^32.
    let right_of_zero = 158 + 157 - 32 - BELOW_POINT - factor.exponent;
    // SAFETY: it reads `x`, and writes what the caller vouches for.
    unsafe {
        asm!(
            "2:",
            number!("0", "22", "23", "24", "25", "0"),
            number!("4", "32", "33", "34", "35", "2"),
            number!("8", "42", "43", "44", "45", "4"),
            number!("12", "52", "53", "54", "55", "6"),
            "addi t0, t0, 16\n addi t1, t1, 8\n bne t0, t2, 2b\n j 66f",
            aside!("22", "23", "24", "25"),
            aside!("32", "33", "34", "35"),
            aside!("42", "43", "44", "45"),
            aside!("52", "53", "54", "55"),
            // Next to a half, a5 is the lower half of the product, a2 what lies before the point, and a3 how far the rest is above the half.
            "60: slli a2, a0, 8\n or a2, a2, t5\n mulhu a3, a2, t6\n mul a5, a2, t6\n srli a7, a3, 30",
            "addi a1, a1, 16\n srl a2, a3, a1\n sll a6, a2, a1\n sub a3, a3, a6",
            "li a6, 1\n addi a1, a1, -1\n sll a6, a6, a1\n sub a3, a3, a6",
            // The product itself is rounded first, to 24 bits: what is within half a unit of those becomes the half, which is even there.
            "li a6, 32\n sll a7, a6, a7\n add a3, a3, a7\n bltz a3, 65f\n slli a7, a7, 1\n bltu a3, a7, 63f",
            "bne a3, a7, 64f\n bnez a5, 64f",
            "63: andi a6, a2, 1\n add a2, a2, a6\n j 65f",
            "64: addi a2, a2, 1",
            "65: bgez a0, 62f\n neg a2, a2\n 62: jr a4",
            "66:",
            inout("t0") range.start => _,
            inout("t1") values => _,
            in("t2") range.end,
            in("t3") right_of_zero,
            in("t4") 32,
            in("t5") TOP,
            in("t6") factor.mantissa,
            // A half, and what makes a doubt of numbers just below one.
            in("s2") (1 << (BELOW_POINT - 1)) + DOUBT,
            in("s3") (2 * DOUBT + 1) << 16,
            // With the sign of a number below zero above its exponent.
            in("s4") right_of_zero + 256,
            out("a0") _, out("a1") _, out("a2") _, out("a3") _, out("a4") _, out("a5") _, out("a6") _, out("a7") _,
            options(nostack),
        );
    }
}
