//! Matrix products of int4: sixteen bytes of a block hold 8 rows by 4 columns, `w + 8`, the first two columns in the lower halves.
//!
//! A mask takes the ones, a shift and a mask the others. As unsigned bytes they are `vpmaddubsw`'s first operand, which adds two products in 16
//! bits; all of a group fit, since a vector's halves have different columns. 8 times the sum of the activations is subtracted again.

use core::arch::x86_64::*;

use super::load_bf16;
use crate::kernels::generic;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows of a block.
const ROWS: usize = 8;
/// Columns of a vector.
const COLUMNS: usize = 8;
/// Bytes of half a vector: four columns of a block.
const HALF: usize = 16;
/// Blocks that share their activations' vectors, as far as there are as many.
const BLOCKS: usize = 4;

/// See [`crate::kernels::Kernels::matmul_rows`].
#[target_feature(enable = "avx2")]
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    let Scales::PerGroup(scales) = w.scales() else { return };
    if n_rows == 0 || !first_row.is_multiple_of(ROWS) {
        return generic::matmul_rows(out, first_row, w, x);
    }
    let (block_bytes, n_groups) = (w.cols().div_ceil(4) * HALF, w.cols().div_ceil(GROUP_SIZE));
    let (data, scales) = (&w.data()[first_row / ROWS * block_bytes..], &scales[first_row * n_groups..]);
    for first in (0..n_rows).step_by(BLOCKS * ROWS) {
        let (data, scales) = (&data[first / ROWS * block_bytes..], &scales[first * n_groups..]);
        for token in 0..x.n_tokens() {
            let (bytes, x_scales) = (x.bytes(token), x.scales(token));
            let out = &mut out[token * n_rows..][..n_rows][first..];
            match out.len().div_ceil(ROWS) {
                1 => blocks::<1>(out, data, scales, bytes, x_scales),
                2 => blocks::<2>(out, data, scales, bytes, x_scales),
                3 => blocks::<3>(out, data, scales, bytes, x_scales),
                _ => blocks::<BLOCKS>(out, data, scales, bytes, x_scales),
            }
        }
    }
}

/// One token's outputs of the first `B` blocks, or as many rows of them as `out` has: in f32, group after group.
#[target_feature(enable = "avx2")]
#[inline]
fn blocks<const B: usize>(out: &mut [f32], data: &[u8], scales: &[u16], x: &[i8], x_scales: &[f32]) {
    let (block_bytes, n_groups) = (x.len() / 4 * HALF, x_scales.len());
    let mut sums = [_mm256_set1_ps(-0.0); B];
    for (group, (x, &x_scale)) in x.chunks(GROUP_SIZE).zip(x_scales).enumerate() {
        let first = group * (GROUP_SIZE / 4 * HALF);
        let data: [&[u8]; B] = core::array::from_fn(|b| &data[b * block_bytes + first..][..x.len() / 4 * HALF]);
        for (b, dots) in group_dots(data, x).into_iter().enumerate() {
            let scale = load_bf16(&scales[(b * n_groups + group) * ROWS..]);
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x_scale));
            sums[b] = _mm256_add_ps(sums[b], _mm256_mul_ps(_mm256_cvtepi32_ps(dots), scale));
        }
    }
    for (out, sums) in out.chunks_mut(ROWS).zip(sums) {
        let mut lanes = [0.0f32; ROWS];
        // SAFETY: `lanes` holds the 32 bytes that are stored.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums) };
        out.copy_from_slice(&lanes[..out.len()]);
    }
}

/// The dot products of a group's columns of each block with `x`, whole fours and at most a group.
#[target_feature(enable = "avx2")]
#[inline]
fn group_dots<const B: usize>(data: [&[u8]; B], x: &[i8]) -> [__m256i; B] {
    let (mut sums, mut offsets) = ([_mm256_setzero_si256(); B], _mm256_setzero_si256());
    let (low, eight) = (_mm256_set1_epi8(15), _mm256_set1_epi8(8));
    // Columns 0 and 1, and in the upper half 4 and 5; then 2 and 3, 6 and 7.
    let first =
        _mm256_setr_epi64x(0x0100_0100_0100_0100, 0x0100_0100_0100_0100, 0x0504_0504_0504_0504, 0x0504_0504_0504_0504);
    let second = _mm256_add_epi8(first, _mm256_set1_epi8(2));
    let add = |sum, w, x| _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
    for (at, x) in x.chunks(COLUMNS).enumerate() {
        let mut eight_bytes = [0; COLUMNS];
        eight_bytes[..x.len()].copy_from_slice(x);
        let x = _mm256_set1_epi64x(i64::from_le_bytes(eight_bytes.map(|x: i8| x as u8)));
        let (x, next) = (_mm256_shuffle_epi8(x, first), _mm256_shuffle_epi8(x, second));
        offsets = add(add(offsets, eight, x), eight, next);
        for (sum, data) in sums.iter_mut().zip(data) {
            let weights = two_halves(&data[at * 2 * HALF..]);
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(weights), low);
            *sum = add(add(*sum, _mm256_and_si256(weights, low), x), upper, next);
        }
    }
    sums.map(|sum| {
        let sum = _mm256_sub_epi16(sum, offsets);
        let halves = _mm_add_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        _mm256_cvtepi16_epi32(halves)
    })
}

/// The first 32 bytes, or 16 where there are no more, and zeros.
#[target_feature(enable = "avx2")]
#[inline]
fn two_halves(data: &[u8]) -> __m256i {
    match (data.first_chunk::<{ 2 * HALF }>(), data.first_chunk::<HALF>()) {
        // SAFETY: 32 readable bytes.
        (Some(bytes), _) => unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) },
        // SAFETY: 16 readable bytes.
        (None, Some(bytes)) => _mm256_zextsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }),
        (None, None) => _mm256_setzero_si256(),
    }
}
