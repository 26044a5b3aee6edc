//! What a pass over a model consists of: amounts of work, kind by kind, that a board's costs turn into instructions.
//!
//! The kinds follow the forward pass of the runtime (`decoder.rs`, `encoder.rs`, `recurrent.rs`): what a loop does for each element, row,
//! position or head is a kind, and so is what is left for each layer and token. Costs are fitted to sums of the same amounts, so a
//! prediction and what it was fitted by cannot disagree about what counts.

use std::collections::BTreeMap;

use siskin_runtime::format::{AttentionWeights, LayerWeights, Linear, Projections};
use siskin_runtime::parts::{FeedForward, Head, Kind, NormKind, Positions};
use siskin_runtime::tensor::{GROUP_SIZE, MatrixQ8};
use siskin_runtime::{KvFormat, PackedModel};

/// Amounts of work by kind, such as `int8-mac`: multiply-accumulates of int8 weights.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Work {
    amounts: BTreeMap<String, f64>,
}

impl Work {
    /// What generating a token takes, greedily, whose input stands at `position`; of an encoder alone, one finding. `prompt_tokens` are those of
    /// its text or of the source.
    pub fn of_token(model: &PackedModel<'_>, position: usize, prompt_tokens: usize) -> Self {
        let mut work = Self::default();
        if model.config().parts().kind == Kind::Encoder {
            work.finding(model, prompt_tokens);
            return work;
        }
        let source_len = if model.config().parts().has_source() { prompt_tokens } else { 0 };
        work.step(model, position, 1, source_len);
        work.add("draw-logit", model.config().vocab_size);
        work.add("token", 1);
        work.predict(model);
        work
    }

    /// What reading takes, before the first token: of a decoder its prompt, of an encoder-decoder its source and the token to start from, of an
    /// encoder alone the text.
    pub fn of_reading(model: &PackedModel<'_>, n_tokens: usize) -> Self {
        let mut work = Self::default();
        let parts = model.config().parts();
        work.add("prompt", 1);
        work.add("prompt-token", n_tokens);
        match (parts.kind, parts.is_recurrent) {
            (Kind::Decoder, _) => work.steps(model, n_tokens),
            (Kind::EncoderDecoder, true) => {
                work.chunks(model, n_tokens, |work, n, _| work.recurrent_layers(model, true, n));
                work.step(model, 0, 1, n_tokens);
            }
            (Kind::EncoderDecoder, false) => {
                work.encode(model, n_tokens);
                work.keep_source(model, n_tokens);
                work.step(model, 0, 1, n_tokens);
            }
            (Kind::Encoder, _) => {
                work.encode(model, n_tokens);
                return work;
            }
        }
        work.predict(model);
        work
    }

    /// Each kind of work and how much there is of it.
    pub fn amounts(&self) -> impl Iterator<Item = (&str, f64)> {
        self.amounts.iter().map(|(kind, &amount)| (kind.as_str(), amount))
    }

    fn add(&mut self, kind: &str, amount: usize) {
        if amount > 0 {
            *self.amounts.entry(kind.to_owned()).or_default() += amount as f64;
        }
    }

    /// Runs `chunk` for each batch in which the runtime reads `n_tokens`, with its size and its first position.
    fn chunks(&mut self, model: &PackedModel<'_>, n_tokens: usize, mut chunk: impl FnMut(&mut Self, usize, usize)) {
        let batch = model.memory_plan().prefill_batch.max(1);
        for first in (0..n_tokens).step_by(batch) {
            chunk(self, batch.min(n_tokens - first), first);
        }
    }

    fn steps(&mut self, model: &PackedModel<'_>, n_tokens: usize) {
        self.chunks(model, n_tokens, |work, n, first| work.step(model, first, n, 0));
    }

    /// A batch of a decoder's tokens through all layers.
    fn step(&mut self, model: &PackedModel<'_>, first: usize, n_tokens: usize, source_len: usize) {
        let config = model.config();
        if config.parts().is_recurrent {
            return self.recurrent_layers(model, false, n_tokens);
        }
        self.embed(model, n_tokens);
        for layer_idx in 0..config.n_layers {
            let layer = model.layer(layer_idx);
            self.add("layer", n_tokens);
            self.decoder_attention(model, &layer, first, n_tokens);
            if let Some(cross) = &layer.cross {
                self.add("cross-block", n_tokens);
                self.queries(model, cross, n_tokens, source_len, false);
            }
            self.feed_forward(model, &layer, n_tokens);
        }
    }

    fn decoder_attention(&mut self, model: &PackedModel<'_>, layer: &LayerWeights<'_>, first: usize, n_tokens: usize) {
        let config = model.config();
        let Projections::Stacked(qkv) = &layer.attention.projections else { return };
        self.norm(model, n_tokens);
        self.linear(qkv, n_tokens);
        if config.parts().positions == Positions::Rope {
            self.add("rotary-element", n_tokens * (config.q_dim() + config.kv_dim()));
        }
        self.store(model, n_tokens);
        for position in first..first + n_tokens {
            self.attend(model, position + 1, config.parts().positions == Positions::RelativeBias);
        }
        self.add_product(model, &layer.attention.output, n_tokens);
    }

    /// Queries alone, to keys and values that are there already.
    fn queries(
        &mut self,
        model: &PackedModel<'_>,
        attention: &AttentionWeights<'_>,
        n_tokens: usize,
        n_positions: usize,
        is_biased: bool,
    ) {
        let Projections::Separate { query, .. } = &attention.projections else { return };
        self.norm(model, n_tokens);
        self.linear(query, n_tokens);
        (0..n_tokens).for_each(|_| self.attend(model, n_positions, is_biased));
        self.add_product(model, &attention.output, n_tokens);
    }

    fn encode(&mut self, model: &PackedModel<'_>, n_tokens: usize) {
        let (config, parts) = (model.config(), model.config().parts());
        let n_layers = if parts.has_source() { parts.n_encoder_layers } else { config.n_layers };
        let is_biased = parts.positions == Positions::RelativeBias;
        self.embed(model, n_tokens);
        for layer_idx in 0..n_layers {
            let layer = model.encoder_layer(layer_idx);
            self.chunks(model, n_tokens, |work, n, _| {
                let Projections::Separate { key_value, .. } = &layer.attention.projections else { return };
                work.add("encoder-layer", n);
                work.norm(model, n);
                work.linear(key_value, n);
                work.store(model, n);
                work.queries(model, &layer.attention, n, n_tokens, is_biased);
                work.feed_forward(model, &layer, n);
            });
        }
    }

    /// Keys and values of an encoder's output for each layer of the decoder.
    fn keep_source(&mut self, model: &PackedModel<'_>, n_tokens: usize) {
        self.norm(model, n_tokens);
        for layer_idx in 0..model.config().n_layers {
            let Some(cross) = model.layer(layer_idx).cross else { return };
            let Projections::Separate { key_value, .. } = cross.projections else { return };
            self.chunks(model, n_tokens, |work, n, _| {
                work.linear(&key_value, n);
                work.store(model, n);
            });
        }
    }

    fn recurrent_layers(&mut self, model: &PackedModel<'_>, is_encoder: bool, n_tokens: usize) {
        let config = model.config();
        self.add("embed-element", n_tokens * config.embedding_dim());
        for layer_idx in 0..config.n_layers {
            let gates = model.gates(is_encoder, layer_idx);
            self.add("recurrent-layer", n_tokens);
            self.linear(&gates.input, n_tokens);
            (0..n_tokens).for_each(|_| self.linear(&gates.state, 1));
            self.add("recur-element", n_tokens * config.dim);
        }
    }

    fn embed(&mut self, model: &PackedModel<'_>, n_tokens: usize) {
        let config = model.config();
        let (positions, norm, projection) = model.after_embedding();
        self.add("embed-element", n_tokens * config.embedding_dim());
        if positions.is_some() {
            self.add("position-element", n_tokens * config.embedding_dim());
        }
        if norm.is_some() {
            self.norm_of(model, n_tokens * config.embedding_dim());
        }
        if let Some(projection) = projection {
            (0..n_tokens).for_each(|_| self.linear(&projection, 1));
        }
    }

    /// The prediction made of one residual stream.
    fn predict(&mut self, model: &PackedModel<'_>) {
        let head = model.head();
        let Some(output) = head.output else { return };
        if model.config().parts().has_final_norm() {
            self.norm(model, 1);
        }
        if let Some((dense, norm)) = &head.transform {
            self.linear(dense, 1);
            self.activate(model.config().parts().feed_forward, dense.weight.rows());
            self.norm_of(model, norm.gain.len());
        }
        if let Some(pooler) = &head.pooler {
            self.linear(pooler, 1);
            self.add("tanh-element", pooler.weight.rows());
        }
        self.linear(&output, 1);
    }

    /// What an encoder makes of a text of `n_tokens` for one finding: a label, a tag, what fills a mask, or the text's vector.
    fn finding(&mut self, model: &PackedModel<'_>, n_tokens: usize) {
        let config = model.config();
        self.add("finding", 1);
        if matches!(config.parts().head, Head::None | Head::Language) {
            if config.parts().has_final_norm() {
                self.norm(model, n_tokens);
            }
            return self.add("vector-element", n_tokens * config.dim);
        }
        self.predict(model);
        self.add("draw-logit", config.n_outputs());
    }

    fn feed_forward(&mut self, model: &PackedModel<'_>, layer: &LayerWeights<'_>, n_tokens: usize) {
        let config = model.config();
        self.norm(model, n_tokens);
        self.linear(&layer.gate_up, n_tokens);
        self.activate(config.parts().feed_forward, n_tokens * config.hidden_dim);
        self.add_product(model, &layer.down, n_tokens);
    }

    fn activate(&mut self, function: FeedForward, n_elements: usize) {
        let kind = match function {
            FeedForward::SwiGlu => "swiglu-element",
            FeedForward::GeGlu => "geglu-element",
            FeedForward::Gelu => "gelu-element",
            FeedForward::GeluTanh => "gelu-tanh-element",
            FeedForward::Relu => "relu-element",
            FeedForward::Silu => "silu-element",
        };
        self.add(kind, n_elements);
    }

    /// A product that is added to the residual stream.
    fn add_product(&mut self, model: &PackedModel<'_>, w: &Linear<'_>, n_tokens: usize) {
        self.linear(w, n_tokens);
        self.add("add-element", n_tokens * model.config().dim);
    }

    /// The norm of so many residual streams.
    fn norm(&mut self, model: &PackedModel<'_>, n_tokens: usize) {
        self.norm_of(model, n_tokens * model.config().dim);
    }

    fn norm_of(&mut self, model: &PackedModel<'_>, n_elements: usize) {
        let kind = match model.config().parts().norm {
            NormKind::Rms => "rmsnorm-element",
            NormKind::Layer => "layernorm-element",
        };
        self.add(kind, n_elements);
    }

    /// Keys and values that go into a cache.
    fn store(&mut self, model: &PackedModel<'_>, n_tokens: usize) {
        let config = model.config();
        self.add("store-head", 2 * n_tokens * config.n_kv_heads);
        self.add("store-element", 2 * n_tokens * config.kv_dim());
    }

    /// One token's attention to `n_positions`.
    fn attend(&mut self, model: &PackedModel<'_>, n_positions: usize, is_biased: bool) {
        let config = model.config();
        // Kernels have ways of their own for heads of 8, and take others in whole vectors or with a rest.
        let width = match config.head_dim {
            8 => "eights",
            width if width.is_multiple_of(16) => "sixteens",
            width if width.is_multiple_of(8) => "wide",
            _ => "odd",
        };
        let visits = n_positions * config.n_heads;
        self.add(&format!("attention-{width}-element"), visits * config.head_dim);
        self.add(&format!("attention-{width}-position"), visits);
        self.add("attention-key-position", n_positions * config.n_kv_heads);
        if is_biased {
            self.add("attention-bias", visits);
        }
        let kv = model.header().kv;
        if kv != KvFormat::default() {
            self.add(&format!("attention-{}-position", kv.name()), n_positions * config.n_kv_heads);
            // Rows that kernels do not read as they lie.
            if kv.unpacked_bytes() > 0 {
                self.add(&format!("attention-{}-element", kv.name()), n_positions * config.kv_dim());
            }
        }
        self.add("attention-head", config.n_heads);
        self.add("attention-query-element", config.q_dim());
    }

    /// A product with the quantisation of its inputs and its bias.
    fn linear(&mut self, w: &Linear<'_>, n_tokens: usize) {
        self.product(&w.weight, n_tokens);
        self.add("bias-element", n_tokens * w.bias.len());
    }

    fn product(&mut self, w: &MatrixQ8<'_>, n_tokens: usize) {
        let (format, layout) = (w.format(), w.layout());
        let mut add = |what: &str, amount: usize| self.add(&format!("{}-{what}", format.name()), amount);
        if w.is_sparse() {
            add("sparse-mac", n_tokens * w.data().len());
        }
        // What fills up a block of the layout is computed too; a last group that is not whole has a way of its own.
        let rows = w.rows().next_multiple_of(layout.row_block());
        let rest = if format.is_grouped() { w.cols() % GROUP_SIZE } else { 0 };
        let macs = rows * (w.cols() - rest).next_multiple_of(layout.column_block());
        if n_tokens == 1 {
            add("mac", macs);
        } else {
            // Some cores read weights once for several tokens.
            add("batch-mac", macs * n_tokens);
            add("batch-weight", macs);
        }
        if rest > 0 {
            add("rest-mac", n_tokens * rows * rest);
            add("rest-row", n_tokens * rows);
        }
        add("row", n_tokens * rows);
        add("column", n_tokens * w.cols());
        add("product", n_tokens);
    }
}
