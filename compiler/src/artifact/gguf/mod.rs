//! GGUF files of Llama models, versions 2 and 3, with weights as they are or quantised.

mod block;
mod llama;
mod metadata;

pub use llama::{parse, parse_vocab};

/// The tokenizer arrays of a GGUF, as they stand in its metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` is byte-level BPE, `llama` SentencePiece.
    pub model: String,
    /// `tokenizer.ggml.pre`: which pre-tokenizer, such as `smollm`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the pieces by id. Bytes, since files hold broken UTF-8.
    pub tokens: Vec<Vec<u8>>,
    /// `tokenizer.ggml.scores`: empty or one a piece.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`: empty or one a piece; 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`: `left right`, most important first.
    pub merges: Vec<Vec<u8>>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos_id: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos_id: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown_id: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub padding_id: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}
