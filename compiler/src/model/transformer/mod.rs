//! Transformers of every family: decoder-only, encoder-only, encoder-decoder.
//!
//! The forward pass below is the whole model. Sequences lie one after another with no padding; a [`Segments`] says where each
//! is, so positions restart and attention stays within it.

mod adapt;
mod hooks;
mod parameters;
mod recompute;

use super::architecture::{Architecture, ArchitectureError, Family, FeedForward, Head, NormPlace, Positions};
use super::{LossOptions, LossSums, Model, Pass, accumulate_at_once};
use crate::data::{Example, IGNORED};
use crate::tensor::ops::{Activation, AttentionInputs, AttentionShape, CrossEntropy, Mask, RelativeBias, RopeTable};
use crate::tensor::{Graph, ParamId, ParamLayout, Params, Segments, Var};
use adapt::FirstValues;
use hooks::{Hooks, VirtualTokens};
use parameters::{
    AttentionParams, FeedForwardParams, LayerParams, LinearParams, NormParams, StackParams, TransformerParams,
};
use siskin_runtime::TokenId;
use std::sync::Arc;

/// A transformer: which parameter goes where. The numbers live in a [`Params`].
#[derive(Clone, Debug)]
pub struct Transformer {
    architecture: Architecture,
    params: TransformerParams,
    /// Parameters of its own: the first ones.
    n_own_params: usize,
    /// What is trained beside it.
    hooks: Hooks,
    /// How that begins.
    first_values: Vec<(ParamId, FirstValues)>,
    rope: Option<Arc<RopeTable>>,
    /// Fixed position vectors, `(context_len, dim)`; empty where positions are not sinusoidal.
    sinusoids: Vec<f32>,
}

/// Where the sequences of a pass are.
struct Batch {
    inputs: Segments,
    outputs: Segments,
    prefixes: Vec<usize>,
}

impl Batch {
    /// Where `examples` are that have `n_virtual` rows each before what they read.
    fn of(examples: &[Example], n_virtual: usize) -> Self {
        let prefix = |len: usize| if len == 0 { 0 } else { n_virtual + len };
        Self {
            inputs: Segments::new(examples.iter().map(|example| n_virtual + example.inputs.len())),
            outputs: Segments::new(examples.iter().map(|example| example.decoder_inputs.len())),
            prefixes: examples.iter().map(|example| prefix(example.prefix_len)).collect(),
        }
    }

    /// How a decoder's sequences attend to themselves and to an encoder's output.
    fn output_view(&self, memory: Var, dropout: f32) -> View<'_> {
        View { queries: &self.outputs, mask: Mask::Causal, memory: Some((memory, &self.inputs)), dropout }
    }
}

/// What attention of one kind looks like in a pass.
struct View<'a> {
    queries: &'a Segments,
    mask: Mask<'a>,
    /// The encoder's output, for a decoder.
    memory: Option<(Var, &'a Segments)>,
    dropout: f32,
}

impl Transformer {
    /// Lays out the parameters of a model with these parts.
    ///
    /// # Errors
    /// What [`Architecture::validate`] finds.
    ///
    /// # Panics
    /// If the architecture is recurrent: that is another model.
    pub fn new(architecture: &Architecture) -> Result<Self, ArchitectureError> {
        assert!(!architecture.family.is_recurrent(), "a transformer");
        architecture.validate()?;
        let Architecture { dim, head_dim, context_len, positions, .. } = *architecture;
        let rope = match positions {
            Positions::Rope { theta } => Some(Arc::new(RopeTable::new(context_len, head_dim, theta))),
            _ => None,
        };
        let sinusoids = if positions == Positions::Sinusoidal { sinusoids(context_len, dim) } else { Vec::new() };
        let params = TransformerParams::new(architecture);
        Ok(Self {
            n_own_params: params.layout.specs().len(),
            params,
            hooks: Hooks::default(),
            first_values: Vec::new(),
            architecture: architecture.clone(),
            rope,
            sinusoids,
        })
    }

    /// The residual stream of the last stack after its last norm: a row for each input, or for each decoder input of an
    /// encoder-decoder. Panics as [`Model::loss`].
    pub fn hidden(&self, graph: &mut Graph<'_>, examples: &[Example], dropout: f32) -> Var {
        let batch = Batch::of(examples, self.hooks.n_virtual());
        let inputs = examples.iter().map(|example| example.inputs.as_slice());
        let x = graph.section(None, |graph| self.embed(graph, inputs, dropout));
        let view = self.input_view(&batch, dropout);
        let Some(encoder) = &self.params.encoder else { return self.stack(graph, x, self.last_stack(), &view) };
        let memory = self.stack(graph, x, encoder, &view);
        let Some(decoder) = &self.params.decoder else { return memory };
        let outputs = examples.iter().map(|example| example.decoder_inputs.as_slice());
        let x = graph.section(None, |graph| self.embed(graph, outputs, dropout));
        self.stack(graph, x, decoder, &batch.output_view(memory, dropout))
    }

    /// The decoder, or else the encoder.
    fn last_stack(&self) -> &StackParams {
        let last = self.params.decoder.as_ref().or(self.params.encoder.as_ref());
        last.expect("a validated architecture has a stack")
    }

    /// How the sequences that are read attend to themselves.
    fn input_view<'b>(&self, batch: &'b Batch, dropout: f32) -> View<'b> {
        let mask = match (&self.params.encoder, batch.prefixes.iter().all(|prefix| *prefix == 0)) {
            (Some(_), _) => Mask::Bidirectional,
            (None, true) => Mask::Causal,
            (None, false) => Mask::Prefix(&batch.prefixes),
        };
        View { queries: &batch.inputs, mask, memory: None, dropout }
    }

    fn embed<'e>(
        &self,
        graph: &mut Graph<'_>,
        tokens: impl Iterator<Item = &'e [TokenId]> + Clone,
        dropout: f32,
    ) -> Var {
        let (a, params) = (&self.architecture, &self.params.embedding);
        let n_virtual = self.hooks.n_virtual();
        let longest = n_virtual + tokens.clone().map(<[TokenId]>::len).max().unwrap_or(0);
        assert!(longest <= a.context_len, "a sequence of {longest} tokens, but the context holds {}", a.context_len);
        let flat: Vec<TokenId> = tokens.clone().flatten().copied().collect();
        let positions = || tokens.clone().flat_map(|tokens| 0..(n_virtual + tokens.len()) as TokenId);
        let mut x = self.hooks.embedding(graph, &flat, params.tokens);
        if let Some(VirtualTokens { n, embeddings }) = self.hooks.virtual_tokens {
            x = graph.prepend_rows(x, embeddings, n, &Segments::new(tokens.clone().map(<[TokenId]>::len)));
        }
        if a.positions == Positions::Sinusoidal {
            x = graph.scale(x, (a.dim as f32).sqrt());
            let rows: Vec<f32> = positions()
                .flat_map(|t| &self.sinusoids[t as usize * a.dim..(t as usize + 1) * a.dim])
                .copied()
                .collect();
            let rows = graph.constant(flat.len(), a.dim, &rows);
            x = graph.add(x, rows);
        }
        if let Some(table) = params.token_types {
            let types = self.hooks.embedding(graph, &vec![0; flat.len()], table);
            x = graph.add(x, types);
        }
        if let Some(table) = params.positions {
            let positions: Vec<TokenId> = positions().collect();
            let positions = self.hooks.embedding(graph, &positions, table);
            x = graph.add(x, positions);
        }
        if let Some(norm) = params.norm {
            x = self.norm(graph, x, norm);
        }
        x = graph.dropout(x, dropout);
        match params.projection {
            Some(projection) => self.hooks.linear(graph, x, projection, Activation::None),
            None => x,
        }
    }

    fn stack(&self, graph: &mut Graph<'_>, mut x: Var, stack: &StackParams, view: &View<'_>) -> Var {
        for layer in &stack.layers {
            x = self.layer(graph, x, layer, stack, view);
        }
        self.final_norm(graph, x, stack)
    }

    fn final_norm(&self, graph: &mut Graph<'_>, x: Var, stack: &StackParams) -> Var {
        stack.final_norm.map_or(x, |norm| self.norm(graph, x, norm))
    }

    fn layer(&self, graph: &mut Graph<'_>, x: Var, layer: &LayerParams, stack: &StackParams, view: &View<'_>) -> Var {
        let own = View { memory: None, ..*view };
        let mut x = self.branch(graph, x, layer.attention.norm, view.dropout, |graph, x| {
            self.attention(graph, x, &layer.attention, stack, &own)
        });
        if let Some(cross) = &layer.cross {
            x = self
                .branch(graph, x, cross.norm, view.dropout, |graph, x| self.attention(graph, x, cross, stack, view));
        }
        self.branch(graph, x, layer.feed_forward.norm, view.dropout, |graph, x| {
            self.feed_forward(graph, x, &layer.feed_forward)
        })
    }

    /// A residual branch with its norm before or after: nothing else asks for `x` afterwards. `update` stops before its last product.
    fn branch(
        &self,
        graph: &mut Graph<'_>,
        x: Var,
        norm: NormParams,
        dropout: f32,
        update: impl FnOnce(&mut Graph<'_>, Var) -> (Var, LinearParams),
    ) -> Var {
        let is_pre = self.architecture.norm_place == NormPlace::Pre;
        graph.section(Some(x), |graph| {
            let input = if is_pre { self.norm(graph, x, norm) } else { x };
            let (hidden, last) = update(graph, input);
            let sum = if dropout > 0.0 {
                let before = self.hooks.linear(graph, hidden, last, Activation::None);
                let update = graph.dropout(before, dropout);
                let sum = graph.add(x, update);
                // The ways back through a product, a dropout and a sum ask for none of their results.
                [before, update].into_iter().for_each(|var| graph.release(var));
                sum
            } else {
                self.hooks.linear_onto(graph, x, hidden, last)
            };
            if is_pre { sum } else { self.norm(graph, sum, norm) }
        })
    }

    /// Attention to the sequence itself, or to the encoder's output where the view has one: what it mixes, and the product that ends it.
    fn attention(
        &self,
        graph: &mut Graph<'_>,
        x: Var,
        params: &AttentionParams,
        stack: &StackParams,
        view: &View<'_>,
    ) -> (Var, LinearParams) {
        let a = &self.architecture;
        let (source, keys, mask) = match view.memory {
            Some((memory, keys)) => (memory, keys, Mask::Bidirectional),
            None => (x, view.queries, view.mask),
        };
        let q = self.hooks.linear(graph, x, params.q, Activation::None);
        let k = self.hooks.linear(graph, source, params.k, Activation::None);
        let v = self.hooks.linear(graph, source, params.v, Activation::None);
        let k = self.hooks.with_first_rows(graph, k, params.k.weight, keys);
        let v = self.hooks.with_first_rows(graph, v, params.v.weight, keys);
        let bias = match (a.positions, stack.relative_bias, view.memory) {
            (Positions::RelativeBias { max_distance, .. }, Some(table), None) => {
                Some(RelativeBias { table, bidirectional: mask != Mask::Causal, max_distance })
            }
            _ => None,
        };
        let scale = if a.family == Family::T5 { 1.0 } else { 1.0 / (a.head_dim as f32).sqrt() };
        let shape = AttentionShape { n_heads: a.n_heads, n_kv_heads: a.n_kv_heads, head_dim: a.head_dim, scale };
        let rope = self.rope.as_ref().filter(|_| view.memory.is_none());
        let queries = view.queries;
        let mixed = graph.attention(&AttentionInputs {
            q,
            k,
            v,
            queries,
            keys,
            shape,
            mask,
            rope,
            bias,
            dropout: view.dropout,
        });
        (mixed, params.o)
    }

    /// The hidden layer, and the product that ends it.
    fn feed_forward(&self, graph: &mut Graph<'_>, x: Var, params: &FeedForwardParams) -> (Var, LinearParams) {
        let activation = activation(self.architecture.feed_forward);
        let hidden = match params.gate {
            Some(gate) => {
                let gate = self.hooks.linear(graph, x, gate, Activation::None);
                let up = self.hooks.linear(graph, x, params.up, Activation::None);
                graph.glu(gate, up, activation)
            }
            None => self.hooks.linear(graph, x, params.up, activation),
        };
        (hidden, params.down)
    }

    fn norm(&self, graph: &mut Graph<'_>, x: Var, norm: NormParams) -> Var {
        let eps = self.architecture.norm_eps;
        match norm.bias {
            Some(bias) => graph.layer_norm(x, norm.gain, bias, eps),
            None => graph.rms_norm(x, norm.gain, eps),
        }
    }

    /// What the output matrix is multiplied with, from the rows of `hidden` that it is wanted for.
    fn before_output(&self, graph: &mut Graph<'_>, hidden: Var, dropout: f32) -> Var {
        let a = &self.architecture;
        if let Some((dense, norm)) = self.params.head.transform {
            let x = self.hooks.linear(graph, hidden, dense, activation(a.feed_forward));
            return self.norm(graph, x, norm);
        }
        if let Some(pooler) = self.params.head.pooler {
            let x = self.hooks.linear(graph, hidden, pooler, Activation::Tanh);
            return graph.dropout(x, dropout);
        }
        match (a.family, a.tied_head) {
            (Family::T5, true) => graph.scale(hidden, 1.0 / (a.dim as f32).sqrt()),
            _ => hidden,
        }
    }

    /// The loss from the last hidden states.
    fn loss_of(
        &self,
        graph: &mut Graph<'_>,
        hidden: Var,
        examples: &[Example],
        options: LossOptions,
    ) -> (Var, LossSums) {
        let output = self.params.head.output.expect("a model with a head");
        let (rows, targets) = self.trained_rows(examples);
        let is_part = rows.len() < graph.shape(hidden).0;
        let x = if is_part { graph.gather_rows(hidden, &rows) } else { hidden };
        let x = self.before_output(graph, x, options.dropout);
        let loss = CrossEntropy { weight: options.weight, label_smoothing: options.label_smoothing };
        graph.linear_cross_entropy(x, output.weight, output.bias, &targets, loss)
    }

    /// The row of `hidden` that classifies each example: an encoder's first, a decoder's last.
    fn classified_rows(&self, examples: &[Example]) -> Vec<usize> {
        let segments = Batch::of(examples, self.hooks.n_virtual()).inputs;
        let is_encoder = self.params.encoder.is_some();
        segments.iter().map(|rows| if is_encoder { rows.start } else { rows.end - 1 }).collect()
    }

    /// The rows of `hidden` that `examples` have targets for, and those targets.
    fn trained_rows(&self, examples: &[Example]) -> (Vec<usize>, Vec<TokenId>) {
        if let Head::Classifier { .. } = self.architecture.head {
            let labels = examples.iter().map(|example| example.targets[0]);
            return self
                .classified_rows(examples)
                .into_iter()
                .zip(labels)
                .filter(|(_, label)| *label != IGNORED)
                .unzip();
        }
        let targets = examples.iter().flat_map(|example| &example.targets).copied();
        self.own_rows(examples).zip(targets).filter(|(_, target)| *target != IGNORED).unzip()
    }

    /// The rows of `hidden` that are of tokens: all but the virtual ones.
    fn own_rows(&self, examples: &[Example]) -> impl Iterator<Item = usize> {
        let n_virtual = self.hooks.n_virtual();
        let len = |example: &Example| match example.decoder_inputs.len() {
            0 => example.inputs.len(),
            len => len,
        };
        let lens: Vec<usize> = examples.iter().map(len).collect();
        let mut next = 0;
        lens.into_iter().flat_map(move |len| {
            let rows = next + n_virtual..next + n_virtual + len;
            next = rows.end;
            rows
        })
    }
}

impl Model for Transformer {
    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn layout(&self) -> &ParamLayout {
        &self.params.layout
    }

    fn n_own_params(&self) -> usize {
        self.n_own_params
    }

    fn n_virtual_tokens(&self) -> usize {
        self.hooks.n_virtual()
    }

    fn init(&self, seed: u64) -> Params {
        let mut params = self.params.init(&self.architecture, self.n_own_params, seed);
        self.fill_beside(&mut params, seed, &[]);
        params
    }

    fn init_beside(&self, params: &mut Params, seed: u64, text: &[TokenId]) {
        self.fill_beside(params, seed, text);
    }

    fn logits(&self, graph: &mut Graph<'_>, examples: &[Example]) -> Var {
        let mut hidden = self.hidden(graph, examples, 0.0);
        if let Head::Classifier { .. } = self.architecture.head {
            hidden = graph.gather_rows(hidden, &self.classified_rows(examples));
        } else if self.hooks.n_virtual() > 0 {
            hidden = graph.gather_rows(hidden, &self.own_rows(examples).collect::<Vec<_>>());
        }
        let x = self.before_output(graph, hidden, 0.0);
        let output = self.params.head.output.expect("a model with a head");
        graph.linear(x, output.weight, output.bias, Activation::None)
    }

    fn loss(&self, graph: &mut Graph<'_>, examples: &[Example], options: LossOptions) -> (Var, LossSums) {
        let hidden = self.hidden(graph, examples, options.dropout);
        self.loss_of(graph, hidden, examples, options)
    }

    fn accumulate(&self, pass: Pass<'_>, examples: &[Example], options: LossOptions) -> LossSums {
        if options.recompute_activations {
            return recompute::accumulate(self, pass, examples, options);
        }
        accumulate_at_once(self, pass, examples, options)
    }
}

fn activation(feed_forward: FeedForward) -> Activation {
    match feed_forward {
        FeedForward::SwiGlu | FeedForward::Silu => Activation::Silu,
        FeedForward::GeGlu | FeedForward::GeluTanh => Activation::GeluTanh,
        FeedForward::Gelu => Activation::Gelu,
        FeedForward::Relu => Activation::Relu,
    }
}

/// Sines in the first half of each row, cosines in the second: column `i` of either turns by `10000^(-2i / dim)` a position.
pub(crate) fn sinusoids(positions: usize, dim: usize) -> Vec<f32> {
    let n_sines = dim.div_ceil(2);
    let angle = |t: usize, i: usize| t as f64 / 10_000_f64.powf(2.0 * i as f64 / dim as f64);
    let row =
        |t| (0..dim).map(move |col| if col < n_sines { angle(t, col).sin() } else { angle(t, col - n_sines).cos() });
    (0..positions).flat_map(row).map(|x| x as f32).collect()
}
