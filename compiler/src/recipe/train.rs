//! `[train]`: how long and how often.

use serde::{Deserialize, Serialize};

/// `[train]`: how long and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Updates of the parameters.
    pub steps: u64,
    /// Examples in a batch.
    pub batch_size: usize,
    /// Batches whose gradients make one update.
    #[serde(default = "default_one")]
    pub accumulate: usize,
    /// Share of activations dropped in training; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout: f32,
    /// Share of a target's probability spread over the vocabulary; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub label_smoothing: f32,
    /// Seed of the first values, of the examples' order and of what is random about them.
    #[serde(default)]
    pub seed: u64,
    /// Steps between lines of the log.
    #[serde(default = "default_log_every")]
    pub log_every: u64,
    /// Steps between evaluations on the validation part; 0 for one at the end only.
    #[serde(default)]
    pub eval_every: u64,
    /// Steps between checkpoints; 0 for one at the end only.
    #[serde(default = "default_checkpoint_every")]
    pub checkpoint_every: u64,
}

fn default_one() -> usize {
    1
}
fn default_log_every() -> u64 {
    20
}
fn default_checkpoint_every() -> u64 {
    500
}
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}
