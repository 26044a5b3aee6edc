//! `[model]`: the shape of the model.

use serde::{Deserialize, Serialize};

/// `[model]`: a Llama; the vocabulary's size is the tokenizer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward block's hidden layer.
    pub hidden_dim: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions in a training window and in the finished model.
    pub context_len: usize,
    /// Added to the mean square inside the root of every norm.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f32,
    /// Whether the output head is the embedding matrix.
    #[serde(default = "default_true")]
    pub tied_head: bool,
}

fn default_norm_eps() -> f32 {
    1e-5
}
fn default_rope_theta() -> f32 {
    10_000.0
}
fn default_true() -> bool {
    true
}
