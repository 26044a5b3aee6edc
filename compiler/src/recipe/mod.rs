//! Recipes: a training run written down in TOML.
//!
//! A recipe fixes everything that the result depends on. An unknown key is an error that shows the line and the keys that
//! exist; paths are relative to the recipe's own folder, so that a run does not depend on where it was started.

mod data;
mod model;
mod optimizer;
mod read;
mod tokenizer;
mod train;

use crate::model::{Architecture, Head};
use serde::{Deserialize, Serialize};
use siskin_runtime::ModelConfig;

pub use data::DataSection;
pub use model::ModelSection;
pub use optimizer::{OptimizerSection, Schedule};
pub use read::RecipeError;
pub use tokenizer::TokenizerSection;
pub use train::TrainSection;

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
    /// How long and how often.
    pub train: TrainSection,
    /// The update rule.
    pub optimizer: OptimizerSection,
}

impl Recipe {
    /// What the model is made of.
    pub fn architecture(&self) -> Architecture {
        self.model.architecture(self.tokenizer.vocab_size, Head::Language)
    }

    /// The model's shape as the runtime knows it; `None` where the runtime has no such model.
    pub fn model_config(&self) -> Option<ModelConfig> {
        self.architecture().runtime_config()
    }
}
