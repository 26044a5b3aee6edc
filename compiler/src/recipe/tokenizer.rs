//! `[tokenizer]`: the tokenizer that is trained first.

use serde::{Deserialize, Serialize};

/// `[tokenizer]`: a byte-level BPE trained on the training part of the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSection {
    /// Ids in all: two special tokens, 256 bytes, and merges.
    pub vocab_size: usize,
    /// Beginning-of-text token.
    #[serde(default = "default_bos")]
    pub bos: String,
    /// End-of-text token.
    #[serde(default = "default_eos")]
    pub eos: String,
}

fn default_bos() -> String {
    "<s>".into()
}
fn default_eos() -> String {
    "</s>".into()
}
