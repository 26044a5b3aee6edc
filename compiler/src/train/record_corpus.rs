//! What a run over records trains on: pairs, labelled texts, tagged words.

use super::TrainError;
use super::corpus::Corpus;
use super::texts::{DataSummary, SPLIT_SEED};
use super::tokenize::{RunTokenizer, encode};
use crate::data::{
    DataError, Deduplication, Document, DocumentSplit, Example, Origin, Record, SeenDocuments, data_files, read_records,
};
use crate::objective::{RecordEncoder, Records};
use crate::recipe::{DataSection, ObjectiveSection, PackingRule, Recipe, SplitRule};

/// Reads the records, trains the tokenizer on those of the training part, and makes examples of both parts.
pub(super) fn of_records(recipe: &Recipe, fingerprint: String) -> Result<Corpus, TrainError> {
    let mut summary = DataSummary::default();
    let (train, validation) = parts(&recipe.data, &mut summary)?;
    let (texts, labels) = texts_and_labels(recipe, &train)?;
    let tokenizer = RunTokenizer::train(texts.iter(), &recipe.tokenizer, Vec::new())?;
    let mut corpus_encoder = tokenizer.encoder();
    let mut encode = |text: &str| encode(&mut corpus_encoder, text);
    let mut encoder = RecordEncoder {
        encode: &mut encode,
        kind: recipe.model.architecture.kind(),
        context_len: recipe.model.context_len,
        bos: tokenizer.frame.bos,
        eos: tokenizer.frame.eos,
    };
    let mut examples = |records: &[Record]| -> Result<Vec<Example>, TrainError> {
        let example = |record: &Record| match &recipe.objective {
            ObjectiveSection::Classification(fields) => encoder.classification(record, fields, &labels),
            ObjectiveSection::TokenClassification(fields) => encoder.token_classification(record, fields, &labels),
            ObjectiveSection::Seq2seq(fields) => encoder.seq2seq(record, fields),
            _ => Err(record.bad("this objective takes no records")),
        };
        Ok(records.iter().map(example).collect::<Result<_, _>>()?)
    };
    let (train_examples, validation_examples) = (examples(&train)?, examples(&validation)?);
    let mut source = Records::new(train_examples, validation_examples)?;
    if recipe.data.packing == PackingRule::BestFit {
        source = source.packed(recipe.model.context_len);
    }
    drop(corpus_encoder);
    Ok(Corpus {
        source: Box::new(source),
        labels,
        n_validation_bytes: None,
        held_out: ("validation.jsonl", validation.iter().map(|record| record.to_json() + "\n").collect()),
        baselines: None,
        frame: tokenizer.frame,
        tokenizer: tokenizer.definition,
        tokenizer_json: tokenizer.json,
        fingerprint,
        summary,
        general: None,
        chat_template: None,
        tasks: Vec::new(),
    })
}

/// The records to train on and those to validate on, each in their order, without repeated ones where that is asked for.
fn parts(section: &DataSection, summary: &mut DataSummary) -> Result<(Vec<Record>, Vec<Record>), DataError> {
    let mut records = Vec::new();
    for file in data_files(&section.text)? {
        records.extend(read_records(&file)?);
    }
    parted(records, section, summary, document)
}

/// As [`parts`], of anything that `document` tells the text of.
pub(super) fn parted<T>(
    mut records: Vec<T>,
    section: &DataSection,
    summary: &mut DataSummary,
    document: impl Fn(&T) -> Document,
) -> Result<(Vec<T>, Vec<T>), DataError> {
    let n_bytes = |records: &[T]| records.iter().map(|record| document(record).n_bytes()).sum::<usize>();
    summary.n_documents = records.len();
    if section.deduplicate != Deduplication::Off {
        let mut seen = SeenDocuments::default();
        let n_bytes_before = n_bytes(&records);
        records.retain(|record| !seen.repeats(&document(record)));
        summary.duplicates.n_exact = summary.n_documents - records.len();
        summary.duplicates.n_bytes = n_bytes_before - n_bytes(&records);
    }
    if records.is_empty() {
        return Err(DataError::Empty { path: section.text.clone() });
    }
    let (train, validation) = match section.split {
        SplitRule::Order => {
            let n_train = (records.len() as f64 * section.train_fraction) as usize;
            let validation = records.split_off(n_train);
            (records, validation)
        }
        SplitRule::Document => {
            let split = DocumentSplit { train_fraction: section.train_fraction, seed: SPLIT_SEED };
            records.into_iter().partition(|record| split.is_train(&document(record)))
        }
    };
    (summary.n_train_documents, summary.n_train_bytes) = (train.len(), n_bytes(&train));
    (summary.n_validation_documents, summary.n_validation_bytes) = (validation.len(), n_bytes(&validation));
    Ok((train, validation))
}

/// All fields of a record as one text.
fn document(record: &Record) -> Document {
    let (path, line) = record.origin();
    Document { text: record.to_json(), label: None, target: None, origin: Origin { path: path.into(), line } }
}

/// The texts that the tokenizer is trained on, and a classifier's labels in order.
fn texts_and_labels(recipe: &Recipe, train: &[Record]) -> Result<(Vec<String>, Vec<String>), DataError> {
    let (mut texts, mut labels) = (Vec::new(), Vec::new());
    for record in train {
        match &recipe.objective {
            ObjectiveSection::Seq2seq(fields) => {
                texts.extend([record.text(&fields.source)?, record.text(&fields.target)?]);
            }
            ObjectiveSection::Classification(fields) => {
                texts.push(record.text(&fields.text)?);
                labels.push(record.text(&fields.label)?);
            }
            ObjectiveSection::TokenClassification(fields) => {
                texts.push(record.list(&fields.tokens)?.join(" "));
                labels.extend(record.list(&fields.tags)?);
            }
            _ => {}
        }
    }
    labels.sort_unstable();
    labels.dedup();
    Ok((texts, labels))
}
