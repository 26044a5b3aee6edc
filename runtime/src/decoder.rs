//! The forward pass of transformers: top to bottom as the architectures' papers draw it, part by part as the model has them.

use core::ops::Range;

use crate::TokenId;
use crate::arena::Buffers;
use crate::attention::{self, CachedHead, Scoring};
use crate::config::ModelConfig;
use crate::cut::{Cut, copy};
use crate::format::{AttentionWeights, LayerWeights, Linear, Norm, PackedModel, Projections};
use crate::kernels::{Activation, Join, Kernels, matmul_f32_q8_q8};
use crate::known;
use crate::kv_cache::Stored;
use crate::lanes::{Lane, Lanes};
use crate::parts::{FeedForward, NormKind, NormPlace};
use crate::sparse;
use crate::tensor::{ActivationsQ8, WeightFormat, activation_stride, quantize};

/// What a pass over the weights needs besides its buffers.
pub(crate) struct Decoder<'m, J> {
    pub model: PackedModel<'m>,
    pub kernels: Kernels,
    pub join: J,
    /// What is applied beside the products of layers.
    #[cfg(feature = "adapters")]
    pub adapter: Option<crate::adapter::Adapter<'m>>,
}

/// Where the keys and values lie that a query meets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// The sequence's own.
    Own,
    /// An encoder's output.
    Source,
}

/// Where the tokens of a batch stand.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    position: usize,
    first_beam: Option<usize>,
}

impl Place {
    /// One behind the other, in the first beam.
    #[inline(always)]
    pub fn sequence(first_position: usize) -> Self {
        Self { position: first_position, first_beam: None }
    }

    /// All at the same position, each in a beam of its own.
    pub fn beams(first_beam: usize, position: usize) -> Self {
        Self { position, first_beam: Some(first_beam) }
    }

    #[inline(always)]
    fn first_beam(self) -> Option<usize> {
        self.first_beam.filter(|_| known::has_beams())
    }

    /// The position of token `i` of the batch.
    #[inline(always)]
    fn position(self, i: usize) -> usize {
        if self.first_beam().is_some() { self.position } else { self.position + i }
    }

    /// The layer in the cache, which has those of a beam after those of another.
    #[inline(always)]
    fn cached_layer(self, config: &ModelConfig, layer_idx: usize, i: usize) -> usize {
        layer_idx + self.first_beam().map_or(0, |first| (first + i) * config.n_layers)
    }
}

/// Fewest elements worth sharing between threads where each is read, computed with and written once or twice.
const SPLIT_ELEMENTS_MIN: usize = 1 << 12;

/// Fewest elements of keys worth it in one token's attention, where a thread that is called in has little else to do.
const SPLIT_KEYS_MIN: usize = 1 << 14;

/// The lanes that there are, of buffers of which others are in use.
macro_rules! lanes {
    ($decoder:expr, $buffers:expr) => {
        $crate::lanes::Lanes {
            n_threads: $decoder.join.n_threads(),
            lane: $crate::lanes::Lane {
                row: &mut *$buffers.row,
                unpacked: [$buffers.unpacked_keys.reborrow(), $buffers.unpacked_values.reborrow()],
                scratch: $crate::attention::Scratch {
                    query: &mut *$buffers.query,
                    scores: &mut *$buffers.scores,
                    value_sums: &mut *$buffers.value_sums,
                },
            },
            spare: &mut *$buffers.spare,
        }
    };
}
pub(crate) use lanes;

/// What one token's queries see.
#[derive(Clone, Copy)]
pub(crate) struct View<'m> {
    /// The layer in the cache.
    pub layer_idx: usize,
    pub n_positions: usize,
    /// What dot products are multiplied by.
    pub temperature: f32,
    /// The stack's table and the query's position in it.
    pub relative_bias: Option<(&'m [i32], usize)>,
}

impl<'m> View<'m> {
    /// The biases of a head's scores, `(n_positions,)`; empty where there are none.
    fn bias(&self, config: &ModelConfig, head_idx: usize) -> &'m [i32] {
        let Some((table, position)) = self.relative_bias else { return &[] };
        let n_distances = table.len() / config.n_heads.max(1);
        let first = head_idx * n_distances + config.context_len - 1 - position;
        table.get(first..first + self.n_positions).unwrap_or(&[])
    }
}

impl<'m, J: Join + Sync> Decoder<'m, J> {
    pub fn new(model: &PackedModel<'m>, kernels: Kernels, join: J) -> Self {
        Self {
            model: *model,
            kernels: kernels.for_model_of(model.header().file_bytes),
            join,
            #[cfg(feature = "adapters")]
            adapter: None,
        }
    }

    /// Runs `tokens`, at most a batch, through all layers at their `place`; leaves their residual streams in the buffers, and their keys
    /// and values in the cache. An encoder's output has `source_len` positions.
    ///
    /// The caller has checked that the tokens are in the vocabulary and the positions in the context.
    pub fn forward(&self, buffers: &mut Buffers<'_>, place: Place, source_len: usize, tokens: &[TokenId]) {
        self.embed(buffers, 0, place, tokens);
        self.layers(buffers, place, source_len, tokens.len());
    }

    /// The same for `n_tokens` whose first residual streams are in the buffers already.
    #[inline]
    pub fn layers(&self, buffers: &mut Buffers<'_>, place: Place, source_len: usize, n_tokens: usize) {
        let config = self.model.config();
        let (temperature, rows) = (self.temperature(), 0..n_tokens);
        for layer_idx in 0..config.n_layers {
            let layer = self.model.layer(layer_idx);
            self.attention_block(buffers, layer_idx, &layer, temperature, place, n_tokens);
            if let Some(cross) = &layer.cross {
                let view = View { layer_idx, n_positions: source_len, temperature, relative_bias: None };
                self.query_block(buffers, cross, rows.clone(), Cache::Source, |_| view);
            }
            self.feed_forward_block(buffers, &layer, rows.clone());
        }
    }

    /// What dot products of queries and keys are multiplied by.
    pub fn temperature(&self) -> f32 {
        let config = self.model.config();
        attention::temperature(config.head_dim, config.parts().scaled_attention)
    }

    /// Writes the first residual streams of `tokens` to the rows from `first_row`.
    pub fn embed(&self, buffers: &mut Buffers<'_>, first_row: usize, place: Place, tokens: &[TokenId]) {
        let config = self.model.config();
        let embedding = self.model.embedding();
        let (positions, norm, projection) = self.model.after_embedding();
        for (i, &token) in tokens.iter().enumerate() {
            let residual = buffers.residual.cut_mut((first_row + i) * config.dim..).cut_mut(..config.dim);
            let x = match projection {
                None => &mut *residual,
                Some(_) => buffers.product.cut_mut(..config.embedding_dim()),
            };
            let row = buffers.row.cut_mut(..x.len());
            embedding.dequantize_row(token as usize, x);
            if config.parts().embedding_scale != 1.0 {
                x.iter_mut().for_each(|x| *x *= config.parts().embedding_scale);
            }
            if let Some(positions) = positions {
                positions.dequantize_row(place.position(i), row);
                self.kernels.add(x, row);
            }
            if let Some(norm) = norm {
                self.normalize(row, x, &norm);
                copy(x, row);
            }
            if let Some(projection) = projection {
                let mut staged = self.staged(&projection, buffers.activations, buffers.activation_scales);
                staged.put(0, x);
                self.linear(lanes!(self, buffers), residual, &projection, &staged.view(1));
            }
        }
    }

    /// Computes the prediction made of the residual stream in `row_idx`: the logits of the next token, of a masked one, or of labels.
    pub fn predict(&self, buffers: &mut Buffers<'_>, row_idx: usize) {
        let Some(output) = self.stage_head(buffers, row_idx) else { return };
        let staged = self.staged(&output, buffers.activations, buffers.activation_scales);
        self.linear(lanes!(self, buffers), buffers.logits, &output, &staged.view(1));
    }

    /// Stages what the output matrix, which it gives, is multiplied by.
    #[inline(always)]
    pub fn stage_head(&self, buffers: &mut Buffers<'_>, row_idx: usize) -> Option<Linear<'m>> {
        let config = self.model.config();
        let head = self.model.head();
        let output = head.output?;
        self.finish(buffers, row_idx);
        if let Some((dense, norm)) = &head.transform {
            let out = self.linear_of_row(buffers, dense);
            self.activate(config.parts().feed_forward, buffers.product.cut_mut(..out));
            self.normalize(buffers.row.cut_mut(..out), buffers.product.cut(..out), norm);
        }
        if let Some(pooler) = &head.pooler {
            let out = self.linear_of_row(buffers, pooler);
            self.kernels.activate(Activation::Tanh, buffers.product.cut_mut(..out));
            copy(buffers.row.cut_mut(..out), buffers.product.cut(..out));
        }
        let mut staged = self.staged(&output, buffers.activations, buffers.activation_scales);
        staged.put(0, buffers.row.cut(..output.weight.cols()));
        Some(output)
    }

    /// Computes the logits of what follows each of the first `n_tokens` residual streams, `(n_tokens, vocab_size)`, in one pass over the head.
    /// For language models.
    pub fn predict_all(&self, buffers: &mut Buffers<'_>, n_tokens: usize, logits: &mut [f32]) {
        let Some(output) = self.model.head().output else { return };
        for row_idx in 0..n_tokens {
            self.finish(buffers, row_idx);
            let mut staged = self.staged(&output, buffers.activations, buffers.activation_scales);
            staged.put(row_idx, buffers.row.cut(..output.weight.cols()));
        }
        let staged = self.staged(&output, buffers.activations, buffers.activation_scales);
        let logits = logits.cut_mut(..n_tokens * output.weight.rows());
        self.linear(lanes!(self, buffers), logits, &output, &staged.view(n_tokens));
    }

    /// Brings the residual stream in `row_idx` to its final form, `(dim,)`, in `row`.
    pub fn finish(&self, buffers: &mut Buffers<'_>, row_idx: usize) {
        let config = self.model.config();
        let x = buffers.residual.cut(row_idx * config.dim..(row_idx + 1) * config.dim);
        let is_encoder = config.parts().kind == crate::parts::Kind::Encoder;
        match self.model.final_norm(is_encoder) {
            Some(norm) => self.normalize(buffers.row.cut_mut(..config.dim), x, &norm),
            None => copy(buffers.row.cut_mut(..config.dim), x),
        }
    }

    /// `product = w . row + bias`, of one token; gives the number of outputs.
    fn linear_of_row(&self, buffers: &mut Buffers<'_>, w: &Linear<'_>) -> usize {
        let mut staged = self.staged(w, buffers.activations, buffers.activation_scales);
        staged.put(0, buffers.row.cut(..w.weight.cols()));
        self.linear(lanes!(self, buffers), buffers.product.cut_mut(..w.weight.rows()), w, &staged.view(1));
        w.weight.rows()
    }

    /// `out = w . x + bias` for each token.
    #[inline(always)]
    pub fn linear(&self, lanes: Lanes<'_>, out: &mut [f32], w: &Linear<'_>, x: &ActivationsQ8<'_>) {
        if w.weight.is_sparse() {
            sparse::product(self.kernels, &self.join, lanes, out, 0, &w.weight, x);
        } else {
            matmul_f32_q8_q8(self.kernels, &self.join, out, &w.weight, x);
        }
        if cfg!(feature = "families") && !w.bias.is_empty() {
            out.chunks_mut(w.bias.len().max(1)).for_each(|out| self.kernels.add(out, w.bias));
        }
    }

    /// The norm that the model has, with its kind.
    pub fn normalize(&self, out: &mut [f32], x: &[f32], norm: &Norm<'_>) {
        let config = self.model.config();
        match config.parts().norm {
            NormKind::Rms => self.kernels.rmsnorm(out, x, norm.gain, config.norm_eps),
            NormKind::Layer => self.kernels.layernorm(out, x, norm.gain, norm.bias, config.norm_eps),
        }
    }

    fn activate(&self, feed_forward: FeedForward, x: &mut [f32]) {
        let activation = match feed_forward {
            FeedForward::SwiGlu | FeedForward::Silu => Activation::Silu,
            FeedForward::GeGlu | FeedForward::GeluTanh => Activation::GeluTanh,
            FeedForward::Gelu => Activation::Gelu,
            FeedForward::Relu => Activation::Relu,
        };
        self.kernels.activate(activation, x);
    }

    /// The activation buffers as a batch of what goes into `w`.
    pub fn staged<'a>(&self, w: &Linear<'_>, values: &'a mut [i16], scales: &'a mut [f32]) -> Staged<'a> {
        Staged { kernels: self.kernels, format: w.weight.format(), cols: w.weight.cols(), values, scales }
    }

    /// `x += Wo . attention(RoPE(Wq . h), RoPE(Wk . h), Wv . h)` with `h = norm(x)`; with the norm last, `h = x` and `x` is normed.
    fn attention_block(
        &self,
        buffers: &mut Buffers<'_>,
        layer_idx: usize,
        layer: &LayerWeights<'m>,
        temperature: f32,
        place: Place,
        n_tokens: usize,
    ) {
        let config = self.model.config();
        let qkv_dim = config.q_dim() + 2 * config.kv_dim();
        let Projections::Stacked(qkv) = &layer.attention.projections else { return };
        self.stream_product(buffers, &layer.attention.norm, qkv, 0..n_tokens);
        for i in 0..n_tokens {
            let (qkv, position) = (i * qkv_dim, place.position(i));
            let rotated = qkv..qkv + config.q_dim() + config.kv_dim();
            if let angles @ [_, ..] = self.model.rope(position) {
                self.kernels.rotate_heads(buffers.product.cut_mut(rotated), angles);
            }
            let cached_layer = place.cached_layer(config, layer_idx, i);
            self.store(buffers, Cache::Own, cached_layer, position, qkv + config.q_dim());
        }
        let table = self.model.relative_bias(false);
        self.attend(buffers, Cache::Own, &layer.attention.output, n_tokens, qkv_dim, &|i| {
            let (position, layer_idx) = (place.position(i), place.cached_layer(config, layer_idx, i));
            let relative_bias = (!table.is_empty()).then_some((table, position));
            View { layer_idx, n_positions: position + 1, temperature, relative_bias }
        });
        self.add_staged_product(buffers, &layer.attention.output, &layer.attention.norm, 0..n_tokens);
    }

    /// The same with queries alone, of the tokens in `rows`, to keys and values that are there already; `view` says what each sees.
    pub fn query_block(
        &self,
        buffers: &mut Buffers<'_>,
        attention: &AttentionWeights<'m>,
        rows: Range<usize>,
        cache: Cache,
        view: impl Fn(usize) -> View<'m> + Sync,
    ) {
        let Projections::Separate { query, .. } = &attention.projections else { return };
        self.stream_product(buffers, &attention.norm, query, rows.clone());
        let (first, width) = (rows.start, query.weight.rows());
        self.attend(buffers, cache, &attention.output, rows.len(), width, &|i| view(first + i));
        self.add_staged_product(buffers, &attention.output, &attention.norm, rows);
    }

    /// Quantises the key and the value at `product[keys_at..]`, `(2, kv_dim)`, into a cache.
    pub fn store(&self, buffers: &mut Buffers<'_>, cache: Cache, layer_idx: usize, position: usize, keys_at: usize) {
        let config = self.model.config();
        let (keys, values) = match cache {
            Cache::Own => (&mut buffers.keys, &mut buffers.values),
            Cache::Source => (&mut buffers.cross_keys, &mut buffers.cross_values),
        };
        let (k, v) = buffers.product.cut(keys_at..keys_at + 2 * config.kv_dim()).parts(config.kv_dim());
        for (stored, x) in [(keys, k), (values, v)] {
            stored.put(self.kernels, config, &mut buffers.unpacked_keys, layer_idx, position, x);
        }
    }

    /// All heads of `n_tokens`, whose queries are the first of each `width` in `product`; stages what they give for `output`.
    // Called from one place alone where there are no other families.
    #[cfg_attr(not(feature = "families"), inline(always))]
    fn attend(
        &self,
        buffers: &mut Buffers<'_>,
        cache: Cache,
        output: &Linear<'_>,
        n_tokens: usize,
        width: usize,
        view: &(impl Fn(usize) -> View<'m> + Sync),
    ) {
        let q_dim = self.model.config().q_dim();
        let (keys, values) = match cache {
            Cache::Own => (&buffers.keys, &buffers.values),
            Cache::Source => (&buffers.cross_keys, &buffers.cross_values),
        };
        let mut staged = self.staged(output, buffers.activations, buffers.activation_scales);
        let product = buffers.product.cut_mut(..n_tokens * width);
        let lanes = lanes!(self, buffers);
        self.each_token(lanes, &mut staged, product, width, 0, &|lanes, staged, product, first| {
            for (i, queries) in product.chunks(width.max(1)).enumerate() {
                let row = core::mem::take(&mut lanes.lane.row);
                let (queries, out) = (queries.cut(..q_dim), row.cut_mut(..q_dim));
                self.attend_heads(lanes, &view(first + i), (keys, values), 0, queries, out);
                lanes.lane.row = row;
                staged.put(i, lanes.lane.row.cut(..q_dim));
            }
        });
    }

    /// The heads of one token that `queries`, `(n_heads, head_dim)` from that of the key head `first_head`, are of, into `out`.
    fn attend_heads(
        &self,
        lanes: &mut Lanes<'_>,
        view: &View<'m>,
        (keys, values): (&Stored<'_>, &Stored<'_>),
        first_head: usize,
        queries: &[f32],
        out: &mut [f32],
    ) {
        let config = self.model.config();
        let group = config.n_heads / config.n_kv_heads.max(1);
        let width = (group * config.head_dim).max(1);
        if self.join.n_threads() > 1 && queries.len() > width && view.n_positions * queries.len() >= SPLIT_KEYS_MIN {
            let n_left = queries.len() / width / 2;
            let (left_queries, right_queries) = queries.split_at(n_left * width);
            let (left_out, right_out) = out.split_at_mut(left_queries.len());
            if let Some([mut left, mut right]) = lanes.halves() {
                return self.join.join(
                    || self.attend_heads(&mut left, view, (keys, values), first_head, left_queries, left_out),
                    || {
                        self.attend_heads(
                            &mut right,
                            view,
                            (keys, values),
                            first_head + n_left,
                            right_queries,
                            right_out,
                        )
                    },
                );
            }
        }
        // Chunks that are zipped would be counted by a division that some cores call, and that can panic for all they know.
        for kv_head_idx in 0..queries.len() / width {
            let of_head = kv_head_idx * width..(kv_head_idx + 1) * width;
            let (queries, out) = (queries.cut(of_head.clone()), out.cut_mut(of_head));
            let cached_idx = view.layer_idx * config.n_kv_heads + first_head + kv_head_idx;
            let Lane { unpacked: [of_keys, of_values], scratch, .. } = &mut lanes.lane;
            let keys = keys.head(self.kernels, config, of_keys, cached_idx, view.n_positions);
            let values = values.head(self.kernels, config, of_values, cached_idx, view.n_positions);
            if view.relative_bias.is_none()
                && !keys.is_wide()
                && self.kernels.attend_heads(
                    out,
                    queries,
                    view.temperature,
                    keys.parts(),
                    values.parts(),
                    scratch.scores,
                )
            {
                continue;
            }
            let cached = CachedHead::new(self.kernels, keys, values);
            let first = (first_head + kv_head_idx) * group;
            let head_dim = config.head_dim.max(1);
            for i in 0..group {
                let of_query = i * head_dim..(i + 1) * head_dim;
                let (q, out) = (queries.cut(of_query.clone()), out.cut_mut(of_query));
                let scoring = Scoring { temperature: view.temperature, bias: view.bias(config, first + i) };
                attention::attend(self.kernels, out, q, &scoring, &cached, scratch);
            }
        }
    }

    /// Runs `work` for all tokens of a batch: on some of `x`, `(n_tokens, width)`, with their activations and the index of the first.
    fn each_token(
        &self,
        mut lanes: Lanes<'_>,
        staged: &mut Staged<'_>,
        x: &mut [f32],
        width: usize,
        first: usize,
        work: &(impl Fn(&mut Lanes<'_>, &mut Staged<'_>, &mut [f32], usize) + Sync),
    ) {
        if self.join.n_threads() > 1 && x.len() > width && x.len() >= SPLIT_ELEMENTS_MIN {
            let n_tokens = x.len() / width;
            // An even share for each of the threads, of which the left half may be fewer.
            let n_left = (n_tokens * (lanes.n_threads / 2) / lanes.n_threads).max(1);
            if let Some([left, right]) = lanes.halves() {
                let (left_x, right_x) = x.split_at_mut(n_left * width);
                let [mut left_staged, mut right_staged] = staged.split_at(n_left);
                return self.join.join(
                    || self.each_token(left, &mut left_staged, left_x, width, first, work),
                    || self.each_token(right, &mut right_staged, right_x, width, first + n_left, work),
                );
            }
        }
        work(&mut lanes, staged, x, first);
    }

    /// `x += Wdown . f(Wup . h)` with `h = norm(x)`, or with a gate `f(Wgate . h) * (Wup . h)`; the norm may come last.
    pub fn feed_forward_block(&self, buffers: &mut Buffers<'_>, layer: &LayerWeights<'_>, rows: Range<usize>) {
        let config = self.model.config();
        let (hidden_dim, up_dim) = (config.hidden_dim, config.up_dim());
        self.stream_product(buffers, &layer.feed_forward_norm, &layer.gate_up, rows.clone());
        let mut staged = self.staged(&layer.down, buffers.activations, buffers.activation_scales);
        let product = buffers.product.cut_mut(..rows.len() * up_dim);
        let lanes = lanes!(self, buffers);
        self.each_token(lanes, &mut staged, product, up_dim, 0, &|lanes, staged, product, _| {
            for (i, gate_up) in product.chunks_mut(up_dim.max(1)).enumerate() {
                let (gate, up) = gate_up.parts_mut(hidden_dim);
                match config.parts().feed_forward {
                    FeedForward::SwiGlu => {
                        self.kernels.swiglu(lanes.lane.row.cut_mut(..hidden_dim), gate, up);
                        staged.put(i, lanes.lane.row.cut(..hidden_dim));
                    }
                    function => {
                        self.activate(function, gate);
                        self.kernels.multiply(gate, up);
                        staged.put(i, gate);
                    }
                }
            }
        });
        self.add_staged_product(buffers, &layer.down, &layer.feed_forward_norm, rows);
    }

    /// `product = w . norm(residual) + bias` for the streams in `rows`; of the streams themselves where norms come last.
    pub fn stream_product(&self, buffers: &mut Buffers<'_>, norm: &Norm<'_>, w: &Linear<'_>, rows: Range<usize>) {
        let dim = self.model.config().dim;
        let is_pre = self.model.config().parts().norm_place == NormPlace::Pre;
        let mut staged = self.staged(w, buffers.activations, buffers.activation_scales);
        let residual = buffers.residual.cut_mut(rows.start * dim..rows.end * dim);
        self.each_token(lanes!(self, buffers), &mut staged, residual, dim, 0, &|lanes, staged, residual, _| {
            for (i, x) in residual.chunks(dim.max(1)).enumerate() {
                if is_pre {
                    self.normalize(lanes.lane.row.cut_mut(..dim), x, norm);
                    staged.put(i, lanes.lane.row.cut(..dim));
                } else {
                    staged.put(i, x);
                }
            }
        });
        let product = buffers.product.cut_mut(..rows.len() * w.weight.rows());
        self.linear(lanes!(self, buffers), product, w, &staged.view(rows.len()));
        #[cfg(feature = "adapters")]
        self.adapt(buffers, w, rows.len());
    }

    /// `residual += w . activations + bias` in `rows`, for activations that are staged already; normed where norms come last.
    fn add_staged_product(&self, buffers: &mut Buffers<'_>, w: &Linear<'_>, norm: &Norm<'_>, rows: Range<usize>) {
        let dim = self.model.config().dim;
        let staged = self.staged(w, buffers.activations, buffers.activation_scales);
        let product = buffers.product.cut_mut(..rows.len() * dim);
        self.linear(lanes!(self, buffers), product, w, &staged.view(rows.len()));
        #[cfg(feature = "adapters")]
        self.adapt(buffers, w, rows.len());
        let residual = buffers.residual.cut_mut(rows.start * dim..rows.end * dim);
        self.kernels.add(residual, buffers.product.cut(..rows.len() * dim));
        if self.model.config().parts().norm_place == NormPlace::Post {
            for x in residual.chunks_mut(dim.max(1)) {
                self.normalize(buffers.row.cut_mut(..dim), x, norm);
                copy(x, buffers.row.cut(..dim));
            }
        }
    }
}

/// The activation buffers, seen as a batch of tokens with `cols` elements each.
pub(crate) struct Staged<'a> {
    kernels: Kernels,
    format: WeightFormat,
    cols: usize,
    values: &'a mut [i16],
    scales: &'a mut [f32],
}

impl Staged<'_> {
    /// The first `n_tokens` tokens and the rest.
    fn split_at(&mut self, n_tokens: usize) -> [Staged<'_>; 2] {
        let Self { kernels, format, cols, .. } = *self;
        let (values, right_values) = self.values.split_at_mut(n_tokens * activation_stride(cols));
        let (scales, right_scales) = self.scales.split_at_mut(n_tokens * format.groups(cols));
        [
            Staged { kernels, format, cols, values, scales },
            Staged { kernels, format, cols, values: right_values, scales: right_scales },
        ]
    }

    /// Quantises `x`, `(cols,)`, as token `token_idx`.
    pub fn put(&mut self, token_idx: usize, x: &[f32]) {
        let (stride, groups) = (activation_stride(self.cols), self.format.groups(self.cols));
        let values = self.values.cut_mut(token_idx * stride..(token_idx + 1) * stride);
        let scales = self.scales.cut_mut(token_idx * groups..(token_idx + 1) * groups);
        quantize(self.kernels, self.format, x, values, scales);
    }

    /// The first `n_tokens` tokens.
    pub fn view(&self, n_tokens: usize) -> ActivationsQ8<'_> {
        ActivationsQ8::new(n_tokens, self.cols, self.format, self.kernels.lanes(self.format), self.values, self.scales)
            // The memory plan has room for a batch of the widest input.
            .unwrap_or(ActivationsQ8::NONE)
    }
}
