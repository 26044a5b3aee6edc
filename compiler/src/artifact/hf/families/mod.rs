//! Hugging Face folders of every [`Family`]: the model's parts to and from `config.json`, weights to and from safetensors.
//!
//! A folder that we write loads in transformers by its `architectures`. Recurrent models have no class there: theirs is our own
//! `model_type`, with PyTorch's names of a GRU's weights.

mod config;
mod weights;

use super::weights::read_safetensors_with;
use super::write::{torch_name, write_json, write_weights};
use crate::artifact::{
    ArtifactError, MappedFile, NamedWeights, Problem, SpecialIds, TokenizerSource, TrainedModel, write_atomic,
};
use crate::model::{self, Architecture};
use crate::tensor::Dtype;
use serde_json::json;
use std::path::Path;

/// Writes a model's files into `folder`: `config.json`, `model.safetensors`, `tokenizer.json`, `tokenizer_config.json`.
///
/// The same model gives the same bytes.
///
/// # Errors
/// [`ArtifactError`]: a part that Hugging Face's configuration cannot express, or I/O.
pub fn write_trained(folder: &Path, model: &TrainedModel) -> Result<(), ArtifactError> {
    write_trained_as(folder, model, Dtype::F32)
}

/// As [`write_trained`]; tensors that `dtype` holds to the last bit are written as that.
///
/// # Errors
/// As [`write_trained`].
pub fn write_trained_as(folder: &Path, model: &TrainedModel, dtype: Dtype) -> Result<(), ArtifactError> {
    let config_path = folder.join("config.json");
    let mut config = config::to_json(model).map_err(|problem| problem.at(&config_path))?;
    config["dtype"] = json!(torch_name(dtype));
    write_json(&config_path, &config)?;
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.architecture.context_len,
        "clean_up_tokenization_spaces": false,
    });
    write_json(&folder.join("tokenizer_config.json"), &tokenizer_config)?;
    if let TokenizerSource::HuggingFace(bytes) = &model.tokenizer {
        write_atomic(&folder.join("tokenizer.json"), bytes)?;
    }
    write_weights(&folder.join("model.safetensors"), &weights::to_file(&model.architecture, &model.tensors), dtype)
}

/// Reads what a model of any family is made of, its special tokens and its labels, but not its weights.
///
/// # Errors
/// [`ArtifactError`], naming `config.json`.
pub fn load_architecture(folder: &Path) -> Result<(Architecture, SpecialIds, Vec<String>), ArtifactError> {
    let path = folder.join("config.json");
    config::parse(MappedFile::open(&path)?.bytes()).map_err(|problem| problem.at(&path))
}

/// Reads a folder of any family that has a [`model::Model`] here.
///
/// # Errors
/// [`ArtifactError`], naming the file that is missing or at fault.
pub fn load_trained(folder: &Path) -> Result<TrainedModel, ArtifactError> {
    let open = |name: &str| MappedFile::open(&folder.join(name));
    let invalid = |name: &'static str| {
        let path = folder.join(name);
        move |problem: Problem| problem.at(&path)
    };
    let (architecture, specials, labels) = load_architecture(folder)?;
    let built = model::build(&architecture).map_err(|error| Problem::Architecture(error).at(folder))?;
    let mut found = NamedWeights::new();
    let file = open("model.safetensors")?;
    let is_weight = |name: &str, _: &[usize]| Ok(!weights::is_constant(&architecture, name));
    read_safetensors_with(file.bytes(), is_weight, &mut found).map_err(invalid("model.safetensors"))?;
    let tensors = weights::from_file(&architecture, built.layout(), found).map_err(invalid("model.safetensors"))?;
    let tokenizer = match folder.join("tokenizer.json").exists() {
        true => TokenizerSource::HuggingFace(open("tokenizer.json")?.bytes().to_vec()),
        false => TokenizerSource::None,
    };
    Ok(TrainedModel { architecture, tensors, tokenizer, specials, labels })
}
