//! Chat template section: the turns that wrap a user's message.

use core::fmt;

/// A checked chat section: text to put around a user's message. It holds no code, so nothing is rendered on the device.
///
/// ```text
/// prefix      message suffix answer     the first turns
/// next_prefix message suffix answer     each later pair of turns
/// ```
/// The system's turn, the template's default or the one that the compiler was given, is part of `prefix`; the opening of the
/// assistant's turn ends `suffix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatPrompt<'m> {
    prefix: &'m str,
    next_prefix: &'m str,
    suffix: &'m str,
}

impl<'m> ChatPrompt<'m> {
    /// First four bytes of the section.
    pub const MAGIC: [u8; 4] = *b"SCHT";
    /// Layout version that this runtime reads.
    pub const VERSION: u32 = 1;
    /// Bytes before the texts: magic, version, and the three lengths.
    pub const HEADER_BYTES: usize = 20;

    /// Reads a chat section: magic, version, lengths of the three texts (all `u32`), the texts.
    pub fn parse(section: &'m [u8]) -> Result<Self, ChatError> {
        let Some((header, mut texts)) = section.split_at_checked(Self::HEADER_BYTES) else {
            return Err(ChatError::Length { given_bytes: section.len() });
        };
        let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[..4] != Self::MAGIC {
            return Err(ChatError::NotAChatSection);
        }
        if field(4) != Self::VERSION {
            return Err(ChatError::Version { found: field(4) });
        }
        let mut take = |n_bytes: u32| {
            let Some((text, rest)) = texts.split_at_checked(n_bytes as usize) else {
                return Err(ChatError::Length { given_bytes: section.len() });
            };
            texts = rest;
            core::str::from_utf8(text).map_err(|_| ChatError::NotUtf8)
        };
        let (prefix, next_prefix, suffix) = (take(field(8))?, take(field(12))?, take(field(16))?);
        if !texts.is_empty() {
            return Err(ChatError::Length { given_bytes: section.len() });
        }
        Ok(Self { prefix, next_prefix, suffix })
    }

    /// What goes before the first message: the system's turn and the opening of the user's.
    pub fn prefix(&self) -> &'m str {
        self.prefix
    }

    /// What goes before a later message: the end of the assistant's turn and the opening of the user's.
    pub fn next_prefix(&self) -> &'m str {
        self.next_prefix
    }

    /// What goes after a message: the end of the user's turn and the opening of the assistant's.
    pub fn suffix(&self) -> &'m str {
        self.suffix
    }
}

/// Why bytes are not a chat section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChatError {
    /// The magic number is missing.
    NotAChatSection,
    /// Written by another version.
    Version {
        /// The version found.
        found: u32,
    },
    /// The texts do not end where the section does.
    Length {
        /// The section's length.
        given_bytes: usize,
    },
    /// A text is not UTF-8.
    NotUtf8,
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAChatSection => f.write_str("not a chat section: its magic number is missing"),
            Self::Version { found } => {
                write!(f, "chat section has version {found}, but this runtime reads version {}", ChatPrompt::VERSION)
            }
            Self::Length { given_bytes } => write!(f, "chat section's texts do not fill its {given_bytes} bytes"),
            Self::NotUtf8 => f.write_str("chat section holds text that is not UTF-8"),
        }
    }
}

impl core::error::Error for ChatError {}
