//! Trainable models: parameters by Hugging Face name, their first values, and the graph of a forward pass.

use crate::data::Example;
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

/// Something that can be trained: named parameters, and a loss over examples.
pub trait Model: Send + Sync {
    /// Names, shapes and places of the parameters.
    fn layout(&self) -> &ParamLayout;

    /// First values.
    fn init(&self, seed: u64) -> Params;

    /// Puts the loss of some examples on the tape: the variable to go back from, whose gradient is that of `options.weight` times the
    /// summed loss, and what the summed loss is made of.
    ///
    /// # Panics
    /// If an example does not suit the model: a token outside its vocabulary, more positions than its context, too few targets.
    fn loss(&self, graph: &mut Graph<'_>, examples: &[Example], options: LossOptions) -> (Var, LossSums);
}

/// How a loss is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// Multiplies the gradient: one over the number of targets of the whole step.
    pub weight: f32,
    /// Share of a target's probability that is spread over the vocabulary.
    pub label_smoothing: f32,
    /// Share of activations that are dropped.
    pub dropout: f32,
}

impl LossOptions {
    /// The plain negative log-likelihood times `weight`.
    pub fn plain(weight: f32) -> Self {
        Self { weight, label_smoothing: 0.0, dropout: 0.0 }
    }
}

/// Sums over the targets of some examples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Negative log-likelihood in nats, without smoothing.
    pub nats: f64,
    /// Targets that were trained on.
    pub n_targets: u64,
    /// Targets that had the largest logit.
    pub n_correct: u64,
}

impl std::ops::AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        self.nats += other.nats;
        self.n_targets += other.n_targets;
        self.n_correct += other.n_correct;
    }
}

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
}

impl Model for Llama {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn init(&self, seed: u64) -> Params {
        Llama::init(self, seed)
    }

    fn loss(&self, graph: &mut Graph<'_>, examples: &[Example], options: LossOptions) -> (Var, LossSums) {
        let seq_len = examples.first().map_or(0, |example| example.inputs.len());
        assert!(examples.iter().all(|example| example.inputs.len() == seq_len), "sequences of one length");
        let tokens: Vec<u32> = examples.iter().flat_map(|example| example.inputs.iter().copied()).collect();
        let targets: Vec<u32> = examples.iter().flat_map(|example| example.targets.iter().copied()).collect();
        let hidden = self.hidden(graph, &tokens, seq_len);
        let (loss, nats) = graph.linear_cross_entropy(hidden, self.head, &targets, options.weight);
        (loss, LossSums { nats, n_targets: targets.len() as u64, n_correct: 0 })
    }
}

/// A normal number by Box and Muller's transform, in `f64`.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (2.0 * core::f64::consts::PI * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Checkpoint, names};
    use crate::reference::ReferenceModel;
    use crate::tensor::Tape;

    fn config(tied_head: bool) -> ModelConfig {
        ModelConfig {
            dim: 20,
            hidden_dim: 37,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 6,
            vocab_size: 31,
            context_len: 19,
            norm_eps: 1e-5,
            rope_theta: 500.0,
            tied_head,
        }
    }

    /// A model with the weights of a random checkpoint.
    fn model_of(checkpoint: &Checkpoint) -> (Llama, Params) {
        let model = Llama::new(&checkpoint.config);
        let mut params = Params::zeros(model.layout().clone());
        for spec in model.layout().specs() {
            params.values[spec.range.clone()].copy_from_slice(&checkpoint.tensors[&spec.name].data);
        }
        (model, params)
    }

    fn tokens(n: usize) -> Vec<u32> {
        (0..n as u32).map(|i| i * i * 7 % 31).collect()
    }

    #[test]
    fn parameters_are_those_of_a_checkpoint() {
        for tied_head in [false, true] {
            let config = config(tied_head);
            let layout = Llama::new(&config).layout().clone();
            let expected = names::expected_shapes(&config);
            assert_eq!((layout.specs().len(), layout.len() as u64), (expected.len(), config.n_params()));
            for spec in layout.specs() {
                let shape = if spec.is_vector { vec![spec.cols] } else { vec![spec.rows, spec.cols] };
                assert_eq!(expected.get(&spec.name), Some(&shape), "{}", spec.name);
            }
        }
    }

    #[test]
    fn logits_agree_with_the_reference() {
        for tied_head in [false, true] {
            let checkpoint = Checkpoint::random(config(tied_head), 5).unwrap();
            let (model, params) = model_of(&checkpoint);
            let tokens = tokens(19);
            let mut tape = Tape::default();
            let mut graph = tape.evaluate(&params);
            let logits = model.logits(&mut graph, &tokens, tokens.len());
            let want = ReferenceModel::new(&checkpoint).logits(&tokens).unwrap();
            let top = want.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
            for (got, want) in graph.value(logits).iter().zip(&want) {
                assert!((got - want).abs() < 1e-5 * top, "{got} against {want}");
            }
        }
    }

    #[test]
    fn gradients_of_the_whole_model_agree_with_differences() {
        let checkpoint = Checkpoint::random(config(true), 6).unwrap();
        let (model, mut params) = model_of(&checkpoint);
        let text = tokens(23);
        let halves = [Example::causal(&text[..11], &text[1..12]), Example::causal(&text[11..22], &text[12..])];
        let mut tape = Tape::default();
        let mut grads = vec![0.0; params.values.len()];
        let mut graph = tape.record(&params, &mut grads);
        let (loss, _) = model.loss(&mut graph, &halves, LossOptions::plain(1.0 / 22.0));
        graph.backward(loss, &[1.0]);
        let mut nats =
            |params: &Params| model.loss(&mut tape.evaluate(params), &halves, LossOptions::plain(1.0)).1.nats / 22.0;
        let step = 2e-3;
        for spec in model.layout().specs() {
            let grads = &grads[spec.range.clone()];
            let scale = grads.iter().fold(0.0_f64, |top, g| top.max(f64::from(g.abs())));
            for i in (0..grads.len()).step_by(grads.len() / 5 + 1) {
                let at = spec.range.start + i;
                let old = params.values[at];
                params.values[at] = old + step;
                let above = nats(&params);
                params.values[at] = old - step;
                let slope = (above - nats(&params)) / (2.0 * f64::from(step));
                params.values[at] = old;
                let error = (slope - f64::from(grads[i])).abs();
                assert!(error < 1e-2 * scale + 1e-5, "{}[{i}]: {} against {slope}", spec.name, grads[i]);
            }
        }
    }

    #[test]
    fn first_values_depend_on_the_seed_and_have_their_deviations() {
        let config = ModelConfig { dim: 64, vocab_size: 512, ..config(true) };
        let model = Llama::new(&config);
        assert_eq!(model.init(1).values, model.init(1).values);
        assert_ne!(model.init(1).values, model.init(2).values);
        let params = model.init(1);
        for (name, want) in [
            (EMBEDDING, 0.02),
            ("model.layers.0.self_attn.q_proj.weight", 0.125),
            ("model.layers.1.mlp.down_proj.weight", 1.0 / (37.0_f64 * 4.0).sqrt()),
        ] {
            let spec = model.layout().specs().iter().find(|spec| spec.name == name).unwrap();
            let values = &params.values[spec.range.clone()];
            let mean_square = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
            assert!((mean_square.sqrt() / want - 1.0).abs() < 0.06, "{name}: {}", mean_square.sqrt());
        }
    }
}
