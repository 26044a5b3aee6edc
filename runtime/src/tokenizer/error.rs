//! What can be wrong with a tokenizer section.

use core::fmt;

use super::layout;
use crate::TokenId;

/// Why bytes are not a tokenizer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The magic number is missing.
    NotATokenizer,
    /// Written by another version.
    Version {
        /// The version found.
        found: u8,
    },
    /// A header field is out of range.
    Header {
        /// Its name in FORMAT.md.
        field: &'static str,
    },
    /// The section ends inside a table.
    Truncated {
        /// Its length.
        given_bytes: usize,
    },
    /// Bytes follow the last table.
    TrailingBytes {
        /// How many.
        extra_bytes: usize,
    },
    /// A piece's end is before its start or past the pieces.
    Piece {
        /// The token.
        id: TokenId,
    },
    /// The token given for a byte does not spell it.
    ByteToken {
        /// The byte.
        byte: u8,
    },
    /// A token's range in the merge table is out of order.
    MergeStart {
        /// The left token.
        left: TokenId,
    },
    /// A merge is out of order, or its result does not spell its parts.
    Merge {
        /// Its index in the table.
        idx: usize,
    },
    /// A character's entry is out of order, or its token does not spell it.
    Char {
        /// Its index in the table.
        idx: usize,
    },
    /// A piece that spells words is unknown, empty or out of order.
    Word {
        /// Its index in the table.
        idx: usize,
    },
    /// A class of characters is unknown or out of order.
    Class {
        /// Its index in the table.
        idx: usize,
    },
    /// A character that others stand for is out of order, or they are out of range, not UTF-8, or too many.
    Mapped {
        /// Its index in the table.
        idx: usize,
    },
    /// A special token is out of order, unknown, empty or not UTF-8.
    Special {
        /// Its index in the table.
        idx: usize,
    },
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotATokenizer => f.write_str("not a tokenizer section: its magic number is missing"),
            Self::Version { found } => {
                write!(f, "tokenizer section has version {found}, but this runtime reads version {}", layout::VERSION)
            }
            Self::Header { field } => write!(f, "tokenizer section's {field} is out of range"),
            Self::Truncated { given_bytes } => write!(f, "tokenizer section ends early, after {given_bytes} bytes"),
            Self::TrailingBytes { extra_bytes } => write!(f, "tokenizer section has {extra_bytes} bytes too many"),
            Self::Piece { id } => write!(f, "token {id}'s bytes are out of range"),
            Self::ByteToken { byte } => write!(f, "the token for byte {byte} does not spell it"),
            Self::MergeStart { left } => write!(f, "the merges of token {left} are out of range"),
            Self::Merge { idx } => write!(f, "merge {idx} is out of order or does not spell its parts"),
            Self::Char { idx } => write!(f, "character {idx} is out of order or its token does not spell it"),
            Self::Word { idx } => write!(f, "word piece {idx} is out of order, unknown or empty"),
            Self::Class { idx } => write!(f, "character class {idx} is out of order or unknown"),
            Self::Mapped { idx } => write!(f, "mapped character {idx} is out of order, or its text is damaged"),
            Self::Special { idx } => write!(f, "special token {idx} is out of order, unknown, empty or not UTF-8"),
        }
    }
}

impl core::error::Error for TokenizerError {}
