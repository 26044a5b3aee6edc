//! `[data]`: what is trained on.

use crate::data::{Deduplication, Separation};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::path::PathBuf;

/// `[data]`: files, and how they become documents and examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// A file, or a folder with all that lies in it; a relative path starts at the recipe's folder. UTF-8 texts, or records (`.jsonl`,
    /// `.ndjson`, `.csv`), which objectives that need more than a text ask for; elsewhere each record's `field` is a document.
    pub text: PathBuf,
    /// The field of a record that has its text, where there are records and the objective needs nothing else.
    #[serde(default = "default_field", skip_serializing_if = "is_default_field")]
    pub field: String,
    /// What parts the documents of a text file: `"files"` (nothing), `"blank_lines"`, or `{ line = "<|endoftext|>" }`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub documents: Separation,
    /// Share of the text, or of the documents or records, to train on; the rest is for validation.
    #[serde(default = "default_train_fraction")]
    pub train_fraction: f64,
    /// Which part is held out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub split: SplitRule,
    /// Whether documents that repeat an earlier one are dropped: `true` for those that differ in white space at most, `"near"` for
    /// those too that share four fifths of their runs of five words, for which all documents are held in memory.
    #[serde(
        default,
        skip_serializing_if = "is_default",
        serialize_with = "write_deduplication",
        deserialize_with = "read_deduplication"
    )]
    pub deduplicate: Deduplication,
    /// How documents become examples.
    #[serde(default, skip_serializing_if = "is_default")]
    pub packing: PackingRule,
    /// A folder for the tokens, made if missing and mapped into memory: for corpora that are larger than memory, and to have the
    /// tokens at once when the same data is trained on again. A relative path starts at the recipe's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<PathBuf>,
    /// What a model that goes on from another must not forget: it is trained on too, and measured before and after. It is parted,
    /// held out and packed as the data itself; where it is one text, by its characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplaySection>,
}

/// `data.replay`: general data beside that of a domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaySection {
    /// As `data.text`.
    pub text: PathBuf,
    /// Share of the examples that are drawn from it; with 0 it is measured only.
    pub share: f64,
}

impl DataSection {
    /// The section with its paths emptied: they may be spelled otherwise when a run is resumed.
    pub fn without_paths(&self) -> Self {
        let replay = self.replay.as_ref().map(|replay| ReplaySection { text: PathBuf::new(), ..replay.clone() });
        Self { text: PathBuf::new(), shards: None, replay, ..self.clone() }
    }

    /// The section of the data to be replayed.
    pub fn of_replay(&self) -> Option<Self> {
        let text = self.replay.as_ref()?.text.clone();
        let shards = self.shards.as_ref().map(|shards| {
            let mut name = shards.file_name().unwrap_or_default().to_owned();
            name.push("-replay");
            shards.with_file_name(name)
        });
        Some(Self { text, shards, replay: None, ..self.clone() })
    }
}

/// Which part of the data is held out for validation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitRule {
    /// The end: of a text's characters, or of the documents or records in their order.
    #[default]
    Order,
    /// Documents by a hash of their texts, wherever they stand: adding some moves no other.
    Document,
}

/// How documents become examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackingRule {
    /// Windows at random places of all documents in a row; a window may reach from one into the next.
    #[default]
    Windows,
    /// Rows of whole documents, cut only where longer than a row, in an order of its own each pass. Each is read on its own: positions
    /// start anew and attention stays inside.
    BestFit,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn write_deduplication<S: Serializer>(rule: &Deduplication, serializer: S) -> Result<S::Ok, S::Error> {
    match rule {
        Deduplication::Off => serializer.serialize_bool(false),
        Deduplication::Exact => serializer.serialize_bool(true),
        Deduplication::Near => serializer.serialize_str("near"),
    }
}

fn read_deduplication<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Deduplication, D::Error> {
    struct Rule;
    impl de::Visitor<'_> for Rule {
        type Value = Deduplication;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("true, false or \"near\"")
        }

        fn visit_bool<E: de::Error>(self, drops: bool) -> Result<Deduplication, E> {
            Ok(if drops { Deduplication::Exact } else { Deduplication::Off })
        }

        fn visit_str<E: de::Error>(self, name: &str) -> Result<Deduplication, E> {
            match name {
                "near" => Ok(Deduplication::Near),
                _ => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
            }
        }
    }
    deserializer.deserialize_any(Rule)
}
