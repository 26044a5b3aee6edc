//! Matrix products of bytes: a tile of 16 rows by 4 columns is one vector.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes, so weights take part as `w + 128` (their top bit flipped), and 128 times the sum of the
//! activations, which one more chain adds up for all rows, is subtracted again. The activations that meet int8 in groups are two bytes,
//! `64 * high + low`, and take two chains a row. int4 weights lie there as `w + 8`, two tiles in a vector: [`int4`](super::int4).

#![allow(clippy::needless_range_loop, reason = "an index goes through several arrays of registers")]

use core::arch::x86_64::*;
use core::ops::Range;

use super::int4;
use crate::kernels::generic;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales, WeightFormat};

/// Rows of a tile.
pub const ROWS: usize = 16;
/// Columns of a tile.
pub const COLUMNS: usize = 4;
/// Bytes of a tile.
pub const TILE: usize = ROWS * COLUMNS;
/// Tiles of a group.
const GROUP_TILES: usize = GROUP_SIZE / COLUMNS;

/// What a product reads and writes.
pub struct Job<'a> {
    out: &'a mut [f32],
    n_rows: usize,
    format: WeightFormat,
    /// The row blocks from the product's first on.
    data: &'a [u8],
    scales: Scales<'a>,
    pub x: &'a ActivationsQ8<'a>,
    /// Tiles of a row block; of int4 pairs of tiles, as large.
    pub n_tiles: usize,
    /// Whether weights come from beyond the caches.
    is_far: bool,
}

/// See [`crate::kernels::Kernels::matmul_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>, is_far: bool) {
    let n_rows = out.len() / x.n_tokens().max(1);
    if n_rows == 0 || w.cols() == 0 || !first_row.is_multiple_of(ROWS) {
        return generic::matmul_rows(out, first_row, w, x);
    }
    let is_int4 = w.format() == WeightFormat::Int4G32;
    let (n_tiles, block) = (w.cols().div_ceil(if is_int4 { 2 * COLUMNS } else { COLUMNS }), first_row / ROWS);
    let scales = match w.scales() {
        Scales::PerRow(scales) => Scales::PerRow(&scales[block * ROWS..]),
        Scales::PerGroup(scales) => Scales::PerGroup(&scales[block * ROWS * w.cols().div_ceil(GROUP_SIZE)..]),
    };
    let data = &w.data()[block * n_tiles * TILE..];
    let mut job = Job { out, n_rows, format: w.format(), data, scales, x, n_tiles, is_far };
    let n_blocks = n_rows.div_ceil(ROWS);
    for first in (0..n_blocks).step_by(NEAR_BLOCKS) {
        all_tokens_of_blocks(&mut job, first..n_blocks.min(first + NEAR_BLOCKS));
    }
}

/// Row blocks that stay near while one group of tokens after the other meets them: all weights are read from afar once.
const NEAR_BLOCKS: usize = 8;

/// The blocks for all tokens, as many tokens at once as there are registers for.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn all_tokens_of_blocks(job: &mut Job<'_>, range: Range<usize>) {
    let mut token = 0;
    while token < job.x.n_tokens() {
        // The first tokens meet weights that are not near yet.
        let is_far = job.is_far && token == 0;
        token += match (job.x.n_tokens() - token, is_far) {
            (4.., true) => tokens_of_blocks::<4, true>(job, token, range.clone()),
            (4.., false) => tokens_of_blocks::<4, false>(job, token, range.clone()),
            (2.., true) => tokens_of_blocks::<2, true>(job, token, range.clone()),
            (2.., false) => tokens_of_blocks::<2, false>(job, token, range.clone()),
            (_, true) => tokens_of_blocks::<1, true>(job, token, range.clone()),
            (_, false) => tokens_of_blocks::<1, false>(job, token, range.clone()),
        };
    }
}

/// The blocks for `T` tokens, as many at once as there are registers for. Where they are `FAR`, asks for those after
/// them. Gives `T`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tokens_of_blocks<const T: usize, const FAR: bool>(job: &mut Job<'_>, token: usize, range: Range<usize>) -> usize {
    let mut block = range.start;
    while block < range.end {
        let left = range.end - block;
        block += match (T, job.scales) {
            (1, Scales::PerRow(_)) if left >= 8 => blocks::<T, 8, FAR>(job, token, block),
            (1, _) if left >= 4 => blocks::<T, 4, FAR>(job, token, block),
            (2 | 4, Scales::PerRow(_)) if left >= 4 => blocks::<T, 4, FAR>(job, token, block),
            _ if left >= 2 => blocks::<T, 2, FAR>(job, token, block),
            _ => blocks::<T, 1, FAR>(job, token, block),
        };
    }
    T
}

/// `B` row blocks from `block` for `T` tokens from `token`; gives `B`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn blocks<const T: usize, const B: usize, const FAR: bool>(job: &mut Job<'_>, token: usize, block: usize) -> usize {
    let sums = match job.scales {
        Scales::PerRow(scales) => rows_of_one_scale::<T, B, FAR>(job, scales, token, block),
        Scales::PerGroup(scales) if job.format == WeightFormat::Int4G32 => {
            int4::rows_of_groups::<T, B, FAR>(job, scales, token, block)
        }
        Scales::PerGroup(scales) => rows_of_groups::<T, B, FAR>(job, scales, token, block),
    };
    for (t, sums) in sums.iter().enumerate() {
        let out = &mut job.out[(token + t) * job.n_rows..][..job.n_rows];
        for (out, sum) in out[block * ROWS..].chunks_mut(ROWS).zip(sums) {
            // SAFETY: the mask has a bit for each element of `out`, of which there are at most 16.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), ((1u32 << out.len()) - 1) as __mmask16, *sum) };
        }
    }
    B
}

/// The tiles of each of `B` blocks.
#[inline(always)]
pub fn block_tiles<'a, const B: usize>(job: &Job<'a>, block: usize) -> [&'a [[u8; TILE]]; B] {
    let tiles = job.data.as_chunks::<TILE>().0;
    let mut of_blocks = [tiles; B];
    for (b, of_block) in of_blocks.iter_mut().enumerate() {
        *of_block = &tiles[(block + b) * job.n_tiles..][..job.n_tiles];
    }
    of_blocks
}

/// Four weights of each of 16 rows, plus 128.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
pub fn unsigned(tile: &[u8; TILE]) -> __m512i {
    // SAFETY: a tile is 64 readable bytes.
    _mm512_xor_si512(unsafe { _mm512_loadu_si512(tile.as_ptr().cast()) }, _mm512_set1_epi8(-128))
}

/// Asks for the tile as far behind this one as `B` blocks are long. From memory that is a fifth faster; from a cache it is work for nothing.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
pub fn prefetch<const B: usize>(tile: &[u8; TILE], n_tiles: usize) {
    _mm_prefetch::<_MM_HINT_T1>(tile.as_ptr().wrapping_add(B * n_tiles * TILE).cast());
}

/// Four activations, in every lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
pub fn four(x: [i8; COLUMNS]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(x.map(|x| x as u8)))
}

/// Outputs of `T` tokens by `B` blocks with a scale a row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn rows_of_one_scale<const T: usize, const B: usize, const FAR: bool>(
    job: &Job<'_>,
    scales: &[f32],
    token: usize,
    block: usize,
) -> [[__m512; B]; T] {
    let tiles = block_tiles::<B>(job, block);
    let mut values: [&[[i8; COLUMNS]]; T] = [&[]; T];
    for (t, values) in values.iter_mut().enumerate() {
        *values = &job.x.bytes(token + t).as_chunks().0[..job.n_tiles];
    }
    let mut dots = [[_mm512_setzero_si512(); B]; T];
    let mut offsets = [_mm512_setzero_si512(); T];
    for tile in 0..job.n_tiles {
        let mut weights = [_mm512_setzero_si512(); B];
        for b in 0..B {
            weights[b] = unsigned(&tiles[b][tile]);
            if FAR {
                prefetch::<B>(&tiles[b][tile], job.n_tiles);
            }
        }
        for t in 0..T {
            let x = four(values[t][tile]);
            offsets[t] = _mm512_dpbusd_epi32(offsets[t], _mm512_set1_epi8(-128), x);
            for b in 0..B {
                dots[t][b] = _mm512_dpbusd_epi32(dots[t][b], weights[b], x);
            }
        }
    }
    let mut out = [[_mm512_setzero_ps(); B]; T];
    for t in 0..T {
        let x_scale = _mm512_set1_ps(job.x.scales(token + t).first().copied().unwrap_or(0.0));
        for b in 0..B {
            let row_scales: &[f32; ROWS] = scales[(block + b) * ROWS..].first_chunk().expect("padded to whole blocks");
            // SAFETY: 16 readable floats.
            let scale = _mm512_mul_ps(unsafe { _mm512_loadu_ps(row_scales.as_ptr()) }, x_scale);
            out[t][b] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(dots[t][b], offsets[t])), scale);
        }
    }
    out
}

/// The same with a scale a group: in f32, group after group.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn rows_of_groups<const T: usize, const B: usize, const FAR: bool>(
    job: &Job<'_>,
    scales: &[u16],
    token: usize,
    block: usize,
) -> [[__m512; B]; T] {
    let tiles = block_tiles::<B>(job, block);
    let n_groups = job.n_tiles.div_ceil(GROUP_TILES);
    let mut high: [&[[i8; COLUMNS]]; T] = [&[]; T];
    let mut low = high;
    let mut x_scales: [&[f32]; T] = [&[]; T];
    for t in 0..T {
        let (high_bytes, low_bytes) = job.x.byte_pairs(token + t);
        high[t] = &high_bytes.as_chunks().0[..job.n_tiles];
        low[t] = &low_bytes.as_chunks().0[..job.n_tiles];
        x_scales[t] = &job.x.scales(token + t)[..n_groups];
    }
    let mut sums = [[_mm512_set1_ps(-0.0); B]; T];
    for group in 0..n_groups {
        let zero = _mm512_setzero_si512();
        let (mut highs, mut lows) = ([[zero; B]; T], [[zero; B]; T]);
        let (mut high_offsets, mut low_offsets) = ([zero; T], [zero; T]);
        for tile in group * GROUP_TILES..((group + 1) * GROUP_TILES).min(job.n_tiles) {
            let mut weights = [zero; B];
            for b in 0..B {
                weights[b] = unsigned(&tiles[b][tile]);
                if FAR {
                    prefetch::<B>(&tiles[b][tile], job.n_tiles);
                }
            }
            for t in 0..T {
                let (high, low) = (four(high[t][tile]), four(low[t][tile]));
                high_offsets[t] = _mm512_dpbusd_epi32(high_offsets[t], _mm512_set1_epi8(-128), high);
                low_offsets[t] = _mm512_dpbusd_epi32(low_offsets[t], _mm512_set1_epi8(-128), low);
                for b in 0..B {
                    highs[t][b] = _mm512_dpbusd_epi32(highs[t][b], weights[b], high);
                    lows[t][b] = _mm512_dpbusd_epi32(lows[t][b], weights[b], low);
                }
            }
        }
        for b in 0..B {
            let row_scales = group_scales(scales, (block + b) * n_groups + group);
            for t in 0..T {
                let high = _mm512_slli_epi32::<6>(_mm512_sub_epi32(highs[t][b], high_offsets[t]));
                let dots = _mm512_add_epi32(high, _mm512_sub_epi32(lows[t][b], low_offsets[t]));
                let scale = _mm512_mul_ps(row_scales, _mm512_set1_ps(x_scales[t][group]));
                sums[t][b] = _mm512_add_ps(sums[t][b], _mm512_mul_ps(_mm512_cvtepi32_ps(dots), scale));
            }
        }
    }
    sums
}

/// The scales of a group of a block's rows, of which it is the `idx`th.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
pub fn group_scales(scales: &[u16], idx: usize) -> __m512 {
    let row_scales: &[u16; ROWS] = scales[idx * ROWS..].first_chunk().expect("padded to whole blocks");
    // SAFETY: 32 readable bytes.
    let bits = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(row_scales.as_ptr().cast()) });
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
}
