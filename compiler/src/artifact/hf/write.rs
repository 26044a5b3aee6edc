//! From a checkpoint to a folder that Hugging Face transformers loads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use safetensors::{Dtype, View};
use serde_json::{Value, json};

use super::config::{config_json, generation_json};
use crate::artifact::{
    ArtifactError, Checkpoint, NamedWeights, TokenizerSource, Weight, write_atomic, write_folder_atomic,
};

/// Writes `checkpoint` as the folder `path`, which appears whole or not at all.
///
/// The same checkpoint gives the same bytes. A tokenizer that is not a `tokenizer.json` or SentencePiece model is left out.
///
/// # Errors
/// [`ArtifactError`]: the checkpoint does not validate, its rotary scaling has no name in `config.json`, or I/O failed.
pub fn save_folder(path: &Path, checkpoint: &Checkpoint) -> Result<(), ArtifactError> {
    write_folder_atomic(path, |folder| write_files(folder, checkpoint))
}

/// Writes the checkpoint's files into `folder`, for a caller that adds its own before the folder is published.
///
/// # Errors
/// As [`save_folder`].
pub fn write_files(folder: &Path, checkpoint: &Checkpoint) -> Result<(), ArtifactError> {
    checkpoint.validate().map_err(|problem| problem.at(folder))?;
    let config = config_json(checkpoint).map_err(|problem| problem.at(&folder.join("config.json")))?;
    write_json(&folder.join("config.json"), &config)?;
    write_json(&folder.join("generation_config.json"), &generation_json(checkpoint))?;
    write_json(&folder.join("tokenizer_config.json"), &tokenizer_config(checkpoint))?;
    match &checkpoint.tokenizer {
        TokenizerSource::HuggingFace(bytes) => write_atomic(&folder.join("tokenizer.json"), bytes)?,
        TokenizerSource::SentencePiece(bytes) => write_atomic(&folder.join("tokenizer.model"), bytes)?,
        _ => {}
    }
    write_weights(&folder.join("model.safetensors"), &checkpoint.tensors)
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), ArtifactError> {
    write_atomic(path, format!("{value:#}\n").as_bytes())
}

fn tokenizer_config(checkpoint: &Checkpoint) -> Value {
    let mut fields = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": checkpoint.config.context_len,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(template) = &checkpoint.chat_template {
        fields["chat_template"] = json!(template);
    }
    fields
}

/// A weight as the safetensors library wants to see it.
struct WeightView<'a>(&'a Weight);

impl View for WeightView<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match cfg!(target_endian = "little") {
            true => Cow::Borrowed(bytemuck::cast_slice(&self.0.data)),
            false => self.0.data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        size_of_val(self.0.data.as_slice())
    }
}

/// Writes the weights in the library's layout: by name, each after the other.
pub(super) fn write_weights(path: &Path, tensors: &NamedWeights) -> Result<(), ArtifactError> {
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = tensors.iter().map(|(name, weight)| (name.as_str(), WeightView(weight)));
    let serialized = safetensors::serialize(views, Some(format)).map_err(io::Error::other);
    let bytes = serialized.map_err(ArtifactError::io("serialise", path))?;
    write_atomic(path, &bytes)
}
