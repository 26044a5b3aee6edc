//! Tensors for training: matrices of `f32`, fused operations with gradients, and the kernels under them.
//!
//! From the bottom up: [`simd`] has eight-lane vectors for any CPU, [`gemm`] matrix products of small inner sizes, [`params`]
//! the flat buffers that parameters live in, [`tape`] reverse-mode differentiation, [`ops`] the operations of models. A pass runs on one thread; who wants more threads runs a pass for each part of the batch.
//!
//! Results are the same, bit for bit, on any CPU and in any split over threads: products and sums are fused multiply-adds in
//! an order that depends on the shapes alone. The exception is `ln`, taken from the platform, in the loss and the attention.

pub mod bf16;
mod buffer;
pub mod gemm;
pub mod ops;
mod param_grads;
pub mod params;
mod pool;
mod segments;
pub mod simd;
pub mod tape;

pub use bf16::Dtype;
pub use buffer::Buffer;
pub use param_grads::ParamGrads;
pub use params::{ParamId, ParamLayout, ParamSpec, Params, Weight, WeightMut};
pub use pool::{Narrowed, Saved, Widened};
pub use segments::Segments;
pub use tape::{Backward, Graph, Op, Tape, Var};
