//! Snapshots: what a session holds after some tokens, as bytes that another session goes on from without reading those tokens again.
//!
//! A packed model may carry one ([`SectionKind::Prefix`](crate::format::SectionKind::Prefix)): a system prompt or examples that every text
//! begins with. FORMAT.md has the layout. Keys and values are the same bits on every target and in every layout of weights, so what a
//! host has computed is what the device would have.

use core::fmt;

use crate::TokenId;
use crate::config::ModelConfig;
use crate::cut::{Cut, copy};
use crate::format::{PackedModel, u32_at};
use crate::kernels::Join;
use crate::kv_cache::KvFormat;
use crate::parts::Kind;
use crate::session::Session;

/// What a snapshot starts with.
pub const MAGIC: [u8; 4] = *b"SPFX";
/// The version this crate reads and writes.
pub const VERSION: u32 = 1;
/// Bytes before the tokens.
pub const HEAD_BYTES: usize = 16;

/// Why bytes are not a snapshot that a session can go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes do not start with the magic, or are of another version.
    NotASnapshot,
    /// The snapshot's keys and values are in another format than the model's cache.
    OtherKvFormat,
    /// No token at all, or as many as the context has positions or more.
    TokenCount,
    /// A token that the vocabulary does not have.
    UnknownToken,
    /// More or fewer bytes than a model of this shape fills with so many tokens.
    Length,
    /// The model also reads a source, or is an encoder alone.
    OtherKind,
    /// An adapter is at work, which keys and values depend on.
    Adapter,
}

impl SnapshotError {
    /// What is wrong, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotASnapshot => "the prefix is damaged: it does not start as one; compile the model again",
            Self::OtherKvFormat => {
                "the prefix was computed for another format of the KV cache: compile the model with it again"
            }
            Self::TokenCount => "the prefix has no token, or leaves no room in the context: compile with another one",
            Self::UnknownToken => "the prefix has a token that is not in the vocabulary: it is of another model",
            Self::Length => "the prefix is of a model of another shape, or damaged: compile the model with it again",
            Self::OtherKind => "only models that continue a text have a prefix",
            Self::Adapter => "the prefix was read without an adapter: switch adapters off, or begin without it",
        }
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for SnapshotError {}

/// A snapshot where it lies, checked against a model's shape.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'s> {
    tokens: &'s [[u8; 4]],
    /// Keys, values, the scales of each, states of recurrent layers.
    parts: [&'s [u8]; 5],
}

impl<'s> Snapshot<'s> {
    /// Checks `bytes` for `model`.
    ///
    /// # Errors
    /// [`SnapshotError`]. No bytes panic.
    pub fn parse(bytes: &'s [u8], model: &PackedModel<'_>) -> Result<Self, SnapshotError> {
        let (config, kv) = (model.config(), model.header().kv);
        let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Err(SnapshotError::NotASnapshot) };
        if !head.starts_with(&MAGIC) || u32_at(head, 4) != VERSION {
            return Err(SnapshotError::NotASnapshot);
        }
        if config.parts().kind != Kind::Decoder {
            return Err(SnapshotError::OtherKind);
        }
        if u32_at(head, 8) != kv as u32 {
            return Err(SnapshotError::OtherKvFormat);
        }
        let n_tokens = u32_at(head, 12) as usize;
        if n_tokens == 0 || n_tokens >= config.context_len {
            return Err(SnapshotError::TokenCount);
        }
        let Some((tokens, mut rest)) = rest.split_at_checked(4 * n_tokens) else { return Err(SnapshotError::Length) };
        let tokens = tokens.as_chunks().0;
        if tokens.iter().any(|&token| TokenId::from_le_bytes(token) as usize >= config.vocab_size) {
            return Err(SnapshotError::UnknownToken);
        }
        let mut parts = [&[][..]; 5];
        for (part, part_bytes) in parts.iter_mut().zip(part_bytes(config, kv, n_tokens)) {
            let Some(split) = rest.split_at_checked(part_bytes) else { return Err(SnapshotError::Length) };
            (*part, rest) = split;
        }
        if rest.is_empty() { Ok(Self { tokens, parts }) } else { Err(SnapshotError::Length) }
    }

    /// Its number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Its tokens, in their order.
    pub fn tokens(&self) -> impl Iterator<Item = TokenId> + use<'s> {
        self.tokens.iter().map(|&token| TokenId::from_le_bytes(token))
    }
}

/// Bytes of a position in a head: of a key, a value, the scale of each.
fn row_bytes(config: &ModelConfig, kv: KvFormat) -> [usize; 4] {
    let row_bytes = kv.row_bytes(config.head_dim);
    [row_bytes, row_bytes, kv.scale_bytes(), kv.scale_bytes()]
}

/// Bytes of keys, values, the scales of each, and states; an arena that fits the address space has as many and more.
fn part_bytes(config: &ModelConfig, kv: KvFormat, n_tokens: usize) -> [usize; 5] {
    let n_rows = config.n_layers * config.n_kv_heads * n_tokens;
    let [keys, values, key_scales, value_scales] = row_bytes(config, kv).map(|row_bytes| n_rows * row_bytes);
    let states = if config.parts().is_recurrent { 4 * config.n_layers * config.dim } else { 0 };
    [keys, values, key_scales, value_scales, states]
}

impl<J: Join + Sync> Session<'_, J> {
    /// Begins with what a snapshot holds, in place of all before: as if its tokens had been read, but that nothing is predicted yet.
    ///
    /// # Errors
    /// [`SnapshotError`]: it is damaged, or of another model's shape; or an adapter is at work. The session is as it was.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let snapshot = Snapshot::parse(snapshot, self.model())?;
        self.check_no_adapter()?;
        self.reset();
        let (n_tokens, context_len) = (snapshot.n_tokens(), self.model().config().context_len);
        let rows = row_bytes(self.model().config(), self.model().header().kv);
        let [parts @ .., states] = snapshot.parts;
        for ((from, to), row_bytes) in parts.into_iter().zip(self.cached()).zip(rows) {
            let heads = from.chunks((n_tokens * row_bytes).max(1)).zip(to.chunks_mut((context_len * row_bytes).max(1)));
            for (from, to) in heads {
                copy(to.cut_mut(..from.len()), from);
            }
        }
        let state = bytemuck::cast_slice_mut::<f32, u8>(self.buffers.state);
        state.iter_mut().zip(states).for_each(|(to, &from)| *to = from);
        self.buffers.history.iter_mut().zip(snapshot.tokens()).for_each(|(slot, token)| *slot = token);
        self.position = n_tokens;
        Ok(())
    }

    /// Gives the bytes of a snapshot of the session to `write`, one stretch after the other.
    ///
    /// # Errors
    /// [`SnapshotError`]: of the number of tokens, the kind of model or an adapter; nothing was written.
    pub fn snapshot(&mut self, mut write: impl FnMut(&[u8])) -> Result<(), SnapshotError> {
        self.check_no_adapter()?;
        let (config, kv, n_tokens) = (*self.model().config(), self.model().header().kv, self.position);
        if config.parts().kind != Kind::Decoder {
            return Err(SnapshotError::OtherKind);
        }
        if n_tokens == 0 || n_tokens >= config.context_len {
            return Err(SnapshotError::TokenCount);
        }
        write(&MAGIC);
        [VERSION, kv as u32, n_tokens as u32].into_iter().for_each(|word| write(&word.to_le_bytes()));
        self.history().iter().for_each(|token| write(&token.to_le_bytes()));
        for (cached, row_bytes) in self.cached().into_iter().zip(row_bytes(&config, kv)) {
            let heads = cached.chunks((config.context_len * row_bytes).max(1));
            // Other beams lie behind the first.
            for head in heads.take(config.n_layers * config.n_kv_heads) {
                write(head.cut(..n_tokens * row_bytes));
            }
        }
        let [.., states] = part_bytes(&config, kv, n_tokens);
        write(bytemuck::cast_slice(self.buffers.state).cut(..states));
        Ok(())
    }

    /// Keys, values, and the scales of each, of all heads of all layers.
    fn cached(&mut self) -> [&mut [u8]; 4] {
        let (keys, key_scales) = self.buffers.keys.bytes_mut();
        let (values, value_scales) = self.buffers.values.bytes_mut();
        [keys, values, key_scales, value_scales]
    }

    fn check_no_adapter(&self) -> Result<(), SnapshotError> {
        #[cfg(feature = "adapters")]
        if self.adapter().is_some() {
            return Err(SnapshotError::Adapter);
        }
        Ok(())
    }
}
