//! Adapters as PEFT saves them: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::weights::read_safetensors_with;
use crate::artifact::{Adapter, ArtifactError, LowRankPair, MappedFile, NamedWeights, Problem, Projection, Weight};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Most layers that an adapter may name.
const LAYERS_MAX: usize = 1 << 10;

/// Reads the PEFT folder of an adapter for a Llama: LoRA, or prompt tuning. What it is for is checked by [`Adapter::validate`].
///
/// # Errors
/// [`ArtifactError`], naming the file that is missing or at fault, and what of it is not supported.
pub fn load_adapter(folder: &Path) -> Result<Adapter, ArtifactError> {
    let path = folder.join(CONFIG);
    let config = MappedFile::open(&path)?;
    let kind = parse_config(config.bytes()).map_err(|problem| problem.at(&path))?;
    let path = folder.join(WEIGHTS);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        let problem = Problem::unsupported("adapter_model.bin: save the adapter with safe_serialization=True");
        return Err(problem.at(folder));
    }
    let file = MappedFile::open(&path)?;
    let mut tensors = NamedWeights::new();
    let adapter = read_safetensors_with(file.bytes(), |_, _| Ok(true), &mut tensors).and_then(|()| match kind {
        Kind::Lora(lora) => low_rank_pairs(&lora, tensors),
        Kind::Prompt => soft_prompt(tensors),
    });
    adapter.map_err(|problem| problem.at(&path))
}

/// How an adapter was trained.
enum Kind {
    Lora(Lora),
    Prompt,
}

/// What turns LoRA's matrices into updates.
struct Lora {
    alpha: f64,
    /// Divides by the root of the rank, where others divide by the rank.
    is_rank_stabilised: bool,
}

fn parse_config(bytes: &[u8]) -> Result<Kind, Problem> {
    let config: Map<String, Value> = serde_json::from_slice(bytes)?;
    let kind = config.get("peft_type").and_then(Value::as_str).ok_or_else(|| Problem::missing("peft_type"))?;
    match kind {
        "LORA" => parse_lora(&config).map(Kind::Lora),
        "PROMPT_TUNING" => match config.get("num_transformer_submodules") {
            None | Some(Value::Null) => Ok(Kind::Prompt),
            Some(n) if n.as_u64() == Some(1) => Ok(Kind::Prompt),
            Some(_) => Err(Problem::unsupported("a soft prompt for more than one stack")),
        },
        other => Err(Problem::unsupported(format!("peft_type {other}; supported are LORA and PROMPT_TUNING"))),
    }
}

/// Fields of a LoRA configuration that change what is computed, in ways that are not implemented; each must be absent, null, false, 0 or empty.
const UNSUPPORTED: [&str; 15] = [
    "use_dora",
    "modules_to_save",
    "fan_in_fan_out",
    "alpha_pattern",
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

fn parse_lora(config: &Map<String, Value>) -> Result<Lora, Problem> {
    for field in UNSUPPORTED {
        let is_unset = match config.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(values)) => values.is_empty(),
            Some(Value::Object(values)) => values.is_empty(),
            Some(_) => false,
        };
        if !is_unset {
            let what = if field == "use_dora" { "DoRA (use_dora)" } else { field };
            return Err(Problem::unsupported(format!("{what}; merge such an adapter into its model before compiling")));
        }
    }
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
    let alpha = config.get("lora_alpha").and_then(Value::as_f64).ok_or_else(|| Problem::missing("lora_alpha"))?;
    let is_rank_stabilised = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    Ok(Lora { alpha, is_rank_stabilised })
}

fn low_rank_pairs(lora: &Lora, tensors: NamedWeights) -> Result<Adapter, Problem> {
    let mut halves: BTreeMap<(usize, Projection), [Option<Weight>; 2]> = BTreeMap::new();
    for (name, weight) in tensors {
        let (layer_idx, projection, is_b) =
            place(&name).ok_or_else(|| Problem::UnexpectedTensor { name: name.clone() })?;
        if weight.shape.len() != 2 {
            return Err(Problem::bad_field(name, "is no matrix"));
        }
        halves.entry((layer_idx, projection)).or_default()[usize::from(is_b)] = Some(weight);
    }
    let pairs = halves.into_iter().map(|((layer_idx, projection), halves)| {
        let missing = |half: &str| Problem::MissingTensor {
            name: format!("base_model.model.model.layers.{layer_idx}.{}.lora_{half}.weight", projection.name()),
        };
        let [a, b] = halves;
        let (a, mut b) = (a.ok_or_else(|| missing("A"))?, b.ok_or_else(|| missing("B"))?);
        let rank = a.shape[0] as f64;
        let scale = lora.alpha / if lora.is_rank_stabilised { rank.sqrt() } else { rank };
        b.data.iter_mut().for_each(|b| *b = (f64::from(*b) * scale) as f32);
        Ok(LowRankPair { layer_idx, projection, a, b })
    });
    Ok(Adapter { pairs: pairs.collect::<Result<_, Problem>>()?, prompt: None })
}

/// The layer and the projection that a tensor belongs to, and whether it is B.
fn place(name: &str) -> Option<(usize, Projection, bool)> {
    let (layer, rest) = name.strip_prefix("base_model.model.model.layers.")?.split_once('.')?;
    let (projection, half) = rest.rsplit_once(".lora_")?;
    let is_b = match half {
        "A.weight" => false,
        "B.weight" => true,
        _ => return None,
    };
    let layer_idx = layer.parse().ok().filter(|&layer_idx| layer_idx < LAYERS_MAX)?;
    let projection = Projection::ALL.into_iter().find(|known| known.name() == projection)?;
    Some((layer_idx, projection, is_b))
}

fn soft_prompt(mut tensors: NamedWeights) -> Result<Adapter, Problem> {
    let name = "prompt_embeddings";
    let prompt = tensors.remove(name).ok_or_else(|| Problem::MissingTensor { name: name.to_owned() })?;
    match tensors.into_keys().next() {
        Some(name) => Err(Problem::UnexpectedTensor { name }),
        None => Ok(Adapter { pairs: Vec::new(), prompt: Some(prompt) }),
    }
}
