//! What may be wrong with data.

use super::BadRecords;
use crate::artifact::ArtifactError;
use std::path::PathBuf;

/// Why a text cannot be trained on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error("cannot read the text {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not UTF-8.
    #[error(
        "{}, line {line}: the byte at offset {offset} of the file starts no UTF-8 character: convert the file, for example with iconv",
        path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: u64,
        /// Where the first bad sequence starts.
        offset: usize,
    },
    /// A record cannot be used.
    #[error("{}, line {line}: {problem}", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// The line that it starts in.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// Some records cannot be used; the first of them are told.
    #[error("{0}")]
    BadRecords(BadRecords),
    /// A template of the recipe or the model cannot be used.
    #[error("objective.{key}: {problem}")]
    BadTemplate {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The file's name does not say what it is.
    #[error("{} is no file of records: name it .jsonl or .csv", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A file of tokens cannot be used.
    #[error("{}: {problem}", path.display())]
    BadShard {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of tokens cannot be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// There is nothing in the file or folder.
    #[error("{} has no text in it: there must be at least one document", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// A setting is for several documents, and there is one.
    #[error(
        "{} is a single document, but data.{key} is for several: part it with data.documents, or leave data.{key} out",
        path.display()
    )]
    OneDocument {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: &'static str,
    },
    /// The data is another than it was a moment ago.
    #[error("{} changed while it was read: try again when nothing writes to it", path.display())]
    Changed {
        /// The file or folder.
        path: PathBuf,
    },
    /// The folder for tokens has something else in it.
    #[error("{} is not empty and holds no tokens: name another folder as data.shards", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// A part of the text is too short.
    #[error(
        "the {part} part of the text has {n_tokens} tokens, but {needed} are needed: use more text or a shorter context"
    )]
    TooShort {
        /// Which part.
        part: &'static str,
        /// Tokens it has.
        n_tokens: usize,
        /// Tokens it must have.
        needed: usize,
    },
}
