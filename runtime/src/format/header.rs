//! The header: the fixed part of a file, which gives the model's shape.

use super::{FormatError, HEADER_BYTES, MAGIC, PREFILL_BATCH_MAX, SECTIONS_MAX, VERSION, checksum, u32_at, u64_at};
use crate::TokenId;
use crate::beam::BEAMS_MAX;
use crate::config::ModelConfig;
use crate::kv_cache::KvFormat;
use crate::layout::WeightLayout;
use crate::parts::Parts;
#[cfg(feature = "families")]
use crate::parts::{FeedForward, Head, Kind, NormKind, NormPlace, Positions};
use crate::plan::MemoryPlan;
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
    /// How weights are quantised: all but those of tensors that say otherwise, whose formats have lower codes.
    pub format: WeightFormat,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// The model's shape.
    pub config: ModelConfig,
    /// Tokens that share a pass over the weights in prefill.
    pub prefill_batch: u32,
    /// Hypotheses side by side that a beam search has room for; 0 for none.
    pub n_beams: u32,
    /// Bytes of the arena that a session needs.
    pub arena_bytes: u64,
}

impl Header {
    /// Where the arena of this model keeps what; `None` where it would not fit the address space.
    pub fn memory_plan(&self) -> Option<MemoryPlan> {
        let (prefill_batch, n_beams) = (self.prefill_batch as usize, self.n_beams as usize);
        MemoryPlan::for_beams(&self.config, self.format, self.kv, prefill_batch, n_beams)
    }

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
        put(KV_AT, &[self.kv as u8, self.n_beams as u8]);
        let crc = checksum(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

#[cfg(not(feature = "linked-model"))]
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
    let header = fields(bytes)?;
    header.config.validate().map_err(FormatError::BadConfig)?;
    Ok(header)
}

/// What a field without a meaning is told as.
const fn bad_field(field: &'static str, value: u32) -> FormatError {
    FormatError::BadField { field, value: value as u64 }
}

/// The fields of a header; the config's counts are yet to be looked at.
pub(super) const fn fields(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FormatError> {
    let n_sections = u32_at(bytes, 12);
    if n_sections as usize > SECTIONS_MAX {
        return Err(bad_field("n_sections", n_sections));
    }
    let prefill_batch = u32_at(bytes, 76);
    if prefill_batch == 0 || prefill_batch as usize > PREFILL_BATCH_MAX {
        return Err(bad_field("prefill_batch", prefill_batch));
    }
    let tied_head = u32_at(bytes, 72);
    if tied_head > 1 {
        return Err(bad_field("tied_head", tied_head));
    }
    let (layout, format) = (u32_at(bytes, 24), u32_at(bytes, 28));
    let Some(layout) = WeightLayout::from_code(layout) else { return Err(bad_field("layout", layout)) };
    let Some(format) = WeightFormat::from_code(format) else { return Err(bad_field("format", format)) };
    let [kv, n_beams, reserved @ ..] = u32_at(bytes, KV_AT).to_le_bytes();
    let Some(kv) = KvFormat::from_code(kv as u32) else { return Err(bad_field("kv", kv as u32)) };
    if n_beams as usize > BEAMS_MAX || reserved[0] != 0 || reserved[1] != 0 {
        return Err(bad_field("n_beams", u32_at(bytes, KV_AT) >> 8));
    }
    #[cfg(not(feature = "families"))]
    if let Err(error) = check_parts(bytes) {
        return Err(error);
    }
    let config = ModelConfig {
        dim: u32_at(bytes, 32) as usize,
        hidden_dim: u32_at(bytes, 36) as usize,
        n_layers: u32_at(bytes, 40) as usize,
        n_heads: u32_at(bytes, 44) as usize,
        n_kv_heads: u32_at(bytes, 48) as usize,
        head_dim: u32_at(bytes, 52) as usize,
        vocab_size: u32_at(bytes, 56) as usize,
        context_len: u32_at(bytes, 60) as usize,
        norm_eps: f32::from_bits(u32_at(bytes, 64)),
        rope_theta: f32::from_bits(u32_at(bytes, 68)),
        tied_head: tied_head == 1,
        #[cfg(feature = "families")]
        parts: match parse_parts(bytes) {
            Ok(parts) => parts,
            Err(error) => return Err(error),
        },
    };
    let (file_bytes, arena_bytes) = (u64_at(bytes, 16), u64_at(bytes, 80));
    Ok(Header {
        file_bytes,
        n_sections,
        layout,
        format,
        kv,
        config,
        prefill_batch,
        n_beams: n_beams as u32,
        arena_bytes,
    })
}

/// Where the header says what the model is made of: all zeros for [`Parts::LLAMA`].
const PARTS_AT: usize = 88;
/// Where it says how keys and values are kept, and how many beams there is room for.
const KV_AT: usize = 120;

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
const fn check_parts(header: &[u8; HEADER_BYTES]) -> Result<(), FormatError> {
    let mut at = PARTS_AT;
    while at < KV_AT {
        if u32_at(header, at) != 0 {
            return Err(FormatError::BadConfig(crate::ConfigError::Unsuited { what: crate::config::NO_FAMILIES }));
        }
        at += 4;
    }
    Ok(())
}

#[cfg(feature = "families")]
const fn parse_parts(header: &[u8; HEADER_BYTES]) -> Result<Parts, FormatError> {
    /// A byte's meaning, or the error that names the field.
    macro_rules! coded {
        ($kind:ident, $field:literal, $at:literal) => {
            match $kind::from_code(header[PARTS_AT + $at]) {
                Some(value) => value,
                None => return Err(bad_field($field, header[PARTS_AT + $at] as u32)),
            }
        };
    }
    const fn word_at(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
        u32_at(header, PARTS_AT + at)
    }
    let flags = (word_at(header, 4) >> 16) as u16;
    if flags & !ALL_FLAGS != 0 {
        return Err(bad_field("flags of parts", flags as u32));
    }
    Ok(Parts {
        kind: coded!(Kind, "kind", 0),
        norm: coded!(NormKind, "norm", 1),
        norm_place: coded!(NormPlace, "norm_place", 2),
        positions: coded!(Positions, "positions", 3),
        feed_forward: coded!(FeedForward, "feed_forward", 4),
        head: coded!(Head, "head", 5),
        biases: flags & BIASES != 0,
        shared_layers: flags & SHARED_LAYERS != 0,
        embedding_norm: flags & EMBEDDING_NORM != 0,
        embedding_projection: flags & EMBEDDING_PROJECTION != 0,
        scaled_attention: flags & UNSCALED_ATTENTION == 0,
        is_recurrent: flags & RECURRENT != 0,
        n_encoder_layers: word_at(header, 8) as usize,
        embedding_dim: word_at(header, 12) as usize,
        n_labels: word_at(header, 16) as usize,
        embedding_scale: if word_at(header, 20) == 0 { 1.0 } else { f32::from_bits(word_at(header, 20)) },
        start_token: word_at(header, 24).checked_sub(1),
        mask_token: word_at(header, 28).checked_sub(1),
    })
}
