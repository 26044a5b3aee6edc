//! Parameter-efficient fine-tuning: a frozen base, and what little is trained of it or beside it.
//!
//! [`PeftConfig`] is the recipe's `[peft]` and what PEFT's `adapter_config.json` says; [`names`] decides which modules it means. What is
//! trained beside a base lies behind it in the same parameter layout, under the names that PEFT gives it in its files.

mod config;
pub mod files;
mod merge;
pub mod names;

pub use config::{
    BottleneckConfig, BottleneckPlace, Ia3Config, LoraConfig, PeftConfig, PrefixTuningConfig, PromptInit,
    PromptTuningConfig, SelectiveConfig,
};
pub use merge::{RoundingError, merge};
pub use names::{NameError, Patterns};

/// What is to be trained is not there, or not possible in a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeftError {
    /// A name means nothing.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The model is none for this kind of adapter.
    #[error("{0}")]
    Unsuited(String),
}
