//! RISC-V with V (vectors of at least 128 bits) and an FPU: sixteen rows are the lanes.
//!
//! The compiler need not know V: every kernel is assembly that sets its own vector length. The start-up code has switched the unit on, and
//! left rounding to nearest even.

mod attention;
mod elementwise;
mod int4;
mod matmul;

use crate::kernels::backend::Backend;
use crate::kernels::generic;
use crate::layout::WeightLayout;
use crate::tensor::{self, ActivationsQ8, MatrixQ8};

/// Proof that the target has V: the feature that compiles this file says so.
#[derive(Clone, Copy, Debug)]
pub struct RiscvV(());

impl RiscvV {
    /// The proof. The build promised V with registers of 128 bits or more by the feature `riscv-v`.
    pub fn new() -> Self {
        Self(())
    }
}

impl Backend for RiscvV {
    const NAME: &'static str = "riscv-v";
    const LAYOUT: WeightLayout = WeightLayout::Rows16;

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        matmul::matmul_rows(out, first_row, w, x);
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        int4::matmul_rows(out, first_row, w, x);
    }

    fn quantize_to(self, limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
        require!(x.len() == values.len());
        let (scale, inverse) = tensor::scale_to(limit, elementwise::magnitude_bits(x));
        // SAFETY: they are as long.
        unsafe { elementwise::round_scaled(inverse, x.as_ptr(), values.as_mut_ptr(), x.len()) };
        scale
    }

    fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        if q.is_empty() || dots.is_empty() {
            return generic::score_dots(q, k, dots);
        }
        require!(k.len() == dots.len() * q.len());
        // SAFETY: `k` holds a key for each of the dots, which are not none.
        unsafe { attention::score_dots(q, k.as_ptr(), dots) };
    }

    fn score_exponents(self, scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
        require!(scores.len() == key_scales.len());
        if scores.is_empty() {
            return i32::MIN;
        }
        let (mantissa, right_of_zero) = generic::fixed_point(per_unit);
        // SAFETY: there are as many scales as scores, and not none.
        let (n, greatest) = unsafe { attention::score_exponents(scores, key_scales, mantissa, right_of_zero) };
        greatest.max(generic::score_exponents(&mut scores[n..], &key_scales[n..], per_unit))
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
        if sums.is_empty() || weights.is_empty() {
            return generic::weighted_values(weights, v, sums);
        }
        require!(v.len() == weights.len() * sums.len());
        // SAFETY: `v` holds a value for each of the weights, which are not none.
        unsafe { attention::weighted_values(weights, v.as_ptr(), sums) };
    }

    fn scale_integers(self, out: &mut [f32], sums: &[i32], factor: f32) {
        require!(out.len() == sums.len());
        // SAFETY: they are as long.
        unsafe { elementwise::scale_integers(out, sums.as_ptr(), factor) };
    }

    fn add(self, x: &mut [f32], y: &[f32]) {
        require!(y.len() >= x.len());
        // SAFETY: there are no fewer of `y`.
        unsafe { elementwise::add(x, y.as_ptr()) };
    }
}
