//! Tokenizers on the host: trained, imported, exported, and compiled to the section that the runtime reads.
//!
//! Whatever it came from, a tokenizer is a [`TokenizerDef`]: pieces as bytes, merges as rules over ids, special tokens.
//! [`TokenizerDef::compile`] writes the section; encoding and decoding, on the host as on a device, are the runtime's own
//! [`siskin_runtime::Tokenizer`] over it. [`CorpusEncoder`] gives the same ids faster for large texts.

mod byte_chars;
mod chat;

mod compile;
mod corpus;
mod export;

mod gguf;
mod hugging_face;
mod llama2c;
mod sentencepiece;
mod train;
mod word_piece;

use siskin_runtime::TokenId;
use siskin_runtime::format::SectionKind;
use siskin_runtime::tokenizer::{PreTokenizer, SpacePrefix, TextStream, Tokenizer};

use crate::artifact::{Checkpoint, TokenizerSource, TrainedModel};

pub use chat::{AssistantTurns, ChatMessage, ChatSegments, ChatTemplate, ChatTemplateError};
pub use compile::CompiledTokenizer;
pub use corpus::CorpusEncoder;
pub use train::ByteLevelTraining;
pub use word_piece::WordRules;

/// A tokenizer as the host holds it: every token by its bytes, every merge by its ids.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerDef {
    /// How text becomes first tokens.
    pub scheme: Scheme,
    /// Bytes that each token stands for. A special token's are the text by which it is recognised.
    pub pieces: Vec<Vec<u8>>,
    /// What may merge, in any order.
    pub merges: Vec<MergeRule>,
    /// The token of each byte: 256 entries.
    pub byte_tokens: Vec<Option<TokenId>>,
    /// Tokens that are recognised in text.
    pub specials: Vec<SpecialToken>,
    /// Beginning-of-text token.
    pub bos: Option<TokenId>,
    /// End-of-text token.
    pub eos: Option<TokenId>,
    /// Token for what the vocabulary cannot spell.
    pub unk: Option<TokenId>,
    /// Whether encoding starts with `bos`.
    pub add_bos: bool,
}

/// How text becomes first tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Scheme {
    /// GPT-2's byte-level BPE.
    ByteLevel {
        /// How text is cut first.
        pre_tokenizer: PreTokenizer,
    },
    /// SentencePiece's BPE.
    SentencePiece {
        /// Where extra spaces go.
        space_prefix: SpacePrefix,
        /// The token of each single character that has one; the visible space U+2581 stands here as a space.
        chars: Vec<(char, TokenId)>,
    },
    /// WordPiece: pieces that begin a word have a space before them.
    WordPiece {
        /// How words are made of text.
        rules: WordRules,
    },
}

/// Two neighbouring tokens that become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeRule {
    /// Lower ranks merge first; equal ones from left to right.
    pub rank: u32,
    /// The first token.
    pub left: TokenId,
    /// The token after it.
    pub right: TokenId,
    /// What they become: its piece is the two pieces together.
    pub result: TokenId,
}

/// A token that is recognised in text before anything is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialToken {
    /// Its id.
    pub id: TokenId,
    /// Whether it marks structure, and decoding leaves it out.
    pub control: bool,
}

impl TokenizerDef {
    /// The tokenizer that came with a checkpoint, or `None` if it has none.
    ///
    /// The checkpoint's end of text takes precedence over the tokenizer's; its beginning of text stands in where that has none.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Option<Self>, TokenizerDefError> {
        let eos = checkpoint.eos_ids.first().copied();
        Self::of_model(&checkpoint.tokenizer, checkpoint.config.vocab_size, checkpoint.bos_id, eos)
    }

    /// The tokenizer that came with a model of any family, or `None` if it has none, as [`TokenizerDef::of_checkpoint`].
    pub fn of_trained(model: &TrainedModel) -> Result<Option<Self>, TokenizerDefError> {
        let specials = &model.specials;
        let bos = specials.bos.or(specials.decoder_start);
        Self::of_model(&model.tokenizer, model.architecture.vocab_size, bos, specials.eos)
    }

    fn of_model(
        source: &TokenizerSource,
        n_rows: usize,
        bos: Option<TokenId>,
        eos: Option<TokenId>,
    ) -> Result<Option<Self>, TokenizerDefError> {
        let mut definition = match source {
            TokenizerSource::None => return Ok(None),
            TokenizerSource::HuggingFace(json) => Self::from_hugging_face_bytes(json)?,
            TokenizerSource::Gguf(vocab) => Self::from_gguf(vocab)?,
            TokenizerSource::SentencePiece(model) => Self::from_sentencepiece(model)?,
            TokenizerSource::Llama2c(bytes) => Self::from_llama2c(bytes, n_rows)?,
        };
        if definition.vocab_size() > n_rows {
            let tokens = definition.vocab_size();
            let problem = format!("it has {tokens} tokens, but the model's vocabulary only {n_rows}");
            return Err(TokenizerDefError::Compile(problem));
        }
        let vocab_size = definition.vocab_size();
        let in_range = |id: &TokenId| (*id as usize) < vocab_size;
        definition.bos = definition.bos.or(bos.filter(in_range));
        definition.eos = eos.filter(in_range).or(definition.eos);
        Ok(Some(definition))
    }

    /// The text of a token as a chat template spells it; empty for none.
    pub(crate) fn token_text(&self, id: Option<TokenId>) -> String {
        id.map_or(String::new(), |id| String::from_utf8_lossy(&self.pieces[id as usize]).into_owned())
    }

    /// Number of token ids.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The token that stands for one to be filled in: `<mask>` in models trained here, `[MASK]` in BERT's.
    pub fn mask_token(&self) -> Option<TokenId> {
        self.special_id("<mask>").or_else(|| self.special_id("[MASK]"))
    }

    /// The id of the special token with this text.
    pub fn special_id(&self, text: &str) -> Option<TokenId> {
        self.specials.iter().map(|special| special.id).find(|&id| self.pieces[id as usize] == text.as_bytes())
    }
}

/// Why a tokenizer cannot be trained, imported or compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerDefError {
    /// The file uses a part that no device runs.
    #[error("the tokenizer's {part} is {found}, which is not supported: {supported}")]
    Unsupported {
        /// Which part.
        part: &'static str,
        /// What it is.
        found: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// The file is damaged or not what it was taken for.
    #[error("not a valid {format} tokenizer: {problem}")]
    Invalid {
        /// The kind of file.
        format: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Training was asked for what it cannot give.
    #[error("cannot train a tokenizer: {0}")]
    Training(String),
    /// The parts contradict one another.
    #[error("cannot compile the tokenizer: {0}")]
    Compile(String),
}

/// A checkpoint's tokenizer and chat template, compiled for a packed model.
#[derive(Debug, Default)]
pub struct TextSections {
    /// The tokenizer section, if the checkpoint has a tokenizer.
    pub tokenizer: Option<CompiledTokenizer>,
    /// The chat section, if it has a chat template that can be reduced to plain text.
    pub chat: Option<Vec<u8>>,
    /// Why the chat template was left out, if it was.
    pub chat_problem: Option<ChatTemplateError>,
}

impl TextSections {
    /// Compiles what `checkpoint` brings; `system` is the system's message in chats, where not the template's own.
    ///
    /// Fails for a tokenizer that devices cannot run. A chat template that cannot be reduced is left out and reported.
    pub fn of_checkpoint(checkpoint: &Checkpoint, system: Option<&str>) -> Result<Self, TokenizerDefError> {
        let Some(definition) = TokenizerDef::of_checkpoint(checkpoint)? else { return Ok(Self::default()) };
        let tokenizer = Some(definition.compile()?);
        let Some(source) = &checkpoint.chat_template else {
            return Ok(Self { tokenizer, ..Self::default() });
        };
        let (bos, eos) = (definition.token_text(definition.bos), definition.token_text(definition.eos));
        let reduced = ChatTemplate::new(source, &bos, &eos).and_then(|template| template.reduce(system));
        Ok(match reduced {
            Ok(segments) => Self { tokenizer, chat: Some(segments.section()), chat_problem: None },
            Err(problem) => Self { tokenizer, chat: None, chat_problem: Some(problem) },
        })
    }

    /// The sections in the form that [`crate::pack::PackOptions`] takes.
    pub fn into_sections(self) -> Vec<(SectionKind, Vec<u8>)> {
        let tokenizer = self.tokenizer.map(|tokenizer| (SectionKind::Tokenizer, tokenizer.into_section()));
        tokenizer.into_iter().chain(self.chat.map(|chat| (SectionKind::Chat, chat))).collect()
    }
}

/// Turns tokens into text, leaving out control tokens; bytes that are not UTF-8 become U+FFFD.
pub fn decode(tokenizer: &Tokenizer<'_>, tokens: &[TokenId]) -> String {
    let mut text = String::new();
    let mut stream = TextStream::at_start(tokenizer);
    for &token in tokens.iter().filter(|&&token| !tokenizer.is_control(token)) {
        stream.push(tokenizer.piece(token), |part| text.push_str(part));
    }
    stream.finish(|part| text.push_str(part));
    text
}
