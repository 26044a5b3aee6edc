//! Recipes: a training run written down in TOML.
//!
//! A recipe fixes everything that the result depends on. An unknown key is an error that shows the line and the keys that
//! exist; paths are relative to the recipe's own folder, so that a run does not depend on where it was started.

mod read;

use serde::{Deserialize, Serialize};
use siskin_runtime::ModelConfig;
use std::path::PathBuf;

pub use read::RecipeError;

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

/// `[model]`: a Llama; the vocabulary's size is the tokenizer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward block's hidden layer.
    pub hidden_dim: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions in a training window and in the finished model.
    pub context_len: usize,
    /// Added to the mean square inside the root of every norm.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f32,
    /// Whether the output head is the embedding matrix.
    #[serde(default = "default_true")]
    pub tied_head: bool,
}

/// `[tokenizer]`: a byte-level BPE trained on the training part of the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSection {
    /// Ids in all: two special tokens, 256 bytes, and merges.
    pub vocab_size: usize,
    /// Beginning-of-text token.
    #[serde(default = "default_bos")]
    pub bos: String,
    /// End-of-text token.
    #[serde(default = "default_eos")]
    pub eos: String,
}

/// `[data]`: one UTF-8 file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The file; a relative path starts at the recipe's folder.
    pub text: PathBuf,
    /// Share of the characters, from the first on, to train on; the rest is for validation.
    #[serde(default = "default_train_fraction")]
    pub train_fraction: f64,
}

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

/// `[optimizer]`: AdamW and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSection {
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps over which it rises from zero.
    #[serde(default)]
    pub warmup_steps: u64,
    /// How it falls afterwards.
    #[serde(default)]
    pub schedule: Schedule,
    /// The rate at the end, as a share of the highest.
    #[serde(default)]
    pub final_share: f64,
    /// Share of the steps over which the rate falls at the end; `wsd` only.
    #[serde(default = "default_decay_share")]
    pub decay_share: f64,
    /// Decay of the gradients' average.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the squared gradients' average.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Added to the root of the squared gradients' average.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Share of a parameter removed per step, times the learning rate.
    #[serde(default)]
    pub weight_decay: f64,
    /// Whether gains of norms decay too.
    #[serde(default)]
    pub decay_norms: bool,
    /// Largest norm of the whole gradient; 0 for no limit.
    #[serde(default)]
    pub clip_norm: f64,
    /// Decay of the running average of the parameters that is evaluated and saved in their place; 0 for none.
    #[serde(default)]
    pub average_decay: f64,
}

/// How the learning rate goes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine from the highest rate to the final one.
    #[default]
    Cosine,
    /// A straight line from the highest rate to the final one.
    Linear,
    /// The highest rate to the end.
    Constant,
    /// The highest rate until the last `decay_share` of the steps, then a straight line to the final one.
    Wsd,
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

fn default_norm_eps() -> f32 {
    1e-5
}
fn default_rope_theta() -> f32 {
    10_000.0
}
fn default_true() -> bool {
    true
}
fn default_bos() -> String {
    "<s>".into()
}
fn default_eos() -> String {
    "</s>".into()
}
fn default_train_fraction() -> f64 {
    0.9
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
fn default_decay_share() -> f64 {
    0.2
}
fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.99
}
fn default_eps() -> f64 {
    1e-8
}
