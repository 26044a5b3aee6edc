//! The tokenizer in a GGUF file's metadata.

use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{PreTokenizer, SpacePrefix};

use super::byte_chars::{char_of_byte, piece_of_token};
use super::hugging_face::rules_of_pairs;
use super::sentencepiece::{ScoredVocabulary, TokenType};
use super::{Scheme, SpecialToken, TokenizerDef, TokenizerDefError};
use crate::artifact::gguf::GgufVocab;

fn invalid(problem: impl Into<String>) -> TokenizerDefError {
    TokenizerDefError::Invalid { format: "GGUF", problem: problem.into() }
}

impl TokenizerDef {
    /// Reads the tokenizer of a GGUF file.
    ///
    /// A `llama` model adds the beginning-of-text token and a space before the text unless the file says otherwise, a `gpt2`
    /// model adds nothing unless the file says so.
    pub fn from_gguf(metadata: &GgufVocab) -> Result<Self, TokenizerDefError> {
        let types = if metadata.token_types.is_empty() {
            vec![TokenType::Normal; metadata.tokens.len()]
        } else {
            let types = metadata.token_types.iter().map(|&number| TokenType::from_number(number));
            types.collect::<Option<Vec<_>>>().ok_or_else(|| invalid("a token's type is unknown"))?
        };
        if types.len() != metadata.tokens.len() {
            return Err(invalid(format!("{} tokens have {} types", metadata.tokens.len(), types.len())));
        }
        let ids = [metadata.bos_id, metadata.eos_id, metadata.unknown_id].into_iter().flatten();
        if let Some(id) = ids.into_iter().find(|&id| id as usize >= metadata.tokens.len()) {
            return Err(invalid(format!("special token {id} is not among the {} tokens", metadata.tokens.len())));
        }
        let mut definition = match metadata.model.as_str() {
            "gpt2" => byte_level(metadata, &types)?,
            "llama" => sentencepiece(metadata, types)?,
            other => {
                return Err(TokenizerDefError::Unsupported {
                    part: "model",
                    found: format!("GGUF's {other:?}"),
                    supported: "only gpt2 (byte-level BPE) and llama (SentencePiece BPE)",
                });
            }
        };
        (definition.bos, definition.eos) = (metadata.bos_id, metadata.eos_id);
        definition.add_bos = metadata.add_bos.unwrap_or(metadata.model == "llama") && metadata.bos_id.is_some();
        Ok(definition)
    }
}

fn byte_level(metadata: &GgufVocab, types: &[TokenType]) -> Result<TokenizerDef, TokenizerDefError> {
    let pre_tokenizer = match metadata.pre.as_deref().unwrap_or("missing") {
        "gpt-2" | "gpt2" | "mpt" | "olmo" | "jais" => PreTokenizer::Gpt2,
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => PreTokenizer::DigitsGpt2,
        "qwen2" => PreTokenizer::Qwen2,
        other => {
            return Err(TokenizerDefError::Unsupported {
                part: "pre-tokenizer",
                found: format!("GGUF's {other:?}"),
                supported: "gpt-2, smollm, starcoder, qwen2 and their equals",
            });
        }
    };
    let special = |kind: TokenType| matches!(kind, TokenType::Control | TokenType::UserDefined | TokenType::Unknown);
    let names: Vec<String> = metadata.tokens.iter().map(|token| String::from_utf8_lossy(token).into_owned()).collect();
    let piece = |id: usize| match std::str::from_utf8(&metadata.tokens[id]) {
        Ok(token) if !special(types[id]) => piece_of_token(token),
        _ => metadata.tokens[id].clone(),
    };
    let pair = |merge: &'_ Vec<u8>| String::from_utf8(merge.clone()).ok().filter(|merge| merge.contains(' '));
    let merges = metadata.merges.iter().map(pair).collect::<Option<Vec<_>>>();
    let merges = merges.ok_or_else(|| invalid("a merge is not two tokens"))?;
    let pairs: Vec<(&str, &str)> = merges.iter().filter_map(|merge| merge.split_once(' ')).collect();
    let byte_token = |byte: u8| {
        let name = char_of_byte(byte).to_string();
        names.iter().position(|token| *token == name).map(|id| id as TokenId)
    };
    Ok(TokenizerDef {
        scheme: Scheme::ByteLevel { pre_tokenizer },
        pieces: (0..names.len()).map(piece).collect(),
        merges: rules_of_pairs(&pairs, &names).map_err(invalid)?,
        byte_tokens: (0..=255).map(byte_token).collect(),
        specials: (0..types.len())
            .filter(|&id| special(types[id]) && !names[id].is_empty())
            .map(|id| SpecialToken { id: id as TokenId, control: types[id] != TokenType::UserDefined })
            .collect(),
        bos: None,
        eos: None,
        unk: None,
        add_bos: false,
    })
}

fn sentencepiece(metadata: &GgufVocab, types: Vec<TokenType>) -> Result<TokenizerDef, TokenizerDefError> {
    let spaced = metadata.add_space_prefix.unwrap_or(true);
    let vocabulary = ScoredVocabulary {
        tokens: metadata.tokens.iter().map(|token| String::from_utf8_lossy(token).into_owned()).collect(),
        scores: metadata.scores.clone(),
        types,
        space_prefix: SpacePrefix { at_start: spaced, after_special: spaced, once: false },
    };
    let mut definition = vocabulary.definition().map_err(invalid)?;
    definition.unk = metadata.unknown_id.or(definition.unk);
    Ok(definition)
}
