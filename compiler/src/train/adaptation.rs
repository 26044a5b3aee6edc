//! Going on from a model on the data of a domain: its first values, and what it knew before and knows afterwards.

use super::TrainError;
use super::corpus::Corpus;
use super::evaluate::{Evaluation, measure};
use super::tokenize::{RunTokenizer, encode};
use crate::artifact::hf;
use crate::data::Example;
use crate::model::Model;
use crate::peft::{PeftConfig, PromptTuningConfig};
use crate::recipe::Recipe;
use crate::tensor::Params;
use serde::Serialize;
use std::path::Path;

/// How well a model tells a held-out part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Mean negative log-likelihood of a target, in nats.
    pub loss: f64,
    /// Bits per UTF-8 byte, for a causal model.
    pub bits_per_byte: Option<f64>,
}

/// What a model knows at some time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Of the domain; absent if nothing of it is held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_domain: Option<Figures>,
    /// Of what it is not to forget; absent if the recipe names no such data, or nothing of it is held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub general: Option<Figures>,
}

/// What a run that goes on from a model changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Adaptation {
    /// The model that it went on from.
    pub before: Standing,
    /// The model that it made.
    pub after: Standing,
}

/// A line of the log about what the model knows: the first and the last of a run that goes on from one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AdaptationRecord {
    /// Steps done.
    pub step: u64,
    /// What it knows then.
    pub adaptation: Standing,
}

/// The held-out part of what is not to be forgotten.
pub(super) struct General {
    pub validation: Vec<Example>,
    /// Bytes of text that it tells, for a causal model.
    pub n_bytes: Option<usize>,
}

/// The parameters that training begins with: those of the model to go on from, or new ones.
///
/// # Errors
/// [`TrainError::InitFrom`]: the model cannot be read, or is in the run folder `out`, where the run would replace it.
pub(super) fn first_values(
    recipe: &Recipe,
    corpus: &Corpus,
    model: &dyn Model,
    out: &Path,
) -> Result<Params, TrainError> {
    let Some(folder) = &recipe.model.init_from else { return Ok(model.init(recipe.train.seed)) };
    let failed = |problem: String| TrainError::InitFrom { path: folder.clone(), problem };
    if let (Ok(folder), Ok(out)) = (folder.canonicalize(), out.canonicalize())
        && folder == out
    {
        return Err(failed("it is the run folder too, and the run would replace it: choose another run folder".into()));
    }
    let trained = hf::load_trained(folder).map_err(|error| failed(error.to_string()))?;
    let mut params = Params::zeros(model.layout().clone());
    trained.fill(&mut params, model.n_own_params()).map_err(|problem| failed(problem.to_string()))?;
    let text = match &recipe.peft {
        Some(PeftConfig::PromptTuning(PromptTuningConfig { prompt_tuning_init_text: Some(text), .. })) => {
            let tokenizer = RunTokenizer::from_json(corpus.tokenizer_json.clone(), corpus.frame)?;
            encode(&mut tokenizer.encoder(), text)
        }
        _ => Vec::new(),
    };
    model.init_beside(&mut params, recipe.train.seed, &text);
    Ok(params)
}

impl Standing {
    /// What `params` know, where the recipe goes on from a model.
    pub(super) fn of(recipe: &Recipe, corpus: &Corpus, model: &dyn Model, params: &Params) -> Option<Self> {
        recipe.model.init_from.as_ref()?;
        let figures = |examples: &[Example], n_bytes| {
            let evaluation = Evaluation::of(&measure(model, params, examples), n_bytes)?;
            Some(Figures { loss: evaluation.validation_loss, bits_per_byte: evaluation.validation_bits_per_byte })
        };
        Some(Self {
            in_domain: figures(corpus.source.validation(), corpus.n_validation_bytes),
            general: corpus.general.as_ref().and_then(|general| figures(&general.validation, general.n_bytes)),
        })
    }
}
