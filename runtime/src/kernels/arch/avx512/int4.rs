//! Matrix products of int4: a vector holds the halves of two tiles, `w + 8` of 16 rows by 8 columns.
//!
//! A mask takes the one tile, a shift and a mask the other; as unsigned bytes they are `vpdpbusd`'s first operand as they are. 8 times the
//! sum of the activations, which one more chain adds up for all rows, is subtracted again.

#![allow(clippy::needless_range_loop, reason = "an index goes through several arrays of registers")]

use core::arch::x86_64::*;

use super::matmul::{COLUMNS, Job, block_tiles, four, group_scales, prefetch};
use crate::tensor::GROUP_SIZE;

/// Pairs of tiles of a group.
const GROUP_PAIRS: usize = GROUP_SIZE / (2 * COLUMNS);

/// Outputs of `T` tokens by `B` row blocks: in f32, group after group.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
pub fn rows_of_groups<const T: usize, const B: usize, const FAR: bool>(
    job: &Job<'_>,
    scales: &[u16],
    token: usize,
    block: usize,
) -> [[__m512; B]; T] {
    let tiles = block_tiles::<B>(job, block);
    let n_groups = job.n_tiles.div_ceil(GROUP_PAIRS);
    let mut values: [&[[i8; COLUMNS]]; T] = [&[]; T];
    let mut x_scales: [&[f32]; T] = [&[]; T];
    for t in 0..T {
        values[t] = job.x.bytes(token + t).as_chunks().0;
        x_scales[t] = &job.x.scales(token + t)[..n_groups];
    }
    let (zero, half) = (_mm512_setzero_si512(), _mm512_set1_epi8(15));
    let mut sums = [[_mm512_set1_ps(-0.0); B]; T];
    for group in 0..n_groups {
        let mut dots = [[zero; B]; T];
        let mut offsets = [zero; T];
        for pair in group * GROUP_PAIRS..((group + 1) * GROUP_PAIRS).min(job.n_tiles) {
            let (mut first, mut second) = ([zero; B], [zero; B]);
            for b in 0..B {
                // SAFETY: 64 readable bytes.
                let both = unsafe { _mm512_loadu_si512(tiles[b][pair].as_ptr().cast()) };
                first[b] = _mm512_and_si512(both, half);
                second[b] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), half);
                if FAR {
                    prefetch::<B>(&tiles[b][pair], job.n_tiles);
                }
            }
            for t in 0..T {
                let x = four(values[t][2 * pair]);
                // Activations end with a whole four, maybe within the last pair.
                let next = four(values[t].get(2 * pair + 1).copied().unwrap_or_default());
                let eight = _mm512_set1_epi8(8);
                offsets[t] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(offsets[t], eight, x), eight, next);
                for b in 0..B {
                    dots[t][b] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(dots[t][b], first[b], x), second[b], next);
                }
            }
        }
        for b in 0..B {
            let row_scales = group_scales(scales, (block + b) * n_groups + group);
            for t in 0..T {
                let scale = _mm512_mul_ps(row_scales, _mm512_set1_ps(x_scales[t][group]));
                let dots = _mm512_cvtepi32_ps(_mm512_sub_epi32(dots[t][b], offsets[t]));
                sums[t][b] = _mm512_add_ps(sums[t][b], _mm512_mul_ps(dots, scale));
            }
        }
    }
    sums
}
