//! What a run trains on: files read, the tokenizer trained, examples made as the objective says.

use super::TrainError;
use super::tokenize::{BOS, EOS, FIRST_OWN, RunTokenizer, encode};
use crate::data::{DataError, Example, ExampleSource, Record, read_records, read_text, split_text};
use crate::objective::baseline::{MaskedBaselines, masked_baselines};
use crate::objective::{Masking, Noise, RecordEncoder, Records, SpanCorruption, Windows, WordPieces};
use crate::recipe::{ObjectiveSection, Recipe};
use crate::tokenizer::CorpusEncoder;
use sha2::{Digest, Sha256};
use siskin_runtime::TokenId;
use std::path::{Path, PathBuf};

/// The data of a run.
pub(super) struct Corpus {
    /// Examples to train on and to validate on.
    pub source: Box<dyn ExampleSource>,
    /// A classifier's labels, by number.
    pub labels: Vec<String>,
    /// Bytes of text that the validation examples tell, for a causal model.
    pub n_validation_bytes: Option<usize>,
    /// What is not trained on: the name of the file that keeps it, and its content.
    pub held_out: (&'static str, String),
    /// What counting alone reaches, for a masked language model.
    pub baselines: Option<MaskedBaselines>,
    /// The tokenizer's file.
    pub tokenizer_json: Vec<u8>,
    /// Digest of the recipe and the data: what a state may be resumed with.
    pub fingerprint: String,
}

impl Corpus {
    /// Reads the data, trains the tokenizer on its training part, and makes examples of both parts.
    pub fn prepare(recipe: &Recipe) -> Result<Self, TrainError> {
        let path = &recipe.data.text;
        let fingerprint = fingerprint(recipe)?;
        if recipe.objective.takes_records() {
            return of_records(recipe, &read_records(path)?, fingerprint);
        }
        if !has_records(path) {
            let text = read_text(path)?;
            let (train, validation) = split_text(&text, recipe.data.train_fraction);
            let held_out = ("validation.txt", validation.to_owned());
            return of_documents(recipe, (&[train], &[validation]), held_out, fingerprint);
        }
        let records = read_records(path)?;
        let texts: Result<Vec<String>, _> = records.iter().map(|record| record.text(&recipe.data.field)).collect();
        let texts = texts?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let n_train = n_train(&records, recipe);
        let held_out = ("validation.jsonl", json_lines(&records[n_train..]));
        of_documents(recipe, texts.split_at(n_train), held_out, fingerprint)
    }
}

/// Whether the file's name says that it holds records.
fn has_records(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson" || extension == "csv")
}

fn n_train(records: &[Record], recipe: &Recipe) -> usize {
    (records.len() as f64 * recipe.data.train_fraction) as usize
}

fn json_lines(records: &[Record]) -> String {
    records.iter().map(|record| record.to_json() + "\n").collect()
}

/// Digest of all that a state must not be resumed without.
fn fingerprint(recipe: &Recipe) -> Result<String, TrainError> {
    // The path may be spelled otherwise when the run is resumed; the data itself is in the digest.
    let mut identity = recipe.clone();
    identity.data.text = PathBuf::new();
    let identity = toml::to_string(&identity).map_err(|error| TrainError::Recipe(error.to_string()))?;
    let path = &recipe.data.text;
    let data = std::fs::read(path).map_err(|source| DataError::Read { path: path.clone(), source })?;
    let digest = Sha256::new().chain_update(identity).chain_update([0]).chain_update(data).finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Special tokens that an objective needs for itself.
fn own_specials(recipe: &Recipe) -> Vec<String> {
    match &recipe.objective {
        ObjectiveSection::Masked(_) => vec!["<mask>".into()],
        ObjectiveSection::SpanCorruption(section) => {
            let longest = section.lengths(recipe.model.context_len).window;
            let n_sentinels = (2..=longest).map(|window| section.cuts(window).1).max().unwrap_or(1);
            (0..n_sentinels).map(|i| format!("<extra_id_{i}>")).collect()
        }
        _ => Vec::new(),
    }
}

fn of_documents(
    recipe: &Recipe,
    (train, validation): (&[&str], &[&str]),
    held_out: (&'static str, String),
    fingerprint: String,
) -> Result<Corpus, TrainError> {
    let tokenizer = RunTokenizer::train(train, &recipe.tokenizer, own_specials(recipe))?;
    let mut encoder = tokenizer.encoder();
    // One text is a stream of its own; several are documents, each with its end.
    let ends = held_out.0 != "validation.txt";
    let mut tokens_of = |texts: &[&str]| stream(&mut encoder, texts, ends);
    let (train, validation_tokens) = (tokens_of(train), tokens_of(validation));
    let noise = match &recipe.objective {
        ObjectiveSection::Prefix(_) => Noise::Prefix,
        ObjectiveSection::Masked(section) => Noise::Masked(Masking {
            section: *section,
            mask: FIRST_OWN,
            first_plain: FIRST_OWN + 1,
            vocab_size: recipe.tokenizer.vocab_size as TokenId,
            words: WordPieces::new(&tokenizer.definition),
        }),
        ObjectiveSection::SpanCorruption(section) => {
            Noise::SpanCorruption(SpanCorruption { section: *section, first_sentinel: FIRST_OWN })
        }
        _ => Noise::Causal,
    };
    let is_causal = matches!(noise, Noise::Causal);
    let is_masked = matches!(noise, Noise::Masked(_));
    let windows = Windows::new((train, &validation_tokens), recipe.model.context_len, noise, (BOS, EOS))?;
    let baselines = is_masked.then(|| masked_baselines(windows.tokens(), windows.validation()));
    Ok(Corpus {
        labels: Vec::new(),
        n_validation_bytes: is_causal.then(|| validation.iter().map(|text| text.len()).sum()),
        held_out,
        baselines,
        source: Box::new(windows),
        tokenizer_json: tokenizer.json.clone(),
        fingerprint,
    })
}

fn stream(encoder: &mut CorpusEncoder<'_>, texts: &[&str], ends: bool) -> Vec<TokenId> {
    let mut tokens = Vec::new();
    for text in texts {
        tokens.extend(encode(encoder, text));
        tokens.extend(ends.then_some(EOS));
    }
    tokens
}

fn of_records(recipe: &Recipe, records: &[Record], fingerprint: String) -> Result<Corpus, TrainError> {
    let (train, validation) = records.split_at(n_train(records, recipe));
    let mut texts = Vec::new();
    let mut labels = Vec::new();
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
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let tokenizer = RunTokenizer::train(&texts, &recipe.tokenizer, Vec::new())?;
    let mut corpus_encoder = tokenizer.encoder();
    let mut encode = |text: &str| encode(&mut corpus_encoder, text);
    let mut encoder = RecordEncoder {
        encode: &mut encode,
        kind: recipe.model.architecture.kind(),
        context_len: recipe.model.context_len,
        bos: BOS,
        eos: EOS,
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
    let (train_examples, validation_examples) = (examples(train)?, examples(validation)?);
    Ok(Corpus {
        source: Box::new(Records::new(train_examples, validation_examples)?),
        labels,
        n_validation_bytes: None,
        held_out: ("validation.jsonl", json_lines(validation)),
        baselines: None,
        tokenizer_json: tokenizer.json.clone(),
        fingerprint,
    })
}
