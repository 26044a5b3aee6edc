//! The forward pass: top to bottom as the architecture's papers draw it.

use crate::TokenId;
use crate::arena::Buffers;
use crate::attention::{self, CachedHead, Scratch};
use crate::format::{LayerWeights, PackedModel};
use crate::kernels::{Join, Kernels, matmul_f32_q8_q8};
use crate::kv_cache;
use crate::tensor::{ActivationsQ8, MatrixQ8, WeightFormat, activation_stride, quantize};

/// What a pass over the weights needs besides its buffers.
pub(crate) struct Decoder<'m, J> {
    pub model: PackedModel<'m>,
    pub kernels: Kernels,
    pub join: J,
}

impl<J: Join + Sync> Decoder<'_, J> {
    /// Runs `tokens`, at most a batch, through all layers at the positions from `first_position`; leaves their residual
    /// streams in the buffers, and their keys and values in the cache.
    ///
    /// The caller has checked that the tokens are in the vocabulary and the positions in the context.
    pub fn forward(&self, buffers: &mut Buffers<'_>, first_position: usize, tokens: &[TokenId]) {
        let config = self.model.config();
        let embedding = self.model.embedding();
        let temperature = attention::temperature(config.head_dim);
        for (x, &token) in buffers.residual.chunks_mut(config.dim).zip(tokens) {
            embedding.dequantize_row(token as usize, x);
        }
        for layer_idx in 0..config.n_layers {
            let layer = self.model.layer(layer_idx);
            self.attention_block(buffers, layer_idx, &layer, temperature, first_position, tokens.len());
            self.feed_forward_block(buffers, &layer, tokens.len());
        }
    }

    /// Computes the logits of the batch's token `token_idx` from its residual stream.
    pub fn logits(&self, buffers: &mut Buffers<'_>, token_idx: usize) {
        let config = self.model.config();
        let head = self.model.head();
        let x = &buffers.residual[token_idx * config.dim..(token_idx + 1) * config.dim];
        self.kernels.rmsnorm(&mut buffers.row[..config.dim], x, self.model.final_norm(), config.norm_eps);
        let mut staged =
            Staged::new(self.kernels, head.format(), config.dim, buffers.activations, buffers.activation_scales);
        staged.put(0, &buffers.row[..config.dim]);
        self.matmul(buffers.logits, &head, &staged.view(1));
    }

    fn matmul(&self, out: &mut [f32], w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        matmul_f32_q8_q8(self.kernels, &self.join, out, w, x);
    }

    /// `x += Wo . attention(RoPE(Wq . h), RoPE(Wk . h), Wv . h)` with `h = norm(x)`.
    fn attention_block(
        &self,
        buffers: &mut Buffers<'_>,
        layer_idx: usize,
        layer: &LayerWeights<'_>,
        temperature: f32,
        first_position: usize,
        n_tokens: usize,
    ) {
        let config = self.model.config();
        let qkv_dim = config.q_dim() + 2 * config.kv_dim();
        self.normed_product(buffers, layer.attention_norm, &layer.qkv, n_tokens);
        for (i, qkv) in buffers.product[..n_tokens * qkv_dim].chunks_mut(qkv_dim).enumerate() {
            let position = first_position + i;
            let (qk, v) = qkv.split_at_mut(config.q_dim() + config.kv_dim());
            self.kernels.rotate_heads(qk, self.model.rope(position));
            let k = &qk[config.q_dim()..];
            for (kv_head_idx, (k, v)) in k.chunks(config.head_dim).zip(v.chunks(config.head_dim)).enumerate() {
                let mut keys = kv_cache::head_mut(config, buffers.keys, buffers.key_scales, layer_idx, kv_head_idx);
                keys.store(self.kernels, position, k);
                let mut values =
                    kv_cache::head_mut(config, buffers.values, buffers.value_scales, layer_idx, kv_head_idx);
                values.store(self.kernels, position, v);
            }
        }
        for i in 0..n_tokens {
            self.attend(buffers, (layer_idx, first_position + i), temperature, i * qkv_dim);
            let format = layer.attention_output.format();
            let mut staged =
                Staged::new(self.kernels, format, config.q_dim(), buffers.activations, buffers.activation_scales);
            staged.put(i, &buffers.row[..config.q_dim()]);
        }
        self.add_staged_product(buffers, &layer.attention_output, n_tokens);
    }

    /// All heads of one token, at `position` of layer `layer_idx`, whose queries start at `product[queries_at]`, into `row`, `(q_dim,)`.
    fn attend(
        &self,
        buffers: &mut Buffers<'_>,
        (layer_idx, position): (usize, usize),
        temperature: f32,
        queries_at: usize,
    ) {
        let config = self.model.config();
        let heads_width = config.n_heads / config.n_kv_heads * config.head_dim;
        let (n, width) = (position + 1, (position + 1) * config.head_dim);
        let queries = buffers.product[queries_at..][..config.q_dim()].chunks(heads_width);
        let outputs = buffers.row[..config.q_dim()].chunks_mut(heads_width);
        for (kv_head_idx, (queries, outputs)) in queries.zip(outputs).enumerate() {
            let keys = kv_cache::head_mut(config, buffers.keys, buffers.key_scales, layer_idx, kv_head_idx);
            let values = kv_cache::head_mut(config, buffers.values, buffers.value_scales, layer_idx, kv_head_idx);
            let cached = CachedHead::new(
                self.kernels,
                (&keys.values[..width], &keys.scales[..n]),
                (&values.values[..width], &values.scales[..n]),
            );
            let mut scratch = Scratch { query: buffers.query, scores: buffers.scores, value_sums: buffers.value_sums };
            for (q, out) in queries.chunks(config.head_dim).zip(outputs.chunks_mut(config.head_dim)) {
                attention::attend(self.kernels, out, q, temperature, &cached, &mut scratch);
            }
        }
    }

    /// `x += Wdown . (silu(Wgate . h) * (Wup . h))` with `h = norm(x)`.
    fn feed_forward_block(&self, buffers: &mut Buffers<'_>, layer: &LayerWeights<'_>, n_tokens: usize) {
        let hidden_dim = self.model.config().hidden_dim;
        self.normed_product(buffers, layer.feed_forward_norm, &layer.gate_up, n_tokens);
        let format = layer.down.format();
        let mut staged = Staged::new(self.kernels, format, hidden_dim, buffers.activations, buffers.activation_scales);
        for (i, gate_up) in buffers.product[..n_tokens * 2 * hidden_dim].chunks(2 * hidden_dim).enumerate() {
            let (gate, up) = gate_up.split_at(hidden_dim);
            self.kernels.swiglu(&mut buffers.row[..hidden_dim], gate, up);
            staged.put(i, &buffers.row[..hidden_dim]);
        }
        self.add_staged_product(buffers, &layer.down, n_tokens);
    }

    /// `product = w . norm(residual)` for each token.
    fn normed_product(&self, buffers: &mut Buffers<'_>, gain: &[f32], w: &MatrixQ8<'_>, n_tokens: usize) {
        let config = self.model.config();
        let mut staged =
            Staged::new(self.kernels, w.format(), config.dim, buffers.activations, buffers.activation_scales);
        for (i, x) in buffers.residual.chunks(config.dim).take(n_tokens).enumerate() {
            self.kernels.rmsnorm(&mut buffers.row[..config.dim], x, gain, config.norm_eps);
            staged.put(i, &buffers.row[..config.dim]);
        }
        self.matmul(&mut buffers.product[..n_tokens * w.rows()], w, &staged.view(n_tokens));
    }

    /// `residual += w . activations`, for activations that are staged already.
    fn add_staged_product(&self, buffers: &mut Buffers<'_>, w: &MatrixQ8<'_>, n_tokens: usize) {
        let staged = Staged::new(self.kernels, w.format(), w.cols(), buffers.activations, buffers.activation_scales);
        let product = &mut buffers.product[..n_tokens * w.rows()];
        self.matmul(product, w, &staged.view(n_tokens));
        self.kernels.add(&mut buffers.residual[..product.len()], product);
    }
}

/// The activation buffers, seen as a batch of tokens with `cols` elements each.
struct Staged<'a> {
    kernels: Kernels,
    format: WeightFormat,
    cols: usize,
    values: &'a mut [i16],
    scales: &'a mut [f32],
}

impl<'a> Staged<'a> {
    fn new(kernels: Kernels, format: WeightFormat, cols: usize, values: &'a mut [i16], scales: &'a mut [f32]) -> Self {
        Self { kernels, format, cols, values, scales }
    }

    /// Quantises `x`, `(cols,)`, as token `token_idx`.
    fn put(&mut self, token_idx: usize, x: &[f32]) {
        let (stride, groups) = (activation_stride(self.cols), self.format.groups(self.cols));
        let values = &mut self.values[token_idx * stride..(token_idx + 1) * stride];
        let scales = &mut self.scales[token_idx * groups..(token_idx + 1) * groups];
        quantize(self.kernels, self.format, x, values, scales);
    }

    /// The first `n_tokens` tokens.
    fn view(&self, n_tokens: usize) -> ActivationsQ8<'_> {
        ActivationsQ8::new(n_tokens, self.cols, self.format, self.kernels.lanes(self.format), self.values, self.scales)
            .expect("the memory plan has room for a batch of the widest input")
    }
}
