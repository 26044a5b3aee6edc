//! Where every byte of the arena goes, computed from the model alone: the same numbers before flashing and on the device.

use core::ops::Range;

use crate::beam::Record;
use crate::config::ModelConfig;
use crate::kv_cache::KvFormat;
use crate::parts::Kind;
use crate::tensor::{WeightFormat, activation_stride};

/// Alignment of the arena and of every buffer in it, in bytes.
pub const ARENA_ALIGN: usize = 16;

/// The arena's buffers, as byte ranges from its start.
///
/// `B` is [`MemoryPlan::prefill_batch`], the tokens that share one pass over the weights; `C` the layers of the cache: all of a decoder's,
/// one of an encoder alone, whose layers use it in turn; with room for a beam search, all layers of one beam after the other. A buffer that a model has no use for has no bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Tokens that one pass over the weights serves while a prompt is read.
    pub prefill_batch: usize,
    /// Keys, `(C, n_kv_heads, context_len)` rows of [`KvFormat::row_bytes`].
    pub keys: Range<usize>,
    /// Values, the same shape.
    pub values: Range<usize>,
    /// How the cache's numbers are kept.
    pub kv: KvFormat,
    /// Scales of the keys, `(C, n_kv_heads, context_len)` of [`KvFormat::scale_bytes`].
    pub key_scales: Range<usize>,
    /// Scales of the values, the same shape.
    pub value_scales: Range<usize>,
    /// Keys of an encoder's output, as the decoder's layers attend to it: `(n_layers, n_kv_heads, context_len)` rows.
    pub cross_keys: Range<usize>,
    /// Its values, the same shape.
    pub cross_values: Range<usize>,
    /// Scales of those keys, `(n_layers, n_kv_heads, context_len)`.
    pub cross_key_scales: Range<usize>,
    /// Scales of those values, the same shape.
    pub cross_value_scales: Range<usize>,
    /// States of recurrent layers, f32 `(n_beams, n_layers, dim)`; behind them, where there is an encoder, those that it left.
    pub state: Range<usize>,
    /// Hypotheses side by side that a beam search has room for; 0 for none.
    pub n_beams: usize,
    /// The tokens of a beam search, u32 `(context_len, n_beams)`.
    pub beam_nodes: Range<usize>,
    /// Its hypotheses, of four u32 `(4 n_beams,)`.
    pub beam_records: Range<usize>,
    /// The tokens in the cache, u32 `(context_len,)`; an encoder alone keeps none.
    pub history: Range<usize>,
    /// The residual stream, f32 `(B, dim)`; of all tokens, `(context_len, dim)`, where there is an encoder.
    pub residual: Range<usize>,
    /// What a matrix product gives, f32 `(B, widest output)`; a recurrent model's has a row more.
    pub product: Range<usize>,
    /// One token's vector before it is quantised, f32 `(widest input,)`.
    pub row: Range<usize>,
    /// Quantised activations, i16 `(B, widest padded input)`.
    pub activations: Range<usize>,
    /// Their scales, f32 `(B, most groups)`.
    pub activation_scales: Range<usize>,
    /// A quantised query, i16 `(head_dim,)`.
    pub query: Range<usize>,
    /// A head's keys where kernels do not read them as they lie, int8 `(1 or 2, context_len, head_dim)`.
    pub unpacked_keys: Range<usize>,
    /// Their scales where kernels do not read those as they lie: bfloat16 `(context_len,)`.
    pub unpacked_key_scales: Range<usize>,
    /// The head's values, likewise.
    pub unpacked_values: Range<usize>,
    /// And their scales.
    pub unpacked_value_scales: Range<usize>,
    /// Scores, then weights, of one head, i32 `(context_len,)`.
    pub scores: Range<usize>,
    /// Sums of weighted values, i32 `(head_dim,)`.
    pub value_sums: Range<usize>,
    /// f32 `(vocab_size,)`, or `(n_labels,)`.
    pub logits: Range<usize>,
    /// Bytes of the whole arena.
    pub arena_bytes: usize,
}

impl MemoryPlan {
    /// Lays the arena out, or `None` where it would not fit the address space.
    ///
    /// `config` must be valid and `prefill_batch` at least 1.
    pub fn new(config: &ModelConfig, format: WeightFormat, kv: KvFormat, prefill_batch: usize) -> Option<Self> {
        Self::for_beams(config, format, kv, prefill_batch, 0)
    }

    /// The same with room for a beam search of `n_beams`. Encoders alone have no use for it.
    pub fn for_beams(
        config: &ModelConfig,
        format: WeightFormat,
        kv: KvFormat,
        prefill_batch: usize,
        n_beams: usize,
    ) -> Option<Self> {
        let n_beams = if config.parts().kind == Kind::Encoder { 0 } else { n_beams };
        let (batch, beams) = (prefill_batch as u64, n_beams.max(1) as u64);
        let (widest_in, widest_out) = (config.widest_in(), config.widest_out());
        let (parts, context_len) = (config.parts(), config.context_len as u64);
        let heads = config.n_kv_heads as u64 * context_len;
        let cached_layers = if parts.kind == Kind::Encoder { 1 } else { config.n_layers as u64 };
        let cached = beams * cached_layers * heads;
        let cross = if parts.has_cross_attention() { config.n_layers as u64 * heads } else { 0 };
        let states = match (parts.is_recurrent, parts.has_source()) {
            (false, _) => 0,
            (true, false) => beams * config.n_layers as u64,
            (true, true) => (beams + 1) * config.n_layers as u64,
        };
        let history = if parts.kind == Kind::Encoder { 0 } else { context_len };
        let is_read_whole = parts.kind != Kind::Decoder && !parts.is_recurrent;
        let stream = if is_read_whole { context_len.max(batch) } else { batch };
        let product_rows = if parts.is_recurrent { batch + 1 } else { batch };
        let scores = if parts.is_recurrent { 0 } else { context_len };
        let scale_bytes = kv.scale_bytes() as u64;
        let row_bytes = kv.row_bytes(config.head_dim) as u64;
        let unpacked = scores * config.head_dim as u64;
        let unpacked_scales = if kv.unpacks_scales() { scores } else { 0 };
        let mut end = 0u64;
        let mut place = |elements: u64, element_bytes: u64| -> Option<Range<usize>> {
            let start = end;
            let bytes = elements.checked_mul(element_bytes)?;
            end = start.checked_add(bytes)?.checked_next_multiple_of(ARENA_ALIGN as u64)?;
            Some(usize::try_from(start).ok()?..usize::try_from(start + bytes).ok()?)
        };
        let mut plan = Self {
            prefill_batch,
            keys: place(cached, row_bytes)?,
            values: place(cached, row_bytes)?,
            kv,
            key_scales: place(cached, scale_bytes)?,
            value_scales: place(cached, scale_bytes)?,
            cross_keys: place(cross, row_bytes)?,
            cross_values: place(cross, row_bytes)?,
            cross_key_scales: place(cross, scale_bytes)?,
            cross_value_scales: place(cross, scale_bytes)?,
            state: place(states * config.dim as u64, 4)?,
            n_beams,
            beam_nodes: place(n_beams as u64 * context_len, 4)?,
            beam_records: place(n_beams as u64 * 4, size_of::<Record>() as u64)?,
            history: place(history, 4)?,
            residual: place(stream * config.dim as u64, 4)?,
            product: place(product_rows * widest_out as u64, 4)?,
            row: place(widest_in as u64, 4)?,
            activations: place(batch * activation_stride(widest_in) as u64, 2)?,
            activation_scales: place(batch * format.groups(widest_in) as u64, 4)?,
            query: place(config.head_dim as u64, 2)?,
            unpacked_keys: place(unpacked, kv.unpacked_bytes() as u64)?,
            unpacked_key_scales: place(unpacked_scales, 2)?,
            unpacked_values: place(unpacked, kv.unpacked_bytes() as u64)?,
            unpacked_value_scales: place(unpacked_scales, 2)?,
            scores: place(scores, 4)?,
            value_sums: place(config.head_dim as u64, 4)?,
            logits: place(config.n_outputs() as u64, 4)?,
            arena_bytes: 0,
        };
        plan.arena_bytes = usize::try_from(end).ok()?;
        Some(plan)
    }

    /// Bytes of an arena in which `n_threads` have working memory each, so that they share all of the work on a batch of tokens and
    /// long attention. In [`MemoryPlan::arena_bytes`] they share the matrix products.
    pub fn arena_bytes_for(&self, n_threads: usize) -> usize {
        let scales = [&self.unpacked_key_scales, &self.unpacked_value_scales];
        let unpacked = [&self.unpacked_keys, &self.unpacked_values].into_iter().chain(scales);
        let lane = [&self.row, &self.query, &self.scores, &self.value_sums].into_iter().chain(unpacked);
        let lane_bytes: usize = lane.map(|buffer| buffer.len().next_multiple_of(ARENA_ALIGN)).sum();
        self.arena_bytes + n_threads.saturating_sub(1) * lane_bytes
    }

    /// Bytes of the KV cache, scales included.
    pub fn kv_cache_bytes(&self) -> usize {
        self.value_scales.end
    }

    /// Bytes of what a beam search keeps besides its caches.
    pub fn beam_bytes(&self) -> usize {
        self.beam_nodes.len() + self.beam_records.len()
    }

    /// Bytes of an encoder's output as the decoder's layers attend to it, scales included.
    pub fn cross_cache_bytes(&self) -> usize {
        self.cross_value_scales.end - self.cross_keys.start
    }
}
