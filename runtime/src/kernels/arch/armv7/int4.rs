//! Matrix products of int4: a vector holds the halves of two tiles, `w + 8` of four rows by eight columns.
//!
//! A mask takes the one tile, a shift the other. Products are summed in 16-bit lanes for all of a group: `8 * 15 * 127` fits. 8 times the sum
//! of the activations is subtracted again, modulo `2^16`, in which a group's sum fits.

use core::arch::asm;

use super::Neon32;
use super::matmul::{COLUMNS, ROWS};
use crate::math;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Bytes of two tiles, which share them.
const PAIR_BYTES: usize = ROWS * COLUMNS;
/// Bytes of a group of a block's rows.
const GROUP_BYTES: usize = ROWS * GROUP_SIZE / 2;

/// See [`crate::kernels::Kernels::matmul_rows`]; for activations of 8 bits.
pub fn matmul_rows(neon: Neon32, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    let Scales::PerGroup(scales) = w.scales() else { return };
    if n_rows == 0 {
        return;
    }
    let (block_bytes, n_groups) = (w.cols().div_ceil(2 * COLUMNS) * PAIR_BYTES, w.cols().div_ceil(GROUP_SIZE));
    let first_block = first_row / ROWS;
    let blocks = w.data().chunks_exact(block_bytes.max(1)).zip(scales.chunks_exact(ROWS * n_groups.max(1)));
    for (token_idx, out) in out.chunks_mut(n_rows).enumerate() {
        let (x, x_scales) = (x.bytes(token_idx), x.scales(token_idx));
        for (out, (data, scales)) in out.chunks_mut(ROWS).zip(blocks.clone().skip(first_block)) {
            add_groups(neon, out, data, x, scales, x_scales);
        }
    }
}

/// One block of rows: each group's sums, scaled, are added in order.
fn add_groups(neon: Neon32, out: &mut [f32], data: &[u8], x: &[i8], scales: &[u16], x_scales: &[f32]) {
    // Adding to -0 leaves every first term as it is.
    out.fill(-0.0);
    let groups = data.chunks(GROUP_BYTES).zip(x.chunks(GROUP_SIZE));
    for ((data, x), (scales, &x_scale)) in groups.zip(scales.chunks_exact(ROWS).zip(x_scales)) {
        let sums = match x.first_chunk() {
            Some(x) => group_sums(neon, data, x),
            None => {
                let mut group = [0; GROUP_SIZE];
                group[..x.len()].copy_from_slice(x);
                group_sums(neon, data, &group)
            }
        };
        for ((out, sum), &scale) in out.iter_mut().zip(sums).zip(scales) {
            *out += f32::from(sum) * (math::bf16_to_f32(scale) * x_scale);
        }
    }
}

/// Four rows of two tiles, in `$w`, whose halves are `$d` and `$e`, times their activations: added to `$sums` and `$others`.
macro_rules! four_rows {
    ($w:literal, $d:literal, $e:literal, $sums:literal, $others:literal) => {
        concat!(
            "vand q4, ",
            $w,
            ", q7\n vshr.u8 ",
            $w,
            ", ",
            $w,
            ", #4\n vmlal.s8 ",
            $sums,
            ", d8, d10\n vmlal.s8 ",
            $others,
            ", d9, d10\n vmlal.s8 ",
            $sums,
            ", ",
            $d,
            ", d11\n vmlal.s8 ",
            $others,
            ", ",
            $e,
            ", d11\n",
        )
    };
}

/// The dot products of a block's rows with a group's activations; `data` is of whole pairs of tiles, no more than a group has, and not empty.
fn group_sums(_: Neon32, data: &[u8], x: &[i8; GROUP_SIZE]) -> [i16; ROWS] {
    require!((PAIR_BYTES..=GROUP_BYTES).contains(&data.len()) && data.len().is_multiple_of(PAIR_BYTES));
    let mut sums = [0; ROWS];
    // SAFETY: it reads `data`, of whole pairs of tiles, and four activations for each of their two tiles, which `x` has, then writes `sums`;
    // it restores the stack and the registers that the compiler may not know.
    unsafe {
        asm!(
            ".fpu neon",
            "vpush {{d16-d31}}",
            "vld1.8 {{d0-d3}}, [{x}]\n vmov.i8 q7, #15\n vpaddl.s8 q0, q0\n vpadal.s8 q0, q1",
            "vpadd.i16 d0, d0, d1\n vpadd.i16 d0, d0, d0\n vpadd.i16 d0, d0, d0\n vshl.i16 d12, d0, #3\n vmov d13, d12",
            "vmov.i32 q8, #0\n vmov.i32 q9, #0\n vmov.i32 q10, #0\n vmov.i32 q11, #0",
            "vmov.i32 q12, #0\n vmov.i32 q13, #0\n vmov.i32 q14, #0\n vmov.i32 q15, #0",
            "2: vld1.8 {{d0-d3}}, [{data}]!\n vld1.32 {{d10[]}}, [{x}]!\n vld1.32 {{d11[]}}, [{x}]!\n vld1.8 {{d4-d7}}, [{data}]!",
            four_rows!("q0", "d0", "d1", "q8", "q9"),
            four_rows!("q1", "d2", "d3", "q10", "q11"),
            four_rows!("q2", "d4", "d5", "q12", "q13"),
            four_rows!("q3", "d6", "d7", "q14", "q15"),
            "cmp {data}, {end}\n bne 2b",
            // A row's four lanes become one.
            "vpadd.i16 d16, d16, d17\n vpadd.i16 d17, d18, d19\n vpadd.i16 d18, d20, d21\n vpadd.i16 d19, d22, d23",
            "vpadd.i16 d20, d24, d25\n vpadd.i16 d21, d26, d27\n vpadd.i16 d22, d28, d29\n vpadd.i16 d23, d30, d31",
            "vpadd.i16 d16, d16, d17\n vpadd.i16 d17, d18, d19\n vpadd.i16 d18, d20, d21\n vpadd.i16 d19, d22, d23",
            "vsub.i16 q8, q8, q6\n vsub.i16 q9, q9, q6\n vst1.16 {{d16-d19}}, [{sums}]",
            "vpop {{d16-d31}}",
            data = inout(reg) data.as_ptr() => _,
            end = in(reg) data.as_ptr_range().end,
            x = inout(reg) x.as_ptr() => _,
            sums = in(reg) sums.as_mut_ptr(),
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
            out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d12") _, out("d13") _, out("d14") _, out("d15") _,
        );
    }
    sums
}
