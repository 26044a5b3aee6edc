//! Conformance cases: what every backend must compute on every machine, the host and the boards.
//!
//! A case compares a backend with a plain loop written here, bit for bit, on numbers that every machine draws alike.
#![no_std]

mod attention;
mod cache;
mod elementwise;
mod functions;
mod heads;
mod matmul;
mod quantize;
mod random;
mod sampler;
mod sparse;

pub use matmul::Memory;
use siskin_runtime::Kernels;

/// The first difference that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The kernel.
    pub kernel: &'static str,
    /// What was asked of it.
    pub case: [(&'static str, usize); 4],
}

/// A family of cases. Each returns how many it ran.
pub type Family = fn(Kernels, &mut Memory) -> Result<usize, Mismatch>;

/// Every family, by the name of the kernel that it tries.
pub const FAMILIES: [(&str, Family); 10] = [
    ("quantize", quantize::check),
    ("matmul", matmul::check),
    ("sparse", sparse::check),
    ("scores", attention::check_scores),
    ("values", attention::check_values),
    ("heads", heads::check),
    ("cache", cache::check),
    ("elementwise", elementwise::check),
    ("sampler", sampler::check),
    ("functions", functions::check),
];
