//! Dot products of sixteen rows of weights with one row of activations.

use core::arch::asm;

use super::matmul::{COLUMNS, ROWS};

/// One row's step: its weight in a column, times the activation in `a0`.
macro_rules! row {
    ($sum:literal, $at:literal) => {
        concat!("lb a1, ", $at, "(t0)\n mul a1, a1, a0\n add ", $sum, ", ", $sum, ", a1\n")
    };
}

/// One column of a tile; a row's weights are four bytes apart.
macro_rules! column {
    ($value_at:literal, $($sum:literal $at:literal),*) => {
        concat!("lh a0, ", $value_at, "(t1)\n", $(row!($sum, $at)),*)
    };
}

/// The first column of all, whose products the sums begin with.
macro_rules! first_column {
    ($($sum:literal $at:literal),*) => {
        concat!("lh a0, 0(t1)\n", $("lb ", $sum, ", ", $at, "(t0)\n mul ", $sum, ", ", $sum, ", a0\n"),*)
    };
}

/// Writes the dot products of blocks of rows, as `i32`, to `blocks`: 49 instructions a column, of 16 products, 33 the first.
///
/// # Safety
/// `weights` is valid for reads of `ROWS * values.len()` bytes for each of the blocks, which are not none; the values are whole tiles, and
/// not none.
pub unsafe fn dot_blocks(weights: *const u8, values: &[i16], blocks: &mut [[f32; ROWS]]) {
    debug_assert!(!values.is_empty() && values.len().is_multiple_of(COLUMNS));
    let n_tiles = values.len() / COLUMNS;
    let values = values.as_ptr_range();
    let blocks = blocks.as_mut_ptr_range();
    // SAFETY: it reads what the caller vouches for, and writes `blocks`, of which any bits are numbers.
    unsafe {
        asm!(
            "3: mv t1, t4",
            first_column!("a2" 0, "a3" 4, "a4" 8, "a5" 12, "a6" 16, "a7" 20, "s2" 24, "s3" 28,
                "s4" 32, "s5" 36, "s6" 40, "s7" 44, "s8" 48, "s9" 52, "s10" 56, "s11" 60),
            // Two tiles a turn; an odd number of them enters at the second.
            "beqz t6, 5f\n addi t0, t0, -64\n addi t1, t1, -8\n j 6f",
            "2:",
            column!("0", "a2" 0, "a3" 4, "a4" 8, "a5" 12, "a6" 16, "a7" 20, "s2" 24, "s3" 28,
                "s4" 32, "s5" 36, "s6" 40, "s7" 44, "s8" 48, "s9" 52, "s10" 56, "s11" 60),
            "5:",
            column!("2", "a2" 1, "a3" 5, "a4" 9, "a5" 13, "a6" 17, "a7" 21, "s2" 25, "s3" 29,
                "s4" 33, "s5" 37, "s6" 41, "s7" 45, "s8" 49, "s9" 53, "s10" 57, "s11" 61),
            column!("4", "a2" 2, "a3" 6, "a4" 10, "a5" 14, "a6" 18, "a7" 22, "s2" 26, "s3" 30,
                "s4" 34, "s5" 38, "s6" 42, "s7" 46, "s8" 50, "s9" 54, "s10" 58, "s11" 62),
            column!("6", "a2" 3, "a3" 7, "a4" 11, "a5" 15, "a6" 19, "a7" 23, "s2" 27, "s3" 31,
                "s4" 35, "s5" 39, "s6" 43, "s7" 47, "s8" 51, "s9" 55, "s10" 59, "s11" 63),
            column!("8", "a2" 64, "a3" 68, "a4" 72, "a5" 76, "a6" 80, "a7" 84, "s2" 88, "s3" 92,
                "s4" 96, "s5" 100, "s6" 104, "s7" 108, "s8" 112, "s9" 116, "s10" 120, "s11" 124),
            "6:",
            column!("10", "a2" 65, "a3" 69, "a4" 73, "a5" 77, "a6" 81, "a7" 85, "s2" 89, "s3" 93,
                "s4" 97, "s5" 101, "s6" 105, "s7" 109, "s8" 113, "s9" 117, "s10" 121, "s11" 125),
            column!("12", "a2" 66, "a3" 70, "a4" 74, "a5" 78, "a6" 82, "a7" 86, "s2" 90, "s3" 94,
                "s4" 98, "s5" 102, "s6" 106, "s7" 110, "s8" 114, "s9" 118, "s10" 122, "s11" 126),
            column!("14", "a2" 67, "a3" 71, "a4" 75, "a5" 79, "a6" 83, "a7" 87, "s2" 91, "s3" 95,
                "s4" 99, "s5" 103, "s6" 107, "s7" 111, "s8" 115, "s9" 119, "s10" 123, "s11" 127),
            "addi t0, t0, 128\n addi t1, t1, 16\n bne t1, t2, 2b",
            "sw a2, 0(t3)\n sw a3, 4(t3)\n sw a4, 8(t3)\n sw a5, 12(t3)\n sw a6, 16(t3)\n sw a7, 20(t3)\n sw s2, 24(t3)",
            "sw s3, 28(t3)\n sw s4, 32(t3)\n sw s5, 36(t3)\n sw s6, 40(t3)\n sw s7, 44(t3)\n sw s8, 48(t3)",
            "sw s9, 52(t3)\n sw s10, 56(t3)\n sw s11, 60(t3)",
            "addi t3, t3, 64\n bne t3, t5, 3b",
            inout("t0") weights => _,
            out("t1") _,
            in("t2") values.end,
            inout("t3") blocks.start => _,
            in("t4") values.start,
            in("t5") blocks.end,
            in("t6") n_tiles % 2,
            out("a0") _, out("a1") _, out("a2") _, out("a3") _, out("a4") _, out("a5") _, out("a6") _, out("a7") _,
            out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _, out("s8") _, out("s9") _,
            out("s10") _, out("s11") _,
            options(nostack),
        );
    }
}

/// The same for the first half of the rows of one block.
///
/// # Safety
/// `weights` is valid for reads of `ROWS * values.len()` bytes; the values are whole tiles, and not none.
pub unsafe fn dot_half_block(weights: *const u8, values: &[i16], dots: &mut [f32; ROWS / 2]) {
    debug_assert!(!values.is_empty() && values.len().is_multiple_of(COLUMNS));
    let values = values.as_ptr_range();
    // SAFETY: it reads what the caller vouches for, and writes `dots`, of which any bits are numbers.
    unsafe {
        asm!(
            "li a2, 0\n li a3, 0\n li a4, 0\n li a5, 0\n li a6, 0\n li a7, 0\n li s2, 0\n li s3, 0",
            "2:",
            column!("0", "a2" 0, "a3" 4, "a4" 8, "a5" 12, "a6" 16, "a7" 20, "s2" 24, "s3" 28),
            column!("2", "a2" 1, "a3" 5, "a4" 9, "a5" 13, "a6" 17, "a7" 21, "s2" 25, "s3" 29),
            column!("4", "a2" 2, "a3" 6, "a4" 10, "a5" 14, "a6" 18, "a7" 22, "s2" 26, "s3" 30),
            column!("6", "a2" 3, "a3" 7, "a4" 11, "a5" 15, "a6" 19, "a7" 23, "s2" 27, "s3" 31),
            "addi t0, t0, 64\n addi t1, t1, 8\n bne t1, t2, 2b",
            "sw a2, 0(t3)\n sw a3, 4(t3)\n sw a4, 8(t3)\n sw a5, 12(t3)\n sw a6, 16(t3)\n sw a7, 20(t3)\n sw s2, 24(t3)",
            "sw s3, 28(t3)",
            inout("t0") weights => _,
            inout("t1") values.start => _,
            in("t2") values.end,
            in("t3") dots,
            out("a0") _, out("a1") _, out("a2") _, out("a3") _, out("a4") _, out("a5") _, out("a6") _, out("a7") _,
            out("s2") _, out("s3") _,
            options(nostack),
        );
    }
}
