//! Matrix products of sixteen rows at a time: two products of bytes are added in 16 bits, where they fit, and carried to 32. Activations of
//! 12 bits are `64 * high + low` with both within -32..=32: as many products of either as a group has fit in 16 bits.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::Neon32;
use crate::layout::WeightLayout;
use crate::math;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows of a tile.
pub const ROWS: usize = WeightLayout::Rows16.row_block();
/// Columns of a tile.
pub const COLUMNS: usize = WeightLayout::Rows16.column_block();

/// See [`crate::kernels::Kernels::matmul_rows`].
pub fn matmul_rows(neon: Neon32, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    if n_rows == 0 {
        return;
    }
    let n_tiles = w.cols().div_ceil(COLUMNS);
    let block_bytes = n_tiles * ROWS * COLUMNS;
    let data = w.data().get(first_row * n_tiles * COLUMNS..).unwrap_or_default();
    require!(block_bytes != 0 && data.len() >= n_rows.div_ceil(ROWS) * block_bytes);
    for (token_idx, out) in out.chunks_mut(n_rows).enumerate() {
        let (values, x_scales) = (x.values(token_idx), x.scales(token_idx));
        let blocks = out.chunks_mut(ROWS).zip(data.chunks_exact(block_bytes));
        match (w.scales(), x_scales) {
            (Scales::PerRow(scales), &[x_scale]) => {
                require!(size_of_val(values) >= n_tiles * COLUMNS);
                for ((out, data), scales) in blocks.zip(scales.get(first_row..).unwrap_or_default().chunks(ROWS)) {
                    // SAFETY: `data` is a block, and as asserted there is a byte for each of its columns.
                    let sums = unsafe { block_sums(neon, data.as_ptr(), values.as_ptr().cast(), n_tiles) };
                    for ((out, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
                        *out = sum as f32 * (scale * x_scale);
                    }
                }
            }
            (Scales::PerRow(_), _) => {}
            (Scales::PerGroup(scales), x_scales) => {
                let scales = scales.get(first_row * x_scales.len()..).unwrap_or_default();
                for ((out, data), scales) in blocks.zip(scales.chunks(ROWS * x_scales.len().max(1))) {
                    grouped_block(neon, out, data, values, scales, x_scales);
                }
            }
        }
    }
}

/// One block of rows whose scales come in groups: each group's sums, scaled, are added in order.
fn grouped_block(neon: Neon32, out: &mut [f32], data: &[u8], values: &[i16], scales: &[u16], x_scales: &[f32]) {
    // Adding to -0 leaves every first term as it is.
    out.fill(-0.0);
    let groups = data.chunks(ROWS * GROUP_SIZE).zip(values.chunks(GROUP_SIZE));
    for ((data, values), (scales, &x_scale)) in groups.zip(scales.chunks_exact(ROWS).zip(x_scales)) {
        let mut group = [0; GROUP_SIZE];
        group[..values.len()].copy_from_slice(values);
        // SAFETY: the count is that of the tiles in `data`, and not above a group's, which `chunks` sees to.
        let sums = unsafe { group_sums(neon, data.as_ptr(), &group, data.len() / (ROWS * COLUMNS)) };
        for ((out, sum), &scale) in out.iter_mut().zip(sums).zip(scales) {
            *out += sum as f32 * (math::bf16_to_f32(scale) * x_scale);
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

/// The dot products of a block's rows with one group's activations, half of the rows at a time.
///
/// # Safety
/// `data` is valid for reads of `n_tiles` tiles, at most a group's, and not none.
unsafe fn group_sums(_: Neon32, data: *const u8, x: &[i16; GROUP_SIZE], n_tiles: usize) -> [i32; ROWS] {
    let mut sums = [0; ROWS];
    // Of four columns each, the low parts and the high parts.
    let mut parts = MaybeUninit::<[u8; 2 * GROUP_SIZE]>::uninit();
    // SAFETY: it reads `x` and what the caller vouches for, writes `parts` and `sums`, and restores the stack and the registers that the
    // compiler may not know.
    unsafe {
        asm!(
            ".fpu neon",
            "vpush {{d16-d31}}",
            "vld1.16 {{d0-d3}}, [{x}]!\n vld1.16 {{d4-d7}}, [{x}]\n mov {x}, {parts}",
            "vmovn.i16 d8, q0\n vmovn.i16 d9, q1\n vmovn.i16 d10, q2\n vmovn.i16 d11, q3",
            "vshl.i8 q4, q4, #2\n vshl.i8 q5, q5, #2\n vshr.s8 q4, q4, #2\n vshr.s8 q5, q5, #2",
            "vrshrn.i16 d12, q0, #6\n vrshrn.i16 d13, q1, #6\n vrshrn.i16 d14, q2, #6\n vrshrn.i16 d15, q3, #6",
            "vzip.32 q4, q6\n vzip.32 q5, q7",
            "vst1.32 {{d8, d9}}, [{x}]!\n vst1.32 {{d12, d13}}, [{x}]!",
            "vst1.32 {{d10, d11}}, [{x}]!\n vst1.32 {{d14, d15}}, [{x}]",
            "1: mov {tile}, {data}\n mov {x}, {parts}\n mov {n}, {n_tiles}",
            "vmov.i32 q8, #0\n vmov.i32 q9, #0\n vmov.i32 q10, #0\n vmov.i32 q11, #0",
            "vmov.i32 q12, #0\n vmov.i32 q13, #0\n vmov.i32 q14, #0\n vmov.i32 q15, #0",
            "2: vld1.8 {{d0-d3}}, [{tile}]\n vld1.32 {{d4[]}}, [{x}]!\n vld1.32 {{d5[]}}, [{x}]!\n add {tile}, {tile}, #64",
            "vmlal.s8 q8, d0, d4\n vmlal.s8 q9, d1, d4\n vmlal.s8 q10, d2, d4\n vmlal.s8 q11, d3, d4",
            "vmlal.s8 q12, d0, d5\n vmlal.s8 q13, d1, d5\n vmlal.s8 q14, d2, d5\n vmlal.s8 q15, d3, d5",
            "subs {n}, {n}, #1\n bne 2b",
            "vpaddl.s16 q8, q8\n vpaddl.s16 q9, q9\n vpaddl.s16 q10, q10\n vpaddl.s16 q11, q11",
            "vpaddl.s16 q12, q12\n vpaddl.s16 q13, q13\n vpaddl.s16 q14, q14\n vpaddl.s16 q15, q15",
            "vshl.i32 q12, q12, #6\n vshl.i32 q13, q13, #6\n vshl.i32 q14, q14, #6\n vshl.i32 q15, q15, #6",
            "vadd.i32 q8, q8, q12\n vadd.i32 q9, q9, q13\n vadd.i32 q10, q10, q14\n vadd.i32 q11, q11, q15",
            "vpadd.i32 d16, d16, d17\n vpadd.i32 d17, d18, d19\n vpadd.i32 d18, d20, d21\n vpadd.i32 d19, d22, d23",
            "vst1.32 {{d16-d19}}, [{sums}]!",
            "add {data}, {data}, #32\n subs {halves}, {halves}, #1\n bne 1b",
            "vpop {{d16-d31}}",
            data = inout(reg) data => _,
            tile = out(reg) _,
            x = inout(reg) x.as_ptr() => _,
            parts = in(reg) parts.as_mut_ptr(),
            n_tiles = in(reg) n_tiles,
            n = out(reg) _,
            sums = inout(reg) sums.as_mut_ptr() => _,
            halves = inout(reg) 2 => _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
            out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d12") _, out("d13") _, out("d14") _, out("d15") _,
        );
    }
    sums
}
