//! SentencePiece's BPE: the spelling of its tokens, its scores, its `.model` file.

use std::collections::HashMap;

use prost::Message;
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::SpacePrefix;

use super::{MergeRule, Scheme, SpecialToken, TokenizerDef, TokenizerDefError};

/// The parts of a `.model` file that matter here, by the field numbers of its protobuf schema.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerProto>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerProto>,
}

#[derive(Clone, PartialEq, Message)]
struct PieceProto {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerProto {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    whitespace_as_suffix: Option<bool>,
    #[prost(int32, optional, tag = "41")]
    bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42")]
    eos_id: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerProto {
    #[prost(bytes = "vec", optional, tag = "2")]
    charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    escape_whitespaces: Option<bool>,
}

/// What a token is for, in the numbers that SentencePiece and GGUF share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenType {
    pub(super) fn from_number(number: i32) -> Option<Self> {
        const ALL: [TokenType; 6] = [
            TokenType::Normal,
            TokenType::Unknown,
            TokenType::Control,
            TokenType::UserDefined,
            TokenType::Unused,
            TokenType::Byte,
        ];
        ALL.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
    }
}

/// The name of a byte's token.
pub(super) fn byte_token_name(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// The byte of a token named as [`byte_token_name`] does.
fn byte_of_name(name: &str) -> Option<u8> {
    let byte = u8::from_str_radix(name.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()?;
    (byte_token_name(byte) == name).then_some(byte)
}

/// A vocabulary of SentencePiece: pieces as bytes, and which are single characters or bytes.
pub(super) struct Spelling {
    pieces: Vec<Vec<u8>>,
    byte_tokens: Vec<Option<TokenId>>,
    chars: Vec<(char, TokenId)>,
}

impl Spelling {
    /// Takes tokens named as the files do: spaces as U+2581, bytes as `<0x0A>`, which count as bytes with `byte_fallback`.
    pub(super) fn of_tokens(tokens: &[String], byte_fallback: bool) -> Self {
        let mut spelling = Self { pieces: Vec::new(), byte_tokens: vec![None; 256], chars: Vec::new() };
        let mut char_ids = HashMap::new();
        for (id, token) in tokens.iter().enumerate() {
            let id = id as TokenId;
            let text = token.replace('\u{2581}', " ");
            let mut chars = text.chars();
            if let Some(byte) = byte_of_name(token).filter(|_| byte_fallback) {
                spelling.byte_tokens[usize::from(byte)] = Some(id);
                spelling.pieces.push(vec![byte]);
                continue;
            }
            if let (Some(c), None) = (chars.next(), chars.next()) {
                char_ids.entry(c).or_insert(id);
            }
            spelling.pieces.push(text.into_bytes());
        }
        spelling.chars = char_ids.into_iter().collect();
        spelling.chars.sort_unstable();
        spelling
    }

    /// A tokenizer of this vocabulary, without merges and special tokens.
    pub(super) fn definition(self, space_prefix: SpacePrefix) -> TokenizerDef {
        TokenizerDef {
            scheme: Scheme::SentencePiece { space_prefix, chars: self.chars },
            pieces: self.pieces,
            merges: Vec::new(),
            byte_tokens: self.byte_tokens,
            specials: Vec::new(),
            bos: None,
            eos: None,
            unk: None,
            add_bos: false,
        }
    }
}

/// A vocabulary with scores, from any file that has them.
pub(super) struct ScoredVocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) scores: Vec<f32>,
    pub(super) types: Vec<TokenType>,
    pub(super) space_prefix: SpacePrefix,
}

impl ScoredVocabulary {
    /// Merges by score: any two tokens that together spell a third merge, the highest score first.
    pub(super) fn definition(&self) -> Result<TokenizerDef, String> {
        if self.tokens.len() != self.scores.len() || self.tokens.len() != self.types.len() {
            let (tokens, scores, types) = (self.tokens.len(), self.scores.len(), self.types.len());
            return Err(format!("{tokens} tokens have {scores} scores and {types} types"));
        }
        if let Some(id) = self.scores.iter().position(|score| score.is_nan()) {
            return Err(format!("the score of token {id} is not a number"));
        }
        let mut definition = Spelling::of_tokens(&self.tokens, true).definition(self.space_prefix);
        definition.merges = self.merges(&definition.pieces);
        for (id, kind) in self.types.iter().enumerate() {
            if matches!(kind, TokenType::Control | TokenType::UserDefined | TokenType::Unknown)
                && !definition.pieces[id].is_empty()
            {
                let control = *kind != TokenType::UserDefined;
                definition.specials.push(SpecialToken { id: id as TokenId, control });
            }
        }
        definition.unk = self.types.iter().position(|&kind| kind == TokenType::Unknown).map(|id| id as TokenId);
        Ok(definition)
    }

    fn merges(&self, pieces: &[Vec<u8>]) -> Vec<MergeRule> {
        let normal = |id: &usize| self.types[*id] == TokenType::Normal;
        let texts: Vec<&str> = pieces.iter().map(|piece| std::str::from_utf8(piece).unwrap_or_default()).collect();
        let mut ids: HashMap<&str, TokenId> = HashMap::new();
        for id in (0..texts.len()).filter(normal) {
            ids.entry(texts[id]).or_insert(id as TokenId);
        }
        let mut order: Vec<f32> = self.scores.clone();
        order.sort_by(|a, b| b.total_cmp(a));
        order.dedup();
        let mut merges = Vec::new();
        for id in (0..texts.len()).filter(normal) {
            let text = texts[id];
            let rank = order.partition_point(|&score| score > self.scores[id]) as u32;
            for (cut, _) in text.char_indices().skip(1) {
                if let (Some(&left), Some(&right)) = (ids.get(&text[..cut]), ids.get(&text[cut..])) {
                    merges.push(MergeRule { rank, left, right, result: ids[text] });
                }
            }
        }
        merges.sort_unstable_by_key(|merge| (merge.left, merge.right));
        merges.dedup_by_key(|merge| (merge.left, merge.right));
        merges
    }
}

impl TokenizerDef {
    /// Reads SentencePiece's `.model` file, of the BPE type.
    ///
    /// Encoding starts with the file's beginning-of-text token, as Llama models want it. A user's symbols count as special
    /// tokens. Normalisation beyond the dummy prefix space is refused.
    pub fn from_sentencepiece(model: &[u8]) -> Result<Self, TokenizerDefError> {
        let invalid = |problem: String| TokenizerDefError::Invalid { format: "SentencePiece", problem };
        let proto = ModelProto::decode(model).map_err(|error| invalid(error.to_string()))?;
        if proto.pieces.is_empty() {
            return Err(invalid("it has no pieces".into()));
        }
        check_proto(&proto)?;
        let mut vocabulary = ScoredVocabulary {
            tokens: Vec::new(),
            scores: Vec::new(),
            types: Vec::new(),
            space_prefix: SpacePrefix::default(),
        };
        for (id, piece) in proto.pieces.iter().enumerate() {
            let kind = TokenType::from_number(piece.kind.unwrap_or(1));
            vocabulary.types.push(kind.ok_or_else(|| invalid(format!("piece {id} has an unknown type")))?);
            vocabulary.tokens.push(piece.piece.clone().unwrap_or_default());
            vocabulary.scores.push(piece.score.unwrap_or(0.0));
        }
        let dummy = proto.normalizer.as_ref().and_then(|n| n.add_dummy_prefix).unwrap_or(true);
        vocabulary.space_prefix = SpacePrefix { at_start: dummy, after_special: dummy, once: false };
        let mut definition = vocabulary.definition().map_err(invalid)?;
        let trainer = proto.trainer.unwrap_or_default();
        let id = |id: i32| TokenId::try_from(id).ok().filter(|&id| (id as usize) < definition.pieces.len());
        (definition.bos, definition.eos) = (id(trainer.bos_id.unwrap_or(1)), id(trainer.eos_id.unwrap_or(2)));
        definition.add_bos = definition.bos.is_some();
        Ok(definition)
    }
}

fn check_proto(proto: &ModelProto) -> Result<(), TokenizerDefError> {
    let refuse =
        |part, found: &str, supported| Err(TokenizerDefError::Unsupported { part, found: found.to_owned(), supported });
    let trainer = proto.trainer.clone().unwrap_or_default();
    match trainer.model_type.unwrap_or(1) {
        2 => {}
        1 => return refuse("model", "SentencePiece Unigram", "only SentencePiece BPE"),
        other => return refuse("model", &format!("SentencePiece type {other}"), "only SentencePiece BPE"),
    }
    if trainer.whitespace_as_suffix == Some(true) {
        return refuse("whitespace", "a suffix of words", "only spaces before words");
    }
    let normalizer = proto.normalizer.clone().unwrap_or_default();
    if normalizer.charsmap.is_some_and(|map| !map.is_empty()) {
        return refuse("normalizer", "a map of characters", "only the identity");
    }
    if normalizer.remove_extra_whitespaces.unwrap_or(true) {
        return refuse("normalizer", "the removal of extra spaces", "only files trained without it");
    }
    if normalizer.escape_whitespaces == Some(false) {
        return refuse("normalizer", "unescaped spaces", "only spaces written as \u{2581}");
    }
    Ok(())
}
