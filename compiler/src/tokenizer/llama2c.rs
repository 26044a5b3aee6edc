//! The `tokenizer.bin` of llama2.c.

use siskin_runtime::tokenizer::SpacePrefix;

use super::sentencepiece::{ScoredVocabulary, TokenType};
use super::{TokenizerDef, TokenizerDefError};

/// Ids that llama2.c fixes: unknown, begin, end, then the bytes.
const N_FIXED: usize = 3;

impl TokenizerDef {
    /// Reads a `tokenizer.bin`: the longest token's length, then for each of `vocab_size` tokens its score, length and bytes.
    ///
    /// The file does not say how many tokens it has; the model does.
    pub fn from_llama2c(bytes: &[u8], vocab_size: usize) -> Result<Self, TokenizerDefError> {
        let invalid = |problem: String| TokenizerDefError::Invalid { format: "llama2.c", problem };
        let mut rest = bytes.get(4..).ok_or_else(|| invalid(format!("it has only {} bytes", bytes.len())))?;
        let mut vocabulary = ScoredVocabulary {
            tokens: Vec::new(),
            scores: Vec::new(),
            types: Vec::new(),
            space_prefix: SpacePrefix { at_start: true, after_special: true, once: false },
        };
        for id in 0..vocab_size {
            let (score, token, after) = read_token(rest)
                .ok_or_else(|| invalid(format!("it ends in token {id} of {vocab_size}, or that is not UTF-8")))?;
            rest = after;
            let (kind, name) = match id {
                0 => (TokenType::Unknown, "<unk>"),
                1 => (TokenType::Control, "<s>"),
                2 => (TokenType::Control, "</s>"),
                _ if id < N_FIXED + 256 => (TokenType::Byte, token),
                _ => (TokenType::Normal, token),
            };
            vocabulary.tokens.push(name.to_owned());
            vocabulary.scores.push(score);
            vocabulary.types.push(kind);
        }
        if !rest.is_empty() {
            return Err(invalid(format!("{} bytes follow its {vocab_size} tokens", rest.len())));
        }
        if vocab_size < N_FIXED + 256 {
            return Err(invalid(format!("{vocab_size} tokens do not hold the 256 bytes")));
        }
        let mut definition = vocabulary.definition().map_err(invalid)?;
        (definition.bos, definition.eos) = (Some(1), Some(2));
        definition.add_bos = true;
        Ok(definition)
    }
}

fn read_token(bytes: &[u8]) -> Option<(f32, &str, &[u8])> {
    let (score, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (token, rest) = rest.split_at_checked(usize::try_from(i32::from_le_bytes(*length)).ok()?)?;
    Some((f32::from_le_bytes(*score), std::str::from_utf8(token).ok()?, rest))
}
