//! Matrix products block by block: 16 rows' dot products come from a backend's tiles, scaling them is the same for all.

use core::arch::aarch64::*;

use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows of a block.
pub const ROWS: usize = 16;
/// Columns of a tile.
pub const COLUMNS: usize = 4;
/// Bytes of a tile.
pub const TILE_BYTES: usize = ROWS * COLUMNS;
/// Tiles of a whole group.
const GROUP_TILES: usize = GROUP_SIZE / COLUMNS;
/// Tokens that may share one pass over the weights.
pub const TOKENS: usize = 4;

/// Dot products of a block's rows: rows 0 to 3, 4 to 7, and so on.
pub type Dots = [int32x4_t; 4];

/// How one kind of core multiplies tiles.
pub trait Tiles: Copy {
    /// Whether [`Tiles::int8_dots_of_tokens`] takes fewer instructions than [`Tiles::int8_dots`] for each token.
    const SHARES_WEIGHTS: bool;

    /// Dot products of `n_tiles` tiles at `data` with as many fours of bytes at `x`.
    ///
    /// # Safety
    /// `data` must be `n_tiles * TILE_BYTES` readable bytes, `x` `n_tiles * COLUMNS`.
    unsafe fn int8_dots(self, data: *const u8, x: *const i8, n_tiles: usize) -> Dots;

    /// The same for [`TOKENS`] tokens, whose bytes lie `stride` apart.
    ///
    /// # Safety
    /// As for [`Tiles::int8_dots`], each token.
    unsafe fn int8_dots_of_tokens(self, data: *const u8, x: *const i8, stride: usize, n_tiles: usize)
    -> [Dots; TOKENS];

    /// Dot products of a whole group's tiles with its activations, which have 12 bits.
    ///
    /// # Safety
    /// `data` must be `GROUP_SIZE * ROWS` readable bytes, `x` `GROUP_SIZE` readable numbers.
    unsafe fn group_dots(self, data: *const u8, x: *const i16) -> Dots;

    /// The same for a last group of `n_tiles`, fewer.
    ///
    /// # Safety
    /// `data` must be `n_tiles * TILE_BYTES` readable bytes, `x` `n_tiles * COLUMNS` readable numbers.
    unsafe fn short_group_dots(self, data: *const u8, x: *const i16, n_tiles: usize) -> Dots;
}

/// See [`crate::kernels::Kernels::matmul_rows`].
#[target_feature(enable = "neon")]
#[inline]
pub fn matmul_rows(tiles: impl Tiles, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    if n_rows == 0 {
        return;
    }
    let n_tiles = w.cols().div_ceil(COLUMNS);
    let first_block = first_row / ROWS;
    let data = &w.data()[first_block * n_tiles * TILE_BYTES..];
    assert!(data.len() >= n_rows.div_ceil(ROWS) * n_tiles * TILE_BYTES);
    match w.scales() {
        Scales::PerRow(scales) => int8_rows(tiles, out, n_rows, data, &scales[first_row..], n_tiles, x),
        Scales::PerGroup(scales) => {
            let n_groups = w.cols().div_ceil(GROUP_SIZE);
            grouped_rows(tiles, out, n_rows, data, &scales[first_row * n_groups..], n_tiles, x);
        }
    }
}

/// For a scale a row: the products of each block with the tokens, as many at a time as share a pass.
#[target_feature(enable = "neon")]
#[inline]
fn int8_rows<T: Tiles>(
    tiles: T,
    out: &mut [f32],
    n_rows: usize,
    data: &[u8],
    scales: &[f32],
    n_tiles: usize,
    x: &ActivationsQ8<'_>,
) {
    let stride = 2 * n_tiles * COLUMNS;
    let bytes: &[i8] = bytemuck::cast_slice(x.all_values());
    let (n_tokens, x_scales) = (x.n_tokens(), x.all_scales());
    assert!(bytes.len() == n_tokens * stride && x_scales.len() == n_tokens);
    let blocks = data.chunks_exact(n_tiles * TILE_BYTES).zip(scales.as_chunks::<ROWS>().0);
    for (row, (data, scales)) in (0..n_rows).step_by(ROWS).zip(blocks) {
        let mut token_idx = 0;
        while T::SHARES_WEIGHTS && n_tokens - token_idx >= TOKENS {
            // SAFETY: `data` is a block of `n_tiles`; `bytes` holds a `stride` for each token, as asserted.
            let dots = unsafe {
                tiles.int8_dots_of_tokens(data.as_ptr(), bytes.as_ptr().add(token_idx * stride), stride, n_tiles)
            };
            for dots in dots {
                store(&mut out[token_idx * n_rows..][..n_rows], row, scaled(dots, scales, x_scales[token_idx]));
                token_idx += 1;
            }
        }
        while token_idx < n_tokens {
            // SAFETY: as above.
            let dots = unsafe { tiles.int8_dots(data.as_ptr(), bytes.as_ptr().add(token_idx * stride), n_tiles) };
            store(&mut out[token_idx * n_rows..][..n_rows], row, scaled(dots, scales, x_scales[token_idx]));
            token_idx += 1;
        }
    }
}

/// For a scale a group: each group's dot products are scaled and added in f32, in order.
#[target_feature(enable = "neon")]
#[inline]
fn grouped_rows<T: Tiles>(
    tiles: T,
    out: &mut [f32],
    n_rows: usize,
    data: &[u8],
    scales: &[u16],
    n_tiles: usize,
    x: &ActivationsQ8<'_>,
) {
    let (n_whole, n_rest) = (n_tiles / GROUP_TILES, n_tiles % GROUP_TILES);
    let n_groups = n_tiles.div_ceil(GROUP_TILES);
    let blocks = data.chunks_exact(n_tiles * TILE_BYTES).zip(scales.chunks_exact(n_groups * ROWS));
    for (row, (data, scales)) in (0..n_rows).step_by(ROWS).zip(blocks) {
        let scales = scales.as_chunks::<ROWS>().0;
        for token_idx in 0..x.n_tokens() {
            let (values, x_scales) = (x.values(token_idx), x.scales(token_idx));
            assert!(values.len() == n_tiles * COLUMNS && x_scales.len() == n_groups);
            // Adding to -0 leaves every first term as it is.
            let mut sums = [vdupq_n_f32(-0.0); 4];
            for group in 0..n_whole {
                let first = group * GROUP_TILES;
                // SAFETY: `data` and `values` hold `n_tiles`, and these `GROUP_TILES` are whole.
                let dots = unsafe {
                    tiles.group_dots(data.as_ptr().add(first * TILE_BYTES), values.as_ptr().add(first * COLUMNS))
                };
                add_scaled(&mut sums, dots, &scales[group], x_scales[group]);
            }
            if n_rest > 0 {
                let first = n_whole * GROUP_TILES;
                // SAFETY: `n_rest` are left of `n_tiles`.
                let dots = unsafe {
                    let (data, x) = (data.as_ptr().add(first * TILE_BYTES), values.as_ptr().add(first * COLUMNS));
                    tiles.short_group_dots(data, x, n_rest)
                };
                add_scaled(&mut sums, dots, &scales[n_whole], x_scales[n_whole]);
            }
            store(&mut out[token_idx * n_rows..][..n_rows], row, sums);
        }
    }
}

/// `float(dot) * (w_scale * x_scale)`.
#[target_feature(enable = "neon")]
#[inline]
fn scaled(dots: Dots, scales: &[f32; ROWS], x_scale: f32) -> [float32x4_t; 4] {
    // SAFETY: `scales` is 64 readable bytes.
    let float32x4x4_t(a, b, c, d) = unsafe { vld1q_f32_x4(scales.as_ptr()) };
    let scales = [a, b, c, d];
    core::array::from_fn(|i| vmulq_f32(vcvtq_f32_s32(dots[i]), vmulq_n_f32(scales[i], x_scale)))
}

/// Adds a group's dot products, scaled.
#[target_feature(enable = "neon")]
#[inline]
fn add_scaled(sums: &mut [float32x4_t; 4], dots: Dots, scales: &[u16; ROWS], x_scale: f32) {
    // SAFETY: `scales` is 32 readable bytes.
    let uint16x8x2_t(a, b) = unsafe { vld1q_u16_x2(scales.as_ptr()) };
    let bits = [
        vshll_n_u16::<16>(vget_low_u16(a)),
        vshll_high_n_u16::<16>(a),
        vshll_n_u16::<16>(vget_low_u16(b)),
        vshll_high_n_u16::<16>(b),
    ];
    for ((sum, dots), bits) in sums.iter_mut().zip(dots).zip(bits) {
        let scale = vmulq_n_f32(vreinterpretq_f32_u32(bits), x_scale);
        *sum = vaddq_f32(*sum, vmulq_f32(vcvtq_f32_s32(dots), scale));
    }
}

/// Writes a block's sums to the rows from `row` that `out`, a token's outputs, has.
#[target_feature(enable = "neon")]
#[inline]
fn store(out: &mut [f32], row: usize, sums: [float32x4_t; 4]) {
    let [a, b, c, d] = sums;
    let sums = float32x4x4_t(a, b, c, d);
    let out = &mut out[row..];
    if let Some(out) = out.first_chunk_mut::<ROWS>() {
        // SAFETY: `out` is 64 writable bytes.
        unsafe { vst1q_f32_x4(out.as_mut_ptr(), sums) };
        return;
    }
    let mut rows = [0.0; ROWS];
    // SAFETY: as above.
    unsafe { vst1q_f32_x4(rows.as_mut_ptr(), sums) };
    out.copy_from_slice(&rows[..out.len()]);
}
