//! The snapshot of a text that every session begins with, computed by the runtime that the device has.

use siskin_runtime::format::SectionKind;
use siskin_runtime::{ArenaError, Kernels, Session, SnapshotError, StepError, TokenId};

use super::{AlignedBytes, PackError, PackedFile, with_section};

/// Why a file cannot have a prefix.
#[derive(Debug, thiserror::Error)]
pub enum PrefixError {
    /// The model is of a kind that no session continues.
    #[error("{0}")]
    Arena(#[from] ArenaError),
    /// The tokens do not fit the context, or the model reads a source.
    #[error("{0}")]
    Step(#[from] StepError),
    /// No room is left behind it.
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    /// The file has no room for a section more.
    #[error("{0}")]
    Pack(#[from] PackError),
}

/// The file with what its session holds after `tokens`, in place of any prefix that it had.
///
/// # Errors
/// [`PrefixError`] where the tokens do not fit, or the model is no decoder.
pub fn with_prefix(file: &PackedFile, kernels: Kernels, tokens: &[TokenId]) -> Result<AlignedBytes, PrefixError> {
    let model = file.model();
    let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
    let mut session = Session::new(&model, &mut arena, kernels)?;
    session.prefill(tokens)?;
    let mut section = Vec::new();
    session.snapshot(|bytes| section.extend_from_slice(bytes))?;
    Ok(with_section(&model, SectionKind::Prefix, &section)?)
}
