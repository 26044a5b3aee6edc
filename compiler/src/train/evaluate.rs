//! Bits per byte of a text under a model in training.

use crate::data::{Example, evaluation_windows};
use crate::model::{LossOptions, Model};
use crate::tensor::{Params, Tape};
use rayon::prelude::*;
use siskin_runtime::TokenId;

/// Bits that the model needs per UTF-8 byte of a text of `n_bytes` bytes with these tokens.
///
/// The tokens are read in windows of the model's context, each starting at the last target of the one before, so that every
/// token but the first is predicted once. The same value for any number of threads.
pub fn bits_per_byte(model: &dyn Model, params: &Params, tokens: &[TokenId], n_bytes: usize) -> f64 {
    let windows: Vec<_> = evaluation_windows(tokens, model.architecture().context_len).collect();
    let nats: Vec<f64> = windows
        .par_iter()
        .map_init(Tape::default, |tape, (inputs, targets)| {
            let mut graph = tape.evaluate(params);
            model.loss(&mut graph, &[Example::causal(inputs, targets)], LossOptions::plain(1.0)).1.nats
        })
        .collect();
    nats.iter().sum::<f64>() / (core::f64::consts::LN_2 * n_bytes as f64)
}
