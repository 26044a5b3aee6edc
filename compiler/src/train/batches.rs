//! Which batches make a step, and their loss and gradient.

use super::step::{DropoutSeed, Stepper};
use crate::data::{Example, ExampleSource};
use crate::model::LossOptions;
use crate::recipe::{BatchRamp, TrainSection};
use crate::tensor::Params;
use std::ops::Range;

/// The numbers of a step's batches: without gaps from one step to the next, and known from the step alone.
pub(super) fn batches_of(settings: &TrainSection, step: u64) -> Range<u64> {
    n_batches_before(settings, step)..n_batches_before(settings, step + 1)
}

/// Batches of all steps before `step`.
///
/// A ramp has as many stages as there are counts from its first to the last, each as long as the others to a step.
fn n_batches_before(settings: &TrainSection, step: u64) -> u64 {
    let full = settings.accumulate as u64;
    let Some(BatchRamp { from, steps }) = settings.batch_ramp else { return step * full };
    let from = from as u64;
    let n_stages = full - from + 1;
    let start = |stage: u64| (stage * steps).div_ceil(n_stages).min(step);
    let ramp: u64 = (0..n_stages).map(|stage| (start(stage + 1) - start(stage)) * (from + stage)).sum();
    ramp + step.saturating_sub(steps) * full
}

/// Puts the gradient of a step's mean loss into `stepper`; returns the loss in nats, and how many tokens were read.
pub(super) fn accumulate(
    stepper: &mut Stepper<'_>,
    source: &dyn ExampleSource,
    settings: &TrainSection,
    params: &Params,
    batches: Range<u64>,
) -> (f64, u64) {
    let batch_size = settings.batch_size as u64;
    let (first, end) = (batches.start * batch_size, batches.end * batch_size);
    let rows: Vec<Vec<Example>> = (first..end).map(|idx| source.examples(settings.seed, idx)).collect();
    let examples = || rows.iter().flatten();
    // Every target of the step weighs the same, whichever batch it is in.
    let n_targets = examples().map(Example::n_targets).sum::<usize>().max(1);
    let options = LossOptions {
        weight: 1.0 / n_targets as f32,
        label_smoothing: settings.label_smoothing,
        dropout: settings.dropout,
        recompute_activations: settings.recompute_activations,
        activations_dtype: settings.activations_dtype,
    };
    let mut nats = 0.0;
    stepper.clear();
    for (batch, first) in rows.chunks(settings.batch_size).zip((first..).step_by(settings.batch_size)) {
        let dropout_seed = DropoutSeed { run: settings.seed, first_example: first };
        nats += stepper.accumulate(params, batch, options, dropout_seed).nats;
    }
    (nats / n_targets as f64, examples().map(Example::n_tokens).sum::<usize>() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &str) -> TrainSection {
        toml::from_str(&format!("steps = 50\nbatch_size = 2\naccumulate = 8\n{more}")).unwrap()
    }

    #[test]
    fn a_ramp_grows_by_one_and_leaves_no_gap() {
        for (from, steps) in [(1, 1), (1, 7), (1, 8), (3, 20), (8, 5), (2, 49)] {
            let settings = settings(&format!("batch_ramp = {{ from = {from}, steps = {steps} }}"));
            let mut next = 0;
            let mut counts = Vec::new();
            for step in 0..50 {
                let batches = batches_of(&settings, step);
                assert_eq!(batches.start, next, "from {from} over {steps}, step {step}");
                next = batches.end;
                counts.push(batches.end - batches.start);
            }
            assert!(counts.is_sorted() && counts[0] >= from, "{counts:?}");
            assert!(counts[steps as usize..].iter().all(|count| *count == 8), "{counts:?}");
            let n_stages = 8 - from + 1;
            for (step, count) in counts.iter().enumerate().take(steps as usize) {
                assert_eq!(*count, from + step as u64 * n_stages / steps, "from {from} over {steps}, step {step}");
            }
        }
        assert_eq!(batches_of(&settings(""), 3), 24..32);
    }
}
