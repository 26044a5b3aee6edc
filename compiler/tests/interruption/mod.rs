//! Runs on so many threads, stopping one at a step, and what a run is compared by.

use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::progress::{Event, Progress};
use siskin_compiler::train::{Options, Outcome, TrainError, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trains on `n_threads` threads; goes on if there is a run in `out`.
pub fn try_train(
    recipe: &Recipe,
    out: &Path,
    n_threads: usize,
    progress: &mut (dyn Progress + Send),
) -> Result<Outcome, TrainError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    let interrupt = AtomicBool::new(false);
    let resume = out.exists();
    pool.install(|| run(recipe, &Options { out, resume, interrupt: &interrupt }, progress))
}

/// Interrupts a run at a step.
pub struct StopAt<'a>(pub u64, pub &'a AtomicBool);

impl Progress for StopAt<'_> {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Step(record) if record.step >= self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// The bytes of everything that a run's end is told by.
pub fn files(run: &Path) -> Vec<Vec<u8>> {
    ["model.safetensors", "config.json", "tokenizer.json", "training_state.safetensors"]
        .map(|name| std::fs::read(run.join(name)).unwrap())
        .to_vec()
}
