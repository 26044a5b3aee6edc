//! What a kind of core may do in its own way.

use crate::kernels::{Activation, generic};
use crate::kv_cache::ScaleFormat;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, Lanes, MatrixQ8, WeightFormat};

/// Kernels for one kind of core; a value is the proof that the machine can run them. What it does not define is [`generic`]'s.
///
/// Each has the shapes, the result and the panics of the method of [`super::Kernels`] that has its name.
pub(crate) trait Backend: Copy {
    /// The name on the command line and in reports.
    const NAME: &'static str;
    /// The layout that [`Backend::matmul_rows`] reads.
    const LAYOUT: WeightLayout;

    /// Whether [`Backend::sum_rows`] is a step of a product.
    const HAS_SUMS: bool = false;

    /// The lanes in which [`Backend::matmul_rows`] reads activations for weights of `format`.
    fn lanes(self, _format: WeightFormat) -> Lanes {
        Lanes::Bits16
    }

    /// Called only with int8 weights in [`Backend::LAYOUT`] and activations in [`Backend::lanes`].
    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>);

    fn sum_rows(self, _sums: &mut [f32], _w: &MatrixQ8<'_>, _x: &ActivationsQ8<'_>) {}

    /// [`Backend::matmul_rows`] of int4 weights.
    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        generic::matmul_rows(out, first_row, w, x);
    }

    /// [`Backend::matmul_rows`] of a matrix that is stored without its zero blocks. False where this backend has no way of its own: then what is
    /// left of each band is a product by itself.
    fn matmul_rows_sparse(
        self,
        _out: &mut [f32],
        _first_row: usize,
        _w: &MatrixQ8<'_>,
        _x: &ActivationsQ8<'_>,
    ) -> bool {
        false
    }

    fn quantize_to(self, limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
        generic::quantize_to(limit, x, values)
    }

    fn quantize_to_int8(self, x: &[f32], values: &mut [i8]) -> f32 {
        generic::quantize_to_int8(x, values)
    }

    fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        generic::score_dots(q, k, dots);
    }

    fn score_exponents(self, scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
        generic::score_exponents(scores, key_scales, per_unit)
    }

    fn softmax_weights(self, scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
        generic::softmax_weights(scores, greatest, value_scales, greatest_exponent)
    }

    fn greatest_scale(self, scales: &[u16]) -> u16 {
        generic::greatest_scale(scales)
    }

    fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
        generic::weighted_values(weights, v, sums);
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
        let total = self.softmax_weights(scores, greatest, value_scales, greatest_exponent);
        self.weighted_values(scores, v, sums);
        total
    }

    fn attend_heads(
        self,
        _out: &mut [f32],
        _q: &[f32],
        _temperature: f32,
        _keys: (&[i8], &[u16]),
        _values: (&[i8], &[u16]),
        _scores: &mut [i32],
    ) -> bool {
        false
    }

    fn scale_integers(self, out: &mut [f32], sums: &[i32], factor: f32) {
        generic::scale_integers(out, sums, factor);
    }

    fn store(self, x: &[f32], values: &mut [i8], scales: ScaleFormat) -> u16 {
        generic::store(x, values, scales)
    }

    fn unpack_ue5m3(self, scales: &[u8], unpacked: &mut [u16]) {
        generic::unpack_ue5m3(scales, unpacked);
    }

    fn rmsnorm(self, out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
        generic::rmsnorm(out, x, gain, eps);
    }

    fn layernorm(self, out: &mut [f32], x: &[f32], gain: &[f32], bias: &[f32], eps: f32) {
        generic::layernorm(out, x, gain, bias, eps);
    }

    fn activate(self, activation: Activation, x: &mut [f32]) {
        generic::activate(activation, x);
    }

    fn multiply(self, x: &mut [f32], y: &[f32]) {
        generic::multiply(x, y);
    }

    fn recur(self, state: &mut [f32], input: &[f32], recurrent: &[f32]) {
        generic::recur(state, input, recurrent);
    }

    fn swiglu(self, out: &mut [f32], gate: &[f32], up: &[f32]) {
        generic::swiglu(out, gate, up);
    }

    fn rotate(self, x: &mut [f32], cos_sin: &[f32]) {
        generic::rotate(x, cos_sin);
    }

    fn rotate_heads(self, x: &mut [f32], cos_sin: &[f32]) {
        for head in x.chunks_mut(cos_sin.len().max(1)) {
            self.rotate(head, cos_sin);
        }
    }

    fn greatest_bits(self, x: &[f32]) -> i32 {
        generic::greatest_bits(x)
    }

    fn add(self, x: &mut [f32], y: &[f32]) {
        generic::add(x, y);
    }
}
