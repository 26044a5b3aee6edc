//! `config.json` and `generation_config.json`, both ways.

use serde::Deserialize;
use serde_json::{Value, json};
use siskin_runtime::{ModelConfig, TokenId};

use crate::artifact::{Checkpoint, GenerationDefaults, Problem, RopeScaling};

/// What `config.json` says of a model.
pub(super) struct ParsedConfig {
    pub config: ModelConfig,
    pub rope: RopeScaling,
    pub bos_id: Option<TokenId>,
    pub eos_ids: Vec<TokenId>,
}

/// What `generation_config.json` says.
#[derive(Default)]
pub(super) struct ParsedGeneration {
    pub defaults: GenerationDefaults,
    pub bos_id: Option<TokenId>,
    pub eos_ids: Vec<TokenId>,
}

/// The fields of `config.json` that matter here.
#[derive(Deserialize)]
struct RawConfig {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    hidden_size: Option<u64>,
    intermediate_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    vocab_size: Option<u64>,
    max_position_embeddings: Option<u64>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    quantization_config: Option<Value>,
    bos_token_id: Option<IdOrIds>,
    eos_token_id: Option<IdOrIds>,
}

/// `rope_scaling`, or the `rope_parameters` that replaces it in newer files.
#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IdOrIds {
    One(TokenId),
    Many(Vec<TokenId>),
}

impl IdOrIds {
    fn into_vec(self) -> Vec<TokenId> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// Reads `config.json`; a context beyond [`ModelConfig::CONTEXT_MAX`] is cut to it.
pub(super) fn parse_config(bytes: &[u8]) -> Result<ParsedConfig, Problem> {
    let raw: RawConfig = serde_json::from_slice(bytes)?;
    refuse_unsupported(&raw)?;
    let count = |field: &str, value: Option<u64>| {
        let value = value.ok_or_else(|| Problem::missing(field))?;
        usize::try_from(value).map_err(|_| Problem::bad_field(field, format!("is {value}, out of range")))
    };
    let (dim, n_heads) =
        (count("hidden_size", raw.hidden_size)?, count("num_attention_heads", raw.num_attention_heads)?);
    let head_dim = match raw.head_dim {
        Some(head_dim) => count("head_dim", Some(head_dim))?,
        None if n_heads > 0 && dim.is_multiple_of(n_heads) => dim / n_heads,
        None => return Err(Problem::bad_field("hidden_size", format!("is not a multiple of {n_heads} heads"))),
    };
    let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
    let rope_theta = raw.rope_theta.or(rope.and_then(|rope| rope.rope_theta)).unwrap_or(10000.0);
    let config = ModelConfig {
        dim,
        hidden_dim: count("intermediate_size", raw.intermediate_size)?,
        n_layers: count("num_hidden_layers", raw.num_hidden_layers)?,
        n_heads,
        n_kv_heads: count("num_key_value_heads", raw.num_key_value_heads.or(raw.num_attention_heads))?,
        head_dim,
        vocab_size: count("vocab_size", raw.vocab_size)?,
        context_len: count("max_position_embeddings", raw.max_position_embeddings)?.min(ModelConfig::CONTEXT_MAX),
        norm_eps: raw.rms_norm_eps.unwrap_or(1e-6) as f32,
        rope_theta: rope_theta as f32,
        tied_head: raw.tie_word_embeddings.unwrap_or(false),
        parts: siskin_runtime::Parts::LLAMA,
    };
    config.validate()?;
    Ok(ParsedConfig {
        config,
        rope: parse_rope(rope)?,
        bos_id: raw.bos_token_id.and_then(|ids| ids.into_vec().first().copied()),
        eos_ids: raw.eos_token_id.map(IdOrIds::into_vec).unwrap_or_default(),
    })
}

/// Names the first thing in the file that this project's Llama does not do.
fn refuse_unsupported(raw: &RawConfig) -> Result<(), Problem> {
    let architecture = raw.architectures.as_ref().and_then(|names| names.first());
    match (architecture, raw.model_type.as_deref()) {
        (Some(name), _) if name != "LlamaForCausalLM" => {
            return Err(Problem::unsupported(format!("architecture `{name}`; only LlamaForCausalLM is")));
        }
        (None, Some("llama")) | (Some(_), _) => {}
        (None, Some(name)) => return Err(Problem::unsupported(format!("model_type `{name}`; only llama is"))),
        (None, None) => return Err(Problem::missing("architectures")),
    }
    if let Some(name) = raw.hidden_act.as_deref().filter(|&name| name != "silu") {
        return Err(Problem::unsupported(format!("hidden_act `{name}`")));
    }
    for (field, is_set) in [("attention_bias", raw.attention_bias), ("mlp_bias", raw.mlp_bias)] {
        if is_set == Some(true) {
            return Err(Problem::unsupported(format!("`{field}`: true")));
        }
    }
    match raw.quantization_config {
        Some(_) => Err(Problem::unsupported("`quantization_config` (weights that are already quantised)")),
        None => Ok(()),
    }
}

fn parse_rope(raw: Option<&RawRope>) -> Result<RopeScaling, Problem> {
    let Some(raw) = raw else { return Ok(RopeScaling::None) };
    let number = |field: &str, value: Option<f64>| {
        value.map(|value| value as f32).ok_or_else(|| Problem::missing(format!("rope_scaling.{field}")))
    };
    match raw.rope_type.as_deref() {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: number("factor", raw.factor)? }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: number("factor", raw.factor)?,
            low_freq_factor: number("low_freq_factor", raw.low_freq_factor)?,
            high_freq_factor: number("high_freq_factor", raw.high_freq_factor)?,
            original_context_len: raw
                .original_max_position_embeddings
                .and_then(|len| usize::try_from(len).ok())
                .ok_or_else(|| Problem::missing("rope_scaling.original_max_position_embeddings"))?,
        }),
        Some(name) => Err(Problem::unsupported(format!("rope type `{name}`"))),
    }
}

/// `generation_config.json`; unknown fields are ignored.
#[derive(Deserialize)]
struct RawGeneration {
    bos_token_id: Option<IdOrIds>,
    eos_token_id: Option<IdOrIds>,
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
}

pub(super) fn parse_generation(bytes: &[u8]) -> Result<ParsedGeneration, Problem> {
    let raw: RawGeneration = serde_json::from_slice(bytes)?;
    Ok(ParsedGeneration {
        defaults: GenerationDefaults {
            do_sample: raw.do_sample,
            temperature: raw.temperature,
            top_k: raw.top_k,
            top_p: raw.top_p,
            min_p: raw.min_p,
            repetition_penalty: raw.repetition_penalty,
        },
        bos_id: raw.bos_token_id.and_then(|ids| ids.into_vec().first().copied()),
        eos_ids: raw.eos_token_id.map(IdOrIds::into_vec).unwrap_or_default(),
    })
}

/// One id as a number, several as a list, none as null: as transformers writes them.
fn ids_json(ids: &[TokenId]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

/// The shortest decimal that is this `f32`, rather than the long tail of its `f64`.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

/// Content of `config.json`.
pub(super) fn config_json(checkpoint: &Checkpoint) -> Result<Value, Problem> {
    let config = &checkpoint.config;
    let rope_scaling = match &checkpoint.rope {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": short(*factor) }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_len } => json!({
            "rope_type": "llama3",
            "factor": short(*factor),
            "low_freq_factor": short(*low_freq_factor),
            "high_freq_factor": short(*high_freq_factor),
            "original_max_position_embeddings": original_context_len,
        }),
        RopeScaling::Divisors(_) => {
            return Err(Problem::NotWritable { what: "a GGUF's rope_freqs tensor".to_owned() });
        }
    };
    Ok(json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_len,
        "rms_norm_eps": short(config.norm_eps),
        "rope_theta": short(config.rope_theta),
        "rope_scaling": rope_scaling,
        "tie_word_embeddings": config.tied_head,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "torch_dtype": "float32",
        "bos_token_id": checkpoint.bos_id,
        "eos_token_id": ids_json(&checkpoint.eos_ids),
    }))
}

/// Content of `generation_config.json`.
pub(super) fn generation_json(checkpoint: &Checkpoint) -> Value {
    let defaults = &checkpoint.generation;
    let mut fields = serde_json::Map::new();
    fields.insert("bos_token_id".to_owned(), json!(checkpoint.bos_id));
    fields.insert("eos_token_id".to_owned(), ids_json(&checkpoint.eos_ids));
    let numbers = [
        ("temperature", defaults.temperature),
        ("top_p", defaults.top_p),
        ("min_p", defaults.min_p),
        ("repetition_penalty", defaults.repetition_penalty),
    ];
    for (name, value) in numbers {
        fields.extend(value.map(|value| (name.to_owned(), short(value))));
    }
    fields.extend(defaults.do_sample.map(|value| ("do_sample".to_owned(), json!(value))));
    fields.extend(defaults.top_k.map(|value| ("top_k".to_owned(), json!(value))));
    Value::Object(fields)
}
