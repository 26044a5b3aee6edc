//! The best evaluations of a run: when to stop for want of better ones, and which models to keep.

use super::TrainError;
use super::exact::Exact;
use crate::artifact::{remove_folder, write_folder_atomic};
use crate::recipe::TrainSection;
use serde::{Deserialize, Serialize};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

/// What is remembered of past evaluations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    /// The loss that a later one must be below.
    lowest: Option<Exact>,
    /// Evaluations since.
    n_since: u64,
    /// The models that are kept, the best first.
    kept: Vec<Kept>,
}

/// A model that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    step: u64,
    loss: Exact,
}

/// The best model of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BestModel {
    /// Its folder.
    pub model: PathBuf,
    /// Steps done by then.
    pub step: u64,
    /// Its loss on the validation part, in nats.
    pub validation_loss: f64,
}

impl Best {
    /// Hears the validation loss after `step` steps; returns whether the model is one to keep.
    pub fn hear(&mut self, settings: &TrainSection, step: u64, loss: f64) -> bool {
        let is_better = self.lowest.is_none_or(|lowest| loss < lowest.0 - settings.early_stopping_min_delta);
        if is_better {
            self.lowest = Some(Exact(loss));
        }
        self.n_since = if is_better { 0 } else { self.n_since + 1 };
        if !loss.is_finite() {
            return false;
        }
        // Of equal ones the earlier stays ahead.
        let place = self.kept.partition_point(|kept| kept.loss.0 <= loss);
        self.kept.insert(place, Kept { step, loss: Exact(loss) });
        self.kept.truncate(settings.keep_best);
        place < settings.keep_best
    }

    /// Whether to stop for want of a better evaluation.
    pub fn gives_up(&self, settings: &TrainSection) -> bool {
        settings.early_stopping_patience > 0 && self.n_since >= settings.early_stopping_patience
    }

    /// The best of the models that are kept in the folder of a run.
    pub fn model(&self, run: &Path) -> Option<BestModel> {
        let Kept { step, loss } = self.kept.first()?;
        Some(BestModel { model: folder_of(run, *step), step: *step, validation_loss: loss.0 })
    }

    /// Removes the models of the folder of a run that are no longer kept, and what a crash has left of some.
    pub fn prune(&self, run: &Path) -> Result<(), TrainError> {
        let read = |source| TrainError::Read { path: run.to_owned(), source };
        let entries = std::fs::read_dir(run).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
        for name in entries.iter().map(DirEntry::file_name) {
            let Some(name) = name.to_str() else { continue };
            let step: Option<u64> = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok());
            let is_old = step.is_some_and(|step| !self.kept.iter().any(|kept| kept.step == step));
            let is_rest = name.strip_prefix('.').is_some_and(|name| name.starts_with(PREFIX));
            if is_old || is_rest {
                remove_folder(&run.join(name))?;
            }
        }
        Ok(())
    }
}

/// What the names of the models' folders begin with; the step follows.
const PREFIX: &str = "best-";

fn folder_of(run: &Path, step: u64) -> PathBuf {
    run.join(format!("{PREFIX}{step}"))
}

/// Writes the model after `step` steps into its folder in the folder of a run, by `write`.
pub(super) fn write_best(
    run: &Path,
    step: u64,
    write: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    write_folder_atomic(&folder_of(run, step), write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &str) -> TrainSection {
        toml::from_str(&format!("steps = 9\nbatch_size = 1\n{more}")).unwrap()
    }

    #[test]
    fn patience_ends_after_evaluations_that_are_not_better_by_enough() {
        let settings = settings("early_stopping_patience = 2\nearly_stopping_min_delta = 0.1");
        let mut best = Best::default();
        let gives_up = [3.0, 2.0, 1.95, 1.85, 1.86, f64::NAN].map(|loss| {
            best.hear(&settings, 0, loss);
            best.gives_up(&settings)
        });
        assert_eq!(gives_up, [false, false, false, false, false, true]);
    }

    #[test]
    fn the_best_models_stay() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings("keep_best = 2");
        let mut best = Best::default();
        let names = || {
            let mut names: Vec<String> =
                std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        std::fs::create_dir(dir.path().join(".best-1.abc.tmp")).unwrap();
        std::fs::write(dir.path().join("best-of-all.txt"), "stays").unwrap();
        for (step, loss, is_kept) in
            [(1, 3.0, true), (2, 2.0, true), (3, 2.5, true), (4, 2.5, false), (5, f64::NAN, false), (6, 1.0, true)]
        {
            assert_eq!(best.hear(&settings, step, loss), is_kept, "step {step}");
            if is_kept {
                write_best(dir.path(), step, |path| Ok(crate::artifact::write_atomic(&path.join("m"), b"x")?)).unwrap();
            }
            best.prune(dir.path()).unwrap();
        }
        assert_eq!(names(), ["best-2", "best-6", "best-of-all.txt"]);
        let model = best.model(dir.path()).unwrap();
        assert_eq!((model.step, model.validation_loss, model.model), (6, 1.0, dir.path().join("best-6")));
    }
}
