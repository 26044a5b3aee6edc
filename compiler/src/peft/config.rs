//! `[peft]`: what of a model is trained, or what beside it.

use super::names::{Patterns, ends_like};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[peft]`: its kind, and the settings of that kind. What is trained beside the model goes by the names and meanings of PEFT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PeftConfig {
    /// Some of the model's own parameters.
    Selective(SelectiveConfig),
    /// Low-rank updates beside weights (Hu et al. 2021).
    Lora(LoraConfig),
    /// Gains of keys, values and the feed-forward block's hidden layer (Liu et al. 2022).
    Ia3(Ia3Config),
    /// Embeddings before every text (Lester et al. 2021).
    PromptTuning(PromptTuningConfig),
    /// Keys and values before every text, in every layer (Li and Liang 2021).
    PrefixTuning(PrefixTuningConfig),
    /// Small networks behind the blocks of every layer (Houlsby et al. 2019; Pfeiffer et al. 2020).
    Bottleneck(BottleneckConfig),
}

/// Which of a model's own parameters are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectiveConfig {
    /// Their names as in the checkpoint: a list of patterns with `*` for any characters (`["model.layers.4.*", "*.bias"]`), or a text, the
    /// regular expression of a whole name.
    pub params: Patterns,
}

/// LoRA: `W x + scale B A x`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// The rank.
    #[serde(default = "default_rank")]
    pub r: usize,
    /// The scale is this over the rank.
    #[serde(default = "default_alpha")]
    pub lora_alpha: f64,
    /// Modules to have a pair: a list of names, or of their ends (`["q_proj", "v_proj"]`); `"all-linear"` for every product but the output
    /// head; or a text, the regular expression of a whole name. Embedding tables may be named, too.
    pub target_modules: Patterns,
    /// Other ranks, by regular expressions of the ends of modules' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other values of `lora_alpha`, as `rank_pattern`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Whether the scale is over the root of the rank (Kalajdzievski 2023).
    #[serde(default)]
    pub use_rslora: bool,
    /// Whether the rows of the sum get trained norms (Liu et al. 2024).
    #[serde(default)]
    pub use_dora: bool,
    /// Share of what goes into a pair that is dropped in training.
    #[serde(default)]
    pub lora_dropout: f32,
}

/// IA3: gains that begin at one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ia3Config {
    /// Modules with gains, as `target_modules` of LoRA: keys, values, and the last product of the feed-forward block.
    pub target_modules: Patterns,
    /// Those among them whose input is scaled rather than their output.
    #[serde(default = "no_names")]
    pub feedforward_modules: Patterns,
}

/// Soft prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptTuningConfig {
    /// How many embeddings.
    pub num_virtual_tokens: usize,
    /// Their first values.
    #[serde(default)]
    pub prompt_tuning_init: PromptInit,
    /// The text that they begin as, again and again where it is shorter; for `prompt_tuning_init = "text"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tuning_init_text: Option<String>,
}

/// First values of a soft prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptInit {
    /// Normal numbers as large as those of the model's embeddings.
    #[default]
    Random,
    /// Embeddings of tokens that are drawn by chance.
    SampleVocab,
    /// Embeddings of a text's tokens.
    Text,
}

/// Prefixes of keys and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixTuningConfig {
    /// How many positions.
    pub num_virtual_tokens: usize,
}

/// Bottleneck adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BottleneckConfig {
    /// Where they are.
    pub place: BottleneckPlace,
    /// The model's width over theirs.
    #[serde(default = "default_reduction")]
    pub reduction_factor: usize,
}

/// Behind which blocks bottleneck adapters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BottleneckPlace {
    /// Behind attention and feed-forward, with SiLU.
    Houlsby,
    /// Behind feed-forward alone, with ReLU.
    Pfeiffer,
}

impl PeftConfig {
    /// Its name in recipes and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Selective(_) => "selective",
            Self::Lora(_) => "lora",
            Self::Ia3(_) => "ia3",
            Self::PromptTuning(_) => "prompt_tuning",
            Self::PrefixTuning(_) => "prefix_tuning",
            Self::Bottleneck(_) => "bottleneck",
        }
    }

    /// Whether what is trained lies beside the model, in files of its own.
    pub fn is_beside(&self) -> bool {
        !matches!(self, Self::Selective(_))
    }

    /// Positions of the context that every text has less.
    pub fn n_virtual_tokens(&self) -> usize {
        match self {
            Self::PromptTuning(config) => config.num_virtual_tokens,
            Self::PrefixTuning(config) => config.num_virtual_tokens,
            _ => 0,
        }
    }

    /// A value that is outside its limits: its key, what it is, and what it may be.
    pub fn out_of_range(&self) -> Option<(&'static str, String, &'static str)> {
        let at_least_one = |key, n: usize| (n == 0).then(|| (key, n.to_string(), "at least 1"));
        match self {
            Self::Selective(_) | Self::Ia3(_) => None,
            Self::Lora(config) => {
                let dropout = config.lora_dropout;
                let alphas = config.alpha_pattern.values().chain([&config.lora_alpha]);
                let bad = alphas.copied().find(|alpha| !alpha.is_finite());
                let rank = config.rank_pattern.values().copied().find(|rank| *rank == 0).unwrap_or(config.r);
                at_least_one("peft.r", rank)
                    .or(bad.map(|alpha| ("peft.lora_alpha", alpha.to_string(), "a number")))
                    .or((!(0.0..1.0).contains(&dropout))
                        .then(|| ("peft.lora_dropout", dropout.to_string(), "at least 0 and below 1")))
            }
            Self::PromptTuning(config) => {
                let is_text = config.prompt_tuning_init == PromptInit::Text;
                let text = config.prompt_tuning_init_text.clone();
                let limits = "given with prompt_tuning_init = \"text\", and only there";
                at_least_one("peft.num_virtual_tokens", config.num_virtual_tokens).or((is_text != text.is_some())
                    .then(|| ("peft.prompt_tuning_init_text", text.unwrap_or_default(), limits)))
            }
            Self::PrefixTuning(config) => at_least_one("peft.num_virtual_tokens", config.num_virtual_tokens),
            Self::Bottleneck(config) => at_least_one("peft.reduction_factor", config.reduction_factor),
        }
    }
}

impl LoraConfig {
    /// The rank of a module's pair.
    pub fn rank_of(&self, module: &str) -> usize {
        of_pattern(&self.rank_pattern, module).unwrap_or(self.r)
    }

    /// What multiplies the update of a module whose pair has this rank.
    pub fn scale_of(&self, module: &str, rank: usize) -> f32 {
        let alpha = of_pattern(&self.alpha_pattern, module).unwrap_or(self.lora_alpha);
        let over = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        (alpha / over) as f32
    }
}

impl Ia3Config {
    /// Whether the input of a module is scaled rather than its output.
    pub fn scales_input(&self, module: &str) -> bool {
        self.feedforward_modules.means(module)
    }
}

/// The value of the first pattern that the end of a name is like.
fn of_pattern<T: Copy>(patterns: &BTreeMap<String, T>, module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| ends_like(pattern, module)).map(|(_, value)| *value)
}

fn default_rank() -> usize {
    8
}
fn default_alpha() -> f64 {
    8.0
}
fn default_reduction() -> usize {
    16
}
fn no_names() -> Patterns {
    Patterns::List(Vec::new())
}
