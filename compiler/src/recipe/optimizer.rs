//! `[optimizer]`: the update rule and its schedule.

use crate::tensor::Dtype;
use serde::{Deserialize, Serialize};

/// `[optimizer]`: the update rule and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSection {
    /// The update rule.
    #[serde(default, skip_serializing_if = "OptimizerKind::is_adamw")]
    pub kind: OptimizerKind,
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
    /// Highest learning rate of the matrices that Muon has; it rises and falls as `learning_rate` does.
    #[serde(default = "default_muon_learning_rate", skip_serializing_if = "is_default_muon_learning_rate")]
    pub muon_learning_rate: f64,
    /// Decay of the gradients' average in Muon.
    #[serde(default = "default_muon_momentum", skip_serializing_if = "is_default_muon_momentum")]
    pub muon_momentum: f64,
    /// What the running averages are stored as: `"f32"`, or `"bf16"` in half the memory, rounded by chance.
    #[serde(default, skip_serializing_if = "Dtype::is_f32")]
    pub state_dtype: Dtype,
    /// Settings for some of the parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupSection>,
}

/// `[[optimizer.group]]`: settings for the parameters that it names and no earlier group does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSection {
    /// Names as in the checkpoint, with `*` for any characters: `["*.bias", "model.layers.0.*"]`.
    pub params: Vec<String>,
    /// Multiplies the learning rate; 0 leaves the parameters as they are.
    #[serde(default = "default_scale")]
    pub learning_rate_scale: f64,
    /// Replaces the optimiser's weight decay, for gains of norms too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// What becomes of a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2017).
    #[default]
    AdamW,
    /// Muon (Jordan et al. 2024) for the matrices inside the model; AdamW for embeddings, output heads and vectors.
    Muon,
}

impl OptimizerKind {
    fn is_adamw(&self) -> bool {
        *self == Self::AdamW
    }
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

fn default_scale() -> f64 {
    1.0
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
fn default_muon_learning_rate() -> f64 {
    0.02
}
fn is_default_muon_learning_rate(value: &f64) -> bool {
    *value == default_muon_learning_rate()
}
fn default_muon_momentum() -> f64 {
    0.95
}
fn is_default_muon_momentum(value: &f64) -> bool {
    *value == default_muon_momentum()
}
