//! Training byte-level BPE.

use std::collections::BTreeSet;

use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::PreTokenizer;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, TokenizerBuilder, TokenizerImpl,
};

use super::{TokenizerDef, TokenizerDefError};

type TrainedTokenizer =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// How to train a byte-level BPE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteLevelTraining {
    /// Ids in all: the special tokens, the 256 bytes, and merges.
    pub vocab_size: usize,
    /// How text is cut first: [`PreTokenizer::Gpt2`] or [`PreTokenizer::DigitsGpt2`].
    pub pre_tokenizer: PreTokenizer,
    /// Beginning-of-text token; its id is 0.
    pub bos: String,
    /// End-of-text token; its id is 1.
    pub eos: String,
    /// More special tokens; their ids are 2 and on.
    pub more_specials: Vec<String>,
}

impl ByteLevelTraining {
    /// The usual choice: GPT-2's cuts, `<s>` and `</s>`.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            pre_tokenizer: PreTokenizer::Gpt2,
            bos: "<s>".into(),
            eos: "</s>".into(),
            more_specials: Vec::new(),
        }
    }
}

impl TokenizerDef {
    /// Trains on `texts`. The same texts and options give the same tokenizer, as Hugging Face's trainer does.
    ///
    /// Each text is cut on its own, so pass whole documents. Fails for a vocabulary too small for the 256 bytes and the special
    /// tokens, or texts too small to fill it.
    pub fn train_byte_level(texts: &[&str], training: &ByteLevelTraining) -> Result<Self, TokenizerDefError> {
        Self::train_byte_level_on(texts.iter(), training)
    }

    /// As [`TokenizerDef::train_byte_level`], on texts that need not all be in memory.
    pub fn train_byte_level_on<T: AsRef<str> + Send>(
        texts: impl Iterator<Item = T> + Send,
        training: &ByteLevelTraining,
    ) -> Result<Self, TokenizerDefError> {
        let specials: Vec<&String> =
            [&training.bos, &training.eos].into_iter().chain(&training.more_specials).collect();
        let vocab_min = 256 + specials.len();
        if training.vocab_size < vocab_min {
            let problem = format!("a vocabulary of {} is too small: at least {vocab_min}", training.vocab_size);
            return Err(TokenizerDefError::Training(problem));
        }
        let distinct: BTreeSet<&&String> = specials.iter().collect();
        if distinct.len() < specials.len() || specials.iter().any(|special| special.is_empty()) {
            return Err(TokenizerDefError::Training("the special tokens must be different and not empty".into()));
        }
        let failed = |error: tokenizers::Error| TokenizerDefError::Training(error.to_string());
        let mut tokenizer: TrainedTokenizer = TokenizerBuilder::new()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(pre_tokenizer(training.pre_tokenizer)?))
            .build()
            .map_err(failed)?;
        let mut trainer = BpeTrainer::builder()
            .vocab_size(training.vocab_size)
            .show_progress(false)
            .special_tokens(specials.iter().map(|special| AddedToken::from(special.as_str(), true)).collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        tokenizer.train(&mut trainer, texts).map_err(failed)?;
        let json = tokenizer.to_string(false).map_err(failed)?;
        let mut definition = Self::from_hugging_face(&json, None)?;
        if definition.vocab_size() != training.vocab_size {
            let (got, wanted) = (definition.vocab_size(), training.vocab_size);
            let problem = format!("the text yields {got} tokens, not {wanted}: use more text or a smaller vocabulary");
            return Err(TokenizerDefError::Training(problem));
        }
        let id = |text: &str| -> Option<TokenId> { definition.special_id(text) };
        (definition.bos, definition.eos) = (id(&training.bos), id(&training.eos));
        Ok(definition)
    }
}

fn pre_tokenizer(kind: PreTokenizer) -> Result<PreTokenizerWrapper, TokenizerDefError> {
    let byte_level = ByteLevel::new(false, true, true);
    match kind {
        PreTokenizer::Gpt2 => Ok(byte_level.into()),
        PreTokenizer::DigitsGpt2 => Ok(Sequence::new(vec![Digits::new(true).into(), byte_level.into()]).into()),
        PreTokenizer::None => Ok(ByteLevel::new(false, true, false).into()),
        other => Err(TokenizerDefError::Unsupported {
            part: "pre-tokenizer",
            found: format!("{other:?}"),
            supported: "training knows None, Gpt2 and DigitsGpt2",
        }),
    }
}
