//! What a run trains on: files read, the tokenizer trained, examples made as the objective says.

use super::TrainError;
use super::adaptation::General;
use super::record_corpus::of_records;
use super::sft_corpus::of_sft;
use super::texts::{DataSummary, Texts, is_one_text};
use super::token_folder::Tokenized;
use super::tokenize::RunTokenizer;
use crate::artifact::hf;
use crate::data::{DataError, Deduplication, Example, ExampleSource, IGNORED, ReplayedSource, TokenStore, data_files};
use crate::objective::baseline::{MaskedBaselines, masked_baselines};
use crate::objective::sft::TaskShare;
use crate::objective::{Frame, Masking, Noise, PackedRows, SpanCorruption, Windows, WordPieces};
use crate::recipe::{DataSection, ModelSection, ObjectiveSection, PackingRule, Recipe, SplitRule};
use crate::tokenizer::TokenizerDef;
use sha2::{Digest, Sha256};
use siskin_runtime::TokenId;
use std::io::Read;
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
    /// What a model that goes on from another is not to forget.
    pub general: Option<General>,
    /// How a chat with the model is written.
    pub chat_template: Option<String>,
    /// How tasks are mixed, where there are several.
    pub tasks: Vec<TaskShare>,
}

impl Corpus {
    /// Reads the data, trains the tokenizer on its training part, and makes examples of both parts.
    pub fn prepare(recipe: &Recipe) -> Result<Self, TrainError> {
        let fingerprint = fingerprint(recipe)?;
        match &recipe.objective {
            ObjectiveSection::Sft(section) => of_sft(recipe, section, fingerprint),
            objective if objective.takes_records() => of_records(recipe, fingerprint),
            _ => of_texts(recipe, fingerprint),
        }
    }

    /// What became of the documents, if there were several.
    pub fn several_documents(&self) -> Option<DataSummary> {
        (self.summary.n_documents > 1).then_some(self.summary)
    }
}

/// Digest of all that a state must not be resumed without.
fn fingerprint(recipe: &Recipe) -> Result<String, TrainError> {
    // The paths may be spelled otherwise when the run is resumed; what they lead to is in the digest.
    let init_from = recipe.model.init_from.as_ref();
    let model = ModelSection { init_from: init_from.map(|_| PathBuf::new()), ..recipe.model.clone() };
    let mut identity = toml_of(&Recipe { data: recipe.data.without_paths(), model, ..recipe.clone() })?;
    if let Some(folder) = init_from {
        for name in ["model.safetensors", "tokenizer.json"] {
            let file = folder.join(name);
            if !file.is_file() {
                return Err(TrainError::InitFrom { path: folder.clone(), problem: format!("it has no {name}") });
            }
            identity += &digest_of(name, &file)?;
        }
    }
    if let Some(replay) = &recipe.data.replay {
        identity += &digest_of("replay", &replay.text)?;
    }
    digest_of(&identity, &recipe.data.text)
}

/// Digest of all that the tokens of a section's text depend on.
fn tokens_fingerprint(recipe: &Recipe, section: &DataSection) -> Result<String, TrainError> {
    let data = DataSection { packing: PackingRule::default(), replay: None, ..section.without_paths() };
    let own = own_specials(recipe).join(" ");
    let ends = document_end(recipe, 0).is_some();
    let mut identity = format!("{}\n{}\n{own}\n{ends}", toml_of(&data)?, toml_of(&recipe.tokenizer)?);
    if let Some(folder) = &recipe.model.init_from {
        identity += &digest_of("tokenizer", &folder.join("tokenizer.json"))?;
    }
    digest_of(&identity, &section.text)
}

/// A fingerprint of what `fingerprint` tells and `more`.
pub(super) fn fingerprint_with(fingerprint: &str, more: &str) -> String {
    let digest = Sha256::new().chain_update(fingerprint).chain_update(more).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
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
    let Tokenized { tokenizer, train, validation, held_out, summary } = tokenized(recipe, &recipe.data)?;
    let noise = noise(recipe, &tokenizer)?;
    let TextExamples { source, baselines, n_validation_bytes } =
        text_examples(recipe, &noise, &tokenizer, (train, validation), summary.n_validation_bytes)?;
    let (source, general) = with_replay(recipe, source, &noise, &tokenizer)?;
    Ok(Corpus {
        labels: Vec::new(),
        n_validation_bytes,
        held_out,
        baselines,
        source,
        general,
        frame: tokenizer.frame,
        tokenizer: tokenizer.definition,
        tokenizer_json: tokenizer.json,
        fingerprint,
        summary,
        chat_template: model_chat_template(recipe)?,
        tasks: Vec::new(),
    })
}

/// The chat template of the model that a recipe goes on from, if there is one.
pub(super) fn model_chat_template(recipe: &Recipe) -> Result<Option<String>, TrainError> {
    Ok(recipe.model.init_from.as_deref().map(hf::load_chat_template).transpose()?.flatten())
}

/// A run's examples with those of the text that it is not to forget among them, where there is one, and its held-out part.
pub(super) fn with_replay(
    recipe: &Recipe,
    own: Box<dyn ExampleSource>,
    noise: &Noise,
    tokenizer: &RunTokenizer,
) -> Result<(Box<dyn ExampleSource>, Option<General>), TrainError> {
    let (Some(section), Some(replay)) = (recipe.data.of_replay(), &recipe.data.replay) else { return Ok((own, None)) };
    let Tokenized { train, validation, summary, .. } = tokenized(recipe, &replay_section(section))?;
    let replayed = text_examples(recipe, noise, tokenizer, (train, validation), summary.n_validation_bytes);
    let replayed = replayed.map_err(|error| match error {
        TrainError::Data(DataError::TooShort { n_tokens, needed, .. }) => {
            DataError::TooShort { part: "replayed", n_tokens, needed }.into()
        }
        error => error,
    })?;
    let validation = replayed.source.validation().to_vec();
    let general = General { validation, n_bytes: replayed.n_validation_bytes };
    Ok((Box::new(ReplayedSource::new(own, replayed.source, replay.share)), Some(general)))
}

/// One text to be replayed is parted by its characters, even where the domain is parted by documents.
fn replay_section(section: DataSection) -> DataSection {
    match is_one_text(&section) {
        true => DataSection { split: SplitRule::default(), deduplicate: Deduplication::default(), ..section },
        false => section,
    }
}

/// The examples that are made of a text's tokens.
struct TextExamples {
    source: Box<dyn ExampleSource>,
    baselines: Option<MaskedBaselines>,
    n_validation_bytes: Option<usize>,
}

/// Makes examples of a training part and of a validation part, whose texts have `n_bytes`.
fn text_examples(
    recipe: &Recipe,
    noise: &Noise,
    tokenizer: &RunTokenizer,
    (train, validation): (TokenStore, TokenStore),
    n_bytes: usize,
) -> Result<TextExamples, TrainError> {
    let (frame, context_len) = (tokenizer.frame, recipe.model.context_len);
    let baselines_of = |tokens: &TokenStore, validation: &[Example]| {
        matches!(noise, Noise::Masked(_)).then(|| masked_baselines(tokens.iter(), validation))
    };
    let (source, baselines, n_told_bytes): (Box<dyn ExampleSource>, _, _) = match recipe.data.packing {
        PackingRule::Windows => {
            let validation = validation.tokens(0..validation.n_tokens());
            let windows = Windows::new((train, &validation), context_len, noise.clone(), frame)?;
            let baselines = baselines_of(windows.tokens(), windows.validation());
            (Box::new(windows), baselines, n_bytes)
        }
        PackingRule::BestFit => {
            let rows = PackedRows::new((train, &validation), context_len, noise.clone(), frame)?;
            let baselines = baselines_of(rows.tokens(), rows.validation());
            let n_told_bytes = told_bytes(tokenizer, rows.validation());
            (Box::new(rows), baselines, n_told_bytes)
        }
    };
    let n_validation_bytes = matches!(noise, Noise::Causal).then_some(n_told_bytes);
    Ok(TextExamples { source, baselines, n_validation_bytes })
}

/// The tokens of a section's text: from their folder, if there is one with what they would be.
fn tokenized(recipe: &Recipe, section: &DataSection) -> Result<Tokenized, TrainError> {
    let shards = match &section.shards {
        Some(path) => Some((path, tokens_fingerprint(recipe, section)?)),
        None => None,
    };
    if let Some((path, fingerprint)) = &shards
        && let Some(found) = Tokenized::open(path, fingerprint)?
    {
        return Ok(found);
    }
    let texts = Texts::read(section)?;
    let tokenizer = match &recipe.model.init_from {
        Some(folder) => RunTokenizer::of_model(folder)?,
        None => texts.train_tokenizer(|texts| RunTokenizer::train(texts, &recipe.tokenizer, own_specials(recipe)))?,
    };
    let end = document_end(recipe, tokenizer.frame.eos);
    match shards {
        Some((path, fingerprint)) => Tokenized::write(path, &texts, &tokenizer, end, &fingerprint),
        None => Tokenized::in_memory(&texts, tokenizer, end),
    }
}

fn noise(recipe: &Recipe, tokenizer: &RunTokenizer) -> Result<Noise, TrainError> {
    let own: Result<Vec<TokenId>, _> =
        own_specials(recipe).iter().map(|name| tokenizer.own_special(name, recipe)).collect();
    let own = own?;
    Ok(match (&recipe.objective, own.as_slice()) {
        (ObjectiveSection::Prefix(_), _) => Noise::Prefix,
        (ObjectiveSection::Masked(section), &[mask, ..]) => {
            let is_special = |id: &TokenId| tokenizer.definition.specials.iter().any(|special| special.id == *id);
            Noise::Masked(Masking {
                section: *section,
                mask,
                first_plain: (0..).find(|id| !is_special(id)).unwrap_or_default(),
                vocab_size: tokenizer.definition.vocab_size() as TokenId,
                words: WordPieces::new(&tokenizer.definition),
            })
        }
        (ObjectiveSection::SpanCorruption(section), sentinels @ &[first_sentinel, ..]) => {
            if !sentinels.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
                let path = recipe.model.init_from.clone().unwrap_or_default();
                let problem = "its tokenizer's sentinels `<extra_id_0>` and so on are not one after another".into();
                return Err(TrainError::InitFrom { path, problem });
            }
            Noise::SpanCorruption(SpanCorruption { section: *section, first_sentinel })
        }
        _ => Noise::Causal,
    })
}

/// Bytes of text that the targets of some examples stand for.
fn told_bytes(tokenizer: &RunTokenizer, examples: &[Example]) -> usize {
    let Frame { bos, eos } = tokenizer.frame;
    let targets = examples.iter().flat_map(|example| &example.targets).copied();
    let told = targets.filter(|target| ![IGNORED, bos, eos].contains(target));
    told.map(|target| tokenizer.definition.pieces[target as usize].len()).sum()
}
