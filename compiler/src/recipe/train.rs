//! `[train]`: how long and how often.

use crate::tensor::Dtype;
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
    /// Fewer of them at the beginning: gradients are alike then, and small steps learn as much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_ramp: Option<BatchRamp>,
    /// Share of activations dropped in training; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout: f32,
    /// Share of a target's probability spread over the vocabulary; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub label_smoothing: f32,
    /// Keeps what goes into each layer only and runs each layer again on the way back: two forward passes for a fraction of the memory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recompute_activations: bool,
    /// What matrices are stored as, in training and in the model's file: `"f32"`, or `"bf16"` in half the memory, rounded by chance at
    /// every update. Vectors, and the running average of the parameters, are `f32` all the same.
    #[serde(default, skip_serializing_if = "Dtype::is_f32")]
    pub weights_dtype: Dtype,
    /// What is kept for the way back is stored as: `"f32"`, or `"bf16"` in half the memory, widened again a branch at a time.
    #[serde(default, skip_serializing_if = "Dtype::is_f32")]
    pub activations_dtype: Dtype,
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
    /// Evaluations without a better one after which to stop; 0 for never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub early_stopping_patience: u64,
    /// By how much a validation loss, in nats, must be below the best to be better.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub early_stopping_min_delta: f64,
    /// Models of the best evaluations that are kept beside the last, in `best-STEP` folders; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keep_best: usize,
    /// Leaves a step out whose gradient's norm is this many times the median of the last ones, or not a number; 0 for never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip_outliers: f64,
    /// How many norms that median is of; nothing is left out before there are half as many.
    #[serde(default = "default_skip_window", skip_serializing_if = "is_default_skip_window")]
    pub skip_window: usize,
}

/// A number of batches a step that grows, by one at a time, to `accumulate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRamp {
    /// Batches of the first step.
    pub from: usize,
    /// Steps after which there are `accumulate`.
    pub steps: u64,
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
fn default_skip_window() -> usize {
    64
}
fn is_default_skip_window(value: &usize) -> bool {
    *value == default_skip_window()
}
fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
