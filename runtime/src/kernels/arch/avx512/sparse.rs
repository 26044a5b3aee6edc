//! Products of bytes with matrices that are stored without their zero blocks: a band is one tile high.
//!
//! As in [`matmul`](super::matmul), but what is subtracted for the weights' offset of 128 is summed once a block, not in every band, and the
//! tiles of one band go to several chains of sums, since a chain waits for each of its products.

#![allow(clippy::needless_range_loop, reason = "an index goes through several arrays of registers")]

use core::arch::x86_64::*;

use super::matmul::{COLUMNS, ROWS, TILE, four, unsigned};
use crate::tensor::{ActivationsQ8, BLOCK_COLS, Band, MatrixQ8, Scales};

/// Most blocks of a row. Of wider matrices, and of those with a scale a group, bands are products by themselves.
const BLOCKS_MAX: usize = 512;
/// Tiles of a block.
const BLOCK_TILES: usize = BLOCK_COLS / COLUMNS;

/// See [`crate::kernels::Kernels::matmul_rows_sparse`]. False where it does nothing.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) -> bool {
    let n_rows = out.len() / x.n_tokens().max(1);
    let Scales::PerRow(_) = w.scales() else { return false };
    if n_rows == 0 || w.cols().div_ceil(BLOCK_COLS) > BLOCKS_MAX {
        return false;
    }
    let mut token = 0;
    while token < x.n_tokens() {
        token += match x.n_tokens() - token {
            4.. => tokens::<4, 2>(out, n_rows, first_row, w, x, token),
            _ => tokens::<1, 4>(out, n_rows, first_row, w, x, token),
        };
    }
    true
}

/// All rows for `T` tokens from `token`, in `C` chains of sums for each; gives `T`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tokens<const T: usize, const C: usize>(
    out: &mut [f32],
    n_rows: usize,
    first_row: usize,
    w: &MatrixQ8<'_>,
    x: &ActivationsQ8<'_>,
    token: usize,
) -> usize {
    let mut values: [&[[i8; COLUMNS]]; T] = [&[]; T];
    let mut offsets = [[0; BLOCKS_MAX]; T];
    let mut x_scales = [_mm512_setzero_ps(); T];
    for t in 0..T {
        let bytes = x.bytes(token + t);
        values[t] = bytes.as_chunks().0;
        for (offset, block) in offsets[t].iter_mut().zip(bytes.chunks(BLOCK_COLS)) {
            *offset = 128 * block.iter().map(|&x| i32::from(x)).sum::<i32>();
        }
        x_scales[t] = _mm512_set1_ps(x.scales(token + t)[0]);
    }
    for first in (0..n_rows).step_by(ROWS) {
        let Some(band) = w.band((first_row + first) / ROWS) else { break };
        let dots = band_dots::<T, C>(&band, &values, &offsets);
        let Scales::PerRow(scales) = band.matrix.scales() else { break };
        let scales: &[f32; ROWS] = scales.first_chunk().expect("padded to whole blocks");
        for t in 0..T {
            // SAFETY: 16 readable floats.
            let scale = _mm512_mul_ps(unsafe { _mm512_loadu_ps(scales.as_ptr()) }, x_scales[t]);
            let sums = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[t]), scale);
            let out = &mut out[(token + t) * n_rows + first..][..band.matrix.rows().min(n_rows - first)];
            // SAFETY: the mask has a bit for each element of `out`, of which there are at most 16.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), ((1u32 << out.len()) - 1) as __mmask16, sums) };
        }
    }
    T
}

/// A band's exact sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn band_dots<const T: usize, const C: usize>(
    band: &Band<'_>,
    values: &[&[[i8; COLUMNS]]; T],
    offsets: &[[i32; BLOCKS_MAX]; T],
) -> [__m512i; T] {
    let mut rest = band.matrix.data().as_chunks::<TILE>().0;
    let mut chains = [[_mm512_setzero_si512(); C]; T];
    let mut offset = [0; T];
    for run in band.runs() {
        let columns = run.start * BLOCK_TILES..values[0].len().min(run.end * BLOCK_TILES);
        let (tiles, later) = rest.split_at(columns.len());
        rest = later;
        for t in 0..T {
            offset[t] += offsets[t][run.clone()].iter().sum::<i32>();
        }
        let (whole, last) = tiles.as_chunks::<C>();
        let mut column = columns.start;
        for tiles in whole {
            for c in 0..C {
                let weights = unsigned(&tiles[c]);
                for t in 0..T {
                    chains[t][c] = _mm512_dpbusd_epi32(chains[t][c], weights, four(values[t][column + c]));
                }
            }
            column += C;
        }
        for (c, tile) in last.iter().enumerate() {
            for t in 0..T {
                chains[t][0] = _mm512_dpbusd_epi32(chains[t][0], unsigned(tile), four(values[t][column + c]));
            }
        }
    }
    let mut dots = [_mm512_setzero_si512(); T];
    for t in 0..T {
        let sum = chains[t].iter().fold(_mm512_setzero_si512(), |sum, &chain| _mm512_add_epi32(sum, chain));
        dots[t] = _mm512_sub_epi32(sum, _mm512_set1_epi32(offset[t]));
    }
    dots
}
