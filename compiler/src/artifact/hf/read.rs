//! From a folder's files to a checkpoint.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::config::{ParsedGeneration, parse_config, parse_generation};
use super::weights::{read_safetensors, shard_names};
use crate::artifact::{ArtifactError, Checkpoint, MappedFile, NamedWeights, Problem, TokenizerSource, names};

/// The contents of a folder's files; everything but the first two may be absent.
#[derive(Clone, Debug, Default)]
pub struct HfFiles<'a> {
    /// The folder, for messages only.
    pub folder: PathBuf,
    /// `config.json`.
    pub config: &'a [u8],
    /// Name and content of each safetensors file.
    pub weights: Vec<(String, &'a [u8])>,
    /// `tokenizer.json`.
    pub tokenizer: Option<&'a [u8]>,
    /// `tokenizer.model`, used where there is no `tokenizer.json`.
    pub sentencepiece: Option<&'a [u8]>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`, which overrides the template in `tokenizer_config.json`.
    pub chat_template: Option<&'a [u8]>,
    /// `generation_config.json`.
    pub generation_config: Option<&'a [u8]>,
}

/// Makes a checkpoint of a folder's files.
///
/// # Errors
/// [`ArtifactError::Invalid`], naming the file at fault.
pub fn from_files(files: &HfFiles<'_>) -> Result<Checkpoint, ArtifactError> {
    let at = |name: &str| {
        let path = files.folder.join(name);
        move |problem: Problem| problem.at(&path)
    };
    let parsed = parse_config(files.config).map_err(at("config.json"))?;
    let generation = match files.generation_config {
        Some(bytes) => parse_generation(bytes).map_err(at("generation_config.json"))?,
        None => ParsedGeneration::default(),
    };
    let expected = names::expected_shapes(&parsed.config);
    let mut tensors = NamedWeights::new();
    for (name, bytes) in &files.weights {
        read_safetensors(bytes, &expected, &mut tensors).map_err(at(name))?;
    }
    let chat_template = match (files.chat_template, files.tokenizer_config) {
        (Some(bytes), _) => Some(text(bytes).map_err(at("chat_template.jinja"))?),
        (None, Some(bytes)) => chat_template(bytes).map_err(at("tokenizer_config.json"))?,
        (None, None) => None,
    };
    let checkpoint = Checkpoint {
        config: parsed.config,
        rope: parsed.rope,
        tensors,
        tokenizer: match (files.tokenizer, files.sentencepiece) {
            (Some(bytes), _) => TokenizerSource::HuggingFace(bytes.to_vec()),
            (None, Some(bytes)) => TokenizerSource::SentencePiece(bytes.to_vec()),
            (None, None) => TokenizerSource::None,
        },
        chat_template,
        bos_id: generation.bos_id.or(parsed.bos_id),
        eos_ids: if generation.eos_ids.is_empty() { parsed.eos_ids } else { generation.eos_ids },
        generation: generation.defaults,
    };
    checkpoint.validate().map_err(at(""))?;
    Ok(checkpoint)
}

/// Reads the Hugging Face folder at `folder`.
///
/// # Errors
/// [`ArtifactError`], naming the file that is missing or at fault.
pub fn load_folder(folder: &Path) -> Result<Checkpoint, ArtifactError> {
    let open = |name: &str| MappedFile::open(&folder.join(name));
    let optional = |name: &str| folder.join(name).exists().then(|| open(name)).transpose();
    let index_name = "model.safetensors.index.json";
    let weight_names = match optional(index_name)? {
        Some(index) if !folder.join("model.safetensors").exists() => {
            shard_names(index.bytes()).map_err(|problem| problem.at(&folder.join(index_name)))?
        }
        _ => vec!["model.safetensors".to_owned()],
    };
    let weights = weight_names.iter().map(|name| open(name)).collect::<Result<Vec<_>, _>>()?;
    let config = open("config.json")?;
    let tokenizer = optional("tokenizer.json")?;
    let sentencepiece = optional("tokenizer.model")?;
    let tokenizer_config = optional("tokenizer_config.json")?;
    let chat_template = optional("chat_template.jinja")?;
    let generation_config = optional("generation_config.json")?;
    from_files(&HfFiles {
        folder: folder.to_owned(),
        config: config.bytes(),
        weights: weight_names.into_iter().zip(weights.iter().map(MappedFile::bytes)).collect(),
        tokenizer: tokenizer.as_ref().map(MappedFile::bytes),
        sentencepiece: sentencepiece.as_ref().map(MappedFile::bytes),
        tokenizer_config: tokenizer_config.as_ref().map(MappedFile::bytes),
        chat_template: chat_template.as_ref().map(MappedFile::bytes),
        generation_config: generation_config.as_ref().map(MappedFile::bytes),
    })
}

/// The chat template of the folder at `folder`, if it has one.
///
/// # Errors
/// [`ArtifactError`], naming the file that is at fault.
pub fn load_chat_template(folder: &Path) -> Result<Option<String>, ArtifactError> {
    let (alone, config) = (folder.join("chat_template.jinja"), folder.join("tokenizer_config.json"));
    if alone.exists() {
        return text(MappedFile::open(&alone)?.bytes()).map(Some).map_err(|problem| problem.at(&alone));
    }
    match config.exists() {
        true => chat_template(MappedFile::open(&config)?.bytes()).map_err(|problem| problem.at(&config)),
        false => Ok(None),
    }
}

/// The template in `tokenizer_config.json`: a string, or a list of named ones of which `default` is taken.
fn chat_template(tokenizer_config: &[u8]) -> Result<Option<String>, Problem> {
    #[derive(Deserialize)]
    struct TokenizerConfig {
        chat_template: Option<Value>,
    }
    let config: TokenizerConfig = serde_json::from_slice(tokenizer_config)?;
    let field = "chat_template";
    match config.chat_template {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(template)) => Ok(Some(template)),
        Some(Value::Array(named)) => {
            let default = named.iter().find(|entry| entry["name"] == "default").or(named.first());
            match default.and_then(|entry| entry["template"].as_str()) {
                Some(template) => Ok(Some(template.to_owned())),
                None => Err(Problem::bad_field(field, "is a list without a named template")),
            }
        }
        Some(_) => Err(Problem::bad_field(field, "is neither text nor a list")),
    }
}

fn text(bytes: &[u8]) -> Result<String, Problem> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(Problem::bad_field("chat template", format!("is not UTF-8: {error}"))),
    }
}
