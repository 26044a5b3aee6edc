//! What a run trains on: files read, the tokenizer trained, examples made as the objective says.

use super::TrainError;
use super::record_corpus::of_records;
use super::texts::{DataSummary, Texts};
use super::token_folder::Tokenized;
use super::tokenize::{FIRST_OWN, RunTokenizer};
use crate::data::{DataError, Example, ExampleSource, IGNORED, TokenStore, data_files};
use crate::objective::baseline::{MaskedBaselines, masked_baselines};
use crate::objective::{Frame, Masking, Noise, PackedRows, SpanCorruption, Windows, WordPieces};
use crate::recipe::{DataSection, ObjectiveSection, PackingRule, Recipe};
use crate::tokenizer::TokenizerDef;
use sha2::{Digest, Sha256};
use siskin_runtime::TokenId;
use std::io::Read;
use std::path::Path;

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
    /// The tokenizer.
    pub tokenizer: TokenizerDef,
    /// The tokenizer's file.
    pub tokenizer_json: Vec<u8>,
    /// What begins and ends texts.
    pub frame: Frame,
    /// Digest of the recipe and the data: what a state may be resumed with.
    pub fingerprint: String,
    /// What became of the documents.
    pub summary: DataSummary,
}

impl Corpus {
    /// Reads the data, trains the tokenizer on its training part, and makes examples of both parts.
    pub fn prepare(recipe: &Recipe) -> Result<Self, TrainError> {
        let fingerprint = fingerprint(recipe)?;
        match recipe.objective.takes_records() {
            true => of_records(recipe, fingerprint),
            false => of_texts(recipe, fingerprint),
        }
    }

    /// What became of the documents, if there were several.
    pub fn several_documents(&self) -> Option<DataSummary> {
        (self.summary.n_documents > 1).then_some(self.summary)
    }
}

/// Digest of all that a state must not be resumed without.
fn fingerprint(recipe: &Recipe) -> Result<String, TrainError> {
    // The path may be spelled otherwise when the run is resumed; the data itself is in the digest.
    let identity = Recipe { data: recipe.data.without_paths(), ..recipe.clone() };
    digest_of(&toml_of(&identity)?, &recipe.data.text)
}

/// Digest of all that the tokens of a text depend on.
fn tokens_fingerprint(recipe: &Recipe) -> Result<String, TrainError> {
    let data = DataSection { packing: PackingRule::default(), ..recipe.data.without_paths() };
    let own = own_specials(recipe).join(" ");
    let ends = document_end(recipe, 0).is_some();
    let identity = format!("{}\n{}\n{own}\n{ends}", toml_of(&data)?, toml_of(&recipe.tokenizer)?);
    digest_of(&identity, &recipe.data.text)
}

fn toml_of(value: &impl serde::Serialize) -> Result<String, TrainError> {
    toml::to_string(value).map_err(|error| TrainError::Recipe(error.to_string()))
}

/// SHA-256 of `identity` and of the content of a file, or of the names and contents of a folder's files.
fn digest_of(identity: &str, path: &Path) -> Result<String, TrainError> {
    let mut digest = Sha256::new().chain_update(identity).chain_update([0]);
    let is_folder = path.is_dir();
    let mut buffer = vec![0; 1 << 16];
    for file in data_files(path)? {
        let failed = |source| DataError::Read { path: file.clone(), source };
        let mut open = std::fs::File::open(&file).map_err(failed)?;
        if is_folder {
            let name = file.strip_prefix(path).unwrap_or(&file);
            let n_bytes = open.metadata().map_err(failed)?.len();
            digest.update(name.as_os_str().as_encoded_bytes());
            digest.update([0]);
            digest.update(n_bytes.to_le_bytes());
        }
        loop {
            match open.read(&mut buffer).map_err(failed)? {
                0 => break,
                n_bytes => digest.update(&buffer[..n_bytes]),
            }
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
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

/// What closes each document. Packed examples that are framed with `eos` anyway do without.
fn document_end(recipe: &Recipe, eos: TokenId) -> Option<TokenId> {
    let is_framed = matches!(recipe.objective, ObjectiveSection::Masked(_) | ObjectiveSection::SpanCorruption(_));
    (!is_framed || recipe.data.packing == PackingRule::Windows).then_some(eos)
}

fn of_texts(recipe: &Recipe, fingerprint: String) -> Result<Corpus, TrainError> {
    let Tokenized { tokenizer, train, validation, held_out, summary } = tokenized(recipe)?;
    let (noise, frame, context_len) = (noise(recipe, &tokenizer), tokenizer.frame, recipe.model.context_len);
    let is_causal = matches!(noise, Noise::Causal);
    let is_masked = matches!(noise, Noise::Masked(_));
    let baselines_of =
        |tokens: &TokenStore, validation: &[Example]| is_masked.then(|| masked_baselines(tokens.iter(), validation));
    let (source, baselines, n_told_bytes): (Box<dyn ExampleSource>, _, _) = match recipe.data.packing {
        PackingRule::Windows => {
            let validation = validation.tokens(0..validation.n_tokens());
            let windows = Windows::new((train, &validation), context_len, noise, frame)?;
            let baselines = baselines_of(windows.tokens(), windows.validation());
            (Box::new(windows), baselines, summary.n_validation_bytes)
        }
        PackingRule::BestFit => {
            let rows = PackedRows::new((train, &validation), context_len, noise, frame)?;
            let baselines = baselines_of(rows.tokens(), rows.validation());
            let n_told_bytes = told_bytes(&tokenizer, rows.validation());
            (Box::new(rows), baselines, n_told_bytes)
        }
    };
    Ok(Corpus {
        labels: Vec::new(),
        n_validation_bytes: is_causal.then_some(n_told_bytes),
        held_out,
        baselines,
        source,
        frame,
        tokenizer: tokenizer.definition,
        tokenizer_json: tokenizer.json,
        fingerprint,
        summary,
    })
}

/// The tokens of the recipe's text: from their folder, if there is one with what they would be.
fn tokenized(recipe: &Recipe) -> Result<Tokenized, TrainError> {
    let shards = match &recipe.data.shards {
        Some(path) => Some((path, tokens_fingerprint(recipe)?)),
        None => None,
    };
    if let Some((path, fingerprint)) = &shards
        && let Some(found) = Tokenized::open(path, fingerprint)?
    {
        return Ok(found);
    }
    let texts = Texts::read(&recipe.data)?;
    let tokenizer =
        texts.train_tokenizer(|texts| RunTokenizer::train(texts, &recipe.tokenizer, own_specials(recipe)))?;
    let end = document_end(recipe, tokenizer.frame.eos);
    match shards {
        Some((path, fingerprint)) => Tokenized::write(path, &texts, &tokenizer, end, &fingerprint),
        None => Tokenized::in_memory(&texts, tokenizer, end),
    }
}

fn noise(recipe: &Recipe, tokenizer: &RunTokenizer) -> Noise {
    match &recipe.objective {
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
    }
}

/// Bytes of text that the targets of some examples stand for.
fn told_bytes(tokenizer: &RunTokenizer, examples: &[Example]) -> usize {
    let Frame { bos, eos } = tokenizer.frame;
    let targets = examples.iter().flat_map(|example| &example.targets).copied();
    let told = targets.filter(|target| ![IGNORED, bos, eos].contains(target));
    told.map(|target| tokenizer.definition.pieces[target as usize].len()).sum()
}
