//! A run's tokens in a folder of their own: written once, mapped ever after.
//!
//! ```text
//! corpus.json                       what the tokens were made of, and what became of the documents
//! tokenizer.json                    the tokenizer that made them
//! train/, validation/               token shards
//! validation.txt or .jsonl          the held-out texts
//! ```

use super::TrainError;
use super::texts::{DataSummary, Fate, Texts};
use super::tokenize::RunTokenizer;
use crate::artifact::{recover_folder, write_atomic, write_folder_atomic};
use crate::data::{DataError, ShardOptions, TokenShards, TokenStore, read_text, write_shards};
use crate::objective::Frame;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use siskin_runtime::TokenId;
use std::path::Path;

/// Tokens of a shard: some tens of megabytes, which are in memory while it is written.
const SHARD_TOKENS_MAX: usize = 1 << 24;
const MANIFEST: &str = "corpus.json";
const TOKENIZER: &str = "tokenizer.json";

/// The tokens of a run, and what is to be known of the texts that they were made of.
pub(super) struct Tokenized {
    pub tokenizer: RunTokenizer,
    pub train: TokenStore,
    pub validation: TokenStore,
    pub held_out: (&'static str, String),
    pub summary: DataSummary,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    /// Digest of the data, and of the settings that the tokens depend on.
    fingerprint: String,
    bos: TokenId,
    eos: TokenId,
    summary: DataSummary,
}

impl Tokenized {
    /// Holds the tokens of `texts` in memory.
    pub fn in_memory(texts: &Texts<'_>, tokenizer: RunTokenizer, end: Option<TokenId>) -> Result<Self, TrainError> {
        let (train, validation) =
            (texts.held(Fate::Train, &tokenizer, end)?, texts.held(Fate::Validation, &tokenizer, end)?);
        Ok(Self { tokenizer, train, validation, held_out: texts.held_out()?, summary: texts.summary() })
    }

    /// Maps the folder at `path`; `None` if there is none, or one of other data or settings, to be written anew.
    ///
    /// # Errors
    /// [`DataError`], naming the file: it is damaged, or the folder is something else.
    pub fn open(path: &Path, fingerprint: &str) -> Result<Option<Self>, TrainError> {
        recover_folder(path)?;
        let manifest_path = path.join(MANIFEST);
        if !manifest_path.exists() {
            let is_free = match std::fs::read_dir(path) {
                Ok(mut entries) => entries.next().is_none(),
                Err(_) => !path.exists(),
            };
            return if is_free { Ok(None) } else { Err(DataError::NotOurs { path: path.to_owned() }.into()) };
        }
        let manifest: Option<Manifest> = serde_json::from_str(&read_text(&manifest_path)?).ok();
        let Some(manifest) = manifest else {
            let problem = "it is damaged: remove the folder, and it is made anew".into();
            return Err(DataError::BadShard { path: manifest_path, problem }.into());
        };
        if manifest.fingerprint != fingerprint {
            return Ok(None);
        }
        let frame = Frame { bos: manifest.bos, eos: manifest.eos };
        let name = ["validation.txt", "validation.jsonl"].into_iter().find(|name| path.join(name).exists());
        let name = name.unwrap_or("validation.txt");
        let shards = |part: &str| TokenShards::open(&path.join(part)).map(TokenStore::Mapped);
        Ok(Some(Self {
            tokenizer: RunTokenizer::from_json(read_text(&path.join(TOKENIZER))?.into_bytes(), frame)?,
            train: shards("train")?,
            validation: shards("validation")?,
            held_out: (name, read_text(&path.join(name))?),
            summary: manifest.summary,
        }))
    }

    /// Writes the tokens of `texts` into the folder at `path`, in place of what an earlier run left there, and maps them.
    pub fn write(
        path: &Path,
        texts: &Texts<'_>,
        tokenizer: &RunTokenizer,
        end: Option<TokenId>,
        fingerprint: &str,
    ) -> Result<Self, TrainError> {
        let options = ShardOptions {
            vocab_size: tokenizer.definition.vocab_size() as u32,
            tokenizer_sha256: Sha256::digest(&tokenizer.json).into(),
            shard_tokens_max: SHARD_TOKENS_MAX,
        };
        write_folder_atomic(path, |folder| -> Result<(), TrainError> {
            write_shards(&folder.join("train"), &options, texts.encoded(Fate::Train, tokenizer, end)?)?;
            write_shards(&folder.join("validation"), &options, texts.encoded(Fate::Validation, tokenizer, end)?)?;
            let (name, held_out) = texts.held_out()?;
            write_atomic(&folder.join(name), held_out.as_bytes())?;
            write_atomic(&folder.join(TOKENIZER), &tokenizer.json)?;
            let Frame { bos, eos } = tokenizer.frame;
            let manifest = Manifest { fingerprint: fingerprint.to_owned(), bos, eos, summary: texts.summary() };
            let manifest = serde_json::to_string_pretty(&manifest);
            let manifest = manifest.map_err(|error| TrainError::Recipe(error.to_string()))?;
            Ok(write_atomic(&folder.join(MANIFEST), manifest.as_bytes())?)
        })?;
        let written = Self::open(path, fingerprint)?;
        Ok(written.ok_or_else(|| DataError::Changed { path: path.to_owned() })?)
    }
}
