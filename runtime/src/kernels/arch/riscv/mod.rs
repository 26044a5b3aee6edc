//! RISC-V with multiplication, and neither FPU nor vectors (RV32IMC): sixteen rows at a time, f32 in integers.

mod attention;
mod dots;
mod int4;
mod matmul;
mod quantize;
mod scale;

use crate::kernels::backend::Backend;
use crate::kernels::{generic, soft_float};
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, MatrixQ8};

/// Proof that the target is RV32: nothing else compiles this file.
#[derive(Clone, Copy, Debug)]
pub struct RiscvScalar(());

impl RiscvScalar {
    /// The proof. Multiplication is promised by the feature `riscv-scalar`.
    pub fn new() -> Self {
        Self(())
    }
}

impl Backend for RiscvScalar {
    const NAME: &'static str = "riscv-scalar";
    const LAYOUT: WeightLayout = WeightLayout::Rows16;
    const HAS_SUMS: bool = true;

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        matmul::matmul_rows(out, first_row, w, x);
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        int4::matmul_rows(out, first_row, w, x);
    }

    fn sum_rows(self, sums: &mut [f32], w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        matmul::dot_rows(sums, w.data(), x.values(0));
    }

    soft_float::float_kernels!(quantize::quantize_to);

    fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        let (pieces, rest) = q.as_chunks::<8>();
        if !rest.is_empty() || pieces.is_empty() || dots.is_empty() {
            return generic::score_dots(q, k, dots);
        }
        require!(k.len() == dots.len() * q.len());
        for (piece_idx, piece) in pieces.iter().enumerate() {
            // SAFETY: `k` holds `dots.len()` rows of `q.len()`, of which this is the piece that starts at `8 * piece_idx`.
            unsafe {
                attention::score_piece(piece, k.as_ptr().wrapping_add(8 * piece_idx), q.len(), dots, piece_idx == 0)
            };
        }
    }

    fn score_exponents(self, scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
        require!(scores.len() == key_scales.len());
        if scores.is_empty() {
            return i32::MIN;
        }
        let (mantissa, right_of_zero) = generic::fixed_point(per_unit);
        // SAFETY: there are as many scales as scores, and not none.
        unsafe { attention::score_exponents(scores, key_scales, mantissa, right_of_zero) }
    }

    fn softmax_weights(self, scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
        require!(scores.len() == value_scales.len());
        if scores.is_empty() {
            return 0;
        }
        // SAFETY: there are as many scales as scores, and not none.
        unsafe { attention::softmax_weights(scores, greatest, value_scales, greatest_exponent) }
    }

    fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
        let head_dim = sums.len();
        let (pieces, rest) = sums.as_chunks_mut::<8>();
        if !rest.is_empty() || weights.is_empty() {
            return generic::weighted_values(weights, v, sums);
        }
        require!(v.len() == weights.len() * head_dim);
        for (piece_idx, piece) in pieces.iter_mut().enumerate() {
            // SAFETY: `v` holds `weights.len()` rows of `head_dim`, of which this is the piece that starts at
            // `8 * piece_idx`.
            unsafe { attention::value_piece(weights, v.as_ptr().wrapping_add(8 * piece_idx), head_dim, piece) };
        }
    }
}
