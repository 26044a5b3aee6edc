//! Chat section: the turns that wrap a user's message.

use core::fmt;

use super::{EncodeOptions, Specials};

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
    trim: bool,
}

impl<'m> ChatPrompt<'m> {
    /// First four bytes of the section.
    pub const MAGIC: [u8; 4] = *b"SCHT";
    /// Layout version that this runtime reads.
    pub const VERSION: u32 = 1;
    /// Bytes before the texts.
    pub const HEADER_BYTES: usize = 24;
    /// Flag: white space around a message is dropped.
    pub const TRIM: u32 = 1;

    /// Reads a chat section: magic, then as `u32` version, flags and the lengths of the three texts, then the texts.
    pub fn parse(section: &'m [u8]) -> Result<Self, ChatError> {
        let length = ChatError::Length { given_bytes: section.len() };
        let Some((header, texts)) = section.split_at_checked(Self::HEADER_BYTES) else { return Err(length) };
        let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[..4] != Self::MAGIC {
            return Err(ChatError::NotAChatSection);
        }
        if field(4) != Self::VERSION {
            return Err(ChatError::Version { found: field(4) });
        }
        if field(8) & !Self::TRIM != 0 {
            return Err(ChatError::Flags { found: field(8) });
        }
        let mut rest = texts;
        let mut take = |n_bytes: u32| {
            let Some((text, after)) = rest.split_at_checked(n_bytes as usize) else { return Err(length) };
            rest = after;
            core::str::from_utf8(text).map_err(|_| ChatError::NotUtf8)
        };
        let (prefix, next_prefix, suffix) = (take(field(12))?, take(field(16))?, take(field(20))?);
        if !rest.is_empty() {
            return Err(length);
        }
        Ok(Self { prefix, next_prefix, suffix, trim: field(8) & Self::TRIM != 0 })
    }

    /// Puts the first message of a conversation between its turns, in `buffer`.
    pub fn first<'b>(&self, message: &str, buffer: &'b mut [u8]) -> Result<ChatText<'b>, ChatBufferTooSmall> {
        self.wrap(self.prefix, message, buffer)
    }

    /// Puts a later message between its turns: to follow the answer before, without its end-of-turn token.
    pub fn next<'b>(&self, message: &str, buffer: &'b mut [u8]) -> Result<ChatText<'b>, ChatBufferTooSmall> {
        self.wrap(self.next_prefix, message, buffer)
    }

    /// Bytes of buffer that any message of `message_bytes` needs.
    pub fn max_bytes(&self, message_bytes: usize) -> usize {
        self.prefix.len().max(self.next_prefix.len()).saturating_add(self.suffix.len()).saturating_add(message_bytes)
    }

    fn wrap<'b>(&self, prefix: &str, message: &str, buffer: &'b mut [u8]) -> Result<ChatText<'b>, ChatBufferTooSmall> {
        let message = if self.trim { message.trim() } else { message };
        let (start, end) = (prefix.len(), prefix.len() + message.len());
        let needed_bytes = end + self.suffix.len();
        let given_bytes = buffer.len();
        let Some(buffer) = buffer.get_mut(..needed_bytes) else {
            return Err(ChatBufferTooSmall { needed_bytes, given_bytes });
        };
        buffer[..start].copy_from_slice(prefix.as_bytes());
        buffer[start..end].copy_from_slice(message.as_bytes());
        buffer[end..].copy_from_slice(self.suffix.as_bytes());
        let text = core::str::from_utf8(buffer).unwrap_or_default();
        Ok(ChatText { text, options: EncodeOptions { add_bos: false, specials: Specials::Outside { start, end } } })
    }
}

/// A conversation's text, and how to encode it so that a message cannot forge the turns around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatText<'b> {
    /// The turns, with the message inside.
    pub text: &'b str,
    /// For [`super::Tokenizer::encode_with`]: the template spells its own beginning of text, the message has no special tokens.
    pub options: EncodeOptions,
}

/// The buffer does not hold the turns and the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatBufferTooSmall {
    /// Bytes it takes.
    pub needed_bytes: usize,
    /// Bytes there are.
    pub given_bytes: usize,
}

impl fmt::Display for ChatBufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed_bytes, given_bytes } = self;
        write!(f, "the conversation takes {needed_bytes} bytes, but the buffer has {given_bytes}")
    }
}

impl core::error::Error for ChatBufferTooSmall {}

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
    /// A flag has no meaning in this version.
    Flags {
        /// The flags found.
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
            Self::Flags { found } => write!(f, "chat section has unknown flags {found:#x}"),
            Self::Length { given_bytes } => write!(f, "chat section's texts do not fill its {given_bytes} bytes"),
            Self::NotUtf8 => f.write_str("chat section holds text that is not UTF-8"),
        }
    }
}

impl core::error::Error for ChatError {}
