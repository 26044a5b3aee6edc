//! The tokenizer of a run: a byte-level BPE trained on the training part of the text.

use super::TrainError;
use crate::recipe::TokenizerSection;
use crate::tokenizer::{ByteLevelTraining, CompiledTokenizer, CorpusEncoder, TokenizerDef};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{EncodeOptions, Specials};

/// A trained tokenizer.
pub(super) struct RunTokenizer {
    compiled: CompiledTokenizer,
    /// Its `tokenizer.json`.
    pub json: Vec<u8>,
}

impl RunTokenizer {
    /// Trains on `text`.
    pub fn train(text: &str, section: &TokenizerSection) -> Result<Self, TrainError> {
        let training = ByteLevelTraining {
            bos: section.bos.clone(),
            eos: section.eos.clone(),
            ..ByteLevelTraining::new(section.vocab_size)
        };
        let definition = TokenizerDef::train_byte_level(&[text], &training)?;
        Ok(Self { compiled: definition.compile()?, json: definition.to_hugging_face()?.into_bytes() })
    }

    /// The tokens of a text and nothing else: no token marks its beginning, none is read out of its words.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        let options = EncodeOptions { add_bos: false, specials: Specials::Nowhere };
        CorpusEncoder::new(self.compiled.view()).encode_with(text, options)
    }
}
