//! Text to tokens.

use core::fmt;

use super::section::layout;
use super::{PreTokens, Tokenizer, TokenizerKind};
use crate::TokenId;
use crate::cut::Cut;

/// SentencePiece's visible space; in a text it means the same as a space.
const META_SPACE: char = '\u{2581}';

/// What [`Tokenizer::encode_with`] does around the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Start with the beginning-of-text token, if the vocabulary has one.
    pub add_bos: bool,
    /// Where special tokens are recognised.
    pub specials: Specials,
}

/// Where the text of a control token becomes that token; elsewhere it is spelled like any other text, so that a text from
/// outside cannot forge the structure of a conversation. Special tokens that are not control tokens are always recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Everywhere.
    Everywhere,
    /// Nowhere.
    Nowhere,
    /// Everywhere but where it would touch the bytes `start..end`.
    Outside {
        /// First byte of the stretch.
        start: usize,
        /// The byte after it.
        end: usize,
    },
}

impl Specials {
    fn allows(self, start: usize, end: usize) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Nowhere => false,
            Self::Outside { start: from, end: to } => end <= from || start >= to,
        }
    }
}

/// A text cut at its special tokens: each stretch of plain text, which may be empty, with the special token that ends it.
#[derive(Clone, Debug)]
pub struct Stretches<'t, 'm> {
    tokenizer: Tokenizer<'m>,
    text: &'t str,
    at: Option<usize>,
    specials: Specials,
}

impl<'t> Iterator for Stretches<'t, '_> {
    type Item = (&'t str, Option<TokenId>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at?;
        for at in start..self.text.len() {
            // A special token is UTF-8, so it starts and ends where characters do.
            let end = |id| at + self.tokenizer.piece(id).len();
            let is_allowed = |id| !self.tokenizer.is_control(id) || self.specials.allows(at, end(id));
            if let Some(id) = self.tokenizer.special_at_start(self.text.as_bytes().cut(at..), is_allowed) {
                self.at = Some(end(id));
                return Some((self.text.get(start..at).unwrap_or_default(), Some(id)));
            }
        }
        self.at = None;
        Some((self.text.get(start..).unwrap_or_default(), None))
    }
}

impl<'m> Tokenizer<'m> {
    /// Encodes `text` into the front of `out` as the model was trained to see it; returns the number of tokens.
    ///
    /// Special tokens are recognised, and the beginning-of-text token added where the model wants it.
    /// [`Tokenizer::max_tokens`] slots always suffice; fewer do as long as the tokens so far leave room for the bytes of the
    /// next pre-token, which merge in place.
    pub fn encode(&self, text: &str, out: &mut [TokenId]) -> Result<usize, EncodeError> {
        self.encode_with(text, out, EncodeOptions { add_bos: self.add_bos(), specials: Specials::Everywhere })
    }

    /// Slots that encoding any text of `text_bytes` may need, whatever the options.
    pub fn max_tokens(&self, text_bytes: usize) -> usize {
        let spaced = self.tables().flags & layout::SPACE_AFTER_SPECIAL != 0;
        text_bytes.saturating_mul(if spaced { 2 } else { 1 }).saturating_add(2)
    }

    /// [`Tokenizer::encode`] with a choice of what is added and recognised.
    pub fn encode_with(&self, text: &str, out: &mut [TokenId], options: EncodeOptions) -> Result<usize, EncodeError> {
        let mut output = Output { out, len: 0 };
        if let (true, Some(bos)) = (options.add_bos, self.bos()) {
            output.push(bos)?;
        }
        let mut space_prefix = self.tables().flags & layout::SPACE_AT_START != 0;
        for (plain, special) in self.stretches(text, options.specials) {
            if !plain.is_empty() {
                self.encode_plain(plain, space_prefix, &mut output)?;
            }
            if let Some(id) = special {
                output.push(id)?;
                space_prefix = self.tables().flags & layout::SPACE_AFTER_SPECIAL != 0;
            }
        }
        Ok(output.len)
    }

    /// Cuts `text` at its special tokens.
    pub fn stretches<'t>(&self, text: &'t str, specials: Specials) -> Stretches<'t, 'm> {
        Stretches { tokenizer: *self, text, at: Some(0), specials }
    }

    fn encode_plain(&self, text: &str, space_prefix: bool, output: &mut Output<'_>) -> Result<(), EncodeError> {
        match self.kind() {
            TokenizerKind::ByteLevel => {}
            TokenizerKind::SentencePiece => return self.encode_sentence(text, space_prefix, output),
            TokenizerKind::WordPiece => return self.encode_words(text, output),
        }
        for word in PreTokens::new(self.pre_tokenizer(), text) {
            let start = output.len;
            self.push_bytes(word, output)?;
            self.merge_from(start, output);
        }
        Ok(())
    }

    fn encode_sentence(&self, text: &str, space_prefix: bool, output: &mut Output<'_>) -> Result<(), EncodeError> {
        let mut start = output.len;
        let mut after_space = true;
        for c in self.sentence_chars(text, space_prefix) {
            if self.splits_words() && c == ' ' && !after_space {
                self.merge_from(start, output);
                start = output.len;
            }
            after_space = c == ' ';
            self.push_char(c, output)?;
        }
        self.merge_from(start, output);
        Ok(())
    }

    /// Whether merges never cross from a character to a space after it, so that SentencePiece's text may be cut there.
    pub fn splits_words(&self) -> bool {
        self.tables().flags & layout::SPLIT_WORDS != 0
    }

    /// The characters that SentencePiece sees: the visible space is a space, and one more may go first.
    pub fn sentence_chars<'t>(&self, text: &'t str, space_prefix: bool) -> impl Iterator<Item = char> + use<'t> {
        let has_space = self.tables().flags & layout::SPACE_ONCE != 0 && text.starts_with([' ', META_SPACE]);
        let prefix = if space_prefix && !has_space { " " } else { "" };
        prefix.chars().chain(text.chars().map(|c| if c == META_SPACE { ' ' } else { c }))
    }

    /// Writes the tokens that `word`, a pre-token, starts from into the front of `out`; returns their number.
    ///
    /// Merging them gives the word's encoding. [`Tokenizer::encode_with`] does both; this is for encoders that merge by other
    /// means. SentencePiece's words come from [`Tokenizer::sentence_chars`].
    pub fn spell(&self, word: &str, out: &mut [TokenId]) -> Result<usize, EncodeError> {
        let mut output = Output { out, len: 0 };
        match self.kind() {
            TokenizerKind::ByteLevel => self.push_bytes(word, &mut output)?,
            TokenizerKind::SentencePiece => word.chars().try_for_each(|c| self.push_char(c, &mut output))?,
            TokenizerKind::WordPiece => self.encode_words(word, &mut output)?,
        }
        Ok(output.len)
    }

    /// A byte without a token becomes the unknown token, or nothing where there is none, as in the reference implementations.
    fn push_bytes(&self, word: &str, output: &mut Output<'_>) -> Result<(), EncodeError> {
        word.bytes().filter_map(|byte| self.byte_token(byte).or(self.unk())).try_for_each(|id| output.push(id))
    }

    /// A character without a token becomes its bytes' tokens, or the unknown token where they have none.
    fn push_char(&self, c: char, output: &mut Output<'_>) -> Result<(), EncodeError> {
        if let Some(id) = self.char_token(c) {
            return output.push(id);
        }
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).bytes();
        if bytes.clone().all(|byte| self.byte_token(byte).is_some()) {
            bytes.filter_map(|byte| self.byte_token(byte)).try_for_each(|id| output.push(id))
        } else {
            self.unk().map_or(Ok(()), |unk| output.push(unk))
        }
    }

    fn merge_from(&self, start: usize, output: &mut Output<'_>) {
        output.len = start + self.merge_all(output.out.cut_mut(start..output.len));
    }
}

/// The caller's buffer and how much of it is taken.
pub(super) struct Output<'o> {
    out: &'o mut [TokenId],
    len: usize,
}

impl Output<'_> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes the tokens after the first `len` away again.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(super) fn push(&mut self, id: TokenId) -> Result<(), EncodeError> {
        let given_tokens = self.out.len();
        let Some(slot) = self.out.get_mut(self.len) else { return Err(EncodeError { given_tokens }) };
        *slot = id;
        self.len += 1;
        Ok(())
    }
}

/// The buffer for tokens is too small for the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError {
    /// Slots the buffer has; [`Tokenizer::max_tokens`] says how many always suffice.
    pub given_tokens: usize,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the text does not fit into a buffer of {} tokens", self.given_tokens)
    }
}

impl core::error::Error for EncodeError {}
