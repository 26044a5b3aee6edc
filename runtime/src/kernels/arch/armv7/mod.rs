//! ARMv7-A with NEON, on Linux: a Raspberry Pi 2, or a later one with a 32-bit system.
//!
//! Vectors of integers only: NEON's floats flush subnormal numbers to zero, the scalar ones of VFP do not. The compiler has no stable
//! intrinsics for this architecture, nor a feature to switch NEON on for a function, so that all of it is assembly, which restores what
//! vector registers the compiler may use unseen.

mod attention;
mod int4;
mod matmul;

use std::fs;
use std::sync::OnceLock;

use crate::kernels::backend::Backend;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, Lanes, MatrixQ8, WeightFormat};

extern crate std;

/// Proof that the running CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon32(());

impl Neon32 {
    /// The proof, where the kernel says that the CPU has it.
    pub fn detect() -> Option<Self> {
        static HAS_NEON: OnceLock<bool> = OnceLock::new();
        let has_neon = *HAS_NEON.get_or_init(|| fs::read("/proc/self/auxv").is_ok_and(|entries| says_neon(&entries)));
        has_neon.then_some(Self(()))
    }
}

/// Whether the entries that the kernel gives a process, pairs of words, have NEON among the capabilities.
fn says_neon(entries: &[u8]) -> bool {
    const CAPABILITIES: [u8; 4] = 16u32.to_ne_bytes();
    const NEON: u32 = 1 << 12;
    let (words, _) = entries.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().any(|&[kind, value]| kind == CAPABILITIES && u32::from_ne_bytes(value) & NEON != 0)
}

impl Backend for Neon32 {
    const NAME: &'static str = "neon32";
    const LAYOUT: WeightLayout = WeightLayout::Rows16;

    fn lanes(self, format: WeightFormat) -> Lanes {
        match format {
            WeightFormat::Int8 | WeightFormat::Int4G32 => Lanes::Bits8,
            WeightFormat::Int8G32 => Lanes::Bits16,
        }
    }

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        matmul::matmul_rows(self, out, first_row, w, x);
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        int4::matmul_rows(self, out, first_row, w, x);
    }

    fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        attention::score_dots(self, q, k, dots);
    }

    fn softmax_weights(self, scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
        attention::softmax_weights(self, scores, greatest, value_scales, greatest_exponent)
    }

    fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
        attention::weighted_values(self, weights, v, sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_found_among_the_entries() {
        let entries = |pairs: &[[u32; 2]]| -> std::vec::Vec<u8> {
            pairs.iter().flatten().flat_map(|word| word.to_ne_bytes()).collect()
        };
        assert!(says_neon(&entries(&[[6, 4096], [16, 1 << 12 | 1], [0, 0]])));
        assert!(!says_neon(&entries(&[[6, 1 << 12], [16, !(1 << 12)], [0, 0]])));
        assert!(!says_neon(&[16, 0, 0]));
    }
}
