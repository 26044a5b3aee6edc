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
use crate::tensor::{self, bf16::bf16};

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
    write_files_as(folder, checkpoint, tensor::Dtype::F32)
}

/// As [`write_files`]; tensors that `dtype` holds to the last bit are written as that.
///
/// # Errors
/// As [`save_folder`].
pub fn write_files_as(folder: &Path, checkpoint: &Checkpoint, dtype: tensor::Dtype) -> Result<(), ArtifactError> {
    checkpoint.validate().map_err(|problem| problem.at(folder))?;
    let mut config = config_json(checkpoint).map_err(|problem| problem.at(&folder.join("config.json")))?;
    config["torch_dtype"] = json!(torch_name(dtype));
    write_json(&folder.join("config.json"), &config)?;
    write_json(&folder.join("generation_config.json"), &generation_json(checkpoint))?;
    write_json(&folder.join("tokenizer_config.json"), &tokenizer_config(checkpoint))?;
    match &checkpoint.tokenizer {
        TokenizerSource::HuggingFace(bytes) => write_atomic(&folder.join("tokenizer.json"), bytes)?,
        TokenizerSource::SentencePiece(bytes) => write_atomic(&folder.join("tokenizer.model"), bytes)?,
        _ => {}
    }
    write_weights(&folder.join("model.safetensors"), &checkpoint.tensors, dtype)
}

/// What PyTorch calls a type.
pub(super) fn torch_name(dtype: tensor::Dtype) -> &'static str {
    match dtype {
        tensor::Dtype::F32 => "float32",
        tensor::Dtype::Bf16 => "bfloat16",
    }
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
struct WeightView<'a> {
    weight: &'a Weight,
    dtype: tensor::Dtype,
}

impl<'a> WeightView<'a> {
    /// As `dtype`, if that changes no number.
    fn new(weight: &'a Weight, dtype: tensor::Dtype) -> Self {
        let is_short = |value: &f32| value.to_bits() & 0xffff == 0;
        let is_held = dtype.is_f32() || weight.data.iter().all(is_short);
        Self { weight, dtype: if is_held { dtype } else { tensor::Dtype::F32 } }
    }
}

impl View for WeightView<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            tensor::Dtype::F32 => Dtype::F32,
            tensor::Dtype::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.weight.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = &self.weight.data;
        match (self.dtype, cfg!(target_endian = "little")) {
            (tensor::Dtype::F32, true) => Cow::Borrowed(bytemuck::cast_slice(values)),
            (tensor::Dtype::F32, false) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            (tensor::Dtype::Bf16, _) => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        self.weight.data.len() * self.dtype().bitsize() / 8
    }
}

/// Writes the weights in the library's layout: by name, each after the other. Those that `dtype` holds to the last bit are written
/// as that.
pub(super) fn write_weights(path: &Path, tensors: &NamedWeights, dtype: tensor::Dtype) -> Result<(), ArtifactError> {
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = tensors.iter().map(|(name, weight)| (name.as_str(), WeightView::new(weight, dtype)));
    let serialized = safetensors::serialize(views, Some(format)).map_err(io::Error::other);
    let bytes = serialized.map_err(ArtifactError::io("serialise", path))?;
    write_atomic(path, &bytes)
}
