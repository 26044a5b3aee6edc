//! How well a model in training tells the validation examples.

use crate::data::Example;
use crate::model::{LossOptions, LossSums, Model};
use crate::tensor::{Params, Tape};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// How well examples of about the same length are told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthGroup {
    /// Most tokens that an example of the group is read from; more than half of that at the least.
    pub n_tokens_max: usize,
    /// Examples.
    pub n_examples: usize,
    /// Share of the targets that got the highest logit.
    pub accuracy: f64,
    /// Share of the examples all of whose targets did.
    pub exact_match: f64,
}

/// The sums over each example's targets. The same for any number of threads.
pub fn measure(model: &dyn Model, params: &Params, examples: &[Example]) -> Vec<LossSums> {
    examples
        .par_iter()
        .map_init(Tape::default, |tape, example| {
            let mut graph = tape.evaluate(params);
            model.loss(&mut graph, std::slice::from_ref(example), LossOptions::plain(1.0)).1
        })
        .collect()
}

impl Evaluation {
    /// Sums up `each` of the examples; `n_bytes` is the length of the text that a causal model tells. `None` if there is nothing to tell.
    pub fn of(each: &[LossSums], n_bytes: Option<usize>) -> Option<Self> {
        let sums: LossSums = each.iter().copied().sum();
        if sums.n_targets == 0 {
            return None;
        }
        Some(Self {
            validation_loss: sums.nats / sums.n_targets as f64,
            validation_accuracy: sums.n_correct as f64 / sums.n_targets as f64,
            validation_exact_match: exact_match(each),
            validation_bits_per_byte: n_bytes.map(|n| sums.nats / (std::f64::consts::LN_2 * n as f64)),
        })
    }
}

/// Share of the examples with targets whose targets are all right.
fn exact_match(each: &[LossSums]) -> f64 {
    let told: Vec<&LossSums> = each.iter().filter(|sums| sums.n_targets > 0).collect();
    told.iter().filter(|sums| sums.n_correct == sums.n_targets).count() as f64 / told.len().max(1) as f64
}

/// What was measured, by the tokens that each example is read from: up to 4, 8, 16 and so on.
pub fn by_length(examples: &[Example], each: &[LossSums]) -> Vec<LengthGroup> {
    let mut groups: BTreeMap<usize, Vec<LossSums>> = BTreeMap::new();
    for (example, sums) in examples.iter().zip(each).filter(|(_, sums)| sums.n_targets > 0) {
        groups.entry(example.inputs.len().next_power_of_two().max(4)).or_default().push(*sums);
    }
    let group = |(n_tokens_max, each): (usize, Vec<LossSums>)| {
        let sums: LossSums = each.iter().copied().sum();
        let accuracy = sums.n_correct as f64 / sums.n_targets as f64;
        LengthGroup { n_tokens_max, n_examples: each.len(), accuracy, exact_match: exact_match(&each) }
    };
    groups.into_iter().map(group).collect()
}
