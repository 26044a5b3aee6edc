//! Stopping a run at a step, and what a run is compared by.

use siskin_compiler::train::progress::{Event, Progress};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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
