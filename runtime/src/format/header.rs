//! The header: the fixed part of a file, which gives the model's shape.

use super::{FormatError, HEADER_BYTES, MAGIC, PREFILL_BATCH_MAX, SECTIONS_MAX, VERSION, checksum, u32_at, u64_at};
use crate::TokenId;
use crate::config::ModelConfig;
use crate::layout::WeightLayout;
use crate::parts::Parts;
#[cfg(feature = "families")]
use crate::parts::{FeedForward, Head, Kind, NormKind, NormPlace, Positions};
use crate::tensor::WeightFormat;

/// The fixed part of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Entries of the section table.
    pub n_sections: u32,
    /// The order of the weights' bytes.
    pub layout: WeightLayout,
    /// How weights are quantised.
    pub format: WeightFormat,
    /// The model's shape.
    pub config: ModelConfig,
    /// Tokens that share a pass over the weights in prefill.
    pub prefill_batch: u32,
    /// Bytes of the arena that a session needs.
    pub arena_bytes: u64,
}

impl Header {
    /// The bytes of the header, checksum included.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let c = &self.config;
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &self.n_sections.to_le_bytes());
        put(16, &self.file_bytes.to_le_bytes());
        put(24, &(self.layout as u32).to_le_bytes());
        put(28, &(self.format as u32).to_le_bytes());
        let counts =
            [c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.vocab_size, c.context_len];
        for (i, count) in counts.into_iter().enumerate() {
            put(32 + 4 * i, &(count as u32).to_le_bytes());
        }
        put(64, &c.norm_eps.to_le_bytes());
        put(68, &c.rope_theta.to_le_bytes());
        put(72, &u32::from(c.tied_head).to_le_bytes());
        put(76, &self.prefill_batch.to_le_bytes());
        put(80, &self.arena_bytes.to_le_bytes());
        put(PARTS_AT, &encode_parts(c.parts()));
        let crc = checksum(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

pub(super) fn parse_header(file: &[u8]) -> Result<Header, FormatError> {
    if !file.starts_with(&MAGIC) {
        return Err(FormatError::NotAPackedModel);
    }
    let given_bytes = file.len() as u64;
    let bytes: &[u8; HEADER_BYTES] =
        file.first_chunk().ok_or(FormatError::Truncated { needed_bytes: HEADER_BYTES as u64, given_bytes })?;
    let found = u32_at(bytes, 8);
    if found != VERSION {
        return Err(FormatError::UnsupportedVersion { found });
    }
    if checksum(&bytes[..HEADER_BYTES - 4]) != u32_at(bytes, HEADER_BYTES - 4) {
        return Err(FormatError::HeaderChecksum);
    }
    let field = |field, at| FormatError::BadField { field, value: u32_at(bytes, at).into() };
    let count = |at| u32_at(bytes, at) as usize;
    let n_sections = u32_at(bytes, 12);
    if n_sections as usize > SECTIONS_MAX {
        return Err(field("n_sections", 12));
    }
    let prefill_batch = u32_at(bytes, 76);
    if prefill_batch == 0 || prefill_batch as usize > PREFILL_BATCH_MAX {
        return Err(field("prefill_batch", 76));
    }
    #[cfg(not(feature = "families"))]
    check_parts(bytes)?;
    let config = ModelConfig {
        dim: count(32),
        hidden_dim: count(36),
        n_layers: count(40),
        n_heads: count(44),
        n_kv_heads: count(48),
        head_dim: count(52),
        vocab_size: count(56),
        context_len: count(60),
        norm_eps: f32::from_bits(u32_at(bytes, 64)),
        rope_theta: f32::from_bits(u32_at(bytes, 68)),
        tied_head: match u32_at(bytes, 72) {
            0 => false,
            1 => true,
            _ => return Err(field("tied_head", 72)),
        },
        #[cfg(feature = "families")]
        parts: parse_parts(bytes)?,
    };
    config.validate().map_err(FormatError::BadConfig)?;
    Ok(Header {
        file_bytes: u64_at(bytes, 16),
        n_sections,
        layout: WeightLayout::from_code(u32_at(bytes, 24)).ok_or(field("layout", 24))?,
        format: WeightFormat::from_code(u32_at(bytes, 28)).ok_or(field("format", 28))?,
        config,
        prefill_batch,
        arena_bytes: u64_at(bytes, 80),
    })
}

/// Where the header says what the model is made of: all zeros for [`Parts::LLAMA`].
const PARTS_AT: usize = 88;

const BIASES: u16 = 1;
const SHARED_LAYERS: u16 = 2;
const EMBEDDING_NORM: u16 = 4;
const EMBEDDING_PROJECTION: u16 = 8;
const UNSCALED_ATTENTION: u16 = 16;
const RECURRENT: u16 = 32;
#[cfg(feature = "families")]
const ALL_FLAGS: u16 = 63;

fn encode_parts(parts: &Parts) -> [u8; 32] {
    let flags = [
        (parts.biases, BIASES),
        (parts.shared_layers, SHARED_LAYERS),
        (parts.embedding_norm, EMBEDDING_NORM),
        (parts.embedding_projection, EMBEDDING_PROJECTION),
        (!parts.scaled_attention, UNSCALED_ATTENTION),
        (parts.is_recurrent, RECURRENT),
    ];
    let flags = flags.iter().fold(0, |flags, &(is_set, flag)| if is_set { flags | flag } else { flags });
    let codes = [
        parts.kind as u8,
        parts.norm as u8,
        parts.norm_place as u8,
        parts.positions as u8,
        parts.feed_forward as u8,
        parts.head as u8,
    ];
    let scale = if parts.embedding_scale == 1.0 { 0.0 } else { parts.embedding_scale };
    // Tokens are stored one higher, so that 0 is none.
    let token = |token: Option<TokenId>| token.map_or(0, |token| token + 1);
    let words = [
        parts.n_encoder_layers as u32,
        parts.embedding_dim as u32,
        parts.n_labels as u32,
        scale.to_bits(),
        token(parts.start_token),
        token(parts.mask_token),
    ];
    let mut bytes = [0; 32];
    bytes[..6].copy_from_slice(&codes);
    bytes[6..8].copy_from_slice(&flags.to_le_bytes());
    for (to, word) in bytes[8..].chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// All zeros: a runtime without the feature `families` runs no other parts.
#[cfg(not(feature = "families"))]
fn check_parts(header: &[u8; HEADER_BYTES]) -> Result<(), FormatError> {
    match header[PARTS_AT..HEADER_BYTES - 4] == [0; HEADER_BYTES - 4 - PARTS_AT] {
        true => Ok(()),
        false => Err(FormatError::BadConfig(crate::ConfigError::Unsuited { what: crate::config::NO_FAMILIES })),
    }
}

#[cfg(feature = "families")]
fn parse_parts(header: &[u8; HEADER_BYTES]) -> Result<Parts, FormatError> {
    let word = |at: usize| u32_at(header, PARTS_AT + at);
    let code = |at: usize| header[PARTS_AT + at];
    let bad = |field, at: usize| FormatError::BadField { field, value: code(at).into() };
    let flags = (word(4) >> 16) as u16;
    if flags & !ALL_FLAGS != 0 {
        return Err(FormatError::BadField { field: "flags of parts", value: flags.into() });
    }
    if word(32) != 0 {
        return Err(FormatError::BadField { field: "bytes 120 to 123", value: word(32).into() });
    }
    let token = |at: usize| word(at).checked_sub(1);
    Ok(Parts {
        kind: Kind::from_code(code(0)).ok_or(bad("kind", 0))?,
        norm: NormKind::from_code(code(1)).ok_or(bad("norm", 1))?,
        norm_place: NormPlace::from_code(code(2)).ok_or(bad("norm_place", 2))?,
        positions: Positions::from_code(code(3)).ok_or(bad("positions", 3))?,
        feed_forward: FeedForward::from_code(code(4)).ok_or(bad("feed_forward", 4))?,
        head: Head::from_code(code(5)).ok_or(bad("head", 5))?,
        biases: flags & BIASES != 0,
        shared_layers: flags & SHARED_LAYERS != 0,
        embedding_norm: flags & EMBEDDING_NORM != 0,
        embedding_projection: flags & EMBEDDING_PROJECTION != 0,
        scaled_attention: flags & UNSCALED_ATTENTION == 0,
        is_recurrent: flags & RECURRENT != 0,
        n_encoder_layers: word(8) as usize,
        embedding_dim: word(12) as usize,
        n_labels: word(16) as usize,
        embedding_scale: if word(20) == 0 { 1.0 } else { f32::from_bits(word(20)) },
        start_token: token(24),
        mask_token: token(28),
    })
}
