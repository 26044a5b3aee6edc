//! Recipes: a training run written down in TOML.
//!
//! A recipe fixes everything that the result depends on. An unknown key is an error that shows the line and the keys that
//! exist; paths are relative to the recipe's own folder, so that a run does not depend on where it was started.

mod checkpoint;
mod data;
mod model;
mod objective;
mod optimizer;
mod read;
mod tokenizer;
mod train;

use crate::model::Architecture;
use crate::peft::PeftConfig;
use serde::{Deserialize, Serialize};
use siskin_runtime::ModelConfig;
use std::borrow::Cow;

pub use data::{DataSection, PackingRule, ReplaySection, SplitRule};
pub use model::ModelSection;
pub use objective::{NoSettings, ObjectiveSection};
pub use optimizer::{GroupSection, OptimizerKind, OptimizerSection, Schedule};
pub use read::RecipeError;
pub use tokenizer::TokenizerSection;
pub use train::{BatchRamp, TrainSection};

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The model's shape.
    pub model: ModelSection,
    /// The tokenizer that is trained first.
    pub tokenizer: TokenizerSection,
    /// The text.
    pub data: DataSection,
    /// What the model learns to say.
    #[serde(default, skip_serializing_if = "ObjectiveSection::is_causal")]
    pub objective: ObjectiveSection,
    /// What of a model that the run goes on from is trained, or what beside it; absent where all of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peft: Option<PeftConfig>,
    /// How long and how often.
    pub train: TrainSection,
    /// The update rule.
    pub optimizer: OptimizerSection,
}

impl Recipe {
    /// What the model is made of; `n_labels` counts where the objective is to classify.
    pub fn architecture(&self, n_labels: usize) -> Architecture {
        self.model.architecture(self.tokenizer.vocab_size, self.objective.head(n_labels))
    }

    /// The recipe that examples are made by: virtual tokens leave them less of the context.
    pub fn for_examples(&self) -> Cow<'_, Self> {
        let n_virtual = self.peft.as_ref().map_or(0, PeftConfig::n_virtual_tokens);
        if n_virtual == 0 {
            return Cow::Borrowed(self);
        }
        let mut recipe = self.clone();
        recipe.model.context_len = self.model.context_len.saturating_sub(n_virtual).max(1);
        Cow::Owned(recipe)
    }

    /// The model's shape as the runtime knows it; `None` where the runtime has no such model.
    pub fn model_config(&self) -> Option<ModelConfig> {
        self.architecture(1).runtime_config()
    }
}
