//! AArch64: NEON, which every ARMv8-A core has, and its dot-product extension.
//!
//! Both read [`WeightLayout::Rows16`]: a tile is four vectors, each of which holds four columns of four rows. `SDOT` adds four products of bytes
//! to each lane; without it, `SMULL` and `SMLAL` add two products in 16 bits, which cannot overflow, and `SADALP` carries them to 32.
//! What is not a matrix product is the same for both.

mod attention;
mod elementwise;
mod int4;
mod matmul;
mod memory;
mod neon;
mod quantize;
mod sdot;

use crate::kernels::backend::Backend;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, Lanes, MatrixQ8, WeightFormat};

/// The baseline: any ARMv8-A core, as its targets promise.
#[derive(Clone, Copy, Debug)]
pub struct Neon;

/// Proof that the running CPU has the dot-product extension.
#[derive(Clone, Copy, Debug)]
pub struct Sdot(());

impl Sdot {
    /// The proof, where the build promises the extension by the feature `aarch64-sdot`, or the CPU has it.
    pub fn detect() -> Option<Self> {
        if cfg!(any(feature = "aarch64-sdot", target_feature = "dotprod")) {
            return Some(Self(()));
        }
        #[cfg(feature = "std")]
        {
            extern crate std;
            std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
        }
        #[cfg(not(feature = "std"))]
        None
    }
}

/// What both backends do alike.
macro_rules! shared_methods {
    () => {
        const LAYOUT: WeightLayout = WeightLayout::Rows16;

        fn lanes(self, format: WeightFormat) -> Lanes {
            match format {
                WeightFormat::Int8 | WeightFormat::Int4G32 => Lanes::Bits8,
                WeightFormat::Int8G32 => Lanes::Bits16,
            }
        }

        fn quantize_to(self, limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { quantize::quantize_to(limit, x, values) }
        }

        fn quantize_to_int8(self, x: &[f32], values: &mut [i8]) -> f32 {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { quantize::quantize_to_int8(x, values) }
        }

        fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { attention::score_dots(q, k, dots) };
        }

        fn score_exponents(self, scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { attention::score_exponents(scores, key_scales, per_unit) }
        }

        fn softmax_weights(
            self,
            scores: &mut [i32],
            greatest: i32,
            value_scales: &[u16],
            greatest_exponent: u32,
        ) -> u32 {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { attention::softmax_weights(scores, greatest, value_scales, greatest_exponent) }
        }

        fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { attention::weighted_values(weights, v, sums) };
        }

        fn rmsnorm(self, out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { elementwise::rmsnorm(out, x, gain, eps) };
        }

        fn swiglu(self, out: &mut [f32], gate: &[f32], up: &[f32]) {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { elementwise::swiglu(out, gate, up) };
        }

        fn rotate(self, x: &mut [f32], cos_sin: &[f32]) {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { elementwise::rotate(x, cos_sin) };
        }

        fn add(self, x: &mut [f32], y: &[f32]) {
            // SAFETY: every AArch64 core that these targets are for has NEON.
            unsafe { elementwise::add(x, y) };
        }
    };
}

impl Backend for Neon {
    const NAME: &'static str = "neon";

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        // SAFETY: every AArch64 core that these targets are for has NEON.
        unsafe { matmul::matmul_rows(neon::Tiles, out, first_row, w, x) };
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        int4::matmul_rows(int4::Neon, out, first_row, w, x);
    }

    shared_methods!();
}

impl Backend for Sdot {
    const NAME: &'static str = "sdot";

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        // SAFETY: as above.
        unsafe { matmul::matmul_rows(sdot::Tiles::new(self), out, first_row, w, x) };
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        int4::matmul_rows(self, out, first_row, w, x);
    }

    shared_methods!();
}
