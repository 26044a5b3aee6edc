//! WordPiece: what Hugging Face's files say of it, and the tables that the runtime spells by.
//!
//! The runtime knows nothing of Unicode. What becomes of each character is asked of Hugging Face's own normaliser and pre-tokenizer, and
//! kept as far as the vocabulary can tell.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::layout;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
};

use super::{TokenizerDef, TokenizerDefError};

/// What goes before a piece that goes on with a word, in Hugging Face's files. Here pieces that begin a word have a space instead.
const CONTINUES: &str = "##";

/// How text is normalised and cut into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordRules {
    /// Whether control characters are left out.
    pub clean_text: bool,
    /// Whether Chinese characters are words by themselves.
    pub chinese_chars: bool,
    /// Whether accents are taken off.
    pub strip_accents: bool,
    /// Whether letters become lower-case.
    pub lowercase: bool,
    /// Longer words are unknown.
    pub word_chars_max: u32,
}

impl WordRules {
    /// As in a `BertNormalizer`, whose `strip_accents` follows `lowercase` where it is not given.
    pub(super) fn of_json(normalizer: &Value, word_chars_max: Option<u32>) -> Self {
        let is_set = |name: &str| normalizer.get(name).and_then(Value::as_bool);
        let lowercase = is_set("lowercase").unwrap_or(true);
        Self {
            clean_text: is_set("clean_text").unwrap_or(true),
            chinese_chars: is_set("handle_chinese_chars").unwrap_or(true),
            strip_accents: is_set("strip_accents").unwrap_or(lowercase),
            lowercase,
            word_chars_max: word_chars_max.unwrap_or(100),
        }
    }

    pub(super) fn to_json(self) -> Value {
        json!({
            "type": "BertNormalizer", "clean_text": self.clean_text, "handle_chinese_chars": self.chinese_chars,
            "strip_accents": self.strip_accents, "lowercase": self.lowercase,
        })
    }
}

/// A token's piece: its text, after a space where it begins a word.
pub(super) fn piece_of_token(token: &str) -> Vec<u8> {
    match token.strip_prefix(CONTINUES) {
        Some(rest) => rest.as_bytes().to_vec(),
        None if token.is_empty() => Vec::new(),
        None => format!(" {token}").into_bytes(),
    }
}

/// The token of a piece, as files spell it.
pub(super) fn token_of_piece(piece: &[u8]) -> String {
    let text = String::from_utf8_lossy(piece);
    match text.strip_prefix(' ') {
        Some(word) => word.to_owned(),
        None if text.is_empty() => String::new(),
        None => format!("{CONTINUES}{text}"),
    }
}

/// What becomes of a character.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Dropped,
    Space,
    /// A word by itself.
    Alone,
    /// Part of a word, as it is.
    Word,
    /// These stand for it, within a word or as words by themselves.
    Mapped(String, Place),
    /// A Korean syllable, for which its letters stand.
    Syllable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Within,
    Alone,
    /// Several words.
    Between,
}

impl Fate {
    fn class(&self) -> u32 {
        match self {
            Self::Word => 0,
            Self::Dropped => layout::DROPPED,
            Self::Space => layout::SPACE,
            Self::Alone => layout::ALONE,
            Self::Mapped(..) => layout::MAPPED,
            Self::Syllable => layout::SYLLABLE,
        }
    }
}

/// The tables of a section.
pub(super) struct WordTables {
    /// Tokens in the order of their pieces.
    pub(super) words: Vec<TokenId>,
    /// A code point, and with [`layout::CLASS_SHIFT`] the class from there on.
    pub(super) classes: Vec<u32>,
    /// Characters for which others stand.
    pub(super) mapped: Vec<(char, String)>,
}

impl TokenizerDef {
    /// The tables that `rules` and the pieces give.
    pub(super) fn word_tables(&self, rules: WordRules) -> Result<WordTables, TokenizerDefError> {
        let is_special = |id: TokenId| self.specials.iter().any(|special| special.id == id);
        let mut words: Vec<TokenId> = (0..self.vocab_size() as TokenId).collect();
        words.retain(|&id| !self.pieces[id as usize].is_empty() && !is_special(id));
        words.sort_by_key(|&id| &self.pieces[id as usize]);
        // Of equal pieces the library's map keeps one, and a file cannot have two.
        words.dedup_by_key(|id| &self.pieces[*id as usize]);
        let text = |id: &TokenId| String::from_utf8_lossy(&self.pieces[*id as usize]).into_owned();
        let alphabet: HashSet<char> = words.iter().flat_map(|id| text(id).chars().collect::<Vec<_>>()).collect();
        let (mut classes, mut mapped, mut before) = (Vec::new(), Vec::new(), 0);
        for (c, fate) in fates(rules)?.iter() {
            let mut class = fate.class();
            if let Fate::Mapped(text, place) = fate {
                let is_known = text.chars().all(|c| alphabet.contains(&c)) || alphabet.contains(c);
                // A word with a letter that no piece has is unknown, whichever it is.
                match place {
                    Place::Within if !is_known => class = 0,
                    Place::Alone if !is_known => class = layout::ALONE,
                    _ => mapped.push((*c, text.clone())),
                }
            }
            if class != before {
                classes.push(u32::from(*c) | class << layout::CLASS_SHIFT);
                before = class;
            }
        }
        Ok(WordTables { words, classes, mapped })
    }
}

type Fates = Arc<Vec<(char, Fate)>>;

/// What becomes of every character, ascending; of planes without characters, of the first and the last two of each.
fn fates(rules: WordRules) -> Result<Fates, TokenizerDefError> {
    static KNOWN: Mutex<Vec<(WordRules, Fates)>> = Mutex::new(Vec::new());
    let rules = WordRules { word_chars_max: 0, ..rules };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, fates)) = known.iter().find(|(of, _)| *of == rules) {
        return Ok(Arc::clone(fates));
    }
    let has_characters = |code: &u32| matches!(code >> 16, 0..=3 | 14) || matches!(code & 0xffff, 0 | 0xfffe..);
    let characters: Vec<char> = (0..=0x10_ffff).filter(has_characters).filter_map(char::from_u32).collect();
    let mut fates = Vec::with_capacity(characters.len());
    for characters in characters.chunks(4096) {
        fates.extend(fates_of(rules, characters)?);
    }
    let fates = Arc::new(fates);
    known.push((rules, Arc::clone(&fates)));
    Ok(fates)
}

/// Asks Hugging Face's library, which sees each character between two letters, and a digit after each.
fn fates_of(rules: WordRules, characters: &[char]) -> Result<Vec<(char, Fate)>, TokenizerDefError> {
    let failed = |error: tokenizers::Error| TokenizerDefError::Compile(format!("cannot normalise: {error}"));
    let WordRules { clean_text, chinese_chars, strip_accents, lowercase, .. } = rules;
    let text: String = characters.iter().map(|c| format!("x{c}x 0 ")).collect();
    let mut normalized = NormalizedString::from(text);
    let normalizer = BertNormalizer::new(clean_text, chinese_chars, Some(strip_accents), lowercase);
    normalizer.normalize(&mut normalized).map_err(failed)?;
    let mut cut = PreTokenizedString::from(normalized);
    BertPreTokenizer.pre_tokenize(&mut cut).map_err(failed)?;
    let words = cut.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    let words: Vec<&str> = words.into_iter().map(|(word, ..)| word).collect();
    let groups: Vec<&[&str]> = words.split(|word| *word == "0").filter(|group| !group.is_empty()).collect();
    if groups.len() != characters.len() {
        return Err(TokenizerDefError::Compile("a character's normal form holds a digit by itself".to_owned()));
    }
    Ok(characters.iter().zip(groups).map(|(&c, group)| (c, fate(c, group))).collect())
}

/// What the words between and around the two letters tell.
fn fate(c: char, group: &[&str]) -> Fate {
    let between = group.concat();
    let between = between.strip_prefix('x').and_then(|rest| rest.strip_suffix('x')).unwrap_or_default();
    let is_itself = between.chars().eq([c]);
    match group {
        ["xx"] => Fate::Dropped,
        ["x", "x"] => Fate::Space,
        [_] if is_itself => Fate::Word,
        [_] if matches!(c, '\u{ac00}'..='\u{d7a3}') => Fate::Syllable,
        ["x", _, "x"] if is_itself => Fate::Alone,
        [_] => Fate::Mapped(between.to_owned(), Place::Within),
        ["x", _, "x"] => Fate::Mapped(between.to_owned(), Place::Alone),
        _ => Fate::Mapped(between.to_owned(), Place::Between),
    }
}
