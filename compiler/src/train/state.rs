//! Everything that the next step needs, in one file: `training_state.safetensors`.
//!
//! One file that appears whole by a rename, so that a run killed at any moment resumes from one complete state.

use super::optimizer::Optimizer;
use super::run::TrainError;
use crate::artifact::write_atomic;
use crate::tensor::Params;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::Path;

/// Name of the state in a run folder.
pub(super) const STATE_FILE: &str = "training_state.safetensors";

/// The key under which the state names its step, its tokens, and the fingerprint of its recipe.
const PLACE: &str = "step_tokens_and_fingerprint";

/// The state between two steps.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Steps done.
    pub step: u64,
    /// Tokens trained on.
    pub n_tokens: u64,
    /// The parameters in training.
    pub params: Params,
    /// The update rule and what it remembers.
    pub optimizer: Optimizer,
    /// The running average of the parameters, where the recipe wants one.
    pub average: Option<Params>,
}

impl State {
    /// The parameters to evaluate and to publish.
    pub fn published(&self) -> &Params {
        self.average.as_ref().unwrap_or(&self.params)
    }

    /// Writes the state, and what it must not be resumed without: `fingerprint` of the recipe and the text.
    pub fn save(&self, folder: &Path, fingerprint: &str) -> Result<(), TrainError> {
        let bytes_of = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let mut parts: Vec<(&str, Vec<u8>)> = vec![("params", bytes_of(&self.params.values))];
        parts.extend(self.average.iter().map(|average| ("params_average", bytes_of(&average.values))));
        parts.extend(self.optimizer.state().into_iter().map(|(name, values)| (name, bytes_of(values))));
        let mut tensors = Vec::new();
        for (name, bytes) in &parts {
            let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes);
            tensors.push((*name, view.map_err(|error| self.broken(folder, error))?));
        }
        // A single entry: of several, the map would write a different order each time, and equal runs end in equal bytes.
        let metadata = HashMap::from([(PLACE.to_owned(), format!("{} {} {fingerprint}", self.step, self.n_tokens))]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| self.broken(folder, error))?;
        Ok(write_atomic(&folder.join(STATE_FILE), &bytes)?)
    }

    fn broken(&self, folder: &Path, error: impl std::fmt::Display) -> TrainError {
        TrainError::BadState { path: folder.join(STATE_FILE), problem: error.to_string() }
    }

    /// Reads into `self`, whose buffers have the run's sizes; `fingerprint` must be the one that was saved.
    pub fn load(&mut self, folder: &Path, fingerprint: &str) -> Result<(), TrainError> {
        let path = folder.join(STATE_FILE);
        let bad = |problem: &str| TrainError::BadState { path: path.clone(), problem: problem.to_owned() };
        let bytes = std::fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| bad(&error.to_string()))?;
        let metadata = metadata.metadata().clone().unwrap_or_default();
        let place: Option<Vec<&str>> = metadata.get(PLACE).map(|place| place.split(' ').collect());
        let Some([step, n_tokens, saved_fingerprint]) = place.as_deref() else { return Err(bad("it names no step")) };
        if *saved_fingerprint != fingerprint {
            return Err(TrainError::OtherRecipe { path });
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad("it names no step"));
        let (step, n_tokens) = (number(step)?, number(n_tokens)?);
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| bad(&error.to_string()))?;
        let read = |name: &str, to: &mut [f32]| -> Result<(), TrainError> {
            let view = tensors.tensor(name).map_err(|error| bad(&error.to_string()))?;
            if view.dtype() != Dtype::F32 || view.data().len() != to.len() * 4 {
                return Err(bad(&format!("{name} has another size than the model")));
            }
            let (numbers, _) = view.data().as_chunks::<4>();
            to.iter_mut().zip(numbers).for_each(|(to, bytes)| *to = f32::from_le_bytes(*bytes));
            Ok(())
        };
        read("params", &mut self.params.values)?;
        for (name, values) in self.optimizer.state_mut() {
            read(name, values)?;
        }
        if let Some(average) = &mut self.average {
            read("params_average", &mut average.values)?;
        }
        (self.step, self.n_tokens) = (step, n_tokens);
        Ok(())
    }
}
