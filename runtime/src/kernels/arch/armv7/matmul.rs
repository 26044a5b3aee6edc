//! Matrix products of sixteen rows at a time: two products of bytes are added in 16 bits, where they fit, and carried to 32.

use core::arch::asm;

use super::Neon32;
use crate::kernels::generic;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, MatrixQ8, Scales};

/// Rows and columns of a tile.
const ROWS: usize = WeightLayout::Rows16.row_block();
const COLUMNS: usize = WeightLayout::Rows16.column_block();

/// See [`crate::kernels::Kernels::matmul_rows`]. Weights in groups take the definition's way.
pub fn matmul_rows(neon: Neon32, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    let Scales::PerRow(scales) = w.scales() else {
        return generic::matmul_rows(out, first_row, w, x);
    };
    if n_rows == 0 {
        return;
    }
    let n_tiles = w.cols().div_ceil(COLUMNS);
    let block_bytes = n_tiles * ROWS * COLUMNS;
    let data = w.data().get(first_row * n_tiles * COLUMNS..).unwrap_or_default();
    let scales = scales.get(first_row..).unwrap_or_default();
    for (token_idx, out) in out.chunks_mut(n_rows).enumerate() {
        let (values, x_scale) = (x.values(token_idx), x.scales(token_idx).first().copied().unwrap_or(0.0));
        assert!(size_of_val(values) >= n_tiles * COLUMNS && data.len() >= out.len().div_ceil(ROWS) * block_bytes);
        for (block_idx, (out, scales)) in out.chunks_mut(ROWS).zip(scales.chunks(ROWS)).enumerate() {
            // SAFETY: as asserted, there is a block of weights for each block of rows, and a byte for each of its columns.
            let sums = unsafe {
                block_sums(neon, data.as_ptr().add(block_idx * block_bytes), values.as_ptr().cast(), n_tiles)
            };
            for ((out, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
                *out = sum as f32 * (scale * x_scale);
            }
        }
    }
}

/// Eight rows of two tiles, from `{a}` and `{b}`, which move by `$step`, times their activations: pairs of products go to `$p` to `$s`.
macro_rules! half_of_two_tiles {
    ($step:literal, $p:literal, $q:literal, $r:literal, $s:literal) => {
        concat!(
            "vld1.8 {{d0-d3}}, [{a}]",
            $step,
            "\n vld1.8 {{d4-d7}}, [{b}]",
            $step,
            "\n",
            "vmull.s8 q4, d0, d14\n vmlal.s8 q4, d4, d15\n vmull.s8 q5, d1, d14\n vmlal.s8 q5, d5, d15\n",
            "vpadal.s16 ",
            $p,
            ", q4\n vpadal.s16 ",
            $q,
            ", q5\n",
            "vmull.s8 q4, d2, d14\n vmlal.s8 q4, d6, d15\n vmull.s8 q5, d3, d14\n vmlal.s8 q5, d7, d15\n",
            "vpadal.s16 ",
            $r,
            ", q4\n vpadal.s16 ",
            $s,
            ", q5\n",
        )
    };
}

/// The same of one tile.
macro_rules! half_of_tile {
    ($p:literal, $q:literal, $r:literal, $s:literal) => {
        concat!(
            "vld1.8 {{d0-d3}}, [{a}]!\n",
            "vmull.s8 q4, d0, d14\n vmull.s8 q5, d1, d14\n vpadal.s16 ",
            $p,
            ", q4\n vpadal.s16 ",
            $q,
            ", q5\n",
            "vmull.s8 q4, d2, d14\n vmull.s8 q5, d3, d14\n vpadal.s16 ",
            $r,
            ", q4\n vpadal.s16 ",
            $s,
            ", q5\n",
        )
    };
}

/// The dot products of a block's rows, two tiles a turn.
///
/// # Safety
/// `data` is valid for reads of `n_tiles` tiles, `x` of as many fours of bytes.
unsafe fn block_sums(_: Neon32, data: *const u8, x: *const i8, n_tiles: usize) -> [i32; ROWS] {
    let mut sums = [0; ROWS];
    // SAFETY: it reads what the caller vouches for, writes `sums`, and restores the stack and the registers that the compiler may not know.
    unsafe {
        asm!(
            ".fpu neon",
            "vpush {{d16-d31}}",
            "vmov.i32 q8, #0\n vmov.i32 q9, #0\n vmov.i32 q10, #0\n vmov.i32 q11, #0",
            "vmov.i32 q12, #0\n vmov.i32 q13, #0\n vmov.i32 q14, #0\n vmov.i32 q15, #0",
            "subs {n}, {n}, #2\n blo 3f",
            "2: vld1.32 {{d14[]}}, [{x}]!\n vld1.32 {{d15[]}}, [{x}]!",
            half_of_two_tiles!("!", "q8", "q9", "q10", "q11"),
            half_of_two_tiles!(", {step}", "q12", "q13", "q14", "q15"),
            "subs {n}, {n}, #2\n bhs 2b",
            "3: cmn {n}, #1\n bne 4f",
            "vld1.32 {{d14[]}}, [{x}]",
            half_of_tile!("q8", "q9", "q10", "q11"),
            half_of_tile!("q12", "q13", "q14", "q15"),
            // A row's two lanes become one.
            "4: vpadd.i32 d16, d16, d17\n vpadd.i32 d17, d18, d19\n vpadd.i32 d18, d20, d21\n vpadd.i32 d19, d22, d23",
            "vpadd.i32 d20, d24, d25\n vpadd.i32 d21, d26, d27\n vpadd.i32 d22, d28, d29\n vpadd.i32 d23, d30, d31",
            "vst1.32 {{d16-d19}}, [{sums}]!\n vst1.32 {{d20-d23}}, [{sums}]",
            "vpop {{d16-d31}}",
            a = inout(reg) data => _,
            b = inout(reg) data.wrapping_add(ROWS * COLUMNS) => _,
            x = inout(reg) x => _,
            n = inout(reg) n_tiles => _,
            sums = inout(reg) sums.as_mut_ptr() => _,
            // Over the other half of the tile and the other tile.
            step = in(reg) 3 * ROWS * COLUMNS / 2,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
            out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d14") _, out("d15") _,
        );
    }
    sums
}
