//! How well a model in training tells the validation examples.

use crate::data::Example;
use crate::model::{LossOptions, LossSums, Model};
use crate::tensor::{Params, Tape};
use rayon::prelude::*;
use serde::Serialize;

/// Measures over validation examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean negative log-likelihood of a target, in nats.
    pub validation_loss: f64,
    /// Share of the targets that got the highest logit.
    pub validation_accuracy: f64,
    /// Share of the examples all of whose targets got the highest logit.
    ///
    /// For a decoder this is the share that greedy decoding gets right to the end: as long as each choice is the target, what it has
    /// chosen is what it would have been given to read.
    pub validation_exact_match: f64,
    /// Bits per UTF-8 byte of the validation text, for a causal model.
    pub validation_bits_per_byte: Option<f64>,
}

/// Evaluates `examples`; `n_bytes` is the length of the text that a causal model tells. `None` if there is nothing to tell.
///
/// The same value for any number of threads.
pub fn evaluate(
    model: &dyn Model,
    params: &Params,
    examples: &[Example],
    n_bytes: Option<usize>,
) -> Option<Evaluation> {
    let each: Vec<LossSums> = examples
        .par_iter()
        .map_init(Tape::default, |tape, example| {
            let mut graph = tape.evaluate(params);
            model.loss(&mut graph, std::slice::from_ref(example), LossOptions::plain(1.0)).1
        })
        .collect();
    let each: Vec<LossSums> = each.into_iter().filter(|sums| sums.n_targets > 0).collect();
    let n_exact = each.iter().filter(|sums| sums.n_correct == sums.n_targets).count();
    let n_examples = each.len() as f64;
    let sums: LossSums = each.into_iter().sum();
    if sums.n_targets == 0 {
        return None;
    }
    Some(Evaluation {
        validation_loss: sums.nats / sums.n_targets as f64,
        validation_accuracy: sums.n_correct as f64 / sums.n_targets as f64,
        validation_exact_match: n_exact as f64 / n_examples,
        validation_bits_per_byte: n_bytes.map(|n| sums.nats / (std::f64::consts::LN_2 * n as f64)),
    })
}
