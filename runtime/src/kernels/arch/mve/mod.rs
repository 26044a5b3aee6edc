//! Cortex-M with MVE ("Helium": M52, M55, M85): vectors of 128 bits, loops that count for themselves, masked tails.
//!
//! Vector floats flush numbers below the normal ones to zero, before and after each operation, and the contract forbids that. They are
//! used where such a number cannot change a result, each time with the reason, or where it shows afterwards that none was met;
//! otherwise `generic` computes it again. Scalar floats keep them.

mod activation;
mod attention;
mod elementwise;
mod heads;
mod int4;
mod matmul;
mod quantize;

use crate::kernels::backend::Backend;
use crate::kernels::{Activation, generic};
use crate::kv_cache::ScaleFormat;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, Lanes, MatrixQ8, WeightFormat};

/// Assembly that may use any vector register.
macro_rules! vector_asm {
    ($($code:tt)*) => {
        core::arch::asm!(
            $($code)*
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
            out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d12") _, out("d13") _, out("d14") _, out("d15") _,
        )
    };
}
use vector_asm;

/// Proof that the target has MVE with floats: the feature that compiles this file says so.
#[derive(Clone, Copy, Debug)]
pub struct Mve(());

impl Mve {
    /// The proof. The build promised the instructions by the feature `cortex-m-mve`.
    pub fn new() -> Self {
        Self(())
    }
}

impl Backend for Mve {
    const NAME: &'static str = "cortex-m-mve";
    const LAYOUT: WeightLayout = WeightLayout::Rows4;

    fn lanes(self, format: WeightFormat) -> Lanes {
        match format {
            WeightFormat::Int8 | WeightFormat::Int4G32 => Lanes::Bits8,
            WeightFormat::Int8G32 => Lanes::Bits16,
        }
    }

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        matmul::matmul_rows(out, first_row, w, x);
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        int4::matmul_rows(out, first_row, w, x);
    }

    fn quantize_to(self, limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
        quantize::quantize_to(limit, x, values)
    }

    fn quantize_to_int8(self, x: &[f32], values: &mut [i8]) -> f32 {
        quantize::quantize_to_int8(x, values)
    }

    fn store(self, x: &[f32], values: &mut [i8], scales: ScaleFormat) -> u16 {
        quantize::store(x, values, scales)
    }

    fn scale_integers(self, out: &mut [f32], sums: &[i32], factor: f32) {
        elementwise::scale_integers(out, sums, factor);
    }

    fn rmsnorm(self, out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
        elementwise::rmsnorm(out, x, gain, eps);
    }

    fn activate(self, activation: Activation, x: &mut [f32]) {
        activation::activate(activation, x);
    }

    fn swiglu(self, out: &mut [f32], gate: &[f32], up: &[f32]) {
        elementwise::swiglu(out, gate, up);
    }

    fn rotate(self, x: &mut [f32], cos_sin: &[f32]) {
        if x.len() == cos_sin.len() {
            elementwise::rotate_heads(x, cos_sin);
        } else {
            generic::rotate(x, cos_sin);
        }
    }

    fn rotate_heads(self, x: &mut [f32], cos_sin: &[f32]) {
        elementwise::rotate_heads(x, cos_sin);
    }

    fn greatest_bits(self, x: &[f32]) -> i32 {
        quantize::greatest_bits(x)
    }

    fn add(self, x: &mut [f32], y: &[f32]) {
        elementwise::add(x, y);
    }

    fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        attention::score_dots(q, k, dots);
    }

    fn score_exponents(self, scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
        attention::score_exponents(scores, key_scales, per_unit)
    }

    fn softmax_weights(self, scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
        attention::softmax_weights(scores, greatest, value_scales, greatest_exponent)
    }

    fn softmax_values(
        self,
        scores: &mut [i32],
        greatest: i32,
        value_scales: &[u16],
        greatest_exponent: u32,
        v: &[i8],
        sums: &mut [i32],
    ) -> u32 {
        attention::softmax_values(scores, greatest, value_scales, greatest_exponent, v, sums)
    }

    fn attend_heads(
        self,
        out: &mut [f32],
        q: &[f32],
        temperature: f32,
        keys: (&[i8], &[u16]),
        values: (&[i8], &[u16]),
        scores: &mut [i32],
    ) -> bool {
        heads::attend_heads(out, q, temperature, keys, values, scores)
    }

    fn unpack_ue5m3(self, scales: &[u8], unpacked: &mut [u16]) {
        attention::unpack_ue5m3(scales, unpacked);
    }

    fn greatest_scale(self, scales: &[u16]) -> u16 {
        attention::greatest_scale(scales)
    }

    fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
        attention::weighted_values(weights, v, sums);
    }
}
