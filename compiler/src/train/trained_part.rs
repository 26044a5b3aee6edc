//! How much of a model is trained, and what a step of that needs: told before the first step where not all is.

use super::batches::{accumulate, batches_of};
use super::corpus::Corpus;
use super::memory::Memory;
use super::state::State;
use super::step::Stepper;
use crate::peft::PeftConfig;
use crate::recipe::TrainSection;
use serde::Serialize;
use std::fmt;

/// The line of the log about a run that trains a part of a model, or something beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrainedPart {
    /// Steps done: 0 but where an interrupted run goes on.
    pub step: u64,
    /// The kind of `[peft]`.
    pub peft: &'static str,
    /// Numbers that are trained.
    pub n_trained_params: u64,
    /// Numbers of the model, what is trained beside it among them.
    pub n_params: u64,
    /// What a step needs, found by the first batch: nothing is updated.
    pub memory: Memory,
}

impl TrainedPart {
    /// Measures the next step of a run without taking it.
    pub(super) fn measure(
        peft: &PeftConfig,
        stepper: &mut Stepper<'_>,
        corpus: &Corpus,
        settings: &TrainSection,
        state: &State,
    ) -> Self {
        accumulate(stepper, &*corpus.source, settings, &state.params, batches_of(settings, state.step));
        let layout = &state.params.layout;
        Self {
            step: state.step,
            peft: peft.name(),
            n_trained_params: layout.n_trained() as u64,
            n_params: layout.len() as u64,
            memory: Memory::of(stepper, state),
        }
    }
}

/// Both counts and the share, then the memory.
impl fmt::Display for TrainedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peft, n_trained_params, n_params, memory, .. } = self;
        let share = 100.0 * *n_trained_params as f64 / (*n_params).max(1) as f64;
        write!(
            f,
            "{peft}: {n_trained_params} of {n_params} parameters are trained ({share:.2} %); a step takes {memory}"
        )
    }
}
