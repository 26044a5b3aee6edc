//! Loss and gradients of a batch, the same bytes for any number of threads.
//!
//! A batch is cut into a fixed number of shards. A shard's sequences run one after another, or a few at a time, into the shard's own
//! gradient buffer; the buffers are then added pairwise, neighbours first, in an order that depends on the number of shards alone.
//! Threads take whole shards, so which thread ran what leaves no trace in the sums.

use crate::data::Example;
use crate::model::{LossOptions, LossSums, Model, Pass};
use crate::tensor::{ParamGrads, Params, Tape, simd};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::Mutex;

/// Most shards of a batch: enough to keep 8 threads busy, few enough to add up quickly.
const SHARDS_MAX: usize = 8;
/// Fewest shards of a batch of as many sequences, however large the model.
const SHARDS_MIN: usize = 2;
/// Numbers in the gradients of all shards together, unless [`SHARDS_MIN`] take more.
const GRADIENTS_MAX: usize = 1 << 25;
/// Parameters for which a pass should have a token more: weights are read from memory, and their gradients written, once a pass.
const PARAMS_PER_TOKEN: usize = 1 << 14;
/// Tokens of a pass: fewer leave the products short, with more nothing is gained and activations no longer fit in the caches.
const PASS_TOKENS: std::ops::RangeInclusive<usize> = 256..=1024;
/// Numbers that a thread adds at a time when the shards' gradients are summed.
const SUM_CHUNK: usize = 1 << 14;

/// Which masks dropout draws: others for each run, example and place in the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropoutSeed {
    /// The run's seed.
    pub run: u64,
    /// The number of the batch's first example since the start of the run.
    pub first_example: u64,
}

impl DropoutSeed {
    /// The seed of a graph's dropout for the example at `idx` of the batch.
    fn of(self, idx: usize) -> u64 {
        let example = self.first_example + idx as u64;
        (self.run ^ example.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

/// Computes losses and gradients of batches; keeps its memory from one to the next.
pub struct Stepper<'m> {
    model: &'m dyn Model,
    tapes: Mutex<Vec<Tape>>,
    shards: Vec<ParamGrads>,
}

impl<'m> Stepper<'m> {
    /// A stepper for batches of a model.
    pub fn new(model: &'m dyn Model) -> Self {
        Self { model, tapes: Mutex::default(), shards: Vec::new() }
    }

    /// Bytes held between steps: first of activations and their gradients, of as many passes as ran at the same time; then of the gradients of
    /// the parameters, of all shards.
    pub fn n_bytes(&self) -> (usize, usize) {
        let tapes = self.tapes.lock().map_or(0, |tapes| tapes.iter().map(Tape::n_bytes).sum());
        (tapes, self.shards.iter().map(|shard| shard.len() * size_of::<f32>()).sum())
    }

    /// What the first of [`Stepper::n_bytes`] would be if no activation were stored in 16 bits.
    pub fn n_bytes_unnarrowed(&self) -> usize {
        self.tapes.lock().map_or(0, |tapes| tapes.iter().map(Tape::n_bytes_unnarrowed).sum())
    }

    /// Sets the gradients to zero: the start of a step that may accumulate several batches.
    pub fn clear(&mut self) {
        self.shards.iter_mut().for_each(ParamGrads::clear);
    }

    /// Adds the gradient of a batch's loss times `options.weight`, and returns the sums over its targets. Each of the batch is an
    /// example, or a row of several that are run together.
    pub fn accumulate(
        &mut self,
        params: &Params,
        batch: &[impl AsRef<[Example]> + Sync],
        options: LossOptions,
        dropout_seed: DropoutSeed,
    ) -> LossSums {
        let n_params = params.layout.len();
        let n_shards =
            (GRADIENTS_MAX / params.layout.n_trained().max(1)).clamp(SHARDS_MIN, SHARDS_MAX).min(batch.len());
        let pass_tokens = (n_params / PARAMS_PER_TOKEN).clamp(*PASS_TOKENS.start(), *PASS_TOKENS.end());
        while self.shards.len() < n_shards {
            self.shards.push(ParamGrads::new(&params.layout));
        }
        let (model, tapes) = (self.model, &self.tapes);
        let sums: Vec<LossSums> = self.shards[..n_shards]
            .par_iter_mut()
            .enumerate()
            .with_max_len(1)
            .map(|(idx, grads)| {
                let mut tape = tapes.lock().ok().and_then(|mut tapes| tapes.pop()).unwrap_or_default();
                let mut sums = LossSums::default();
                let (mut first, end) = (idx * batch.len() / n_shards, (idx + 1) * batch.len() / n_shards);
                while first < end {
                    let rows = &batch[first..first + n_rows_of_pass(&batch[first..end], pass_tokens)];
                    let examples = match rows {
                        [row] => Cow::Borrowed(row.as_ref()),
                        rows => rows.iter().flat_map(|row| row.as_ref()).cloned().collect(),
                    };
                    let dropout_key = dropout_seed.of(first);
                    sums += model.accumulate(Pass { tape: &mut tape, params, grads, dropout_key }, &examples, options);
                    first += rows.len();
                }
                if let Ok(mut tapes) = tapes.lock() {
                    tapes.push(tape);
                }
                sums
            })
            .collect();
        sums.into_iter().sum()
    }

    /// Adds up what the shards have accumulated and lends the sum.
    pub fn gradient(&mut self) -> &mut [f32] {
        let layout = self.model.layout();
        let mut chunks: Vec<Vec<&mut [f32]>> = Vec::new();
        chunks.resize_with(layout.n_trained().div_ceil(SUM_CHUNK), Vec::new);
        for shard in &mut self.shards {
            chunks
                .iter_mut()
                .zip(shard.values(layout).chunks_mut(SUM_CHUNK))
                .for_each(|(list, chunk)| list.push(chunk));
        }
        chunks.par_iter_mut().for_each(|shards| add_up(shards));
        self.shards.first_mut().map_or(&mut [], |shard| shard.values(layout))
    }
}

/// Adds neighbours, then neighbouring sums, until the first has them all.
fn add_up(shards: &mut [&mut [f32]]) {
    let mut gap = 1;
    while gap < shards.len() {
        for at in (0..shards.len() - gap).step_by(2 * gap) {
            let (left, right) = shards.split_at_mut(at + gap);
            simd::add_assign(left[at], right[0]);
        }
        gap *= 2;
    }
}

/// How many of the next rows to run through the model together: until they have `n_tokens`.
fn n_rows_of_pass(rows: &[impl AsRef<[Example]>], n_tokens: usize) -> usize {
    let mut sum = 0;
    let is_enough = |row: &_| {
        sum += AsRef::<[Example]>::as_ref(row).iter().map(Example::n_tokens).sum::<usize>();
        sum >= n_tokens
    };
    rows.iter().position(is_enough).map_or(rows.len(), |last| last + 1)
}
