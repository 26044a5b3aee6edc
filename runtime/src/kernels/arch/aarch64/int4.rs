//! Matrix products of int4: a vector holds the halves of two tiles, `w + 8` of four rows by eight columns.
//!
//! A mask takes the one tile, a shift the other; both are whole operands. 8 times the sum of the activations is subtracted again. Without
//! `SDOT` products are summed in 16-bit lanes for all of a group: `8 * 15 * 127` fits.

use core::arch::asm;

use super::Sdot;
use super::matmul::{COLUMNS, ROWS, TILE_BYTES, scale_groups, to_floats};
use crate::kernels::generic;
use crate::math;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Pairs of tiles of a whole group.
const GROUP_PAIRS: usize = GROUP_SIZE / (2 * COLUMNS);

/// What the products of whole groups read and write, block after block.
pub struct Job {
    data: *const u8,
    scales: *const u16,
    x: *const i8,
    x_scales: *const f32,
    n_groups: usize,
    /// Bytes of weights, and scales, that a block has besides: those of a last group that is not whole.
    skipped: (usize, usize),
}

/// How one kind of core multiplies whole groups.
pub trait Groups: Copy {
    /// Writes the sums over the whole groups of each block to `out`.
    ///
    /// # Safety
    /// `out` is not empty. `job` has a group or more; for each block and each group [`GROUP_PAIRS`] pairs of tiles and [`ROWS`] scales are
    /// valid for reads, apart by what is skipped, and [`GROUP_SIZE`] activations and one scale a group.
    unsafe fn whole_groups(self, out: &mut [[f32; ROWS]], job: &Job);
}

/// What every core can do.
#[derive(Clone, Copy)]
pub struct Neon;

impl Groups for Neon {
    unsafe fn whole_groups(self, out: &mut [[f32; ROWS]], job: &Job) {
        // SAFETY: the caller's promise; every AArch64 core that these targets are for has NEON.
        unsafe { neon_groups(out, job) }
    }
}

impl Groups for Sdot {
    unsafe fn whole_groups(self, out: &mut [[f32; ROWS]], job: &Job) {
        // SAFETY: the caller's promise; a value of `Sdot` is the proof of the extension.
        unsafe { sdot_groups(out, job) }
    }
}

/// See [`crate::kernels::Kernels::matmul_rows`].
pub fn matmul_rows(core: impl Groups, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    let Scales::PerGroup(scales) = w.scales() else { return };
    if n_rows == 0 || !first_row.is_multiple_of(ROWS) {
        return generic::matmul_rows(out, first_row, w, x);
    }
    let (block_bytes, n_groups) = (w.cols().div_ceil(2 * COLUMNS) * TILE_BYTES, w.cols().div_ceil(GROUP_SIZE));
    let first_block = first_row / ROWS;
    // Of several tokens, each block stays in the cache for all.
    let n_together = if x.n_tokens() == 1 { (n_rows / ROWS).max(1) } else { 1 };
    for first in (0..n_rows.div_ceil(ROWS)).step_by(n_together) {
        let data = &w.data()[(first_block + first) * block_bytes..];
        let scales = &scales[(first_block + first) * ROWS * n_groups..];
        for (token_idx, out) in out.chunks_exact_mut(n_rows).enumerate() {
            let (blocks, last) = out[first * ROWS..].as_chunks_mut::<ROWS>();
            let (x, x_scales) = (&x.bytes(token_idx)[..w.cols()], x.scales(token_idx));
            let n_blocks = n_together.min(blocks.len());
            if n_blocks > 0 {
                token(core, &mut blocks[..n_blocks], (data, block_bytes), scales, x, x_scales);
            } else {
                let mut sums = [[0.0; ROWS]];
                token(core, &mut sums, (data, block_bytes), scales, x, x_scales);
                last.copy_from_slice(&sums[0][..last.len()]);
            }
        }
    }
}

/// The sums of one token and whole blocks: first all whole groups, then the shorter last one.
fn token(
    core: impl Groups,
    out: &mut [[f32; ROWS]],
    (data, block_bytes): (&[u8], usize),
    scales: &[u16],
    x: &[i8],
    x_scales: &[f32],
) {
    let (n_whole, n_groups) = (x.len() / GROUP_SIZE, x_scales.len());
    let (whole_bytes, rest) = (n_whole * GROUP_PAIRS * TILE_BYTES, &x[n_whole * GROUP_SIZE..]);
    require!(n_groups == x.len().div_ceil(GROUP_SIZE) && block_bytes >= whole_bytes);
    require!(data.len() >= out.len() * block_bytes && scales.len() >= out.len() * n_groups * ROWS);
    if n_whole == 0 {
        out.fill([-0.0; ROWS]);
    } else if !out.is_empty() {
        let skipped = (block_bytes - whole_bytes, ROWS * (n_groups - n_whole));
        let (data, scales) = (data.as_ptr(), scales.as_ptr());
        let job = Job { data, scales, x: x.as_ptr(), x_scales: x_scales.as_ptr(), n_groups: n_whole, skipped };
        // SAFETY: the assertions give the lengths that it asks for.
        unsafe { core.whole_groups(out, &job) };
    }
    let (false, Some(x_scale)) = (rest.is_empty(), x_scales.last()) else { return };
    let blocks = data.chunks_exact(block_bytes).zip(scales.chunks_exact(n_groups * ROWS));
    for (sums, (data, scales)) in out.iter_mut().zip(blocks) {
        let dots = rest_dots(data[whole_bytes..].as_chunks().0, rest);
        for ((sum, dot), &scale) in sums.iter_mut().zip(dots).zip(&scales[n_whole * ROWS..]) {
            *sum += dot as f32 * (math::bf16_to_f32(scale) * x_scale);
        }
    }
}

/// Dot products of a block's rows with fewer activations than a group has.
fn rest_dots(pairs: &[[u8; TILE_BYTES]], x: &[i8]) -> [i32; ROWS] {
    let mut dots = [-8 * x.iter().map(|&x| i32::from(x)).sum::<i32>(); ROWS];
    for (pair, x) in pairs.iter().zip(x.chunks(2 * COLUMNS)) {
        for (dot, row) in dots.iter_mut().zip(pair.as_chunks::<COLUMNS>().0) {
            let columns = row.iter().map(|byte| byte & 15).chain(row.iter().map(|byte| byte >> 4));
            *dot += columns.zip(x).map(|(w, &x)| i32::from(w) * i32::from(x)).sum::<i32>();
        }
    }
    dots
}

/// Four rows of a pair of tiles, in `$w`, times four activations in `$x` and the next in `$y`, added to `$sums`. v30 holds the mask; takes v28.
macro_rules! sdot_rows {
    ($sums:literal, $w:literal, $x:literal, $y:literal) => {
        concat!(
            "and v28.16b, ",
            $w,
            ".16b, v30.16b\n ushr ",
            $w,
            ".16b, ",
            $w,
            ".16b, #4\n sdot ",
            $sums,
            ".4s, v28.16b, ",
            $x,
            "\n sdot ",
            $sums,
            ".4s, ",
            $w,
            ".16b, ",
            $y,
            "\n"
        )
    };
}

/// A pair of tiles times four activations and the next.
macro_rules! sdot_pair {
    ($x:literal, $y:literal) => {
        concat!(
            "ld1 {{v24.16b-v27.16b}}, [{data}], #64\n",
            sdot_rows!("v20", "v24", $x, $y),
            sdot_rows!("v21", "v25", $x, $y),
            sdot_rows!("v22", "v26", $x, $y),
            sdot_rows!("v23", "v27", $x, $y)
        )
    };
}

/// Block after block, group after group; `$group` leaves a group's dot products in v20-v23.
macro_rules! groups_of_blocks {
    ($out:expr, $job:expr, $prepare:expr, $group:expr) => {
        asm!(
            $prepare,
            // Adding to -0 leaves every first term as it is.
            "1: movi v8.4s, #0x80, lsl #24\n movi v9.4s, #0x80, lsl #24",
            "movi v10.4s, #0x80, lsl #24\n movi v11.4s, #0x80, lsl #24",
            "mov {xp}, {x}\n mov {xs}, {x_scales}\n mov {n}, {n_groups}",
            "2:",
            $group,
            scale_groups!("v20", "v21", "v22", "v23", "v8", "v9", "v10", "v11"),
            "subs {n}, {n}, #1\n b.ne 2b",
            "st1 {{v8.4s-v11.4s}}, [{out}], #64",
            "add {data}, {data}, {skipped}\n add {scales}, {scales}, {skipped_scales}",
            "subs {blocks}, {blocks}, #1\n b.ne 1b",
            data = inout(reg) $job.data => _, scales = inout(reg) $job.scales => _, x = in(reg) $job.x, xp = out(reg) _,
            x_scales = in(reg) $job.x_scales, xs = out(reg) _, n_groups = in(reg) $job.n_groups, n = out(reg) _,
            skipped = in(reg) $job.skipped.0, skipped_scales = in(reg) size_of::<u16>() * $job.skipped.1,
            out = inout(reg) $out.as_mut_ptr() => _, blocks = inout(reg) $out.len() => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        )
    };
}

/// See [`Groups::whole_groups`]: the sums start from -8 times that of the activations.
#[target_feature(enable = "dotprod")]
unsafe fn sdot_groups(out: &mut [[f32; ROWS]], job: &Job) {
    // SAFETY: it reads what the caller vouches for, and writes `out`.
    unsafe {
        groups_of_blocks!(
            out,
            job,
            "movi v30.16b, #15\n movi v31.16b, #0xf8",
            concat!(
                "ld1 {{v4.16b, v5.16b}}, [{xp}], #32\n movi v6.4s, #0\n sdot v6.4s, v4.16b, v31.16b\n sdot v6.4s, v5.16b, v31.16b\n",
                "addv s6, v6.4s\n dup v20.4s, v6.s[0]\n dup v21.4s, v6.s[0]\n dup v22.4s, v6.s[0]\n dup v23.4s, v6.s[0]\n",
                sdot_pair!("v4.4b[0]", "v4.4b[1]"),
                sdot_pair!("v4.4b[2]", "v4.4b[3]"),
                sdot_pair!("v5.4b[0]", "v5.4b[1]"),
                sdot_pair!("v5.4b[2]", "v5.4b[3]")
            )
        );
    }
}

/// Four rows of a pair of tiles, in `$w`, times the activations in v6 and v7, added to the 16-bit lanes of `$low` and `$high`. v30 holds the
/// mask; takes v28.
macro_rules! widening_rows {
    ($low:literal, $high:literal, $w:literal) => {
        concat!(
            "and v28.16b, ",
            $w,
            ".16b, v30.16b\n ushr ",
            $w,
            ".16b, ",
            $w,
            ".16b, #4\n smlal ",
            $low,
            ".8h, v28.8b, v6.8b\n smlal2 ",
            $high,
            ".8h, v28.16b, v6.16b\n smlal ",
            $low,
            ".8h, ",
            $w,
            ".8b, v7.8b\n smlal2 ",
            $high,
            ".8h, ",
            $w,
            ".16b, v7.16b\n"
        )
    };
}

/// A pair of tiles times the next eight activations.
macro_rules! widening_pair {
    () => {
        concat!(
            "ld1r {{v6.4s}}, [{xp}], #4\n ld1r {{v7.4s}}, [{xp}], #4\n ld1 {{v24.16b-v27.16b}}, [{data}], #64\n",
            "smlal v29.8h, v31.8b, v6.8b\n smlal v29.8h, v31.8b, v7.8b\n",
            widening_rows!("v12", "v13", "v24"),
            widening_rows!("v14", "v15", "v25"),
            widening_rows!("v16", "v17", "v26"),
            widening_rows!("v18", "v19", "v27")
        )
    };
}

/// Rows in the 16-bit lanes of `$low` and `$high`, four lanes a row, into the 32-bit lanes of `$sums`, less the offset in v29.
macro_rules! fold_rows {
    ($sums:literal, $low:literal, $high:literal) => {
        concat!(
            "saddlp ",
            $low,
            ".4s, ",
            $low,
            ".8h\n saddlp ",
            $high,
            ".4s, ",
            $high,
            ".8h\n addp ",
            $sums,
            ".4s, ",
            $low,
            ".4s, ",
            $high,
            ".4s\n sub ",
            $sums,
            ".4s, ",
            $sums,
            ".4s, v29.4s\n"
        )
    };
}

/// See [`Groups::whole_groups`].
#[target_feature(enable = "neon")]
unsafe fn neon_groups(out: &mut [[f32; ROWS]], job: &Job) {
    // SAFETY: it reads what the caller vouches for, and writes `out`.
    unsafe {
        groups_of_blocks!(
            out,
            job,
            "movi v30.16b, #15\n movi v31.16b, #8",
            concat!(
                "movi v12.4s, #0\n movi v13.4s, #0\n movi v14.4s, #0\n movi v15.4s, #0\n movi v29.4s, #0\n",
                "movi v16.4s, #0\n movi v17.4s, #0\n movi v18.4s, #0\n movi v19.4s, #0\n",
                widening_pair!(),
                widening_pair!(),
                widening_pair!(),
                widening_pair!(),
                "saddlp v29.4s, v29.8h\n addp v29.4s, v29.4s, v29.4s\n",
                fold_rows!("v20", "v12", "v13"),
                fold_rows!("v21", "v14", "v15"),
                fold_rows!("v22", "v16", "v17"),
                fold_rows!("v23", "v18", "v19")
            )
        );
    }
}
