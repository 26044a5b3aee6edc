//! The texts of a run: read document by document, those that repeat others dropped, and parted for training and validation.

use super::TrainError;
use super::tokenize::{RunTokenizer, encode};
use crate::data::{
    DataError, Deduplication, DocumentFields, DocumentReading, DocumentSplit, DocumentStream, DuplicateCounts,
    Duplicates, SeenDocuments, Separation, TokenStore, has_records, read_documents, read_text, split_text,
};
use crate::objective::sft::SftCounts;
use crate::recipe::{DataSection, SplitRule};
use serde::{Deserialize, Serialize};
use serde_json::json;
use siskin_runtime::TokenId;
use std::collections::HashSet;

/// Which documents are held out does not depend on `train.seed`, so that runs with several seeds can be compared.
pub(super) const SPLIT_SEED: u64 = 0;

/// What became of the documents of a run's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSummary {
    /// Documents, or records, that were read.
    pub n_documents: usize,
    /// Those that were dropped because they repeat another.
    pub duplicates: DuplicateCounts,
    /// Those that are trained on.
    pub n_train_documents: usize,
    /// Those that are held out.
    pub n_validation_documents: usize,
    /// Bytes of text to train on; of records, as JSON.
    pub n_train_bytes: usize,
    /// Bytes of text that are held out; of records, as JSON.
    pub n_validation_bytes: usize,
    /// What became of the examples, for supervised fine-tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftCounts>,
}

impl DataSummary {
    /// Adds what became of other documents.
    pub(super) fn add(&mut self, other: &Self) {
        self.n_documents += other.n_documents;
        self.duplicates.n_exact += other.duplicates.n_exact;
        self.duplicates.n_near += other.duplicates.n_near;
        self.duplicates.n_bytes += other.duplicates.n_bytes;
        self.n_train_documents += other.n_train_documents;
        self.n_validation_documents += other.n_validation_documents;
        self.n_train_bytes += other.n_train_bytes;
        self.n_validation_bytes += other.n_validation_bytes;
    }
}

/// What becomes of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Train,
    Validation,
    Dropped,
}

/// Texts of which nothing is in memory but what must be.
pub(super) enum Texts<'a> {
    /// One text, parted somewhere inside.
    Plain { train: String, validation: String },
    /// Documents, to be read again, and what becomes of each.
    Documents { section: &'a DataSection, fates: Vec<Fate>, summary: DataSummary },
}

impl<'a> Texts<'a> {
    /// Reads what `section` names for the first time.
    pub fn read(section: &'a DataSection) -> Result<Self, DataError> {
        if !is_one_text(section) {
            return Self::of_documents(section);
        }
        let one = |key| Err(DataError::OneDocument { path: section.text.clone(), key });
        if section.split == SplitRule::Document {
            return one("split");
        }
        if section.deduplicate != Deduplication::Off {
            return one("deduplicate");
        }
        let text = read_text(&section.text)?;
        if text.trim().is_empty() {
            return Err(DataError::Empty { path: section.text.clone() });
        }
        let (train, validation) = split_text(&text, section.train_fraction);
        Ok(Self::Plain { train: train.to_owned(), validation: validation.to_owned() })
    }

    fn of_documents(section: &'a DataSection) -> Result<Self, DataError> {
        let split = DocumentSplit { train_fraction: section.train_fraction, seed: SPLIT_SEED };
        let mut seen = SeenDocuments::default();
        let mut summary = DataSummary::default();
        let (near, nearly_seen) = near_duplicates(section)?;
        let (mut fates, mut lens) = (Vec::new(), Vec::new());
        for document in DocumentStream::open(&section.text, &reading(section))? {
            let document = document?;
            let is_near = near.contains(&fates.len());
            let is_exact = section.deduplicate == Deduplication::Exact && seen.repeats(&document);
            fates.push(match (is_near || is_exact, section.split) {
                (true, _) => Fate::Dropped,
                (false, SplitRule::Document) if !split.is_train(&document) => Fate::Validation,
                (false, _) => Fate::Train,
            });
            if is_exact {
                summary.duplicates.n_exact += 1;
                summary.duplicates.n_bytes += document.n_bytes();
            }
            lens.push(document.n_bytes());
        }
        if fates.is_empty() {
            return Err(DataError::Empty { path: section.text.clone() });
        }
        if section.deduplicate == Deduplication::Near {
            summary.duplicates = nearly_seen;
        }
        if section.split == SplitRule::Order {
            hold_out_the_end(&mut fates, section.train_fraction);
        }
        summary.n_documents = fates.len();
        for (fate, len) in fates.iter().zip(lens) {
            let (n_documents, n_bytes) = match fate {
                Fate::Train => (&mut summary.n_train_documents, &mut summary.n_train_bytes),
                Fate::Validation => (&mut summary.n_validation_documents, &mut summary.n_validation_bytes),
                Fate::Dropped => continue,
            };
            *n_documents += 1;
            *n_bytes += len;
        }
        match summary.n_train_documents {
            0 => Err(DataError::TooShort { part: "training", n_tokens: 0, needed: 1 }),
            _ => Ok(Self::Documents { section, fates, summary }),
        }
    }

    /// What became of the documents.
    pub fn summary(&self) -> DataSummary {
        match self {
            Self::Plain { train, validation } => DataSummary {
                n_documents: 1,
                n_train_documents: 1,
                n_validation_documents: usize::from(!validation.is_empty()),
                n_train_bytes: train.len(),
                n_validation_bytes: validation.len(),
                ..DataSummary::default()
            },
            Self::Documents { summary, .. } => *summary,
        }
    }

    /// The texts of one part, one after another. It ends at the first error.
    pub fn part(
        &self,
        part: Fate,
    ) -> Result<Box<dyn Iterator<Item = Result<String, DataError>> + Send + '_>, DataError> {
        match self {
            Self::Plain { train, validation } => {
                let text = if part == Fate::Train { train } else { validation };
                Ok(Box::new(std::iter::once(Ok(text.clone()))))
            }
            Self::Documents { section, fates, .. } => {
                let mut documents = DocumentStream::open(&section.text, &reading(section))?;
                let mut fates = fates.iter();
                let changed = || Some(Err(DataError::Changed { path: section.text.clone() }));
                let next = move || loop {
                    match (documents.next(), fates.next()) {
                        (None, None) => return None,
                        (Some(Err(error)), _) => return Some(Err(error)),
                        (Some(Ok(document)), Some(fate)) if *fate == part => return Some(Ok(document.text)),
                        (Some(Ok(_)), Some(_)) => {}
                        _ => return changed(),
                    }
                };
                Ok(Box::new(std::iter::from_fn(next)))
            }
        }
    }

    /// Trains on the training part.
    pub fn train_tokenizer(
        &self,
        train: impl FnOnce(&mut (dyn Iterator<Item = String> + Send)) -> Result<RunTokenizer, TrainError>,
    ) -> Result<RunTokenizer, TrainError> {
        let mut failure = None;
        let mut texts = self.part(Fate::Train)?.map_while(|text| text.map_err(|error| failure = Some(error)).ok());
        let trained = train(&mut texts);
        drop(texts);
        match failure {
            Some(error) => Err(error.into()),
            None => trained,
        }
    }

    /// The tokens of a part, a document after another; `end` closes each document, where there are several.
    pub fn encoded<'t>(
        &'t self,
        part: Fate,
        tokenizer: &'t RunTokenizer,
        end: Option<TokenId>,
    ) -> Result<impl Iterator<Item = Result<Vec<TokenId>, DataError>> + 't, DataError> {
        let mut encoder = tokenizer.encoder();
        let end = end.filter(|_| matches!(self, Self::Documents { .. }));
        Ok(self.part(part)?.map(move |text| {
            let mut tokens = encode(&mut encoder, &text?);
            tokens.extend(end);
            Ok(tokens)
        }))
    }

    /// The tokens of a part, in memory.
    pub fn held(&self, part: Fate, tokenizer: &RunTokenizer, end: Option<TokenId>) -> Result<TokenStore, DataError> {
        TokenStore::held(self.encoded(part, tokenizer, end)?)
    }

    /// The held-out part as a file that a recipe can name: what it is called, and its content.
    pub fn held_out(&self) -> Result<(&'static str, String), DataError> {
        match self {
            Self::Plain { validation, .. } => Ok(("validation.txt", validation.clone())),
            Self::Documents { section, .. } => {
                let lines = self.part(Fate::Validation)?;
                let lines = lines.map(|text| Ok(json!({ section.field.as_str(): text? }).to_string() + "\n"));
                Ok(("validation.jsonl", lines.collect::<Result<_, DataError>>()?))
            }
        }
    }
}

/// Whether the data is a single text that is not parted into documents.
pub(super) fn is_one_text(section: &DataSection) -> bool {
    section.documents == Separation::Files && !section.text.is_dir() && !has_records(&section.text)
}

fn reading(section: &DataSection) -> DocumentReading {
    let fields = DocumentFields { text: section.field.clone(), ..DocumentFields::default() };
    DocumentReading { separation: section.documents.clone(), fields }
}

/// Indices of the documents that repeat others nearly or wholly, where that is asked for, and how many of each.
fn near_duplicates(section: &DataSection) -> Result<(HashSet<usize>, DuplicateCounts), DataError> {
    if section.deduplicate != Deduplication::Near {
        return Ok(Default::default());
    }
    let documents = read_documents(&section.text, &reading(section))?;
    let duplicates = Duplicates::find(&documents, Deduplication::Near);
    let counts = duplicates.counts(&documents);
    Ok((duplicates.found.into_iter().map(|duplicate| duplicate.document).collect(), counts))
}

/// Leaves the first documents that stay to be trained on, one at the least.
fn hold_out_the_end(fates: &mut [Fate], train_fraction: f64) {
    let n_kept = fates.iter().filter(|fate| **fate != Fate::Dropped).count();
    let n_train = ((n_kept as f64 * train_fraction) as usize).max(1);
    for fate in fates.iter_mut().filter(|fate| **fate != Fate::Dropped).skip(n_train) {
        *fate = Fate::Validation;
    }
}
