//! `[data]`: what is trained on.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[data]`: one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The file; a relative path starts at the recipe's folder. UTF-8 text, or records (`.jsonl`, `.csv`), which objectives that need
    /// more than a text ask for; elsewhere each record's `field` is a document.
    pub text: PathBuf,
    /// The field of a record that has its text, where the file has records and the objective needs nothing else.
    #[serde(default = "default_field", skip_serializing_if = "is_default_field")]
    pub field: String,
    /// Share of the characters, or of the records, from the first on, to train on; the rest is for validation.
    #[serde(default = "default_train_fraction")]
    pub train_fraction: f64,
}

fn default_train_fraction() -> f64 {
    0.9
}

fn default_field() -> String {
    "text".into()
}

fn is_default_field(field: &String) -> bool {
    *field == default_field()
}
