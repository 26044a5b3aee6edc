//! `[data]`: what is trained on.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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

fn default_train_fraction() -> f64 {
    0.9
}
