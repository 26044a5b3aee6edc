//! Matrix products block by block: 16 rows' sums come from a backend's tiles.

use core::arch::aarch64::*;

use super::memory::{load_f32, load_u16, store_f32};
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows of a block.
pub const ROWS: usize = 16;
/// Columns of a tile.
pub const COLUMNS: usize = 4;
/// Bytes of a tile.
pub const TILE_BYTES: usize = ROWS * COLUMNS;
/// Tiles of a whole group.
pub const GROUP_TILES: usize = GROUP_SIZE / COLUMNS;
/// Tokens that may share one pass over the weights.
pub const TOKENS: usize = 4;

/// Dot products of a block's rows: rows 0 to 3, 4 to 7, and so on.
pub type Dots = [int32x4_t; 4];

/// Where a block's tiles and their scales lie, and those of the blocks after it.
#[derive(Clone, Copy)]
pub struct Blocks<S> {
    /// The tiles.
    pub data: *const u8,
    /// The scales: of each block [`ROWS`], or as many for each of its groups.
    pub scales: *const S,
    /// Tiles of a block.
    pub n_tiles: usize,
}

/// How one kind of core multiplies tiles.
pub trait Tiles: Copy {
    /// Whether [`Tiles::int8_block_of_tokens`] takes fewer instructions than [`Tiles::int8_blocks`] for each token.
    const SHARES_WEIGHTS: bool;

    /// Writes the sums of `n_blocks` to `out`.
    ///
    /// # Safety
    /// `blocks` must have `n_blocks`, `x` as many fours of bytes as a block has tiles, `out` [`ROWS`] numbers a block.
    unsafe fn int8_blocks(self, blocks: Blocks<f32>, x: *const i8, x_scale: f32, out: *mut f32, n_blocks: usize);

    /// The same of one block for [`TOKENS`] tokens, which follow each other at `x` in memory for 16-bit lanes.
    ///
    /// # Safety
    /// As for [`Tiles::int8_blocks`], each token.
    unsafe fn int8_block_of_tokens(
        self,
        block: Blocks<f32>,
        x: *const i8,
        x_scales: &[f32; TOKENS],
        sums: &mut [[f32; ROWS]; TOKENS],
    );

    /// Writes the sums of the whole groups of `n_blocks` to `out`, for activations of 12 bits.
    ///
    /// # Safety
    /// `blocks` must have `n_blocks`, `x` as many fours of activations as a block has tiles, `x_scales` a scale for each
    /// group, `out` [`ROWS`] numbers a block.
    unsafe fn whole_groups(
        self,
        blocks: Blocks<u16>,
        x: *const i16,
        x_scales: *const f32,
        out: *mut f32,
        n_blocks: usize,
    );

    /// Dot products of a last group's `n_tiles` tiles, too few for a whole one.
    ///
    /// # Safety
    /// `data` must be `n_tiles * TILE_BYTES` readable bytes, `x` `n_tiles * COLUMNS` readable numbers.
    unsafe fn short_group_dots(self, data: *const u8, x: *const i16, n_tiles: usize) -> Dots;
}

/// See [`crate::kernels::Kernels::matmul_rows`].
#[target_feature(enable = "neon")]
#[inline]
pub fn matmul_rows(tiles: impl Tiles, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_tokens = x.n_tokens();
    let n_rows = out.len() / n_tokens.max(1);
    if n_rows == 0 {
        return;
    }
    let n_tiles = w.cols().div_ceil(COLUMNS);
    let data = &w.data()[first_row * n_tiles * COLUMNS..];
    let n_blocks = n_rows.div_ceil(ROWS);
    // What the kernels rely on: shapes that a view of a matrix and of activations has been checked for.
    require!(data.len() >= n_blocks * n_tiles * TILE_BYTES && x.all_values().len() == n_tokens * n_tiles * COLUMNS);
    match w.scales() {
        Scales::PerRow(scales) => {
            let scales = &scales[first_row..];
            require!(scales.len() >= n_blocks * ROWS && x.all_scales().len() == n_tokens);
            let blocks = Blocks { data: data.as_ptr(), scales: scales.as_ptr(), n_tiles };
            // SAFETY: as asserted.
            unsafe {
                match x.all_scales() {
                    &[x_scale] => int8_token(tiles, out, blocks, x.all_values().as_ptr().cast(), x_scale),
                    _ => int8_tokens(tiles, out, n_rows, blocks, x),
                }
            }
        }
        Scales::PerGroup(scales) => {
            let n_groups = n_tiles.div_ceil(GROUP_TILES);
            let scales = &scales[first_row * n_groups..];
            require!(scales.len() >= n_blocks * ROWS * n_groups && x.all_scales().len() == n_tokens * n_groups);
            let blocks = Blocks { data: data.as_ptr(), scales: scales.as_ptr(), n_tiles };
            // SAFETY: as asserted.
            unsafe { grouped_rows(tiles, out, n_rows, blocks, x) }
        }
    }
}

impl<S> Blocks<S> {
    /// The blocks from number `idx` on, where each has `n_scales`.
    ///
    /// # Safety
    /// There must be as many.
    unsafe fn skip(self, idx: usize, n_scales: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let (data, scales) = (self.data.add(idx * self.n_tiles * TILE_BYTES), self.scales.add(idx * n_scales));
            Self { data, scales, n_tiles: self.n_tiles }
        }
    }
}

/// For a scale a row and one token: all whole blocks in one go, then the rows of the last one.
///
/// # Safety
/// `blocks` must have all rows of `out`, and `x` as many columns.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn int8_token<T: Tiles>(tiles: T, out: &mut [f32], blocks: Blocks<f32>, x: *const i8, x_scale: f32) {
    let n_whole = out.len() / ROWS;
    let (whole, last) = out.split_at_mut(n_whole * ROWS);
    // SAFETY: the caller's promise; the last block's sums are as many as `sums` has.
    unsafe {
        tiles.int8_blocks(blocks, x, x_scale, whole.as_mut_ptr(), n_whole);
        if !last.is_empty() {
            let mut sums = [0.0; ROWS];
            tiles.int8_blocks(blocks.skip(n_whole, ROWS), x, x_scale, sums.as_mut_ptr(), 1);
            last.copy_from_slice(&sums[..last.len()]);
        }
    }
}

/// For a scale a row and several tokens, as many at a time as share a pass over a block, which stays in the cache for all.
///
/// # Safety
/// `blocks` must have all of `n_rows`, and `x` as many columns and a scale a token.
#[target_feature(enable = "neon")]
#[inline(never)]
unsafe fn int8_tokens<T: Tiles>(tiles: T, out: &mut [f32], n_rows: usize, blocks: Blocks<f32>, x: &ActivationsQ8<'_>) {
    let bytes: *const i8 = x.all_values().as_ptr().cast();
    let x_stride = 2 * blocks.n_tiles * COLUMNS;
    let mut sums = [[0.0; ROWS]; TOKENS];
    for block_idx in 0..n_rows.div_ceil(ROWS) {
        // SAFETY: the caller's promise.
        let block = unsafe { blocks.skip(block_idx, ROWS) };
        let mut token_idx = 0;
        while let Some((&x_scale, _)) = x.all_scales()[token_idx..].split_first() {
            let x_scales = x.all_scales()[token_idx..].first_chunk::<TOKENS>().filter(|_| T::SHARES_WEIGHTS);
            // SAFETY: the caller's promise; `sums` is as large as the sums of a block.
            unsafe {
                let x = bytes.add(token_idx * x_stride);
                match x_scales {
                    Some(x_scales) => tiles.int8_block_of_tokens(block, x, x_scales, &mut sums),
                    None => tiles.int8_blocks(block, x, x_scale, sums[0].as_mut_ptr(), 1),
                }
            }
            for sums in &sums[..x_scales.map_or(1, |x_scales| x_scales.len())] {
                store(&mut out[token_idx * n_rows..][..n_rows], block_idx, sums);
                token_idx += 1;
            }
        }
    }
}

/// For a scale a group: each group's dot products are scaled and added in f32, in order. One token takes all whole blocks in one go.
///
/// # Safety
/// `blocks` must have all of `n_rows`, and `x` as many columns and the scales of as many groups.
#[target_feature(enable = "neon")]
#[inline(never)]
unsafe fn grouped_rows<T: Tiles>(tiles: T, out: &mut [f32], n_rows: usize, blocks: Blocks<u16>, x: &ActivationsQ8<'_>) {
    let n_scales = ROWS * blocks.n_tiles.div_ceil(GROUP_TILES);
    let n_whole = n_rows / ROWS;
    // Of several tokens, each block stays in the cache for all.
    let n_together = if x.n_tokens() == 1 { n_whole.max(1) } else { 1 };
    for first in (0..n_rows.div_ceil(ROWS)).step_by(n_together) {
        // SAFETY: the caller's promise.
        let blocks = unsafe { blocks.skip(first, n_scales) };
        for (token_idx, out) in out.chunks_exact_mut(n_rows).enumerate() {
            let out = &mut out[first * ROWS..];
            let n_blocks = n_together.min(out.len() / ROWS);
            if n_blocks > 0 {
                // SAFETY: the caller's promise.
                unsafe { grouped_blocks(tiles, &mut out[..n_blocks * ROWS], blocks, x, token_idx) };
            } else {
                let mut sums = [0.0; ROWS];
                // SAFETY: the caller's promise; the last block is filled up.
                unsafe { grouped_blocks(tiles, &mut sums, blocks, x, token_idx) };
                out.copy_from_slice(&sums[..out.len()]);
            }
        }
    }
}

/// The sums of one token and as many whole blocks as `out` has room for.
///
/// # Safety
/// `blocks` must have as many, and `x` as many columns and the scales of as many groups.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn grouped_blocks<T: Tiles>(
    tiles: T,
    out: &mut [f32],
    blocks: Blocks<u16>,
    x: &ActivationsQ8<'_>,
    token: usize,
) {
    let (x, x_scales) = (x.values(token).as_ptr(), x.scales(token).as_ptr());
    let (n_whole, n_rest) = (blocks.n_tiles / GROUP_TILES, blocks.n_tiles % GROUP_TILES);
    // SAFETY: the caller's promise; a last group has `n_rest` tiles, a scale, and one for each row.
    unsafe {
        tiles.whole_groups(blocks, x, x_scales, out.as_mut_ptr(), out.len() / ROWS);
        if n_rest > 0 {
            for (block_idx, sums) in out.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
                let block = blocks.skip(block_idx, ROWS * (n_whole + 1));
                let first = n_whole * GROUP_TILES;
                let dots = tiles.short_group_dots(block.data.add(first * TILE_BYTES), x.add(first * COLUMNS), n_rest);
                let scales = &*block.scales.add(n_whole * ROWS).cast();
                add_scaled(sums, dots, scales, *x_scales.add(n_whole));
            }
        }
    }
}

/// Adds a group's dot products, scaled.
#[target_feature(enable = "neon")]
fn add_scaled(sums: &mut [f32; ROWS], dots: Dots, scales: &[u16; ROWS], x_scale: f32) {
    let fours = sums.as_chunks_mut::<4>().0.iter_mut().zip(scales.as_chunks::<4>().0);
    for ((sums, scales), dots) in fours.zip(dots) {
        let scales = vreinterpretq_f32_u32(vshll_n_u16::<16>(load_u16(scales)));
        let term = vmulq_f32(vcvtq_f32_s32(dots), vmulq_n_f32(scales, x_scale));
        store_f32(sums, vaddq_f32(load_f32(sums), term));
    }
}

/// Four integers as floats, in place.
macro_rules! to_floats {
    ($dots:literal) => {
        concat!("scvtf ", $dots, ".4s, ", $dots, ".4s\n")
    };
}

/// Adds a group's dot products, in `$a` to `$d`, to the sums in `$p` to `$s`: `float(dot) * (w_scale * x_scale)`.
macro_rules! scale_groups {
    ($a:literal, $b:literal, $c:literal, $d:literal, $p:literal, $q:literal, $r:literal, $s:literal) => {
        concat!(
            "ld1 {{v0.8h, v1.8h}}, [{scales}], #32\n ldr s2, [{xs}], #4\n",
            to_floats!($a),
            to_floats!($b),
            to_floats!($c),
            to_floats!($d),
            "shll v16.4s, v0.4h, #16\n shll2 v17.4s, v0.8h, #16\n",
            "shll v18.4s, v1.4h, #16\n shll2 v19.4s, v1.8h, #16\n",
            "fmul v16.4s, v16.4s, v2.s[0]\n fmul v17.4s, v17.4s, v2.s[0]\n",
            "fmul v18.4s, v18.4s, v2.s[0]\n fmul v19.4s, v19.4s, v2.s[0]\n",
            "fmul v16.4s, ",
            $a,
            ".4s, v16.4s\n fmul v17.4s, ",
            $b,
            ".4s, v17.4s\n",
            "fmul v18.4s, ",
            $c,
            ".4s, v18.4s\n fmul v19.4s, ",
            $d,
            ".4s, v19.4s\n",
            "fadd ",
            $p,
            ".4s, ",
            $p,
            ".4s, v16.4s\n fadd ",
            $q,
            ".4s, ",
            $q,
            ".4s, v17.4s\n",
            "fadd ",
            $r,
            ".4s, ",
            $r,
            ".4s, v18.4s\n fadd ",
            $s,
            ".4s, ",
            $s,
            ".4s, v19.4s\n"
        )
    };
}
pub(super) use {scale_groups, to_floats};

/// Writes a block's sums to the rows that `out`, a token's outputs, has of it.
fn store(out: &mut [f32], block_idx: usize, sums: &[f32; ROWS]) {
    let out = &mut out[block_idx * ROWS..];
    let n_rows = out.len().min(ROWS);
    out[..n_rows].copy_from_slice(&sums[..n_rows]);
}
