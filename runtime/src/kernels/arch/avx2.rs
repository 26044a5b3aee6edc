//! x86-64 with AVX2: lanes are the 8 rows of a block of [`WeightLayout::Rows8`].
//!
//! Two columns of a block are one 16-byte load, widened to 16 bits; the two activations are broadcast to every lane, and
//! `vpmaddwd` adds both products in each: no horizontal sums, and nothing can saturate.

mod int4;

use core::arch::x86_64::*;

use crate::kernels::backend::Backend;
use crate::kernels::generic;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, Lanes, MatrixQ8, Scales, WeightFormat};

/// Tokens that share one pass over the weights, as many as accumulators fit in registers.
const TOKENS: usize = 4;

/// Proof that the running CPU has AVX2.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, where the CPU has it.
    pub fn detect() -> Option<Self> {
        extern crate std;
        std::is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Backend for Avx2 {
    const NAME: &'static str = "avx2";
    const LAYOUT: WeightLayout = WeightLayout::Rows8;

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        let n_rows = out.len() / x.n_tokens().max(1);
        let mut token_idx = 0;
        while token_idx < x.n_tokens() {
            // SAFETY: a value of `Avx2` exists only where `detect` saw the feature.
            unsafe {
                if x.n_tokens() - token_idx >= TOKENS {
                    matmul_tokens::<TOKENS>(out, n_rows, first_row, token_idx, w, x);
                    token_idx += TOKENS;
                } else {
                    matmul_tokens::<1>(out, n_rows, first_row, token_idx, w, x);
                    token_idx += 1;
                }
            }
        }
    }

    fn lanes(self, format: WeightFormat) -> Lanes {
        if format == WeightFormat::Int4G32 { Lanes::Bits8 } else { Lanes::Bits16 }
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        // SAFETY: a value of `Avx2` exists only where `detect` saw the feature.
        unsafe { int4::matmul_rows(out, first_row, w, x) }
    }

    fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        if !q.len().is_multiple_of(16) {
            return generic::score_dots(q, k, dots);
        }
        // SAFETY: as above.
        unsafe { score_dots(q, k, dots) }
    }

    fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
        // SAFETY: as above.
        unsafe { weighted_values(weights, v, sums) }
    }
}

/// All rows for `T` tokens from `token_idx`.
#[target_feature(enable = "avx2")]
fn matmul_tokens<const T: usize>(
    out: &mut [f32],
    n_rows: usize,
    first_row: usize,
    token_idx: usize,
    w: &MatrixQ8<'_>,
    x: &ActivationsQ8<'_>,
) {
    let block_bytes = 8 * w.cols().next_multiple_of(2);
    let values: [&[i16]; T] = core::array::from_fn(|t| x.values(token_idx + t));
    let x_scales: [&[f32]; T] = core::array::from_fn(|t| x.scales(token_idx + t));
    for block in 0..n_rows.div_ceil(8) {
        let block_idx = first_row / 8 + block;
        let data = &w.data()[block_idx * block_bytes..][..block_bytes];
        let sums = match w.scales() {
            Scales::PerRow(scales) => {
                let scales = load_f32(&scales[block_idx * 8..]);
                let dots = block_dots(data, values);
                core::array::from_fn(|t| {
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x_scales[t][0]));
                    _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t]), scale)
                })
            }
            Scales::PerGroup(scales) => {
                let n_groups = w.cols().div_ceil(GROUP_SIZE);
                grouped_sums(data, &scales[block_idx * 8 * n_groups..][..8 * n_groups], values, x_scales)
            }
        };
        for (t, sums) in sums.into_iter().enumerate() {
            let row = block * 8;
            let out = &mut out[(token_idx + t) * n_rows..(token_idx + t + 1) * n_rows];
            let n = (n_rows - row).min(8);
            let mut lanes = [0.0f32; 8];
            // SAFETY: `lanes` holds the 32 bytes that are stored.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums) };
            out[row..row + n].copy_from_slice(&lanes[..n]);
        }
    }
}

/// Sums over the groups of a block, in f32, in order.
#[target_feature(enable = "avx2")]
#[inline]
fn grouped_sums<const T: usize>(
    data: &[u8],
    scales: &[u16],
    values: [&[i16]; T],
    x_scales: [&[f32]; T],
) -> [__m256; T] {
    let mut sums = [_mm256_set1_ps(-0.0); T];
    for (group, data) in data.chunks(8 * GROUP_SIZE).enumerate() {
        let first = group * GROUP_SIZE;
        let dots = block_dots(data, values.map(|values| &values[first..]));
        let scales = load_bf16(&scales[group * 8..]);
        for t in 0..T {
            let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x_scales[t][group]));
            sums[t] = _mm256_add_ps(sums[t], _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t]), scale));
        }
    }
    sums
}

/// Dot products of 8 rows, `data` being `(columns / 2, 8, 2)`, with the first columns of each token's `values`.
#[target_feature(enable = "avx2")]
#[inline]
fn block_dots<const T: usize>(data: &[u8], values: [&[i16]; T]) -> [__m256i; T] {
    let (pairs, _) = data.as_chunks::<16>();
    let values = values.map(|values| &values.as_chunks::<2>().0[..pairs.len()]);
    let mut dots = [_mm256_setzero_si256(); T];
    for (i, pair) in pairs.iter().enumerate() {
        // SAFETY: `pair` is 16 readable bytes.
        let weights = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(pair.as_ptr().cast()) });
        for t in 0..T {
            let [low, high] = values[t][i];
            let both = _mm256_set1_epi32(i32::from(low as u16) | (i32::from(high) << 16));
            dots[t] = _mm256_add_epi32(dots[t], _mm256_madd_epi16(weights, both));
        }
    }
    dots
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_f32(scales: &[f32]) -> __m256 {
    let scales: &[f32; 8] = scales.first_chunk().expect("scales are padded to whole blocks");
    // SAFETY: `scales` is 32 readable bytes.
    unsafe { _mm256_loadu_ps(scales.as_ptr()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_bf16(scales: &[u16]) -> __m256 {
    let scales: &[u16; 8] = scales.first_chunk().expect("scales are padded to whole blocks");
    // SAFETY: `scales` is 16 readable bytes.
    let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(scales.as_ptr().cast()) });
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
}

/// For heads of whole vectors of 16.
#[target_feature(enable = "avx2")]
fn score_dots(q: &[i16], k: &[i8], dots: &mut [i32]) {
    let (q, _) = q.as_chunks::<16>();
    for (dot, k) in dots.iter_mut().zip(k.chunks_exact(16 * q.len())) {
        let mut sum = _mm256_setzero_si256();
        for (q, k) in q.iter().zip(k.as_chunks::<16>().0) {
            // SAFETY: `k` is 16 readable bytes and `q` is 32.
            let (k, q) = unsafe { (_mm_loadu_si128(k.as_ptr().cast()), _mm256_loadu_si256(q.as_ptr().cast())) };
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(k), q));
        }
        let halves = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let quarters = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b01_00_11_10>(halves));
        let whole = _mm_add_epi32(quarters, _mm_shuffle_epi32::<0b10_11_00_01>(quarters));
        *dot = _mm_cvtsi128_si32(whole);
    }
}

/// The generic loop, compiled for AVX2: its inner loop is over lanes already.
#[target_feature(enable = "avx2")]
fn weighted_values(weights: &[i32], v: &[i8], sums: &mut [i32]) {
    generic::weighted_values(weights, v, sums);
}
