//! x86-64 with AVX-512 and VNNI: `vpdpbusd` adds four products of bytes to each of 16 lanes, the rows of a tile of
//! [`WeightLayout::Rows16`].

mod attention;
mod elementwise;
mod int4;
mod matmul;
mod sparse;

use crate::kernels::backend::Backend;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, Lanes, MatrixQ8, WeightFormat};

/// Proof that the running CPU has AVX-512 with bytes, words and VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512 {
    /// Whether weights come from beyond the caches.
    is_far: bool,
}

impl Avx512 {
    /// The proof, where the CPU has it.
    pub fn detect() -> Option<Self> {
        extern crate std;
        let has_all = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512vnni");
        has_all.then_some(Self { is_far: false })
    }

    /// The same for weights that come from beyond the caches.
    pub fn for_far_weights(self) -> Self {
        Self { is_far: true }
    }
}

// SAFETY, for all of it: a value of `Avx512` exists only where `detect` saw the features.
impl Backend for Avx512 {
    const NAME: &'static str = "avx512";
    const LAYOUT: WeightLayout = WeightLayout::Rows16;

    fn lanes(self, format: WeightFormat) -> Lanes {
        match format {
            WeightFormat::Int8 | WeightFormat::Int4G32 => Lanes::Bits8,
            WeightFormat::Int8G32 => Lanes::TwoBytes,
        }
    }

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        // SAFETY: as above.
        unsafe { matmul::matmul_rows(out, first_row, w, x, self.is_far) }
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        // SAFETY: as above.
        unsafe { matmul::matmul_rows(out, first_row, w, x, self.is_far) }
    }

    fn matmul_rows_sparse(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) -> bool {
        // SAFETY: as above.
        unsafe { sparse::matmul_rows(out, first_row, w, x) }
    }

    fn quantize_to(self, limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
        // SAFETY: as above.
        unsafe { elementwise::quantize_to(limit, x, values) }
    }

    fn quantize_to_int8(self, x: &[f32], values: &mut [i8]) -> f32 {
        // SAFETY: as above.
        unsafe { elementwise::quantize_to_int8(x, values) }
    }

    fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        // SAFETY: as above.
        unsafe { attention::score_dots(q, k, dots) }
    }

    fn score_exponents(self, scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
        // SAFETY: as above.
        unsafe { attention::score_exponents(scores, key_scales, per_unit) }
    }

    fn softmax_weights(self, scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
        // SAFETY: as above.
        unsafe { attention::softmax_weights(scores, greatest, value_scales, greatest_exponent) }
    }

    fn greatest_scale(self, scales: &[u16]) -> u16 {
        // SAFETY: as above.
        unsafe { attention::greatest_scale(scales) }
    }

    fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
        // SAFETY: as above.
        unsafe { attention::weighted_values(weights, v, sums) }
    }

    fn rmsnorm(self, out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
        // SAFETY: as above.
        unsafe { elementwise::rmsnorm(out, x, gain, eps) }
    }

    fn swiglu(self, out: &mut [f32], gate: &[f32], up: &[f32]) {
        // SAFETY: as above.
        unsafe { elementwise::swiglu(out, gate, up) }
    }
}
