//! What went wrong, as a text and up to two figures: enough for the host to say it in words, without `core::fmt`.

#[cfg(generates)]
use siskin_runtime::beam::BeamError;
#[cfg(has_model)]
use siskin_runtime::{ArenaError, FormatError, StepError};

use crate::host::Console;
use crate::record::Record;

/// Why no text, or no more text, comes.
#[derive(Clone, Copy)]
pub struct Failure {
    text: &'static str,
    /// What the figures are called; empty where there is none.
    names: [&'static str; 2],
    figures: [u32; 2],
    /// What it is about, filled up with zeros.
    #[cfg(all(feature = "adapters", not(feature = "serial")))]
    subject: [u8; siskin_runtime::adapter::NAME_BYTES_MAX],
}

impl Failure {
    /// A failure without figures.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            names: [""; 2],
            figures: [0; 2],
            #[cfg(all(feature = "adapters", not(feature = "serial")))]
            subject: [0; siskin_runtime::adapter::NAME_BYTES_MAX],
        }
    }

    /// Says what it is about, as far as there is room.
    #[cfg(all(feature = "adapters", not(feature = "serial")))]
    pub fn about(mut self, subject: &str) -> Self {
        let fits = subject.floor_char_boundary(self.subject.len());
        self.subject.iter_mut().zip(subject.bytes().take(fits)).for_each(|(to, from)| *to = from);
        self
    }

    /// Adds a figure, 4,294,967,295 where it is greater. There is room for two.
    #[cfg(has_model)]
    pub fn with(mut self, name: &'static str, figure: u64) -> Self {
        let free = self.names.iter_mut().zip(&mut self.figures).find(|(name, _)| name.is_empty());
        if let Some((free_name, free_figure)) = free {
            (*free_name, *free_figure) = (name, u32::try_from(figure).unwrap_or(u32::MAX));
        }
        self
    }
}

/// Tells the host of `outcome`, where it is a failure; gives whether it is none.
pub fn report(console: &mut Console, outcome: Result<(), Failure>) -> bool {
    let Err(failure) = outcome else { return true };
    let mut record = Record::new(console, "error ");
    record.text(failure.text);
    #[cfg(all(feature = "adapters", not(feature = "serial")))]
    if let Some(Ok(subject)) = failure.subject.split(|&byte| byte == 0).next().map(core::str::from_utf8)
        && !subject.is_empty()
    {
        record.escaped(subject);
    }
    for (name, figure) in failure.names.iter().zip(failure.figures) {
        if !name.is_empty() {
            record.text(" ").text(name).number(figure.into());
        }
    }
    record.send();
    false
}

#[cfg(has_model)]
impl From<FormatError> for Failure {
    /// The build script has read the model, so any of these means that the flash does not hold what was built. A linked model is told by its
    /// checksums.
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::NotAPackedModel => Self::new("the flash holds no packed model"),
            #[cfg(not(feature = "linked-model"))]
            FormatError::UnsupportedVersion { found } => {
                Self::new("the model has another format version").with("found", found.into())
            }
            #[cfg(not(feature = "linked-model"))]
            FormatError::Truncated { needed_bytes, given_bytes } => {
                Self::new("the model is cut short").with("needed_bytes", needed_bytes).with("given_bytes", given_bytes)
            }
            FormatError::HeaderChecksum => Self::new("the checksum of the model's header is wrong"),
            FormatError::SectionChecksum { kind } => {
                Self::new("the checksum of a section of the model is wrong").with("section", kind.into())
            }
            #[cfg(not(feature = "linked-model"))]
            FormatError::Misaligned => Self::new("the model does not lie at a multiple of 16 bytes"),
            _ => Self::new("the model in flash is malformed"),
        }
    }
}

#[cfg(has_model)]
impl From<ArenaError> for Failure {
    fn from(error: ArenaError) -> Self {
        match error {
            ArenaError::TooSmall { needed_bytes, given_bytes } => Self::new("the arena is too small")
                .with("needed_bytes", needed_bytes as u64)
                .with("given_bytes", given_bytes as u64),
            ArenaError::OtherKind => Self::new("the model is of another kind than the one that was built"),
            ArenaError::Misaligned => Self::new("the arena does not start at a multiple of 16 bytes"),
        }
    }
}

#[cfg(generates)]
impl From<BeamError> for Failure {
    fn from(error: BeamError) -> Self {
        match error {
            BeamError::Step(error) => error.into(),
            BeamError::Beams { n_beams, most } => {
                Self::new(error.as_str()).with("asked", n_beams as u64).with("most", most as u64)
            }
            BeamError::LengthPenalty => Self::new(error.as_str()),
        }
    }
}

#[cfg(has_model)]
impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        match error {
            StepError::ContextFull { context_len, position, n_tokens } => {
                Self::new("the context is full: shorten the prompt or compile with a longer context")
                    .with("needed", (position + n_tokens) as u64)
                    .with("context_len", context_len as u64)
            }
            StepError::UnknownToken { token, vocab_size } => Self::new("a token is not in the vocabulary")
                .with("token", token.into())
                .with("vocab_size", vocab_size as u64),
            StepError::NoSource | StepError::NoEncoder => {
                Self::new("the model's encoder and decoder do not go together")
            }
            StepError::NoRoom { n_missing, n_left } => {
                Self::new("the grammar's shortest text may take more tokens than can be drawn")
                    .with("needed", n_missing as u64)
                    .with("left", n_left as u64)
            }
            StepError::EmptyPrompt => Self::new("the prompt holds no token: give it some text"),
        }
    }
}
