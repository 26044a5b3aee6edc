//! The operations of a Llama-family model, each with its way back, as methods of [`Graph`](super::Graph).

mod add;
mod attention;
mod attention_kernel;
mod cross_entropy;
mod embedding;
mod linear;
mod rms_norm;
mod swiglu;

pub use attention::{AttentionShape, RopeTable};

#[cfg(test)]
mod gradient_check;
