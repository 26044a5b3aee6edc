//! The tokenizer of a run: a byte-level BPE trained on the training part.

use super::TrainError;
use crate::artifact::hf;
use crate::objective::Frame;
use crate::recipe::{Recipe, TokenizerSection};
use crate::tokenizer::{ByteLevelTraining, CompiledTokenizer, CorpusEncoder, TokenizerDef};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{EncodeOptions, Specials};
use std::path::Path;

/// First token of a text.
pub(super) const BOS: TokenId = 0;
/// Last token of a text.
pub(super) const EOS: TokenId = 1;

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
    /// Trains on `texts`; `own` are the special tokens that the objective needs, with ids from 2 on.
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

    /// The tokenizer of the model in a folder.
    pub fn of_model(folder: &Path) -> Result<Self, TrainError> {
        let failed = |problem: String| TrainError::InitFrom { path: folder.to_owned(), problem };
        let loaded = hf::load_architecture(folder);
        let (architecture, specials, _) = loaded.map_err(|error| failed(error.to_string()))?;
        let json = std::fs::read(folder.join("tokenizer.json"));
        let json = json.map_err(|error| failed(format!("cannot read its tokenizer.json: {error}")))?;
        let bos = specials.bos.or(specials.decoder_start);
        let (Some(bos), Some(eos)) = (bos, specials.eos) else {
            return Err(failed("its config.json names no tokens for the beginning and the end of a text".into()));
        };
        let tokenizer = Self::from_json(json, Frame { bos, eos })?;
        let (n_tokens, n_rows) = (tokenizer.definition.vocab_size(), architecture.vocab_size);
        if bos.max(eos) as usize >= n_tokens {
            return Err(failed(format!("its config.json names a token beyond the {n_tokens} of its tokenizer")));
        }
        if n_tokens > n_rows {
            return Err(failed(format!("its tokenizer has {n_tokens} tokens, but its vocabulary only {n_rows}")));
        }
        Ok(tokenizer)
    }

    /// The id of a special token that an objective needs for itself.
    pub fn own_special(&self, name: &str, recipe: &Recipe) -> Result<TokenId, TrainError> {
        self.definition.special_id(name).ok_or_else(|| TrainError::InitFrom {
            path: recipe.model.init_from.clone().unwrap_or_default(),
            problem: format!("its tokenizer has no token `{name}`, which this objective needs"),
        })
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
