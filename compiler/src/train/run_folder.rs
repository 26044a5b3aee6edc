//! What a run leaves in its folder.
//!
//! ```text
//! config.json, model.safetensors, tokenizer.json, …   the model, loadable while the run goes on
//! training_state.safetensors                          what --resume reads
//! recipe.toml                                         the recipe with its overrides
//! validation.txt or .jsonl                            the part of the data that is not trained on
//! metrics.jsonl                                       one line a log record
//! best-STEP/                                          models of the best evaluations, where the recipe keeps some
//! ```

use super::TrainError;
use super::corpus::Corpus;
use super::state::State;
use crate::artifact::{Checkpoint, SpecialIds, TokenizerSource, TrainedModel, hf, named_weights, write_atomic};
use crate::model::{Architecture, Kind};
use crate::objective::Frame;
use crate::recipe::Recipe;
use serde::Serialize;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A run's folder, open for the log.
pub(super) struct RunFolder {
    path: PathBuf,
    log: File,
}

impl RunFolder {
    /// Opens the folder of a new run, or of one that goes on from `step`: log lines of later steps are dropped.
    pub fn open(
        path: &Path,
        recipe: &Recipe,
        (held_out_name, held_out): (&str, &str),
        resumed_at: Option<u64>,
    ) -> Result<Self, TrainError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Write { path, source }
        };
        let recipe = toml::to_string(recipe).map_err(|error| TrainError::Recipe(error.to_string()))?;
        write_atomic(&path.join("recipe.toml"), recipe.as_bytes())?;
        write_atomic(&path.join(held_out_name), held_out.as_bytes())?;
        let log_path = path.join("metrics.jsonl");
        let kept = match resumed_at {
            Some(step) => lines_up_to(&std::fs::read_to_string(&log_path).unwrap_or_default(), step),
            None => String::new(),
        };
        write_atomic(&log_path, kept.as_bytes())?;
        let log = OpenOptions::new().append(true).open(&log_path).map_err(write(&log_path))?;
        Ok(Self { path: path.to_owned(), log })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line to the log.
    pub fn log(&mut self, record: &impl Serialize) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(record).map_err(|error| TrainError::Recipe(error.to_string()))?;
        line.push('\n');
        let written = self.log.write_all(line.as_bytes());
        written.map_err(|source| TrainError::Write { path: self.path.join("metrics.jsonl"), source })
    }

    /// Writes the model and then the state to go on from.
    pub fn save(&self, state: &State, architecture: &Architecture, corpus: &Corpus) -> Result<(), TrainError> {
        write_model(&self.path, state, architecture, corpus)?;
        state.save(&self.path, &corpus.fingerprint)
    }
}

/// Writes the model of a state into a folder.
pub(super) fn write_model(
    path: &Path,
    state: &State,
    architecture: &Architecture,
    corpus: &Corpus,
) -> Result<(), TrainError> {
    let tensors = named_weights(state.published());
    let Frame { bos, eos } = corpus.frame;
    let tokenizer = TokenizerSource::HuggingFace(corpus.tokenizer_json.clone());
    if let Some(config) = architecture.runtime_config() {
        let mut checkpoint = Checkpoint::new(config, tensors)
            .map_err(|problem| TrainError::Diverged { problem: problem.to_string() })?;
        checkpoint.tokenizer = tokenizer;
        (checkpoint.bos_id, checkpoint.eos_ids) = (Some(bos), vec![eos]);
        hf::write_files(path, &checkpoint)?;
    } else {
        let decoder_start = (architecture.family.kind() == Kind::EncoderDecoder).then_some(bos);
        let specials = SpecialIds { bos: Some(bos), eos: Some(eos), pad: None, decoder_start };
        let (architecture, labels) = (architecture.clone(), corpus.labels.clone());
        hf::write_trained(path, &TrainedModel { architecture, tensors, tokenizer, specials, labels })?;
    }
    Ok(())
}

/// The whole lines of a log whose step is at most `step`.
fn lines_up_to(log: &str, step: u64) -> String {
    let is_kept = |line: &&str| {
        let record: Option<Value> = serde_json::from_str(line).ok();
        record.and_then(|record| record.get("step")?.as_u64()).is_some_and(|at| at <= step)
    };
    log.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_ends_where_the_state_does() {
        let log = "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"ste";
        assert_eq!(lines_up_to(log, 2), "{\"step\":1}\n{\"step\":2}\n");
    }
}
