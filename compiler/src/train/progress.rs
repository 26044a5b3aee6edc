//! What a training run tells while it runs.

use super::adaptation::AdaptationRecord;
use super::doctor::Finding;
use super::evaluate::Evaluation;
use super::memory::Memory;
use super::texts::DataSummary;
use super::trained_part::TrainedPart;
use crate::objective::baseline::MaskedBaselines;
use serde::Serialize;
use std::path::PathBuf;

/// Hears of a run's progress; the library itself prints nothing.
pub trait Progress {
    /// Something happened.
    fn event(&mut self, event: &Event);
}

/// Ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _event: &Event) {}
}

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The data is ready and steps begin.
    Started {
        /// Numbers of the model.
        n_params: u64,
        /// Tokens of the training part.
        n_train_tokens: usize,
        /// Tokens of the validation part that are told.
        n_validation_targets: usize,
        /// What counting alone reaches, for a masked language model.
        baselines: Option<MaskedBaselines>,
        /// Steps already done, if the run is resumed.
        steps_done: u64,
        /// Steps in all.
        steps: u64,
    },
    /// The data was read.
    Data(DataSummary),
    /// A run that goes on from a model found what it knows: before the first step and after the last.
    Adaptation(AdaptationRecord),
    /// A run that trains a part of a model, or something beside it, is about to begin.
    TrainedPart(TrainedPart),
    /// The first step of this process was done, and this is what it needed.
    Memory(Memory),
    /// A step was done that the recipe wants in the log.
    Step(StepRecord),
    /// A step was not applied, since its gradient was far larger than the last ones'.
    Skipped(SkipRecord),
    /// The validation part was evaluated.
    Evaluated(EvaluationRecord),
    /// A checkpoint was written.
    Saved {
        /// The run folder.
        folder: PathBuf,
        /// Steps done.
        step: u64,
    },
    /// The run ends before its last step: evaluations have not become better for as long as the recipe waits.
    StoppedEarly {
        /// Steps done.
        step: u64,
    },
    /// Something looks wrong with the run that did not before.
    Found(Finding),
    /// Something failed that the run can do without.
    Warning(String),
}

/// A line of the log about the data, where it has several documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DataRecord {
    /// 0: it stands before the first step.
    pub step: u64,
    /// What became of the documents.
    pub data: DataSummary,
}

/// A line of the log about training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Tokens trained on since step 0.
    pub n_tokens: u64,
    /// Mean loss over the step's targets, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Tokens per second since the last line.
    pub tokens_per_second: f64,
    /// Estimate of the seconds to the end of the run.
    pub seconds_left: f64,
}

/// A line of the log about a step that was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SkipRecord {
    /// Steps done, this one among them.
    pub step: u64,
    /// Norm of its gradient before clipping; `None` (null) if that is not a number.
    pub skipped_gradient_norm: Option<f64>,
    /// The most that it could have been; `None` where nothing was known yet.
    pub gradient_norm_max: Option<f64>,
    /// Steps not applied since step 0.
    pub n_skipped: u64,
}

/// A line of the log about the validation part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EvaluationRecord {
    /// Steps done.
    pub step: u64,
    /// What was measured.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Seconds of training so far in this process.
    pub elapsed_seconds: f64,
}
