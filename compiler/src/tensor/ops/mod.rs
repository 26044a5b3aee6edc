//! The operations of models, each with its way back, as methods of [`Graph`](super::Graph).

mod activation;
mod add;
mod attention;
mod beside;
mod cross_entropy;
mod dropout;
mod embedding;
mod gru;
mod kl_divergence;
mod layer_norm;
mod linear;
mod output_matrix;
mod rms_norm;
mod rows;

pub use activation::Activation;
pub(crate) use attention::bucket;
pub use attention::{AttentionInputs, AttentionShape, Mask, RelativeBias, RopeTable};
pub use beside::{Dora, FirstRows};
pub use cross_entropy::{CrossEntropy, LossSums};

#[cfg(test)]
mod gradient_check;
