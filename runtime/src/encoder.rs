//! Encoders: models that read a whole text and say something about it, or about each of its tokens.
//!
//! The residual streams of all tokens are in memory, but of keys and values only one layer's: layers use the same cache in turn.
//! Products go a batch of tokens at a time, so their buffers are as small as a decoder's.

use crate::TokenId;
use crate::arena::{ArenaError, Buffers};
use crate::cut::{Cut, copy};
use crate::decoder::{Cache, Decoder, Place, View, lanes};
use crate::format::{LayerWeights, PackedModel, Projections};
use crate::generate::LogitsHash;
use crate::kernels::{Join, Kernels, Serial};
use crate::parts::{Head, Kind};
use crate::session::StepError;
use crate::tokenizer::{EncodeError, EncodeOptions, Specials, Tokenizer};

impl<'m, J: Join + Sync> Decoder<'m, J> {
    /// Runs `tokens` through all layers of the encoder, `batch` at a time; leaves their residual streams in the buffers. Uses the first
    /// layer's place in the cache.
    ///
    /// The caller has checked that the tokens are in the vocabulary, and no more than the context has positions.
    pub fn encode(&self, buffers: &mut Buffers<'_>, batch: usize, tokens: &[TokenId]) {
        let config = self.model.config();
        for (i, tokens) in tokens.chunks(batch.max(1)).enumerate() {
            self.embed(buffers, i * batch, Place::sequence(i * batch), tokens);
        }
        let n_layers = if config.parts().has_source() { config.parts().n_encoder_layers } else { config.n_layers };
        for layer_idx in 0..n_layers {
            self.encoder_layer(buffers, &self.model.encoder_layer(layer_idx), batch, tokens.len());
        }
    }

    /// All keys and values first; then each batch's queries, and what follows from them.
    fn encoder_layer(&self, buffers: &mut Buffers<'_>, layer: &LayerWeights<'m>, batch: usize, n_tokens: usize) {
        let Projections::Separate { key_value, .. } = &layer.attention.projections else { return };
        let batches = || (0..n_tokens).step_by(batch.max(1)).map(|first| first..n_tokens.min(first + batch));
        for rows in batches() {
            self.stream_product(buffers, &layer.attention.norm, key_value, rows.clone());
            for (i, row) in rows.enumerate() {
                self.store(buffers, Cache::Own, 0, row, i * key_value.weight.rows());
            }
        }
        let (table, temperature) = (self.model.relative_bias(true), self.temperature());
        for rows in batches() {
            self.query_block(buffers, &layer.attention, rows.clone(), Cache::Own, |row| View {
                layer_idx: 0,
                n_positions: n_tokens,
                temperature,
                relative_bias: (!table.is_empty()).then_some((table, row)),
            });
            self.feed_forward_block(buffers, layer, rows);
        }
    }

    /// Reads a source and keeps, for each layer of the decoder, the keys and values that it attends to.
    pub fn read_source(&self, buffers: &mut Buffers<'_>, batch: usize, tokens: &[TokenId]) {
        let config = self.model.config();
        self.encode(buffers, batch, tokens);
        let norm = self.model.final_norm(true);
        for first in (0..tokens.len()).step_by(batch.max(1)) {
            let rows = first..tokens.len().min(first + batch);
            if let Some(norm) = &norm {
                for x in buffers
                    .residual
                    .cut_mut(rows.start * config.dim..rows.end * config.dim)
                    .chunks_mut(config.dim.max(1))
                {
                    self.normalize(buffers.row.cut_mut(..config.dim), x, norm);
                    copy(x, buffers.row.cut(..config.dim));
                }
            }
            for layer_idx in 0..config.n_layers {
                let Some(cross) = self.model.layer(layer_idx).cross else { return };
                let Projections::Separate { key_value, .. } = cross.projections else { return };
                let mut staged = self.staged(&key_value, buffers.activations, buffers.activation_scales);
                for (i, row) in rows.clone().enumerate() {
                    staged.put(i, buffers.residual.cut(row * config.dim..(row + 1) * config.dim));
                }
                let width = key_value.weight.rows();
                let product = buffers.product.cut_mut(..rows.len() * width);
                self.linear(lanes!(self, buffers), product, &key_value, &staged.view(rows.len()));
                for (i, row) in rows.clone().enumerate() {
                    self.store(buffers, Cache::Source, layer_idx, row, i * width);
                }
            }
        }
    }
}

/// An encoder at work in the caller's memory.
pub struct Encoder<'a, J = Serial> {
    decoder: Decoder<'a, J>,
    buffers: Buffers<'a>,
    batch: usize,
    n_tokens: usize,
}

impl<'a> Encoder<'a> {
    /// Starts with nothing read, on one thread.
    ///
    /// `arena` needs `model.header().arena_bytes` bytes at a multiple of 16; what they held does not matter.
    ///
    /// # Errors
    /// [`ArenaError`] where the arena is too small or misaligned, or the model is no encoder.
    pub fn new(model: &PackedModel<'a>, arena: &'a mut [u8], kernels: Kernels) -> Result<Self, ArenaError> {
        Self::with_join(model, arena, kernels, Serial)
    }
}

impl<'a, J: Join + Sync> Encoder<'a, J> {
    /// Like [`Encoder::new`], with the caller's threads. The results are the same, bit for bit.
    pub fn with_join(
        model: &PackedModel<'a>,
        arena: &'a mut [u8],
        kernels: Kernels,
        join: J,
    ) -> Result<Self, ArenaError> {
        if model.config().parts().kind != Kind::Encoder {
            return Err(ArenaError::OtherKind);
        }
        let plan = model.memory_plan();
        let buffers = Buffers::cut(arena, &plan)?;
        Ok(Self { decoder: Decoder::new(model, kernels, join), buffers, batch: plan.prefill_batch, n_tokens: 0 })
    }

    /// The model.
    pub fn model(&self) -> &PackedModel<'a> {
        &self.decoder.model
    }

    /// Tokens of the text that was read last.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Reads a text, with the tokens that the model wants around it, in place of any before.
    ///
    /// # Errors
    /// [`StepError`] where it is empty, too long, or has a token that the vocabulary has not; the text before is still there.
    pub fn read(&mut self, tokens: &[TokenId]) -> Result<(), StepError> {
        StepError::check(self.decoder.model.config(), 0, tokens)?;
        self.decoder.encode(&mut self.buffers, self.batch, tokens);
        self.n_tokens = tokens.len();
        Ok(())
    }

    /// The prediction at a token: logits of what a masked one is, or of its labels; a classifier speaks of the whole text at token 0.
    /// Empty where the model has no head.
    ///
    /// # Panics
    /// If the text has no such token: a caller's bug.
    pub fn predict(&mut self, token_idx: usize) -> &mut [f32] {
        require!(token_idx < self.n_tokens);
        self.decoder.predict(&mut self.buffers, token_idx);
        self.buffers.logits
    }

    /// The text as a vector, `(dim,)`: the mean of the tokens' last hidden states. It is not brought to unit length.
    pub fn vector(&mut self) -> &[f32] {
        let dim = self.decoder.model.config().dim;
        // Sums have no buffer of their own: products are not at work, and have room for a vector.
        self.buffers.product.cut_mut(..dim).fill(0.0);
        for token_idx in 0..self.n_tokens {
            self.decoder.finish(&mut self.buffers, token_idx);
            self.decoder.kernels.add(self.buffers.product.cut_mut(..dim), self.buffers.row.cut(..dim));
        }
        let vector = self.buffers.product.cut_mut(..dim);
        let n_tokens = self.n_tokens.max(1) as f32;
        vector.iter_mut().for_each(|sum| *sum /= n_tokens);
        vector
    }
}

/// One thing that an encoder finds in a text.
#[derive(Clone, Copy, Debug)]
pub enum Finding<'f> {
    /// The text as a vector, `(dim,)`.
    Vector(&'f [f32]),
    /// The likeliest label of the whole text.
    Label {
        /// Its number.
        label: usize,
        /// The logits of all labels.
        scores: &'f [f32],
    },
    /// The likeliest label of a token.
    Tag {
        /// Which token.
        token_idx: usize,
        /// The label's number.
        label: usize,
    },
    /// The likeliest token in place of a masked one.
    Fill {
        /// Which token was masked.
        token_idx: usize,
        /// What fills it.
        token: TokenId,
    },
}

impl<J: Join + Sync> Encoder<'_, J> {
    /// Tells all that the model's head finds in the text that was read, which was `tokens`: a vector, a label, a tag for each token but
    /// the two that frame the text, or what fills each mask. Gives the hash of the logits, or of the vector, that it was found by.
    pub fn findings(&mut self, tokens: &[TokenId], mut visit: impl FnMut(Finding<'_>)) -> LogitsHash {
        let tokens = tokens.cut(..tokens.len().min(self.n_tokens));
        if tokens.is_empty() {
            return LogitsHash::EMPTY;
        }
        let parts = *self.model().config().parts();
        let mut hash = LogitsHash::EMPTY;
        match parts.head {
            Head::None | Head::Language => {
                let vector = self.vector();
                hash.add(vector);
                visit(Finding::Vector(vector));
            }
            Head::Classifier => {
                let scores = self.predict(0);
                hash.add(scores);
                visit(Finding::Label { label: greatest(scores), scores });
            }
            Head::TokenClassifier => {
                for token_idx in 1..tokens.len().saturating_sub(1) {
                    let scores = self.predict(token_idx);
                    hash.add(scores);
                    visit(Finding::Tag { token_idx, label: greatest(scores) });
                }
            }
            Head::MaskedLanguage => {
                for (token_idx, _) in tokens.iter().enumerate().filter(|&(_, &token)| Some(token) == parts.mask_token) {
                    let logits = self.predict(token_idx);
                    hash.add(logits);
                    visit(Finding::Fill { token_idx, token: greatest(logits) as TokenId });
                }
            }
        }
        hash
    }
}

/// The place of the greatest number, the first of equals.
fn greatest(numbers: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (idx, &number) in numbers.iter().enumerate() {
        if number > best.1 {
            best = (idx, number);
        }
    }
    best.0
}

impl PackedModel<'_> {
    /// The tokens of `text` as the model was trained to read an input, in the front of `tokens`; gives their number. An encoder alone
    /// reads it between the tokens that begin and end a text, one that a decoder writes from with the latter. What speaks of
    /// the whole text, a label or a vector, has a long one cut to the context.
    ///
    /// [`Tokenizer::max_tokens`] slots always suffice.
    ///
    /// # Errors
    /// [`EncodeError`]: too little room.
    pub fn encode_input(
        &self,
        tokenizer: &Tokenizer<'_>,
        text: &str,
        tokens: &mut [TokenId],
    ) -> Result<usize, EncodeError> {
        let (config, parts) = (self.config(), self.config().parts());
        if parts.kind == Kind::Decoder {
            return tokenizer.encode(text, tokens);
        }
        let is_alone = parts.kind == Kind::Encoder;
        let options = EncodeOptions { add_bos: is_alone, specials: Specials::Everywhere };
        let mut n_tokens = tokenizer.encode_with(text, tokens, options)?;
        let Some(eos) = tokenizer.eos() else { return Ok(n_tokens) };
        if is_alone && matches!(parts.head, Head::Classifier | Head::None) {
            n_tokens = n_tokens.min(config.context_len - 1);
        }
        let given_tokens = tokens.len();
        *tokens.get_mut(n_tokens).ok_or(EncodeError { given_tokens })? = eos;
        Ok(n_tokens + 1)
    }
}
