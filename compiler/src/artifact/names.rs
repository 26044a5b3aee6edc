//! Hugging Face's names of a Llama model's weights, and the shapes that a configuration gives them.

use std::collections::BTreeMap;

use siskin_runtime::ModelConfig;

/// Token embedding, `[vocab_size, dim]`.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Gain of the last norm, `[dim]`.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Output head, `[vocab_size, dim]`; absent where it is tied to the embedding.
pub const OUTPUT_HEAD: &str = "lm_head.weight";

/// Part of a block: gain of the norm before attention, `[dim]`.
pub const ATTENTION_NORM: &str = "input_layernorm";
/// Part of a block: query projection, `[n_heads * head_dim, dim]`.
pub const Q_PROJ: &str = "self_attn.q_proj";
/// Part of a block: key projection, `[n_kv_heads * head_dim, dim]`.
pub const K_PROJ: &str = "self_attn.k_proj";
/// Part of a block: value projection, `[n_kv_heads * head_dim, dim]`.
pub const V_PROJ: &str = "self_attn.v_proj";
/// Part of a block: attention's output projection, `[dim, n_heads * head_dim]`.
pub const O_PROJ: &str = "self_attn.o_proj";
/// Part of a block: gain of the norm before the feed-forward block, `[dim]`.
pub const MLP_NORM: &str = "post_attention_layernorm";
/// Part of a block: gate projection, `[hidden_dim, dim]`.
pub const GATE_PROJ: &str = "mlp.gate_proj";
/// Part of a block: up projection, `[hidden_dim, dim]`.
pub const UP_PROJ: &str = "mlp.up_proj";
/// Part of a block: down projection, `[dim, hidden_dim]`.
pub const DOWN_PROJ: &str = "mlp.down_proj";

/// Full name of `part` (one of the constants above) of block `layer_idx`.
pub fn layer(layer_idx: usize, part: &str) -> String {
    format!("model.layers.{layer_idx}.{part}.weight")
}

/// Every part of a block and its shape.
pub fn layer_shapes(config: &ModelConfig) -> [(&'static str, Vec<usize>); 9] {
    let (dim, hidden_dim, q_dim, kv_dim) = (config.dim, config.hidden_dim, config.q_dim(), config.kv_dim());
    [
        (ATTENTION_NORM, vec![dim]),
        (Q_PROJ, vec![q_dim, dim]),
        (K_PROJ, vec![kv_dim, dim]),
        (V_PROJ, vec![kv_dim, dim]),
        (O_PROJ, vec![dim, q_dim]),
        (MLP_NORM, vec![dim]),
        (GATE_PROJ, vec![hidden_dim, dim]),
        (UP_PROJ, vec![hidden_dim, dim]),
        (DOWN_PROJ, vec![dim, hidden_dim]),
    ]
}

/// Every weight of a model and its shape.
pub fn expected_shapes(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    shapes.insert(EMBEDDING.to_owned(), vec![config.vocab_size, config.dim]);
    shapes.insert(FINAL_NORM.to_owned(), vec![config.dim]);
    if !config.tied_head {
        shapes.insert(OUTPUT_HEAD.to_owned(), vec![config.vocab_size, config.dim]);
    }
    for layer_idx in 0..config.n_layers {
        for (part, shape) in layer_shapes(config) {
            shapes.insert(layer(layer_idx, part), shape);
        }
    }
    shapes
}
