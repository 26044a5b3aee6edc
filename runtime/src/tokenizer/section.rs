//! The tokenizer section: reading and checking it.

use super::{PreTokenizer, TokenizerError};
use crate::TokenId;

/// Byte layout of a tokenizer section, shared with the compiler, which writes it. All numbers are little-endian.
pub mod layout {
    /// First four bytes.
    pub const MAGIC: [u8; 4] = *b"STOK";
    /// Layout version that this runtime reads.
    pub const VERSION: u8 = 1;
    /// Bytes before the first table.
    pub const HEADER_BYTES: usize = 44;
    /// Stands for "no token" where an optional id is 4 bytes wide; `0xffff` does where it is 2.
    pub const NO_TOKEN: u32 = u32::MAX;
    /// Most ids that 2 bytes hold, with `0xffff` kept for "no token".
    pub const NARROW_IDS_MAX: usize = 0xffff;
    /// Flag: encoding starts with the beginning-of-text token.
    pub const ADD_BOS: u16 = 1 << 0;
    /// Flag: the merge table has a column of ranks; without it the rank of a merge is the id that it makes.
    pub const EXPLICIT_RANKS: u16 = 1 << 1;
    /// Flag: no token holds a space after another character, so merges never leave a word (SentencePiece).
    pub const SPLIT_WORDS: u16 = 1 << 2;
    /// Flag: a space goes before the text.
    pub const SPACE_AT_START: u16 = 1 << 3;
    /// Flag: a space goes before the text that follows a special token.
    pub const SPACE_AFTER_SPECIAL: u16 = 1 << 4;
    /// Flag: text that begins with a space gets no second one.
    pub const SPACE_ONCE: u16 = 1 << 5;
    /// Every flag there is.
    pub const ALL_FLAGS: u16 = (1 << 6) - 1;
    /// Set in an entry of the special tokens' table when decoding leaves the token out.
    pub const CONTROL: u32 = 1 << 31;
}

/// How a text becomes its first tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// GPT-2's: the text is cut by a [`PreTokenizer`], every byte is a token, merges are learned pairs.
    ByteLevel,
    /// SentencePiece's BPE, Llama's: every character is a token, or its bytes where the vocabulary lacks it.
    SentencePiece,
}

/// Where SentencePiece puts the space that makes a first word look like any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpacePrefix {
    /// Before the text.
    pub at_start: bool,
    /// Before each stretch of text that follows a special token.
    pub after_special: bool,
    /// Not where the text has a space there already.
    pub once: bool,
}

/// A checked tokenizer section: a view, nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'m> {
    pub(super) kind: TokenizerKind,
    pub(super) pre_tokenizer: PreTokenizer,
    pub(super) flags: u16,
    vocab_size: usize,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    unk: Option<TokenId>,
    byte_tokens: Numbers<'m>,
    piece_ends: Numbers<'m>,
    pub(super) merge_starts: Numbers<'m>,
    pub(super) merge_rights: Numbers<'m>,
    pub(super) merge_results: Numbers<'m>,
    pub(super) merge_ranks: Option<Numbers<'m>>,
    chars: Numbers<'m>,
    char_tokens: Numbers<'m>,
    specials: Numbers<'m>,
    pieces: &'m [u8],
    /// Bit `b` is set when a special token starts with byte `b`.
    special_starts: [u32; 8],
}

/// A column of unsigned numbers, 2 or 4 bytes each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'m> {
    bytes: &'m [u8],
    wide: bool,
}

impl Numbers<'_> {
    /// Entry `idx`, or `u32::MAX` past the end; a narrow `0xffff` is not widened.
    pub(super) fn get(&self, idx: usize) -> u32 {
        if self.wide {
            match self.bytes.get(idx * 4..idx * 4 + 4) {
                Some(b) => u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                None => u32::MAX,
            }
        } else {
            match self.bytes.get(idx * 2..idx * 2 + 2) {
                Some(b) => u32::from(u16::from_le_bytes([b[0], b[1]])),
                None => u32::MAX,
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() / if self.wide { 4 } else { 2 }
    }

    /// Index in `lo..hi` of `value`, where those entries ascend.
    pub(super) fn find(&self, value: u32, mut lo: usize, mut hi: usize) -> Option<usize> {
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            match self.get(mid).cmp(&value) {
                core::cmp::Ordering::Less => lo = mid + 1,
                core::cmp::Ordering::Greater => hi = mid,
                core::cmp::Ordering::Equal => return Some(mid),
            }
        }
        None
    }
}

/// Takes tables off the front of a section.
struct Reader<'m> {
    rest: &'m [u8],
    section_bytes: usize,
}

impl<'m> Reader<'m> {
    fn bytes(&mut self, n_bytes: usize) -> Result<&'m [u8], TokenizerError> {
        let Some((head, rest)) = self.rest.split_at_checked(n_bytes) else {
            return Err(TokenizerError::Truncated { given_bytes: self.section_bytes });
        };
        self.rest = rest;
        Ok(head)
    }

    fn numbers(&mut self, n: usize, wide: bool) -> Result<Numbers<'m>, TokenizerError> {
        Ok(Numbers { bytes: self.bytes(n * if wide { 4 } else { 2 })?, wide })
    }
}

/// The header's fields, in range for a section of its length.
struct Header {
    kind: TokenizerKind,
    pre_tokenizer: PreTokenizer,
    wide_ids: bool,
    flags: u16,
    vocab_size: usize,
    n_merges: usize,
    n_chars: usize,
    n_specials: usize,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    unk: Option<TokenId>,
    piece_bytes: usize,
}

impl Header {
    /// Reads the first [`layout::HEADER_BYTES`] of a section of `section_bytes`.
    fn parse(header: &[u8], section_bytes: usize) -> Result<Self, TokenizerError> {
        if header[..4] != layout::MAGIC {
            return Err(TokenizerError::NotATokenizer);
        }
        if header[4] != layout::VERSION {
            return Err(TokenizerError::Version { found: header[4] });
        }
        let kind = match header[5] {
            0 => TokenizerKind::ByteLevel,
            1 => TokenizerKind::SentencePiece,
            _ => return Err(TokenizerError::Header { field: "kind" }),
        };
        let pre_tokenizer =
            PreTokenizer::from_code(header[6]).ok_or(TokenizerError::Header { field: "pre_tokenizer" })?;
        let (wide_ids, ids_max) = match header[7] {
            2 => (false, layout::NARROW_IDS_MAX),
            4 => (true, layout::CONTROL as usize - 1),
            _ => return Err(TokenizerError::Header { field: "id_bytes" }),
        };
        let flags = u16::from_le_bytes([header[8], header[9]]);
        if flags & !layout::ALL_FLAGS != 0 || header[10] != 0 || header[11] != 0 {
            return Err(TokenizerError::Header { field: "flags" });
        }
        let numbers = Numbers { bytes: &header[12..], wide: true };
        // A table longer than the section is refused here, before any product of sizes can overflow: entries have two bytes.
        let n_entries = |field, idx: usize, max: usize| match numbers.get(idx) as usize {
            n if n > max => Err(TokenizerError::Header { field }),
            n => Ok(n),
        };
        let entries_max = section_bytes / 2;
        let vocab_size = n_entries("vocab_size", 0, ids_max.min(entries_max))?;
        if vocab_size == 0 {
            return Err(TokenizerError::Header { field: "vocab_size" });
        }
        let id = |field, idx: usize| match numbers.get(idx) {
            layout::NO_TOKEN => Ok(None),
            id if (id as usize) < vocab_size => Ok(Some(id)),
            _ => Err(TokenizerError::Header { field }),
        };
        Ok(Self {
            kind,
            pre_tokenizer,
            wide_ids,
            flags,
            vocab_size,
            n_merges: n_entries("n_merges", 1, entries_max)?,
            n_chars: n_entries("n_chars", 2, entries_max)?,
            n_specials: n_entries("n_specials", 3, entries_max)?,
            bos: id("bos", 4)?,
            eos: id("eos", 5)?,
            unk: id("unk", 6)?,
            piece_bytes: n_entries("piece_bytes", 7, section_bytes)?,
        })
    }
}

impl<'m> Tokenizer<'m> {
    /// Reads a tokenizer section and checks every length, order and id in it.
    ///
    /// # Errors
    /// A [`TokenizerError`] that names the first thing that is wrong. No input panics.
    pub fn parse(section: &'m [u8]) -> Result<Self, TokenizerError> {
        let mut reader = Reader { rest: section, section_bytes: section.len() };
        let header = Header::parse(reader.bytes(layout::HEADER_BYTES)?, section.len())?;
        let wide_merges = header.n_merges > 0xffff;
        let has_ranks = header.flags & layout::EXPLICIT_RANKS != 0;
        // The fields are read in the order of the tables.
        let mut tokenizer = Self {
            kind: header.kind,
            pre_tokenizer: header.pre_tokenizer,
            flags: header.flags,
            vocab_size: header.vocab_size,
            bos: header.bos,
            eos: header.eos,
            unk: header.unk,
            byte_tokens: reader.numbers(256, header.wide_ids)?,
            piece_ends: reader.numbers(header.vocab_size, header.piece_bytes > 0xffff)?,
            merge_starts: reader.numbers(header.vocab_size + 1, wide_merges)?,
            merge_rights: reader.numbers(header.n_merges, header.wide_ids)?,
            merge_results: reader.numbers(header.n_merges, header.wide_ids)?,
            merge_ranks: if has_ranks { Some(reader.numbers(header.n_merges, wide_merges)?) } else { None },
            chars: reader.numbers(header.n_chars, true)?,
            char_tokens: reader.numbers(header.n_chars, header.wide_ids)?,
            specials: reader.numbers(header.n_specials, true)?,
            pieces: reader.bytes(header.piece_bytes)?,
            special_starts: [0; 8],
        };
        if !reader.rest.is_empty() {
            return Err(TokenizerError::TrailingBytes { extra_bytes: reader.rest.len() });
        }
        tokenizer.check_pieces()?;
        tokenizer.check_merges()?;
        tokenizer.check_chars()?;
        tokenizer.check_specials()?;
        Ok(tokenizer)
    }

    fn check_pieces(&self) -> Result<(), TokenizerError> {
        let mut start = 0;
        for id in 0..self.vocab_size {
            let end = self.piece_ends.get(id);
            if end < start || end as usize > self.pieces.len() {
                return Err(TokenizerError::Piece { id: id as TokenId });
            }
            start = end;
        }
        if start as usize != self.pieces.len() {
            return Err(TokenizerError::Piece { id: self.vocab_size as TokenId - 1 });
        }
        for byte in 0..=255u8 {
            if let Some(id) = self.byte_token(byte)
                && (id as usize >= self.vocab_size || self.piece(id) != [byte])
            {
                return Err(TokenizerError::ByteToken { byte });
            }
        }
        Ok(())
    }

    fn check_merges(&self) -> Result<(), TokenizerError> {
        let mut start = 0;
        for left in 0..self.vocab_size {
            let (lo, hi) = (self.merge_starts.get(left), self.merge_starts.get(left + 1));
            if lo != start || hi < lo || hi as usize > self.merge_rights.len() {
                return Err(TokenizerError::MergeStart { left: left as TokenId });
            }
            start = hi;
            let mut previous = None;
            for idx in lo as usize..hi as usize {
                let (right, result) = (self.merge_rights.get(idx), self.merge_results.get(idx));
                let ordered = previous.is_none_or(|p| p < right);
                let known = (right as usize) < self.vocab_size && (result as usize) < self.vocab_size;
                if !ordered || !known || !self.is_concatenation(left as TokenId, right, result) {
                    return Err(TokenizerError::Merge { idx });
                }
                previous = Some(right);
            }
        }
        if start as usize != self.merge_rights.len() {
            return Err(TokenizerError::MergeStart { left: self.vocab_size as TokenId });
        }
        Ok(())
    }

    /// Whether `result` spells `left` and then `right`, neither of them empty.
    fn is_concatenation(&self, left: TokenId, right: TokenId, result: TokenId) -> bool {
        let (left, right, result) = (self.piece(left), self.piece(right), self.piece(result));
        !left.is_empty()
            && !right.is_empty()
            && result.len() == left.len() + right.len()
            && result.starts_with(left)
            && result.ends_with(right)
    }

    fn check_chars(&self) -> Result<(), TokenizerError> {
        let mut previous = None;
        for idx in 0..self.chars.len() {
            let (code, id) = (self.chars.get(idx), self.char_tokens.get(idx));
            let spelled = char::from_u32(code).is_some_and(|c| self.piece(id) == c.encode_utf8(&mut [0; 4]).as_bytes());
            if !spelled || id as usize >= self.vocab_size || previous.is_some_and(|p| p >= code) {
                return Err(TokenizerError::Char { idx });
            }
            previous = Some(code);
        }
        Ok(())
    }

    fn check_specials(&mut self) -> Result<(), TokenizerError> {
        let mut previous = None;
        for idx in 0..self.specials.len() {
            let id = self.specials.get(idx) & !layout::CONTROL;
            let ordered = previous.is_none_or(|p| p < id);
            let piece = self.piece(id);
            let Some(&first) = piece.first() else { return Err(TokenizerError::Special { idx }) };
            if !ordered || core::str::from_utf8(piece).is_err() {
                return Err(TokenizerError::Special { idx });
            }
            self.special_starts[usize::from(first / 32)] |= 1 << (first % 32);
            previous = Some(id);
        }
        Ok(())
    }

    /// Number of token ids; every id below it has a piece, though it may be empty.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// How texts become tokens.
    pub fn kind(&self) -> TokenizerKind {
        self.kind
    }

    /// How text is cut before merging.
    pub fn pre_tokenizer(&self) -> PreTokenizer {
        self.pre_tokenizer
    }

    /// Beginning-of-text token.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// End-of-text token: generation stops at it.
    pub fn eos(&self) -> Option<TokenId> {
        self.eos
    }

    /// Token for what the vocabulary cannot spell.
    pub fn unk(&self) -> Option<TokenId> {
        self.unk
    }

    /// Whether [`Tokenizer::encode`] starts with [`Tokenizer::bos`].
    pub fn add_bos(&self) -> bool {
        self.flags & layout::ADD_BOS != 0
    }

    /// Where SentencePiece's extra spaces go; nowhere for byte-level tokenizers.
    pub fn space_prefix(&self) -> SpacePrefix {
        SpacePrefix {
            at_start: self.flags & layout::SPACE_AT_START != 0,
            after_special: self.flags & layout::SPACE_AFTER_SPECIAL != 0,
            once: self.flags & layout::SPACE_ONCE != 0,
        }
    }

    /// Bytes that token `id` stands for: any bytes, not always whole characters. Empty for an id outside the vocabulary.
    ///
    /// A special token's piece is the text by which it is recognised.
    pub fn piece(&self, id: TokenId) -> &'m [u8] {
        let id = id as usize;
        if id >= self.vocab_size {
            return &[];
        }
        let start = if id == 0 { 0 } else { self.piece_ends.get(id - 1) as usize };
        self.pieces.get(start..self.piece_ends.get(id) as usize).unwrap_or(&[])
    }

    /// Whether `id` marks structure (begin, end, turn) and is left out of decoded text.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.special_idx(id).is_some_and(|idx| self.specials.get(idx) & layout::CONTROL != 0)
    }

    fn special_idx(&self, id: TokenId) -> Option<usize> {
        let (mut lo, mut hi) = (0, self.specials.len());
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            match (self.specials.get(mid) & !layout::CONTROL).cmp(&id) {
                core::cmp::Ordering::Less => lo = mid + 1,
                core::cmp::Ordering::Greater => hi = mid,
                core::cmp::Ordering::Equal => return Some(mid),
            }
        }
        None
    }

    /// Tokens that are recognised in text, ascending.
    pub fn specials(&self) -> impl Iterator<Item = TokenId> + 'm {
        let specials = self.specials;
        (0..specials.len()).map(move |idx| specials.get(idx) & !layout::CONTROL)
    }

    /// The special token whose text is `text`.
    pub fn special(&self, text: &str) -> Option<TokenId> {
        self.specials().find(|&id| self.piece(id) == text.as_bytes())
    }

    /// The longest special token at the start of `text` that `is_allowed`, if there is one.
    pub(super) fn special_at_start(&self, text: &[u8], is_allowed: impl Fn(TokenId) -> bool) -> Option<TokenId> {
        let first = *text.first()?;
        if self.special_starts[usize::from(first / 32)] & (1 << (first % 32)) == 0 {
            return None;
        }
        let found = self.specials().filter(|&id| text.starts_with(self.piece(id)) && is_allowed(id));
        found.max_by_key(|&id| self.piece(id).len())
    }

    /// The token of a single byte.
    pub fn byte_token(&self, byte: u8) -> Option<TokenId> {
        let id = self.byte_tokens.get(usize::from(byte));
        let none = if self.byte_tokens.wide { layout::NO_TOKEN } else { 0xffff };
        (id != none).then_some(id)
    }

    /// The token of a single character, for SentencePiece.
    pub fn char_token(&self, c: char) -> Option<TokenId> {
        self.chars.find(c as u32, 0, self.chars.len()).map(|idx| self.char_tokens.get(idx))
    }
}
