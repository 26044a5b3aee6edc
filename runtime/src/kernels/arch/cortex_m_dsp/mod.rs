//! Cortex-M with the DSP extension and an FPU (M4F, M7, M33): dual 16-bit multiply-accumulates.

mod attention;
mod int4;
mod matmul;
mod quantize;

use crate::cut::Cut;
use crate::kernels::backend::Backend;
use crate::kernels::generic;
use crate::known;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, MatrixQ8};

/// Proof that the target has DSP instructions: the feature that compiles this file says so.
#[derive(Clone, Copy, Debug)]
pub struct CortexMDsp(());

impl CortexMDsp {
    /// The proof. The build promised the instructions by the feature `cortex-m-dsp`.
    pub fn new() -> Self {
        Self(())
    }
}

impl Backend for CortexMDsp {
    const NAME: &'static str = "cortex-m-dsp";
    const LAYOUT: WeightLayout = WeightLayout::RowPairs;

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        matmul::matmul_rows(out, first_row, w, x);
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        int4::matmul_rows(out, first_row, w, x);
    }

    fn quantize_to(self, limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
        quantize::quantize_to(limit, x, values)
    }

    fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        let (pieces, rest) = q.as_chunks::<8>();
        if !rest.is_empty() || pieces.is_empty() || dots.is_empty() {
            return generic::score_dots(q, k, dots);
        }
        require!(k.len() == dots.len() * q.len());
        if let ([q], true) = (pieces, k.as_ptr().addr().is_multiple_of(4)) {
            let (pairs, last) = dots.as_chunks_mut::<2>();
            if !pairs.is_empty() {
                // SAFETY: `k` starts at a whole word and has 8 bytes for each of the dots.
                unsafe { attention::score_pairs_of_eights(q, k.as_ptr(), pairs) };
            }
            return generic::score_dots(q, k.cut(16 * pairs.len()..), last);
        }
        // Such heads lie in whole words.
        if known::head_dim() == Some(8) {
            return;
        }
        for (piece_idx, piece) in pieces.iter().enumerate() {
            // SAFETY: `k` holds `dots.len()` rows of `q.len()`, of which this is the piece that starts at `8 * piece_idx`.
            unsafe {
                attention::score_piece(piece, k.as_ptr().wrapping_add(8 * piece_idx), q.len(), dots, piece_idx == 0)
            };
        }
    }

    fn score_exponents(self, scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
        require!(scores.len() == key_scales.len());
        let (pairs, last) = scores.as_chunks_mut::<2>();
        let (pair_scales, last_scale) = key_scales.parts(2 * pairs.len());
        let greatest = generic::score_exponents(last, last_scale, per_unit);
        if pairs.is_empty() {
            return greatest;
        }
        let (mantissa, right_of_zero) = generic::fixed_point(per_unit);
        // SAFETY: there are as many scales as scores, and not none.
        greatest.max(unsafe { attention::score_exponents(pairs, pair_scales, mantissa, right_of_zero) })
    }

    fn softmax_weights(self, scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
        require!(scores.len() == value_scales.len());
        // Scales of 2^119 and more would want shifts that a register's byte does not hold.
        if scores.is_empty() || greatest_exponent > 246 {
            return generic::softmax_weights(scores, greatest, value_scales, greatest_exponent);
        }
        // SAFETY: the assertion and the condition are what it asks for.
        unsafe { attention::softmax_weights(scores, greatest, value_scales, greatest_exponent) }
    }

    fn greatest_scale(self, scales: &[u16]) -> u16 {
        let (pairs, last) = scales.as_chunks::<2>();
        if pairs.is_empty() || !scales.as_ptr().addr().is_multiple_of(4) {
            return generic::greatest_scale(scales);
        }
        // SAFETY: they start at a whole word and are not none.
        generic::greatest_scale(last).max(unsafe { attention::greatest_scale(pairs) })
    }

    fn unpack_ue5m3(self, scales: &[u8], unpacked: &mut [u16]) {
        let n_whole = scales.len().min(unpacked.len()) & !3;
        let (scales, last) = scales.split_at(n_whole);
        let (whole, rest) = unpacked.split_at_mut(n_whole);
        generic::unpack_ue5m3(last, rest);
        if n_whole == 0 || !whole.as_ptr().addr().is_multiple_of(4) {
            return generic::unpack_ue5m3(scales, whole);
        }
        // SAFETY: `whole` starts at a whole word and has as many elements as `scales`, in fours, which are some.
        unsafe { attention::unpack_ue5m3(scales.as_chunks().0, whole.as_chunks_mut().0) };
    }

    fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
        let head_dim = sums.len();
        let (pieces, rest) = sums.as_chunks_mut::<8>();
        if !rest.is_empty() || weights.is_empty() {
            return generic::weighted_values(weights, v, sums);
        }
        require!(v.len() == weights.len() * head_dim);
        if let ([sums], true) = (&mut *pieces, v.as_ptr().addr().is_multiple_of(4)) {
            // SAFETY: `v` starts at a whole word and has 8 bytes for each weight, of which there are some.
            return unsafe { attention::values_of_eights(weights, v.as_ptr(), sums) };
        }
        if known::head_dim() == Some(8) {
            return;
        }
        for (piece_idx, piece) in pieces.iter_mut().enumerate() {
            // SAFETY: `v` holds `weights.len()` rows of `head_dim`, of which this is the piece that starts at
            // `8 * piece_idx`.
            unsafe { attention::value_piece(weights, v.as_ptr().wrapping_add(8 * piece_idx), head_dim, piece) };
        }
    }
}
