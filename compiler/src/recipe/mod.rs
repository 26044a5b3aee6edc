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
    /// The model's shape as the runtime knows it.
    pub fn model_config(&self) -> ModelConfig {
        let model = &self.model;
        ModelConfig {
            dim: model.dim,
            hidden_dim: model.hidden_dim,
            n_layers: model.n_layers,
            n_heads: model.n_heads,
            n_kv_heads: model.n_kv_heads,
            head_dim: model.head_dim,
            vocab_size: self.tokenizer.vocab_size,
            context_len: model.context_len,
            norm_eps: model.norm_eps,
            rope_theta: model.rope_theta,
            tied_head: model.tied_head,
        }
    }
}
