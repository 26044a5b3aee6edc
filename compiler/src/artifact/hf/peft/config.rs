//! `adapter_config.json`: what PEFT says of an adapter, to and from [`PeftConfig`].

use crate::artifact::Problem;
use crate::model::{Architecture, Family, Head, Kind};
use crate::peft::names::{ALL_LINEAR, Patterns};
use crate::peft::{Ia3Config, LoraConfig, PeftConfig, PrefixTuningConfig, PromptInit, PromptTuningConfig};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a bottleneck adapter is called here; PEFT has none.
const BOTTLENECK: &str = "BOTTLENECK";

/// Fields of a LoRA configuration that change what is computed, in ways that are not implemented; each must be absent, null, false, 0 or empty.
const UNSUPPORTED: [&str; 12] = [
    "modules_to_save",
    "layer_replication",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "monteclora_config",
    "kasa_config",
    "velora_config",
    "arrow_config",
];

/// Reads the file's content.
pub(super) fn parse(bytes: &[u8]) -> Result<PeftConfig, Problem> {
    let config: Map<String, Value> = serde_json::from_slice(bytes)?;
    let kind = config.get("peft_type").and_then(Value::as_str).ok_or_else(|| Problem::missing("peft_type"))?;
    match kind {
        "LORA" => parse_lora(&config).map(PeftConfig::Lora),
        "IA3" => {
            check_unset(&config, &["modules_to_save"])?;
            let target_modules = patterns(&config, "target_modules")?;
            let feedforward_modules = match config.get("feedforward_modules") {
                None | Some(Value::Null) => Patterns::List(Vec::new()),
                Some(_) => patterns(&config, "feedforward_modules")?,
            };
            Ok(PeftConfig::Ia3(Ia3Config { target_modules, feedforward_modules }))
        }
        "PROMPT_TUNING" => {
            check_one_stack(&config)?;
            let (num_virtual_tokens, prompt_tuning_init) = (n_virtual_tokens(&config)?, PromptInit::Random);
            let config = PromptTuningConfig { num_virtual_tokens, prompt_tuning_init, prompt_tuning_init_text: None };
            Ok(PeftConfig::PromptTuning(config))
        }
        "PREFIX_TUNING" => {
            check_one_stack(&config)?;
            Ok(PeftConfig::PrefixTuning(PrefixTuningConfig { num_virtual_tokens: n_virtual_tokens(&config)? }))
        }
        BOTTLENECK => {
            let own = config.get("config").cloned().ok_or_else(|| Problem::missing("config"))?;
            let own = serde_json::from_value(own).map_err(|error| Problem::bad_field("config", error.to_string()))?;
            Ok(PeftConfig::Bottleneck(own))
        }
        other => Err(Problem::unsupported(format!(
            "peft_type {other}; supported are LORA, IA3, PROMPT_TUNING and PREFIX_TUNING"
        ))),
    }
}

fn check_one_stack(config: &Map<String, Value>) -> Result<(), Problem> {
    match config.get("num_transformer_submodules") {
        None | Some(Value::Null) => Ok(()),
        Some(n) if n.as_u64() == Some(1) => Ok(()),
        Some(_) => Err(Problem::unsupported("virtual tokens for more than one stack")),
    }
}

fn n_virtual_tokens(config: &Map<String, Value>) -> Result<usize, Problem> {
    let n = config.get("num_virtual_tokens").and_then(Value::as_u64);
    n.map(|n| n as usize).filter(|n| *n > 0).ok_or_else(|| Problem::missing("num_virtual_tokens"))
}

fn check_unset(config: &Map<String, Value>, fields: &[&str]) -> Result<(), Problem> {
    for field in fields {
        let is_unset = match config.get(*field) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(values)) => values.is_empty(),
            Some(Value::Object(values)) => values.is_empty(),
            Some(_) => false,
        };
        if !is_unset {
            let problem = format!("{field}; merge such an adapter into its model, and go on from that");
            return Err(Problem::unsupported(problem));
        }
    }
    Ok(())
}

fn parse_lora(config: &Map<String, Value>) -> Result<LoraConfig, Problem> {
    check_unset(config, &UNSUPPORTED)?;
    match config.get("bias").and_then(Value::as_str) {
        None | Some("none") => {}
        Some(bias) => return Err(Problem::unsupported(format!("trained biases (bias {bias:?})"))),
    }
    // These change the base weights when training begins, so what was saved is not for the weights that were published.
    let init = config.get("init_lora_weights").and_then(Value::as_str).unwrap_or("");
    if ["pissa", "olora", "corda", "loftq", "lora_ga"].iter().any(|name| init.starts_with(name)) {
        return Err(Problem::unsupported(format!(
            "init_lora_weights {init:?}, which changes the base weights: convert the adapter to plain LoRA when saving"
        )));
    }
    let number = |field: &'static str| config.get(field).and_then(Value::as_f64);
    let flag = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or(false);
    let rank = |value: &Value| value.as_u64().filter(|rank| *rank > 0).map(|rank| rank as usize);
    let r = config.get("r").and_then(rank).ok_or_else(|| Problem::missing("r"))?;
    Ok(LoraConfig {
        r,
        lora_alpha: number("lora_alpha").ok_or_else(|| Problem::missing("lora_alpha"))?,
        target_modules: patterns(config, "target_modules")?,
        rank_pattern: pattern_values(config, "rank_pattern", rank)?,
        alpha_pattern: pattern_values(config, "alpha_pattern", Value::as_f64)?,
        use_rslora: flag("use_rslora"),
        use_dora: flag("use_dora"),
        lora_dropout: number("lora_dropout").unwrap_or(0.0) as f32,
    })
}

/// A list of names, or a regular expression.
fn patterns(config: &Map<String, Value>, field: &'static str) -> Result<Patterns, Problem> {
    let value = config.get(field).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|_| Problem::bad_field(field, "is neither a text nor a list of names"))
}

/// Values by regular expressions.
fn pattern_values<T>(
    config: &Map<String, Value>,
    field: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>, Problem> {
    let Some(Value::Object(values)) = config.get(field) else { return Ok(BTreeMap::new()) };
    let entry = |(pattern, value): (&String, &Value)| Some((pattern.clone(), read(value)?));
    let entries: Option<BTreeMap<String, T>> = values.iter().map(entry).collect();
    entries.ok_or_else(|| Problem::bad_field(field, "has a value that is no such number"))
}

/// The file's content for an adapter of a model of this architecture, whose name or folder is `base`.
pub(super) fn to_json(config: &PeftConfig, architecture: &Architecture, base: &str) -> Value {
    let task = match (architecture.head, architecture.family.kind()) {
        (Head::Language, Kind::DecoderOnly) => json!("CAUSAL_LM"),
        (Head::Language, Kind::EncoderDecoder) => json!("SEQ_2_SEQ_LM"),
        (Head::Classifier { .. }, _) => json!("SEQ_CLS"),
        (Head::TokenClassifier { .. }, _) => json!("TOKEN_CLS"),
        _ => Value::Null,
    };
    let mut fields = json!({ "base_model_name_or_path": base, "inference_mode": true, "task_type": task });
    let own = match config {
        PeftConfig::Selective(_) => json!({}),
        PeftConfig::Lora(config) => json!({
            "peft_type": "LORA",
            "r": config.r,
            "lora_alpha": whole_number(config.lora_alpha),
            "target_modules": config.target_modules,
            "rank_pattern": config.rank_pattern,
            "alpha_pattern": config.alpha_pattern,
            "use_rslora": config.use_rslora,
            "use_dora": config.use_dora,
            "lora_dropout": config.lora_dropout,
            "bias": "none",
            "fan_in_fan_out": architecture.family == Family::Gpt2,
        }),
        PeftConfig::Ia3(config) => json!({
            "peft_type": "IA3",
            "target_modules": config.target_modules,
            "feedforward_modules": config.feedforward_modules,
            "fan_in_fan_out": architecture.family == Family::Gpt2,
        }),
        PeftConfig::PromptTuning(config) => {
            virtual_tokens("PROMPT_TUNING", architecture, (config.num_virtual_tokens, architecture.n_heads))
        }
        PeftConfig::PrefixTuning(config) => {
            virtual_tokens("PREFIX_TUNING", architecture, (config.num_virtual_tokens, architecture.n_kv_heads))
        }
        PeftConfig::Bottleneck(config) => json!({ "peft_type": BOTTLENECK, "config": config }),
    };
    if let (Value::Object(fields), Value::Object(own)) = (&mut fields, own) {
        fields.extend(own);
    }
    fields
}

fn virtual_tokens(kind: &str, architecture: &Architecture, (n, n_heads): (usize, usize)) -> Value {
    let is_prompt = kind == "PROMPT_TUNING";
    let mut fields = json!({
        "peft_type": kind,
        "num_virtual_tokens": n,
        "token_dim": if is_prompt { architecture.dim } else { n_heads * architecture.head_dim },
        "num_attention_heads": n_heads,
        "num_layers": architecture.n_decoder_layers.max(architecture.n_encoder_layers),
        "num_transformer_submodules": 1,
    });
    if is_prompt {
        // How training began does not matter to who loads it, and PEFT would ask for a tokenizer.
        fields["prompt_tuning_init"] = json!("RANDOM");
    } else {
        fields["prefix_projection"] = json!(false);
    }
    fields
}

/// A whole number as PEFT writes it, without a point.
fn whole_number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// Whether `target_modules` is the word for every product, which only a model can spell out.
pub(super) fn is_all_linear(patterns: &Patterns) -> bool {
    matches!(patterns, Patterns::Regex(text) if text == ALL_LINEAR)
}
