//! Models on disk: one [`Checkpoint`] in memory, whatever file it came from.
//!
//! [`load_model`] recognises what a path holds and returns a checkpoint that passed [`Checkpoint::validate`]. Every
//! importer is a mapping onto Hugging Face's Llama names and the half-split form of RoPE. Parsers take bytes, check
//! every count against what is left of the file before they allocate, and never panic on bad input.
//!
//! [`write_atomic`] and [`write_folder_atomic`] are how every file of this project is written.

mod adapter;
mod atomic;
mod bytes;
mod checkpoint;
mod error;
pub mod gguf;
pub mod hf;
mod interleaved;
pub mod llama2c;
mod mapped;
pub mod names;
mod rope;
mod trained;

use std::path::{Path, PathBuf};

pub use adapter::{Adapter, LowRankPair, Projection};
pub use atomic::{
    recover_folder, remove_folder, remove_leftovers, write_atomic, write_atomic_with, write_folder_atomic,
};
pub use checkpoint::{Checkpoint, GenerationDefaults, LayerWeights, NamedWeights, TokenizerSource, Weight};
pub use error::{ArtifactError, Problem};
pub(crate) use mapped::MappedFile;
pub use rope::{RopeScaling, RopeTables};
pub(crate) use trained::shape_of;
pub use trained::{SpecialIds, TrainedModel, named_weights};

/// What a user may say beside the model's path.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// A tokenizer file that replaces the model's own: `tokenizer.json`, a SentencePiece `.model` or a llama2.c `.bin`.
    pub tokenizer: Option<PathBuf>,
}

/// Reads the model at `path`: a checkpoint folder of ours or any Hugging Face folder of a Llama model, or
/// a GGUF file, or a llama2.c checkpoint.
///
/// # Errors
/// [`ArtifactError`], naming the file and what is wrong with it.
pub fn load_model(path: &Path, options: &LoadOptions) -> Result<Checkpoint, ArtifactError> {
    recover_folder(path)?;
    let mut checkpoint = if path.join("config.json").is_file() {
        hf::load_folder(path)?
    } else if path.is_file() {
        load_file(path)?
    } else {
        return Err(ArtifactError::Unrecognized { path: path.to_owned() });
    };
    if let Some(path) = &options.tokenizer {
        checkpoint.tokenizer = load_tokenizer(path)?;
    }
    Ok(checkpoint)
}

/// Reads a single-file model: a GGUF by its first bytes, a llama2.c checkpoint by its name or its header.
fn load_file(path: &Path) -> Result<Checkpoint, ArtifactError> {
    let file = MappedFile::open(path)?;
    let bytes = file.bytes();
    let extension = path.extension().and_then(|extension| extension.to_str());
    let parsed = if bytes.starts_with(b"GGUF") || extension == Some("gguf") {
        gguf::parse(bytes)
    } else if extension == Some("bin") || llama2c::is_plausible(bytes) {
        llama2c::parse(bytes)
    } else {
        return Err(ArtifactError::Unrecognized { path: path.to_owned() });
    };
    parsed.map_err(|problem| problem.at(path))
}

/// Reads a tokenizer file: JSON by its first byte, the others by their names.
///
/// # Errors
/// [`ArtifactError`]: it cannot be read or its kind is not known.
pub fn load_tokenizer(path: &Path) -> Result<TokenizerSource, ArtifactError> {
    let file = MappedFile::open(path)?;
    let bytes = file.bytes().to_vec();
    match path.extension().and_then(|extension| extension.to_str()) {
        _ if bytes.trim_ascii_start().starts_with(b"{") => Ok(TokenizerSource::HuggingFace(bytes)),
        Some("model") => Ok(TokenizerSource::SentencePiece(bytes)),
        Some("bin") => Ok(TokenizerSource::Llama2c(bytes)),
        _ => {
            Err(Problem::WrongMagic { expected: "tokenizer.json, SentencePiece .model or llama2.c tokenizer.bin" }
                .at(path))
        }
    }
}
