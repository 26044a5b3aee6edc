//! The tokenizer section: its tables, where they lie. What must hold of their entries is in `check`, the tables that WordPiece adds in
//! `word_piece`.

#[cfg(not(feature = "linked-model"))]
mod check;

use super::word_piece::WordPieces;
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
    /// Where in an entry of WordPiece's table of classes the class begins; below it lies a code point.
    pub const CLASS_SHIFT: u32 = 24;
    /// Class of characters that are left out. That of a word's characters is 0.
    pub const DROPPED: u32 = 1;
    /// Class of characters that end a word and are left out.
    pub const SPACE: u32 = 2;
    /// Class of characters that are words by themselves.
    pub const ALONE: u32 = 3;
    /// Class of characters for which others stand.
    pub const MAPPED: u32 = 4;
    /// Class of Korean syllables, for which their letters stand.
    pub const SYLLABLE: u32 = 5;
}

/// How a text becomes its first tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// GPT-2's: the text is cut by a [`PreTokenizer`], every byte is a token, merges are learned pairs.
    ByteLevel,
    /// SentencePiece's BPE, Llama's: every character is a token, or its bytes where the vocabulary lacks it.
    SentencePiece,
    /// WordPiece, BERT's: normalised words are spelled by the longest pieces, from their start on.
    WordPiece,
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

/// A checked tokenizer section: a view, nothing is copied. That of a linked model (feature `linked-model`) is a constant and takes no memory.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'m> {
    #[cfg(not(feature = "linked-model"))]
    tables: Tables<'m>,
    #[cfg(feature = "linked-model")]
    lifetime: core::marker::PhantomData<&'m ()>,
}

/// The tables of a section, and the fields of its header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables<'m> {
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
    pub(super) word_pieces: WordPieces<'m>,
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
    /// A column without an entry.
    pub(super) const NONE: Self = Self { bytes: &[], wide: true };

    /// Entry `idx`, or `u32::MAX` past the end; a narrow `0xffff` is not widened.
    pub(super) const fn get(&self, idx: usize) -> u32 {
        let Some((_, rest)) = self.bytes.split_at_checked(idx * if self.wide { 4 } else { 2 }) else { return u32::MAX };
        match (self.wide, rest) {
            (true, &[a, b, c, d, ..]) => u32::from_le_bytes([a, b, c, d]),
            (false, &[a, b, ..]) => u16::from_le_bytes([a, b]) as u32,
            _ => u32::MAX,
        }
    }

    pub(super) const fn len(&self) -> usize {
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

/// What `Some` or `Ok` holds, or the error: `?` for functions that are evaluated when a linked model is compiled in.
macro_rules! known {
    ($option:expr, $error:expr) => {
        match $option {
            Some(value) => value,
            None => return Err($error),
        }
    };
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Err(error),
        }
    };
}

pub(super) use known;

/// Takes tables off the front of a section.
pub(super) struct Reader<'m> {
    rest: &'m [u8],
    section_bytes: usize,
}

impl<'m> Reader<'m> {
    pub(super) const fn bytes(&mut self, n_bytes: usize) -> Result<&'m [u8], TokenizerError> {
        let truncated = TokenizerError::Truncated { given_bytes: self.section_bytes };
        let (head, rest) = known!(self.rest.split_at_checked(n_bytes), truncated);
        self.rest = rest;
        Ok(head)
    }

    pub(super) const fn numbers(&mut self, n: usize, wide: bool) -> Result<Numbers<'m>, TokenizerError> {
        Ok(Numbers { bytes: known!(self.bytes(n * if wide { 4 } else { 2 })), wide })
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

/// A count of entries of at most `max`.
pub(super) const fn count(
    header: Numbers<'_>,
    field: &'static str,
    idx: usize,
    max: usize,
) -> Result<usize, TokenizerError> {
    let n = header.get(idx) as usize;
    if n > max { Err(TokenizerError::Header { field }) } else { Ok(n) }
}

/// A token below `vocab_size`, or none.
const fn token(
    header: Numbers<'_>,
    field: &'static str,
    idx: usize,
    vocab_size: usize,
) -> Result<Option<TokenId>, TokenizerError> {
    match header.get(idx) {
        layout::NO_TOKEN => Ok(None),
        id if (id as usize) < vocab_size => Ok(Some(id)),
        _ => Err(TokenizerError::Header { field }),
    }
}

impl Header {
    /// Reads the first [`layout::HEADER_BYTES`] of a section of `section_bytes`.
    const fn parse(header: &[u8], section_bytes: usize) -> Result<Self, TokenizerError> {
        const LAST: usize = layout::HEADER_BYTES - 12;
        let Some((&[a, b, c, d, version, kind, pre_tokenizer, id_bytes, low, high, zero, other_zero], rest)) =
            header.split_first_chunk()
        else {
            return Err(TokenizerError::Truncated { given_bytes: section_bytes });
        };
        if u32::from_le_bytes([a, b, c, d]) != u32::from_le_bytes(layout::MAGIC) {
            return Err(TokenizerError::NotATokenizer);
        }
        if version != layout::VERSION {
            return Err(TokenizerError::Version { found: version });
        }
        let kind = match kind {
            0 => TokenizerKind::ByteLevel,
            1 => TokenizerKind::SentencePiece,
            2 => TokenizerKind::WordPiece,
            _ => return Err(TokenizerError::Header { field: "kind" }),
        };
        let pre_tokenizer =
            known!(PreTokenizer::from_code(pre_tokenizer), TokenizerError::Header { field: "pre_tokenizer" });
        // A table longer than the section is refused here, before any product of sizes can overflow: entries have two bytes.
        let entries_max = section_bytes / 2;
        let (wide_ids, ids_max) = match id_bytes {
            2 => (false, layout::NARROW_IDS_MAX),
            4 => (true, layout::CONTROL as usize - 1),
            _ => return Err(TokenizerError::Header { field: "id_bytes" }),
        };
        let flags = u16::from_le_bytes([low, high]);
        if flags & !layout::ALL_FLAGS != 0 || zero != 0 || other_zero != 0 || rest.len() != LAST {
            return Err(TokenizerError::Header { field: "flags" });
        }
        let numbers = Numbers { bytes: rest, wide: true };
        let ids_max = if ids_max < entries_max { ids_max } else { entries_max };
        let vocab_size = known!(count(numbers, "vocab_size", 0, ids_max));
        if vocab_size == 0 {
            return Err(TokenizerError::Header { field: "vocab_size" });
        }
        Ok(Self {
            kind,
            pre_tokenizer,
            wide_ids,
            flags,
            vocab_size,
            n_merges: known!(count(numbers, "n_merges", 1, entries_max)),
            n_chars: known!(count(numbers, "n_chars", 2, entries_max)),
            n_specials: known!(count(numbers, "n_specials", 3, entries_max)),
            bos: known!(token(numbers, "bos", 4, vocab_size)),
            eos: known!(token(numbers, "eos", 5, vocab_size)),
            unk: known!(token(numbers, "unk", 6, vocab_size)),
            piece_bytes: known!(count(numbers, "piece_bytes", 7, section_bytes)),
        })
    }
}

impl<'m> Tokenizer<'m> {
    /// Reads a tokenizer section and checks every length, order and id in it.
    ///
    /// # Errors
    /// A [`TokenizerError`] that names the first thing that is wrong. No input panics.
    #[cfg(not(feature = "linked-model"))]
    pub fn parse(section: &'m [u8]) -> Result<Self, TokenizerError> {
        let tables = Tables::read(section)?;
        tables.check()?;
        Ok(Self { tables })
    }

    /// The linked model's.
    #[cfg(feature = "linked-model")]
    pub(crate) const LINKED: Self = Self { lifetime: core::marker::PhantomData };

    #[cfg(not(feature = "linked-model"))]
    #[inline(always)]
    pub(super) fn tables(&self) -> &Tables<'m> {
        &self.tables
    }

    #[cfg(feature = "linked-model")]
    #[inline(always)]
    pub(super) fn tables(&self) -> &Tables<'m> {
        &crate::linked::TABLES
    }
}

impl<'m> Tables<'m> {
    /// Those of no token.
    #[cfg(feature = "linked-model")]
    pub(crate) const NONE: Self = {
        let none = Numbers::NONE;
        Self {
            kind: TokenizerKind::ByteLevel,
            pre_tokenizer: PreTokenizer::None,
            flags: 0,
            vocab_size: 0,
            bos: None,
            eos: None,
            unk: None,
            byte_tokens: none,
            piece_ends: none,
            merge_starts: none,
            merge_rights: none,
            merge_results: none,
            merge_ranks: None,
            chars: none,
            char_tokens: none,
            specials: none,
            pieces: &[],
            word_pieces: WordPieces::NONE,
            special_starts: [0; 8],
        }
    };

    /// Cuts a section into its tables, whose entries are yet to be checked.
    pub(crate) const fn read(section: &'m [u8]) -> Result<Self, TokenizerError> {
        let mut reader = Reader { rest: section, section_bytes: section.len() };
        let header = known!(Header::parse(known!(reader.bytes(layout::HEADER_BYTES)), section.len()));
        let wide_merges = header.n_merges > 0xffff;
        let has_ranks = header.flags & layout::EXPLICIT_RANKS != 0;
        let is_word_piece = matches!(header.kind, TokenizerKind::WordPiece);
        // WordPiece neither spells by bytes nor merges.
        let (n_bytes, n_starts) = if is_word_piece { (0, 0) } else { (256, header.vocab_size + 1) };
        // The fields are read in the order of the tables.
        let tables = Self {
            kind: header.kind,
            pre_tokenizer: header.pre_tokenizer,
            flags: header.flags,
            vocab_size: header.vocab_size,
            bos: header.bos,
            eos: header.eos,
            unk: header.unk,
            byte_tokens: known!(reader.numbers(n_bytes, header.wide_ids)),
            piece_ends: known!(reader.numbers(header.vocab_size, header.piece_bytes > 0xffff)),
            merge_starts: known!(reader.numbers(n_starts, wide_merges)),
            merge_rights: known!(reader.numbers(header.n_merges, header.wide_ids)),
            merge_results: known!(reader.numbers(header.n_merges, header.wide_ids)),
            merge_ranks: if has_ranks { Some(known!(reader.numbers(header.n_merges, wide_merges))) } else { None },
            chars: known!(reader.numbers(header.n_chars, true)),
            char_tokens: known!(reader.numbers(header.n_chars, header.wide_ids)),
            specials: known!(reader.numbers(header.n_specials, true)),
            pieces: known!(reader.bytes(header.piece_bytes)),
            word_pieces: match is_word_piece {
                true => known!(WordPieces::read(&mut reader, header.wide_ids, section.len())),
                false => WordPieces::NONE,
            },
            special_starts: [0; 8],
        };
        if !reader.rest.is_empty() {
            return Err(TokenizerError::TrailingBytes { extra_bytes: reader.rest.len() });
        }
        Ok(tables.with_special_starts())
    }

    /// Takes note of the first bytes of special tokens.
    const fn with_special_starts(mut self) -> Self {
        let mut idx = 0;
        while idx < self.specials.len() {
            if let &[first, ..] = self.piece(self.specials.get(idx) & !layout::CONTROL) {
                self.special_starts[first as usize / 32] |= 1 << (first % 32);
            }
            idx += 1;
        }
        self
    }

    /// See [`Tokenizer::piece`].
    pub(super) const fn piece(&self, id: TokenId) -> &'m [u8] {
        let id = id as usize;
        if id >= self.vocab_size {
            return &[];
        }
        let start = if id == 0 { 0 } else { self.piece_ends.get(id - 1) as usize };
        let end = self.piece_ends.get(id) as usize;
        let Some((before, _)) = self.pieces.split_at_checked(end) else { return &[] };
        let Some((_, piece)) = before.split_at_checked(start) else { return &[] };
        piece
    }

    /// See [`Tokenizer::byte_token`].
    fn byte_token(&self, byte: u8) -> Option<TokenId> {
        let id = self.byte_tokens.get(usize::from(byte));
        let is_none = id == layout::NO_TOKEN || !self.byte_tokens.wide && id == 0xffff;
        (!is_none).then_some(id)
    }
}

impl<'m> Tokenizer<'m> {
    /// Number of token ids; every id below it has a piece, though it may be empty.
    pub fn vocab_size(&self) -> usize {
        self.tables().vocab_size
    }

    /// How texts become tokens.
    pub fn kind(&self) -> TokenizerKind {
        self.tables().kind
    }

    /// How text is cut before merging.
    pub fn pre_tokenizer(&self) -> PreTokenizer {
        self.tables().pre_tokenizer
    }

    /// Beginning-of-text token.
    pub fn bos(&self) -> Option<TokenId> {
        self.tables().bos
    }

    /// End-of-text token: generation stops at it.
    pub fn eos(&self) -> Option<TokenId> {
        self.tables().eos
    }

    /// Token for what the vocabulary cannot spell.
    pub fn unk(&self) -> Option<TokenId> {
        self.tables().unk
    }

    /// Whether [`Tokenizer::encode`] starts with [`Tokenizer::bos`].
    pub fn add_bos(&self) -> bool {
        self.tables().flags & layout::ADD_BOS != 0
    }

    /// Where SentencePiece's extra spaces go; nowhere for byte-level tokenizers.
    pub fn space_prefix(&self) -> SpacePrefix {
        SpacePrefix {
            at_start: self.tables().flags & layout::SPACE_AT_START != 0,
            after_special: self.tables().flags & layout::SPACE_AFTER_SPECIAL != 0,
            once: self.tables().flags & layout::SPACE_ONCE != 0,
        }
    }

    /// Bytes that token `id` stands for: any bytes, not always whole characters. Empty for an id outside the vocabulary.
    ///
    /// A special token's piece is the text by which it is recognised.
    pub fn piece(&self, id: TokenId) -> &'m [u8] {
        self.tables().piece(id)
    }

    /// Whether `id` marks structure (begin, end, turn) and is left out of decoded text.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.special_idx(id).is_some_and(|idx| self.tables().specials.get(idx) & layout::CONTROL != 0)
    }

    fn special_idx(&self, id: TokenId) -> Option<usize> {
        let (mut lo, mut hi) = (0, self.tables().specials.len());
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            match (self.tables().specials.get(mid) & !layout::CONTROL).cmp(&id) {
                core::cmp::Ordering::Less => lo = mid + 1,
                core::cmp::Ordering::Greater => hi = mid,
                core::cmp::Ordering::Equal => return Some(mid),
            }
        }
        None
    }

    /// Tokens that are recognised in text, ascending.
    pub fn specials(&self) -> impl Iterator<Item = TokenId> + 'm {
        let specials = self.tables().specials;
        (0..specials.len()).map(move |idx| specials.get(idx) & !layout::CONTROL)
    }

    /// The special token whose text is `text`.
    pub fn special(&self, text: &str) -> Option<TokenId> {
        self.specials().find(|&id| self.piece(id) == text.as_bytes())
    }

    /// The longest special token at the start of `text` that `is_allowed`, if there is one.
    pub(super) fn special_at_start(&self, text: &[u8], is_allowed: impl Fn(TokenId) -> bool) -> Option<TokenId> {
        let first = *text.first()?;
        if self
            .tables()
            .special_starts
            .get(usize::from(first / 32))
            .is_none_or(|starts| starts >> (first % 32) & 1 == 0)
        {
            return None;
        }
        let found = self.specials().filter(|&id| text.starts_with(self.piece(id)) && is_allowed(id));
        found.max_by_key(|&id| self.piece(id).len())
    }

    /// The token of a single byte.
    pub fn byte_token(&self, byte: u8) -> Option<TokenId> {
        self.tables().byte_token(byte)
    }

    /// The token of a single character, for SentencePiece.
    pub fn char_token(&self, c: char) -> Option<TokenId> {
        self.tables().chars.find(c as u32, 0, self.tables().chars.len()).map(|idx| self.tables().char_tokens.get(idx))
    }
}
