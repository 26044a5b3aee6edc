//! Everything that the next step needs, in one file: `training_state.safetensors`.
//!
//! One file that appears whole by a rename, so that a run killed at any moment resumes from one complete state.

use super::best::Best;
use super::optimizer::Optimizer;
use super::outliers::Outliers;
use super::run::TrainError;
use crate::artifact::write_atomic;
use crate::tensor::bf16::{Numbers, Stored, le_bytes, set_le_bytes};
use crate::tensor::{Params, Weight, WeightMut};
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Name of the state in a run folder.
pub(super) const STATE_FILE: &str = "training_state.safetensors";

/// The key under which the state names its step, its tokens, the fingerprint of its recipe, and what it remembers if anything.
const PLACE: &str = "step_tokens_and_fingerprint";

/// Numbers of the average that a thread moves at a time.
const CHUNK: usize = 1 << 14;

/// What the loop remembers of past steps to decide about the next ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Past {
    /// Past gradients.
    pub outliers: Outliers,
    /// Past evaluations.
    pub best: Best,
}

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
    /// What the loop remembers.
    pub past: Past,
}

impl State {
    /// The parameters to evaluate and to publish.
    pub fn published(&self) -> &Params {
        self.average.as_ref().unwrap_or(&self.params)
    }

    /// Updates the parameters by the gradient times `factor`, and then their average.
    pub fn update(&mut self, gradient: &[f32], factor: f64, learning_rate: f64, average_decay: f64) {
        let n_before = self.step - self.past.outliers.n_skipped;
        self.optimizer.update(&mut self.params, gradient, factor, learning_rate, n_before);
        let Some(average) = &mut self.average else { return };
        // Young averages forget faster, or they would remember the first values.
        let decay = average_decay.min((n_before + 1) as f64 / (n_before + 10) as f64) as f32;
        for spec in self.params.layout.specs() {
            let average = &mut average.values[spec.range.clone()];
            match self.params.weight_of(spec) {
                Weight::F32(values) => pull(average, values, 1.0 - decay),
                Weight::Bf16(values) => pull(average, values, 1.0 - decay),
            }
        }
    }

    /// Writes the state, of the parameters those that are trained, and what it must not be resumed without: `fingerprint` of the recipe and the text.
    pub fn save(&self, folder: &Path, fingerprint: &str) -> Result<(), TrainError> {
        let bytes_of = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let (mut exact, mut narrowed) = (Vec::new(), Vec::new());
        for spec in self.params.layout.specs().iter().filter(|spec| spec.grad.is_some()) {
            match self.params.weight_of(spec) {
                Weight::F32(values) => exact.extend(bytes_of(values)),
                Weight::Bf16(values) => narrowed.extend(le_bytes(values)),
            }
        }
        let mut parts: Vec<(&str, Dtype, Vec<u8>)> = vec![("params", Dtype::F32, exact)];
        parts.extend((!self.params.dtype().is_f32()).then_some(("params_matrices", Dtype::BF16, narrowed)));
        parts.extend(self.average.iter().map(|average| ("params_average", Dtype::F32, bytes_of(&average.values))));
        let state = self.optimizer.state().into_iter();
        parts.extend(state.map(|(name, values)| (name, dtype_of(values), values.to_le_bytes())));
        let mut tensors = Vec::new();
        for (name, dtype, bytes) in &parts {
            let view = TensorView::new(*dtype, vec![bytes.len() * 8 / dtype.bitsize()], bytes);
            tensors.push((*name, view.map_err(|error| self.broken(folder, error))?));
        }
        // A single entry: of several, the map would write a different order each time, and equal runs end in equal bytes.
        let mut place = format!("{} {} {fingerprint}", self.step, self.n_tokens);
        if self.past != Past::default() {
            let past = serde_json::to_string(&self.past).map_err(|error| self.broken(folder, error))?;
            place += &format!(" {past}");
        }
        let metadata = HashMap::from([(PLACE.to_owned(), place)]);
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
        let place: Option<Vec<&str>> = metadata.get(PLACE).map(|place| place.splitn(4, ' ').collect());
        let Some([step, n_tokens, saved_fingerprint, past @ ..]) = place.as_deref() else {
            return Err(bad("it names no step"));
        };
        if *saved_fingerprint != fingerprint {
            return Err(TrainError::OtherRecipe { path });
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad("it names no step"));
        let (step, n_tokens) = (number(step)?, number(n_tokens)?);
        if let Some(past) = past.first() {
            self.past = serde_json::from_str(past).map_err(|error| bad(&error.to_string()))?;
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| bad(&error.to_string()))?;
        let view = |name: &str, dtype: Dtype, n_bytes: usize| -> Result<TensorView<'_>, TrainError> {
            let view = tensors.tensor(name).map_err(|error| bad(&error.to_string()))?;
            let is_alike = view.dtype() == dtype && view.data().len() == n_bytes;
            if is_alike { Ok(view) } else { Err(bad(&format!("{name} has another size than the model"))) }
        };
        let read = |name: &str, to: &mut [f32]| -> Result<(), TrainError> {
            let view = view(name, Dtype::F32, to.len() * 4)?;
            set_f32s(to, view.data());
            Ok(())
        };
        let mut trained = self.params.trained_mut();
        let n_bytes = |is_exact| {
            let of_kind = trained.iter().filter(|weight| matches!(weight, WeightMut::F32(_)) == is_exact);
            of_kind.map(WeightMut::n_bytes).sum::<usize>()
        };
        let mut exact = view("params", Dtype::F32, n_bytes(true))?.data();
        let mut narrowed = match n_bytes(false) {
            0 => &[],
            n => view("params_matrices", Dtype::BF16, n)?.data(),
        };
        for weight in &mut trained {
            let n_bytes = weight.n_bytes();
            match weight {
                WeightMut::F32(values) => set_f32s(values, exact.split_off(..n_bytes).unwrap_or_default()),
                WeightMut::Bf16(values) => set_le_bytes(values, narrowed.split_off(..n_bytes).unwrap_or_default()),
            }
        }
        for (name, values) in self.optimizer.state_mut() {
            values.set_le_bytes(view(name, dtype_of(values), values.n_bytes())?.data());
        }
        if let Some(average) = &mut self.average {
            read("params_average", &mut average.values)?;
        }
        (self.step, self.n_tokens) = (step, n_tokens);
        Ok(())
    }
}

/// Reads numbers from their bytes.
fn set_f32s(to: &mut [f32], bytes: &[u8]) {
    to.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(to, bytes)| *to = f32::from_le_bytes(*bytes));
}

/// Moves each number of an average by a share of what it is off.
fn pull<W: Stored>(average: &mut [f32], values: &[W], share: f32) {
    average.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(average, values)| {
        average.iter_mut().zip(values).for_each(|(to, from)| *to += share * (from.widen() - *to));
    });
}

/// What a file calls the type of some numbers.
fn dtype_of(numbers: &Numbers) -> Dtype {
    match numbers {
        Numbers::F32(_) => Dtype::F32,
        Numbers::Bf16(_) => Dtype::BF16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{OptimizerSection, TrainSection};
    use crate::tensor::ParamLayout;

    fn state() -> State {
        let mut layout = ParamLayout::default();
        layout.matrix("w", 2, CHUNK);
        let rule: OptimizerSection = toml::from_str("learning_rate = 0.1").unwrap();
        let optimizer = Optimizer::new(&rule, &layout).unwrap();
        let params = Params::new(layout.clone(), [1.0].repeat(layout.len()).as_slice().into());
        State { step: 0, n_tokens: 0, average: Some(params.clone()), params, optimizer, past: Past::default() }
    }

    #[test]
    fn the_average_forgets_slowly_but_for_the_first_steps() {
        let mut state = state();
        let mut want = 1.0;
        for step in 0..40 {
            let gradient = vec![(step as f32 * 0.3).cos(); state.params.values.len()];
            state.update(&gradient, 1.0, 0.1, 0.75);
            state.step += 1;
            let decay = f64::min(0.75, (step + 1) as f64 / (step + 10) as f64);
            want = decay * want + (1.0 - decay) * f64::from(state.params.values[7]);
            for average in &state.published().values {
                assert!((f64::from(*average) - want).abs() < 1e-5, "step {step}: {average}, not {want}");
            }
        }
    }

    #[test]
    fn what_the_loop_remembers_comes_back_to_the_bit() {
        let settings: TrainSection =
            toml::from_str("steps = 9\nbatch_size = 1\nskip_outliers = 2.0\nskip_window = 4\nkeep_best = 1").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut saved = state();
        (saved.step, saved.n_tokens) = (3, 77);
        for past in [false, true] {
            if past {
                for norm in [0.1 + 0.2, 1.0 / 3.0, 5e-324, f64::NAN] {
                    saved.past.outliers.judge(&settings, norm);
                }
                saved.past.best.hear(&settings, 2, 0.7 + 0.1);
            }
            saved.save(dir.path(), "abc").unwrap();
            let mut loaded = state();
            loaded.load(dir.path(), "abc").unwrap();
            assert_eq!((loaded.step, loaded.n_tokens, &loaded.past), (3, 77, &saved.past));
        }
    }
}
