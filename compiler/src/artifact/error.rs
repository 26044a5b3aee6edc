//! Why a model could not be read or written, said for the person who gave the path.

use std::path::{Path, PathBuf};

use crate::model::ArchitectureError;
use siskin_runtime::ConfigError;

/// A [`Problem`] or an I/O error, and the file or folder it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There is no room for a file: the disk or a quota is full, or files may not be so large.
    #[error("cannot write {}: there is no room for its {needed_bytes} bytes ({source})", path.display())]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Its size.
        needed_bytes: u64,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The path holds nothing that is known here.
    #[error(
        "{} is no model: expected a folder with config.json and model.safetensors, a .gguf file, or a llama2.c .bin file",
        path.display()
    )]
    Unrecognized {
        /// The path given.
        path: PathBuf,
    },
    /// A file was read, but what it says cannot be used.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file, or the folder if no single file is at fault.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
}

impl ArtifactError {
    /// An I/O error on `path`; `action` is a verb.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Says how many bytes were to be written, where there was no room for them.
    pub(crate) fn needing(self, needed_bytes: u64) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Io { path, source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) => {
                Self::NoRoom { path, needed_bytes, source }
            }
            other => other,
        }
    }

    /// The [`Problem`], if a file's content is at fault.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Invalid { problem, .. } => Some(problem),
            _ => None,
        }
    }
}

/// What is wrong with the content of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The first bytes are another format's.
    #[error("this is not a {expected} file")]
    WrongMagic {
        /// The format that was expected.
        expected: &'static str,
    },
    /// The format's version is unknown.
    #[error("version {found} of this format is not supported; supported: {supported}")]
    UnsupportedVersion {
        /// The version in the file.
        found: i64,
        /// The versions that can be read.
        supported: &'static str,
    },
    /// The file ends early, or a length in it is too large.
    #[error("the file is truncated: {what} needs {needed_bytes} bytes, but {had_bytes} are left")]
    Truncated {
        /// What was being read.
        what: String,
        /// Bytes it takes.
        needed_bytes: u64,
        /// Bytes that were left.
        had_bytes: u64,
    },
    /// The file goes on after its last tensor.
    #[error("{extra_bytes} unexpected bytes follow the last tensor; the header does not describe this file")]
    TrailingBytes {
        /// How many.
        extra_bytes: u64,
    },
    /// A count is beyond what any supported model has.
    #[error("{what} is {count}, more than the limit of {max}")]
    TooLarge {
        /// What was counted.
        what: String,
        /// The count in the file.
        count: u64,
        /// The most that is accepted.
        max: u64,
    },
    /// The model uses something this project does not implement.
    #[error("not supported: {feature}")]
    Unsupported {
        /// The feature, by the name the file gives it.
        feature: String,
    },
    /// A required field or metadata key is absent.
    #[error("`{field}` is missing")]
    MissingField {
        /// Its name.
        field: String,
    },
    /// A field holds a value of the wrong type or range.
    #[error("`{field}` {reason}")]
    BadField {
        /// Its name.
        field: String,
        /// What it should be or why it cannot be used.
        reason: String,
    },
    /// The file is not JSON, or not JSON of the expected form.
    #[error("the JSON is malformed: {0}")]
    Json(#[from] serde_json::Error),
    /// The shape of the model cannot be run.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The parts of a model do not go together.
    #[error("{0}")]
    Architecture(#[from] ArchitectureError),
    /// A tensor that the configuration calls for is absent.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Its name, in Hugging Face's naming unless the file's own is known.
        name: String,
    },
    /// A tensor is there that the model has no place for.
    #[error("tensor `{name}` has no place in this model")]
    UnexpectedTensor {
        /// Its name.
        name: String,
    },
    /// A tensor's shape disagrees with the configuration.
    #[error("tensor `{name}` has shape {found:?}, but the configuration calls for {expected:?}")]
    WrongShape {
        /// Its name.
        name: String,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor's number format cannot be read.
    #[error("tensor `{name}` is stored as {found}; readable types are {supported}")]
    UnsupportedDtype {
        /// Its name.
        name: String,
        /// The type in the file.
        found: String,
        /// What can be read.
        supported: &'static str,
    },
    /// A weight is infinite or not a number.
    #[error("tensor `{name}` holds an infinity or NaN at element {element_idx}")]
    NotFinite {
        /// Its name.
        name: String,
        /// Index into the row-major data.
        element_idx: usize,
    },
    /// A checkpoint holds something that Hugging Face's format has no word for.
    #[error("{what} cannot be written as a Hugging Face folder")]
    NotWritable {
        /// What it is.
        what: String,
    },
}

impl Problem {
    /// Names the file that the problem was found in.
    pub(crate) fn at(self, path: &Path) -> ArtifactError {
        ArtifactError::Invalid { path: path.to_owned(), problem: self }
    }

    pub(crate) fn unsupported(feature: impl Into<String>) -> Self {
        Self::Unsupported { feature: feature.into() }
    }

    pub(crate) fn missing(field: impl Into<String>) -> Self {
        Self::MissingField { field: field.into() }
    }

    pub(crate) fn bad_field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadField { field: field.into(), reason: reason.into() }
    }
}
