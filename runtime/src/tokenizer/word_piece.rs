//! WordPiece, BERT's: text is normalised and cut into words; each is spelled by the longest pieces, from its start on.
//!
//! What Unicode says of a character is in the section, as far as its vocabulary can tell: there are no tables in the code, and no word
//! is ever copied. A word's characters are made anew from the text for each piece that is looked for.

use core::str::Chars;

use super::encode::{EncodeError, Output};
#[cfg(not(feature = "linked-model"))]
use super::section::Tables;
use super::section::{Numbers, Reader, count, known};
use super::{Tokenizer, TokenizerError, layout};
use crate::TokenId;

/// What becomes of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// It belongs to a word, as it is.
    Word,
    /// It is left out.
    Dropped,
    /// It ends a word, and is left out.
    Space,
    /// It is a word by itself.
    Alone,
    /// Others stand for it.
    Mapped,
    /// A Korean syllable, for which its letters stand.
    Syllable,
}

impl Class {
    fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Word,
            layout::DROPPED => Self::Dropped,
            layout::SPACE => Self::Space,
            layout::ALONE => Self::Alone,
            layout::MAPPED => Self::Mapped,
            layout::SYLLABLE => Self::Syllable,
            _ => return None,
        })
    }
}

/// The tables that follow the pieces in a section of this kind; checked, so that nothing after it can fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct WordPieces<'m> {
    /// The pieces' tokens, in the order of their bytes.
    words: Numbers<'m>,
    /// Where the class changes: a code point, and the class from there on.
    classes: Numbers<'m>,
    /// Characters that others stand for, and where their texts end.
    mapped: Numbers<'m>,
    mapped_ends: Numbers<'m>,
    mapped_texts: &'m [u8],
    word_chars_max: usize,
}

const CODE_POINT: u32 = (1 << 21) - 1;

impl<'m> WordPieces<'m> {
    /// None, for the other kinds.
    pub(super) const NONE: Self = Self {
        words: Numbers::NONE,
        classes: Numbers::NONE,
        mapped: Numbers::NONE,
        mapped_ends: Numbers::NONE,
        mapped_texts: &[],
        word_chars_max: 0,
    };

    /// Takes the tables off a section of `section_bytes`; [`WordPieces::check`] looks at what they hold.
    pub(super) const fn read(
        reader: &mut Reader<'m>,
        wide_ids: bool,
        section_bytes: usize,
    ) -> Result<Self, TokenizerError> {
        // No table has more entries than the section has bytes, so no product of sizes overflows.
        let sizes = known!(reader.numbers(5, true));
        let n_words = known!(count(sizes, "n_words", 0, section_bytes));
        let n_classes = known!(count(sizes, "n_classes", 1, section_bytes));
        let n_mapped = known!(count(sizes, "n_mapped", 2, section_bytes));
        let mapped_bytes = known!(count(sizes, "mapped_bytes", 3, section_bytes));
        Ok(Self {
            words: known!(reader.numbers(n_words, wide_ids)),
            classes: known!(reader.numbers(n_classes, true)),
            mapped: known!(reader.numbers(n_mapped, true)),
            mapped_ends: known!(reader.numbers(n_mapped, mapped_bytes > 0xffff)),
            mapped_texts: known!(reader.bytes(mapped_bytes)),
            word_chars_max: sizes.get(4) as usize,
        })
    }

    /// Checks orders and texts; `tables` has the pieces.
    #[cfg(not(feature = "linked-model"))]
    pub(super) fn check(&self, tables: &Tables<'_>) -> Result<(), TokenizerError> {
        let mut before: Option<&[u8]> = None;
        for idx in 0..self.words.len() {
            let id = self.words.get(idx);
            let piece = tables.piece(id);
            if piece.is_empty() || before.is_some_and(|before| before >= piece) {
                return Err(TokenizerError::Word { idx });
            }
            before = Some(piece);
        }
        let mut before = None;
        for idx in 0..self.classes.len() {
            let entry = self.classes.get(idx);
            let is_known = Class::from_code(entry >> layout::CLASS_SHIFT).is_some();
            if !is_known || before.is_some_and(|before| before >= entry & CODE_POINT) {
                return Err(TokenizerError::Class { idx });
            }
            before = Some(entry & CODE_POINT);
        }
        let (mut before, mut start) = (None, 0);
        for idx in 0..self.mapped.len() {
            let (code, end) = (self.mapped.get(idx), self.mapped_ends.get(idx) as usize);
            let text = self.mapped_texts.get(start..end).and_then(|bytes| core::str::from_utf8(bytes).ok());
            // Never more characters than the one had bytes: `Tokenizer::max_tokens` relies on it.
            let is_short = |c: char| text.is_some_and(|text| text.chars().count() <= c.len_utf8());
            if !char::from_u32(code).is_some_and(is_short) || before.is_some_and(|before| before >= code) {
                return Err(TokenizerError::Mapped { idx });
            }
            (before, start) = (Some(code), end);
        }
        if start == self.mapped_texts.len() { Ok(()) } else { Err(TokenizerError::Mapped { idx: self.mapped.len() }) }
    }

    fn class(&self, c: char) -> Class {
        let (mut lo, mut hi) = (0, self.classes.len());
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if self.classes.get(mid) & CODE_POINT <= c as u32 { lo = mid + 1 } else { hi = mid }
        }
        let entry = lo.checked_sub(1).map_or(0, |idx| self.classes.get(idx));
        Class::from_code(entry >> layout::CLASS_SHIFT).unwrap_or(Class::Word)
    }

    /// What stands for a mapped character; nothing where there is no entry.
    fn text_for(&self, c: char) -> &'m str {
        let Some(idx) = self.mapped.find(c as u32, 0, self.mapped.len()) else { return "" };
        let start = idx.checked_sub(1).map_or(0, |before| self.mapped_ends.get(before) as usize);
        let bytes = self.mapped_texts.get(start..self.mapped_ends.get(idx) as usize).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// A character of the normalised text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A word ends.
    Space,
    /// A word by itself.
    Alone(char),
    /// Part of a word.
    Word(char),
}

/// The normalised text, made as it is read.
#[derive(Clone)]
struct Units<'t, 'm> {
    pieces: WordPieces<'m>,
    text: Chars<'t>,
    /// What stands for the last character and is yet to come.
    mapped: Chars<'m>,
    /// The letters of a syllable that are yet to come, the first lowest.
    letters: [Option<char>; 2],
}

/// The letters of a Korean syllable (Unicode, 3.12): one that begins it, one in its middle, and perhaps one at its end.
fn letters_of(syllable: char) -> [Option<char>; 3] {
    const FIRST: u32 = 0xac00;
    let idx = (syllable as u32).wrapping_sub(FIRST);
    let last = if idx.is_multiple_of(28) { None } else { char::from_u32(0x11a7 + idx % 28) };
    [char::from_u32(0x1100 + idx / 588), char::from_u32(0x1161 + idx % 588 / 28), last]
}

impl Iterator for Units<'_, '_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        loop {
            if let Some(letter) = self.letters[0].take() {
                self.letters.swap(0, 1);
                return Some(Unit::Word(letter));
            }
            // What stands for another is final, but for whether it is a word by itself.
            let (c, is_final) = match self.mapped.next() {
                Some(c) => (c, true),
                None => (self.text.next()?, false),
            };
            match self.pieces.class(c) {
                Class::Space => return Some(Unit::Space),
                Class::Alone => return Some(Unit::Alone(c)),
                Class::Mapped if !is_final => self.mapped = self.pieces.text_for(c).chars(),
                Class::Syllable if !is_final => {
                    let [first, middle, last] = letters_of(c);
                    self.letters = [middle, last];
                    return first.map(Unit::Word);
                }
                Class::Dropped if !is_final => {}
                _ => return Some(Unit::Word(c)),
            }
        }
    }
}

/// The pieces that begin as what was looked at so far.
#[derive(Clone, Copy)]
struct Matches {
    lo: usize,
    hi: usize,
    n_bytes: usize,
}

impl<'m> Tokenizer<'m> {
    /// Spells the words of a text without special tokens.
    pub(super) fn encode_words(&self, text: &str, output: &mut Output<'_>) -> Result<(), EncodeError> {
        let pieces = self.tables().word_pieces;
        let mut units = Units { pieces, text: text.chars(), mapped: "".chars(), letters: [None; 2] };
        loop {
            let start = units.clone();
            match units.next() {
                None => return Ok(()),
                Some(Unit::Space) => {}
                Some(Unit::Alone(_)) => self.encode_word(start, 1, output)?,
                Some(Unit::Word(_)) => {
                    let mut n_chars = 1;
                    loop {
                        let before = units.clone();
                        if !matches!(units.next(), Some(Unit::Word(_))) {
                            units = before;
                            break;
                        }
                        n_chars += 1;
                    }
                    self.encode_word(start, n_chars, output)?;
                }
            }
        }
    }

    /// Spells the next `n_chars` of `units`, a word: the longest piece that it begins with, then the longest that goes on from there.
    /// A word that cannot be spelled to its end, or is too long, is unknown.
    fn encode_word(
        &self,
        mut units: Units<'_, '_>,
        n_chars: usize,
        output: &mut Output<'_>,
    ) -> Result<(), EncodeError> {
        let start_len = output.len();
        let mut n_left = n_chars;
        while n_left > 0 && n_chars <= self.tables().word_pieces.word_chars_max {
            let Some((id, n_taken)) = self.longest_piece(&mut units, n_left, n_left == n_chars) else {
                output.truncate(start_len);
                break;
            };
            output.push(id)?;
            n_left -= n_taken;
        }
        match (output.len() == start_len, self.unk()) {
            (true, Some(unk)) => output.push(unk),
            _ => Ok(()),
        }
    }

    /// The longest piece that the next `n_left` characters begin with, and how many it takes off `units`. Pieces that begin a word
    /// have a space before them.
    fn longest_piece(&self, units: &mut Units<'_, '_>, n_left: usize, is_first: bool) -> Option<(TokenId, usize)> {
        let mut matches = Matches { lo: 0, hi: self.tables().word_pieces.words.len(), n_bytes: 0 };
        if is_first {
            matches = self.narrowed(matches, b' ');
        }
        let (mut ahead, mut best) = (units.clone(), None);
        for n_taken in 1..=n_left {
            let Some(Unit::Word(c) | Unit::Alone(c)) = ahead.next() else { break };
            for &byte in c.encode_utf8(&mut [0; 4]).as_bytes() {
                matches = self.narrowed(matches, byte);
            }
            if matches.lo == matches.hi {
                break;
            }
            // The shortest of those that begin so comes first.
            let id = self.tables().word_pieces.words.get(matches.lo);
            if self.piece(id).len() == matches.n_bytes {
                best = Some((id, n_taken));
                *units = ahead.clone();
            }
        }
        best
    }

    /// Those of `matches` that go on with `byte`.
    fn narrowed(&self, matches: Matches, byte: u8) -> Matches {
        let at = matches.n_bytes;
        let first_from = |wanted: u16| {
            let (mut lo, mut hi) = (matches.lo, matches.hi);
            while lo < hi {
                let mid = lo + (hi - lo) / 2;
                // A piece that ends here comes before all that go on.
                let found =
                    self.piece(self.tables().word_pieces.words.get(mid)).get(at).map_or(0, |&byte| u16::from(byte) + 1);
                if found < wanted { lo = mid + 1 } else { hi = mid }
            }
            lo
        };
        let wanted = u16::from(byte) + 1;
        Matches { lo: first_from(wanted), hi: first_from(wanted + 1), n_bytes: at + 1 }
    }
}
