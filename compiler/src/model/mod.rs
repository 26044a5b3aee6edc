//! The trainable Llama: its parameters by Hugging Face name, their first values, and the graph of a forward pass.

use crate::tensor::ops::{AttentionShape, RopeTable};
use crate::tensor::{Graph, ParamId, ParamLayout, Params, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_runtime::ModelConfig;
use std::sync::Arc;

/// Name of the token embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the last norm's gain.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name of the output head, where it is not the embedding.
pub const HEAD: &str = "lm_head.weight";

/// A decoder-only transformer of the Llama family: which parameter goes where. The numbers live in a [`Params`].
#[derive(Clone, Debug)]
pub struct Llama {
    config: ModelConfig,
    layout: ParamLayout,
    embedding: ParamId,
    layers: Vec<Layer>,
    norm: ParamId,
    head: ParamId,
    rope: Arc<RopeTable>,
}

#[derive(Clone, Copy, Debug)]
struct Layer {
    attention_norm: ParamId,
    q: ParamId,
    k: ParamId,
    v: ParamId,
    o: ParamId,
    feed_forward_norm: ParamId,
    gate: ParamId,
    up: ParamId,
    down: ParamId,
}

impl Layer {
    fn new(layout: &mut ParamLayout, config: &ModelConfig, layer_idx: usize) -> Self {
        let name = |part: &str| format!("model.layers.{layer_idx}.{part}.weight");
        let (dim, hidden_dim) = (config.dim, config.hidden_dim);
        Self {
            attention_norm: layout.vector(name("input_layernorm"), dim),
            q: layout.matrix(name("self_attn.q_proj"), config.q_dim(), dim),
            k: layout.matrix(name("self_attn.k_proj"), config.kv_dim(), dim),
            v: layout.matrix(name("self_attn.v_proj"), config.kv_dim(), dim),
            o: layout.matrix(name("self_attn.o_proj"), dim, config.q_dim()),
            feed_forward_norm: layout.vector(name("post_attention_layernorm"), dim),
            gate: layout.matrix(name("mlp.gate_proj"), hidden_dim, dim),
            up: layout.matrix(name("mlp.up_proj"), hidden_dim, dim),
            down: layout.matrix(name("mlp.down_proj"), dim, hidden_dim),
        }
    }
}

impl Llama {
    /// Lays out the parameters of a model of this shape.
    ///
    /// # Panics
    /// If the shape is not valid: see [`ModelConfig::validate`].
    pub fn new(config: &ModelConfig) -> Self {
        config.validate().expect("a validated shape");
        let mut layout = ParamLayout::default();
        let embedding = layout.matrix(EMBEDDING, config.vocab_size, config.dim);
        let layers = (0..config.n_layers).map(|layer_idx| Layer::new(&mut layout, config, layer_idx)).collect();
        let norm = layout.vector(FINAL_NORM, config.dim);
        let head = if config.tied_head { embedding } else { layout.matrix(HEAD, config.vocab_size, config.dim) };
        let rope = Arc::new(RopeTable::new(config.context_len, config.head_dim, config.rope_theta));
        Self { config: *config, layout, embedding, layers, norm, head, rope }
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Names, shapes and places of the parameters.
    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// First values: gains one; the embedding and a separate head normal with deviation 0.02; every other matrix normal with
    /// deviation `1 / sqrt(inputs)`, and those that write to the residual stream smaller by `sqrt(2 n_layers)`.
    pub fn init(&self, seed: u64) -> Params {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut params = Params::zeros(self.layout.clone());
        for spec in self.layout.specs() {
            let values = &mut params.values[spec.range.clone()];
            if spec.is_vector {
                values.fill(1.0);
                continue;
            }
            let mut deviation = 1.0 / (spec.cols as f64).sqrt();
            if spec.name == EMBEDDING || spec.name == HEAD {
                deviation = 0.02;
            } else if spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight") {
                deviation /= (2.0 * self.config.n_layers as f64).sqrt();
            }
            values.iter_mut().for_each(|value| *value = (normal(&mut rng) * deviation) as f32);
        }
        params
    }

    /// The residual stream after the last norm, `(tokens.len(), dim)`, for whole sequences of `seq_len` tokens.
    ///
    /// # Panics
    /// If `tokens` is not whole sequences, a sequence is longer than the context, or a token is not in the vocabulary.
    pub fn hidden(&self, graph: &mut Graph<'_>, tokens: &[u32], seq_len: usize) -> Var {
        let (config, eps) = (&self.config, self.config.norm_eps);
        let shape = AttentionShape {
            seq_len,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
        };
        let mut x = graph.embedding(tokens, self.embedding);
        for layer in &self.layers {
            let normed = graph.rms_norm(x, layer.attention_norm, eps);
            let (q, k) = (graph.linear(normed, layer.q), graph.linear(normed, layer.k));
            let v = graph.linear(normed, layer.v);
            let mixed = graph.attention(q, k, v, shape, &self.rope);
            let update = graph.linear(mixed, layer.o);
            x = graph.add(x, update);
            let normed = graph.rms_norm(x, layer.feed_forward_norm, eps);
            let (gate, up) = (graph.linear(normed, layer.gate), graph.linear(normed, layer.up));
            let activated = graph.swiglu(gate, up);
            let update = graph.linear(activated, layer.down);
            x = graph.add(x, update);
        }
        graph.rms_norm(x, self.norm, eps)
    }

    /// The logits of every position, `(tokens.len(), vocab_size)`; panics as [`Llama::hidden`].
    pub fn logits(&self, graph: &mut Graph<'_>, tokens: &[u32], seq_len: usize) -> Var {
        let hidden = self.hidden(graph, tokens, seq_len);
        graph.linear(hidden, self.head)
    }

    /// The summed loss in nats over all `targets`, with the variable to go back from: its gradient is that of
    /// `weight * nats`. Panics as [`Llama::hidden`], or if there is not one target a token.
    pub fn loss(
        &self,
        graph: &mut Graph<'_>,
        tokens: &[u32],
        targets: &[u32],
        seq_len: usize,
        weight: f32,
    ) -> (Var, f64) {
        let hidden = self.hidden(graph, tokens, seq_len);
        graph.linear_cross_entropy(hidden, self.head, targets, weight)
    }
}

/// A normal number by Box and Muller's transform, in `f64`.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (2.0 * core::f64::consts::PI * rng.random::<f64>()).cos()
}
