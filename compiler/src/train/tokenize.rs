//! The tokenizer of a run: a byte-level BPE trained on the training part.

use super::TrainError;
use crate::objective::Frame;
use crate::recipe::TokenizerSection;
use crate::tokenizer::{ByteLevelTraining, CompiledTokenizer, CorpusEncoder, TokenizerDef};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{EncodeOptions, Specials};

/// First token of a text.
pub(super) const BOS: TokenId = 0;
/// Last token of a text.
pub(super) const EOS: TokenId = 1;
/// The first special token that an objective needs for itself.
pub(super) const FIRST_OWN: TokenId = 2;

/// The tokenizer of a run.
pub(super) struct RunTokenizer {
    /// What it is.
    pub definition: TokenizerDef,
    compiled: CompiledTokenizer,
    /// Its `tokenizer.json`.
    pub json: Vec<u8>,
    /// What begins and ends texts.
    pub frame: Frame,
}

impl RunTokenizer {
    /// Trains on `texts`; `own` are the special tokens that the objective needs, with ids from [`FIRST_OWN`] on.
    pub fn train<T: AsRef<str> + Send>(
        texts: impl Iterator<Item = T> + Send,
        section: &TokenizerSection,
        own: Vec<String>,
    ) -> Result<Self, TrainError> {
        let training = ByteLevelTraining {
            bos: section.bos.clone(),
            eos: section.eos.clone(),
            more_specials: own,
            ..ByteLevelTraining::new(section.vocab_size)
        };
        let definition = TokenizerDef::train_byte_level_on(texts, &training)?;
        let json = definition.to_hugging_face()?.into_bytes();
        Ok(Self { compiled: definition.compile()?, json, definition, frame: Frame { bos: BOS, eos: EOS } })
    }

    /// Reads a `tokenizer.json`.
    pub fn from_json(json: Vec<u8>, frame: Frame) -> Result<Self, TrainError> {
        let mut definition = TokenizerDef::from_hugging_face_bytes(&json)?;
        (definition.bos, definition.eos) = (Some(frame.bos), Some(frame.eos));
        Ok(Self { compiled: definition.compile()?, json, definition, frame })
    }

    /// Encodes texts one after another, for as long as it is kept.
    pub fn encoder(&self) -> CorpusEncoder<'_> {
        CorpusEncoder::new(self.compiled.view())
    }
}

/// The tokens of a text and nothing else: no token marks its beginning, none is read out of its words.
pub(super) fn encode(encoder: &mut CorpusEncoder<'_>, text: &str) -> Vec<TokenId> {
    encoder.encode_with(text, EncodeOptions { add_bos: false, specials: Specials::Nowhere })
}
