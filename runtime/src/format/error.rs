//! What can be wrong with a packed model.

use core::fmt;

use super::{SectionKind, VERSION};
#[cfg(feature = "adapters")]
use crate::adapter::AdapterError;
use crate::config::ConfigError;
use crate::tokenizer::{ChatError, TokenizerError};

/// Why bytes are not a packed model that this version can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes do not start with the magic.
    NotAPackedModel,
    /// Another version of the format.
    UnsupportedVersion {
        /// The file's version.
        found: u32,
    },
    /// The file ends early.
    Truncated {
        /// Bytes that the file says it has.
        needed_bytes: u64,
        /// Bytes that are there.
        given_bytes: u64,
    },
    /// The header's checksum does not match its bytes.
    HeaderChecksum,
    /// A section's checksum does not match its bytes.
    SectionChecksum {
        /// Code of the section's kind.
        kind: u32,
    },
    /// The first byte is not at a multiple of 16 in memory.
    Misaligned,
    /// A header field has no meaning in this version.
    BadField {
        /// The field's name.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// The model's shape is outside the limits.
    BadConfig(ConfigError),
    /// A section lies outside the file, is misaligned, or has the wrong length.
    BadSection {
        /// Code of the section's kind.
        kind: u32,
    },
    /// A section that every model needs is not there.
    MissingSection(SectionKind),
    /// A tensor is not what its place in the canonical order asks for, or lies outside the weights.
    BadTensor {
        /// Place in the tensor table.
        tensor_idx: usize,
    },
    /// The tokenizer section is damaged, or for a larger vocabulary than the model's.
    BadTokenizer(TokenizerError),
    /// The chat section is damaged.
    BadChat(ChatError),
    /// An adapter section is damaged, or for another model.
    #[cfg(feature = "adapters")]
    BadAdapter(AdapterError),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = |f: &mut fmt::Formatter<'_>, kind: u32| match SectionKind::from_code(kind) {
            Some(kind) => write!(f, "the {} section", kind.name()),
            None => write!(f, "section kind {kind}"),
        };
        match *self {
            Self::NotAPackedModel => f.write_str("this is not a packed model: it does not start with the magic bytes"),
            Self::UnsupportedVersion { found } => write!(
                f,
                "the file has format version {found}, this runtime reads version {VERSION}: compile the model again with the matching siskin"
            ),
            Self::Truncated { needed_bytes, given_bytes } => {
                write!(f, "the file is cut short: it has {given_bytes} bytes of {needed_bytes}; copy it again")
            }
            Self::HeaderChecksum => f.write_str("the header's checksum is wrong: the file was damaged; copy it again"),
            Self::SectionChecksum { kind } => {
                f.write_str("the checksum of ")?;
                section(f, kind)?;
                f.write_str(" is wrong: the file was damaged; copy it again")
            }
            Self::Misaligned => f.write_str("the model must lie at a multiple of 16 bytes in memory"),
            Self::BadField { field, value } => {
                write!(f, "the header field {field} holds {value}, which has no meaning")
            }
            Self::BadConfig(error) => write!(f, "the model's shape is out of bounds: {error}"),
            Self::BadSection { kind } => {
                section(f, kind)?;
                f.write_str(" lies outside the file or has the wrong length or content")
            }
            Self::MissingSection(kind) => write!(f, "the {} section is missing", kind.name()),
            Self::BadTensor { tensor_idx } => {
                write!(f, "tensor {tensor_idx} does not have the shape and place that the model needs")
            }
            Self::BadTokenizer(error) => write!(f, "the tokenizer section cannot be used: {error}"),
            Self::BadChat(error) => write!(f, "the chat section cannot be used: {error}"),
            #[cfg(feature = "adapters")]
            Self::BadAdapter(error) => write!(f, "an adapter section cannot be used: {error}"),
        }
    }
}

impl core::error::Error for FormatError {}
