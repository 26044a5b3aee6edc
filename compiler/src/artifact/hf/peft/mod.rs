//! Adapters as PEFT saves them: `adapter_config.json` and `adapter_model.safetensors`.

mod config;

use std::collections::BTreeMap;
use std::path::Path;

use config::is_all_linear;

use super::weights::read_safetensors_with;
use super::write::{write_json, write_weights};
use crate::artifact::{Adapter, ArtifactError, LowRankPair, MappedFile, NamedWeights, Problem, Projection, Weight};
use crate::model::Model;
use crate::peft::{LoraConfig, PeftConfig, files};
use crate::tensor::{Dtype, Params};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Most layers that an adapter may name.
const LAYERS_MAX: usize = 1 << 10;

/// An adapter as its folder has it.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedAdapter {
    /// What it is.
    pub config: PeftConfig,
    /// What was trained, by PEFT's names.
    pub tensors: NamedWeights,
}

/// Reads the PEFT folder of an adapter for a model of any family.
///
/// # Errors
/// [`ArtifactError`], naming the file that is missing or at fault, and what of it is not supported.
pub fn load_peft(folder: &Path) -> Result<SavedAdapter, ArtifactError> {
    let path = folder.join(CONFIG);
    let config = MappedFile::open(&path)?;
    let config = config::parse(config.bytes()).map_err(|problem| problem.at(&path))?;
    let path = folder.join(WEIGHTS);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        let problem = Problem::unsupported("adapter_model.bin: save the adapter with safe_serialization=True");
        return Err(problem.at(folder));
    }
    let file = MappedFile::open(&path)?;
    let mut tensors = NamedWeights::new();
    read_safetensors_with(file.bytes(), |_, _| Ok(true), &mut tensors).map_err(|problem| problem.at(&path))?;
    Ok(SavedAdapter { config, tensors })
}

/// Writes what `params` have beside a model into `folder`, as PEFT does: it is loaded there with the model in `base`, a name or a folder.
///
/// The same parameters give the same bytes.
///
/// # Errors
/// [`ArtifactError`]: I/O.
pub fn write_peft(
    folder: &Path,
    (model, config): (&dyn Model, &PeftConfig),
    params: &Params,
    base: &str,
) -> Result<(), ArtifactError> {
    let architecture = model.architecture();
    let mut fields = config::to_json(config, architecture, base);
    let spelled = match config {
        PeftConfig::Lora(LoraConfig { target_modules, .. }) if is_all_linear(target_modules) => {
            Some(files::adapted_modules(model))
        }
        _ => None,
    };
    if let Some(modules) = spelled {
        fields["target_modules"] = modules.into();
    }
    write_json(&folder.join(CONFIG), &fields)?;
    write_weights(&folder.join(WEIGHTS), &files::to_file(model, config, params), Dtype::F32)
}

/// Reads the PEFT folder of an adapter that a Llama runs with: LoRA, or prompt tuning. What it is for is checked by [`Adapter::validate`].
///
/// # Errors
/// As [`load_peft`].
pub fn load_adapter(folder: &Path) -> Result<Adapter, ArtifactError> {
    let SavedAdapter { config, tensors } = load_peft(folder)?;
    let merge = "merge such an adapter into its model before compiling";
    let unsupported = |what: &str| Err(Problem::unsupported(format!("{what}; {merge}")));
    let adapter = match &config {
        PeftConfig::Lora(lora) if lora.use_dora => unsupported("DoRA (use_dora)"),
        PeftConfig::Lora(lora) => low_rank_pairs(lora, tensors),
        PeftConfig::PromptTuning(_) => soft_prompt(tensors),
        PeftConfig::Ia3(_) => unsupported("peft_type IA3"),
        other => Err(Problem::unsupported(format!("{} adapters: devices run LoRA and soft prompts", other.name()))),
    };
    adapter.map_err(|problem| problem.at(&folder.join(WEIGHTS)))
}

fn low_rank_pairs(lora: &LoraConfig, tensors: NamedWeights) -> Result<Adapter, Problem> {
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
        let module = format!("model.layers.{layer_idx}.{}", projection.name());
        let missing =
            |half: &str| Problem::MissingTensor { name: format!("base_model.model.{module}.lora_{half}.weight") };
        let [a, b] = halves;
        let (a, mut b) = (a.ok_or_else(|| missing("A"))?, b.ok_or_else(|| missing("B"))?);
        let scale = f64::from(lora.scale_of(&module, a.shape[0]));
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
