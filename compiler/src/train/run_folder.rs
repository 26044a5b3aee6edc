//! What a run leaves in its folder.
//!
//! ```text
//! config.json, model.safetensors, tokenizer.json, …   the model, loadable while the run goes on
//! adapter_config.json, adapter_model.safetensors      in their place, where something is trained beside a model
//! training_state.safetensors                          what --resume reads
//! recipe.toml                                         the recipe with its overrides
//! validation.txt or .jsonl                            the part of the data that is not trained on
//! metrics.jsonl                                       one line a log record
//! best-STEP/                                          models of the best evaluations, where the recipe keeps some
//! report.html                                         the log as curves, samples, and what looks wrong
//! ```

use super::TrainError;
use super::corpus::Corpus;
use super::doctor::Finding;
use super::evaluate::LengthGroup;
use super::history::History;
use super::monitor::{Monitor, REPORT_FILE};
use super::progress::Progress;
use super::report::Status;
use super::state::State;
use crate::artifact::{
    ArtifactError, Checkpoint, SpecialIds, TokenizerSource, TrainedModel, hf, named_weights, remove_leftovers,
    write_atomic,
};
use crate::data::Example;
use crate::model::{Kind, Model};
use crate::objective::Frame;
use crate::recipe::Recipe;
use crate::tensor::{ParamLayout, Params};
use serde::Serialize;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A run's folder, open for the log, and what watches it.
pub(super) struct RunFolder {
    path: PathBuf,
    log: File,
    /// Steps done by the last checkpoint.
    saved_step: Option<u64>,
    monitor: Monitor,
}

impl RunFolder {
    /// Opens the folder of a new run, or of one that goes on from `step`: log lines of later steps are dropped.
    pub fn open(
        path: &Path,
        recipe: &Recipe,
        corpus: &Corpus,
        n_params: u64,
        resumed_at: Option<u64>,
    ) -> Result<Self, TrainError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Write { path, source }
        };
        std::fs::create_dir_all(path).map_err(write(path))?;
        remove_leftovers(path)?;
        let toml = toml::to_string(recipe).map_err(|error| TrainError::Recipe(error.to_string()))?;
        let (held_out_name, held_out) = &corpus.held_out;
        write_atomic(&path.join("recipe.toml"), toml.as_bytes())?;
        write_atomic(&path.join(held_out_name), held_out.as_bytes())?;
        let log_path = path.join("metrics.jsonl");
        let kept = match resumed_at {
            Some(step) => lines_up_to(&std::fs::read_to_string(&log_path).unwrap_or_default(), step),
            None => String::new(),
        };
        write_atomic(&log_path, kept.as_bytes())?;
        let log = OpenOptions::new().append(true).open(&log_path).map_err(write(&log_path))?;
        let monitor = Monitor::new(path, recipe, corpus, n_params, History::of_log(&kept));
        let mut folder = Self { path: path.to_owned(), log, saved_step: resumed_at, monitor };
        for finding in folder.monitor.examine() {
            folder.append(&finding)?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the report is.
    pub fn report(&self) -> PathBuf {
        self.path.join(REPORT_FILE)
    }

    /// Adds a line to the log, and one for each thing that now looks wrong.
    pub fn log(&mut self, record: &impl Serialize) -> Result<(), TrainError> {
        self.append(record)?;
        let line = serde_json::to_value(record).map_err(|error| TrainError::Recipe(error.to_string()))?;
        for finding in self.monitor.hear(line) {
            self.append(&finding)?;
        }
        Ok(())
    }

    fn append(&mut self, record: &impl Serialize) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(record).map_err(|error| TrainError::Recipe(error.to_string()))?;
        line.push('\n');
        self.log.write_all(line.as_bytes()).map_err(|source| {
            let error = ArtifactError::io("write", &self.path.join("metrics.jsonl"))(source);
            TrainError::Stopped { source: error.needing(line.len() as u64), saved_step: self.saved_step }
        })
    }

    /// Logs how large the gradient of each matrix is, at a few steps of the run.
    pub fn look(&mut self, step: u64, layout: &ParamLayout, gradient: &[f32]) -> Result<(), TrainError> {
        let look = self.monitor.look(step, layout, gradient);
        look.map_or(Ok(()), |look| self.log(&look))
    }

    /// Logs what the model says to some of the `examples`.
    pub fn show(
        &mut self,
        step: u64,
        model: &dyn Model,
        params: &Params,
        examples: &[Example],
        by_length: &[LengthGroup],
    ) -> Result<(), TrainError> {
        let show = self.monitor.show(step, model, params, examples, by_length);
        self.log(&show)?;
        self.monitor.refresh(true);
        Ok(())
    }

    /// Tells what was found since the last call.
    pub fn tell(&mut self, progress: &mut dyn Progress) {
        self.monitor.news().iter().for_each(|event| progress.event(event));
    }

    /// Writes the last report, and says all that looks wrong.
    pub fn finish(&mut self, status: &Status, progress: &mut dyn Progress) -> Vec<Finding> {
        let findings = self.monitor.finish(status);
        self.tell(progress);
        findings
    }

    /// Writes the model and then the state to go on from.
    pub fn save(&mut self, state: &State, made: (&dyn Model, &Recipe), corpus: &Corpus) -> Result<(), TrainError> {
        let written =
            write_model(&self.path, state, made, corpus).and_then(|()| state.save(&self.path, &corpus.fingerprint));
        written.map_err(|error| match error {
            TrainError::Artifact(source) => TrainError::Stopped { source, saved_step: self.saved_step },
            other => other,
        })?;
        self.saved_step = Some(state.step);
        self.monitor.refresh(true);
        Ok(())
    }
}

/// Writes what a state has trained into a folder: the model, or what lies beside the one that the recipe goes on from.
pub(super) fn write_model(
    path: &Path,
    state: &State,
    (model, recipe): (&dyn Model, &Recipe),
    corpus: &Corpus,
) -> Result<(), TrainError> {
    let architecture = model.architecture();
    if let (Some(peft), Some(base)) = (recipe.peft.as_ref().filter(|peft| peft.is_beside()), &recipe.model.init_from) {
        return Ok(hf::write_peft(path, (model, peft), state.published(), &base.display().to_string())?);
    }
    let (tensors, dtype) = (named_weights(state.published()), state.published().dtype());
    let Frame { bos, eos } = corpus.frame;
    let tokenizer = TokenizerSource::HuggingFace(corpus.tokenizer_json.clone());
    if let Some(config) = architecture.runtime_config() {
        let mut checkpoint = Checkpoint::new(config, tensors)
            .map_err(|problem| TrainError::Diverged { problem: problem.to_string() })?;
        checkpoint.tokenizer = tokenizer;
        (checkpoint.bos_id, checkpoint.eos_ids) = (Some(bos), vec![eos]);
        checkpoint.chat_template.clone_from(&corpus.chat_template);
        hf::write_files_as(path, &checkpoint, dtype)?;
    } else {
        let decoder_start = (architecture.family.kind() == Kind::EncoderDecoder).then_some(bos);
        let specials = SpecialIds { bos: Some(bos), eos: Some(eos), pad: None, decoder_start };
        let (architecture, labels) = (architecture.clone(), corpus.labels.clone());
        hf::write_trained_as(path, &TrainedModel { architecture, tensors, tokenizer, specials, labels }, dtype)?;
        if let Some(template) = &corpus.chat_template {
            write_atomic(&path.join("chat_template.jinja"), template.as_bytes())?;
        }
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
