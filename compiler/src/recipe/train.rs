//! `[train]`: how long and how often.

use serde::{Deserialize, Serialize};

/// `[train]`: how long and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Updates of the parameters.
    pub steps: u64,
    /// Windows in a batch.
    pub batch_size: usize,
    /// Batches whose gradients make one update.
    #[serde(default = "default_one")]
    pub accumulate: usize,
    /// Seed of the first values and of the windows.
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
