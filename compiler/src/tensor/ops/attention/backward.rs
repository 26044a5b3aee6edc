//! Attention over one sequence, backward.

use super::lanes::{
    BLOCK, Head, PAIRS, Row, fold_pairs, get, load_block, pair_block, set, store_block, vectors_of_row,
};
use super::products::{mix, mix_back, scores};
use super::sequence::Sequence;
use crate::tensor::gemm::Write;
use crate::tensor::simd::{LANES, Vector, WideKernel};
use std::f32::consts::LN_2;
use std::ops::Range;

/// Keys at a time: their scores and slopes stay in the first-level cache from one product to the next.
const CHUNK: usize = 4 * BLOCK;

/// A block of queries, or of the gradient of what they have read, in both orders.
#[derive(Default)]
struct Block {
    /// A row for each dimension.
    lanes: Vec<Row>,
    /// `(width / 8, 8)` rows of pairs.
    pairs: Vec<[Row; PAIRS]>,
}

impl Block {
    fn resize(&mut self, width: usize) {
        self.lanes.resize(width, [0.0; BLOCK]);
        self.pairs.resize(width / LANES, [[0.0; BLOCK]; PAIRS]);
    }

    #[inline(always)]
    fn pair(&mut self) {
        pair_block(&self.lanes, self.pairs.as_flattened_mut());
    }
}

/// Memory of a thread, kept between calls.
#[derive(Default)]
pub(super) struct BackwardScratch {
    k: Head,
    v: Head,
    q: Block,
    dout: Block,
    /// Rows for each dimension of a block.
    out: Vec<Row>,
    dq: Vec<Row>,
    /// `(width / 8, padded)` rows of sums over pairs, each.
    dk: Vec<Row>,
    dv: Vec<Row>,
    scores: Vec<Row>,
    slopes: Vec<Row>,
    /// One head's scores by distance, and their gradient.
    bias: Vec<f32>,
    dbias: Vec<f32>,
}

impl BackwardScratch {
    fn resize(&mut self, width: usize, padded_keys: usize) {
        self.q.resize(width);
        self.dout.resize(width);
        for rows in [&mut self.out, &mut self.dq] {
            rows.resize(width, [0.0; BLOCK]);
        }
        for rows in [&mut self.dk, &mut self.dv] {
            rows.resize(width / LANES * padded_keys, [0.0; BLOCK]);
        }
        for rows in [&mut self.scores, &mut self.slopes] {
            rows.resize(CHUNK, [0.0; BLOCK]);
        }
    }
}

/// The way back over all heads of one sequence.
pub(super) struct BackwardHeads<'a> {
    pub scratch: &'a mut BackwardScratch,
    pub sequence: &'a Sequence<'a>,
    pub out: &'a [f32],
    /// As [`ForwardHeads`](super::forward::ForwardHeads) has left them.
    pub log_sums: &'a [f32],
    pub dout: &'a [f32],
    /// Added to, like `dk`, `dv` and `dbias`.
    pub dq: &'a mut [f32],
    pub dk: &'a mut [f32],
    pub dv: &'a mut [f32],
    /// `(n_buckets, n_heads)`.
    pub dbias: &'a mut [f32],
}

impl WideKernel for BackwardHeads<'_> {
    type Output = ();

    /// With `p` the probabilities: `dv = pᵀ dout`, `ds = p (dout vᵀ - sum(dout out))`, `dq = ds k`, `dk = dsᵀ q`.
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { scratch: s, sequence, out, log_sums, dout, dq, dk, dv, dbias } = self;
        let padded = sequence.padded_keys();
        s.resize(sequence.width(), padded);
        for (head, log_sums) in log_sums.chunks_exact(sequence.n_queries).enumerate() {
            if let Some(kv_head) = sequence.first_query_of(head) {
                s.k.pack::<V>(sequence.k, sequence.keys(kv_head, sequence.rope, 1.0));
                s.v.pack::<V>(sequence.v, sequence.keys(kv_head, None, 1.0));
                s.dk.fill([0.0; BLOCK]);
                s.dv.fill([0.0; BLOCK]);
            }
            sequence.bias_of(head, &mut s.bias);
            s.dbias.clear();
            s.dbias.resize(s.bias.len(), 0.0);
            let (turned, plain) = (sequence.queries(head, sequence.rope, 1.0), sequence.queries(head, None, 1.0));
            for (block, log_sums) in log_sums.chunks(BLOCK).enumerate() {
                let first = block * BLOCK;
                let scaled = |scale| super::lanes::Source { scale, ..turned };
                load_block::<V>(sequence.q, scaled(sequence.query_scale()), first, &mut s.q.lanes);
                load_block::<V>(dout, plain, first, &mut s.dout.lanes);
                load_block::<V>(out, plain, first, &mut s.out);
                s.q.pair();
                s.dout.pair();
                let deltas = deltas::<V>(&s.out, &s.dout.lanes);
                let mut shifts = [0.0; BLOCK];
                shifts[..log_sums.len()].copy_from_slice(log_sums);
                let end = sequence.end_of_block(first);
                for start in (0..end).step_by(CHUNK) {
                    let keys = start..end.min(start + CHUNK);
                    chunk::<V>(s, sequence, Place { head, first, keys }, &shifts, &deltas);
                }
                store_block::<V>(&mut s.dq, dq, scaled(sequence.shape.scale), first, Write::Add);
            }
            sequence.add_dbias(head, &s.dbias, dbias);
            if let Some(kv_head) = sequence.last_query_of(head) {
                // The queries that `dk` is made of were scaled for powers of 2.
                let turned = sequence.keys(kv_head, sequence.rope, LN_2);
                for first in (0..padded).step_by(BLOCK) {
                    fold_pairs(&s.dk, padded, first, &mut s.dq);
                    store_block::<V>(&mut s.dq, dk, turned, first, Write::Add);
                    fold_pairs(&s.dv, padded, first, &mut s.dq);
                    store_block::<V>(&mut s.dq, dv, sequence.keys(kv_head, None, 1.0), first, Write::Add);
                }
            }
        }
    }
}

/// A block of queries against some keys.
struct Place {
    head: usize,
    /// The first query.
    first: usize,
    keys: Range<usize>,
}

/// Adds what a block of queries and some keys have to do with each other to `dq`, which it begins, `dk` and `dv`.
#[inline(always)]
fn chunk<V: Vector>(s: &mut BackwardScratch, sequence: &Sequence<'_>, place: Place, shifts: &Row, deltas: &Row) {
    let Place { head, first, keys } = place;
    let (head_dim, padded) = (sequence.shape.head_dim, sequence.padded_keys());
    let (p, ds) = (&mut s.scores[..keys.len()], &mut s.slopes[..keys.len()]);
    scores::<V>(&s.k, keys.clone(), &s.q.lanes[..head_dim], p);
    scores::<V>(&s.v, keys.clone(), &s.dout.lanes[..head_dim], ds);
    sequence.finish_scores::<V>(p, first, keys.start, &s.bias);
    sequence.drop_rows(head, first, keys.start, ds);
    slopes::<V>(p, ds, shifts, deltas);
    sequence.drop_rows(head, first, keys.start, p);
    if !s.dbias.is_empty() {
        for (t, ds) in keys.clone().zip(&*ds) {
            s.dbias[sequence.distances(first, t)].iter_mut().zip(ds).for_each(|(to, ds)| *to += ds);
        }
    }
    for (panel, (dout, q)) in s.dout.pairs.iter().zip(&s.q.pairs).enumerate() {
        let at = panel * padded + keys.start..panel * padded + keys.end;
        mix_back::<V>(p, dout, &mut s.dv[at.clone()]);
        mix_back::<V>(ds, q, &mut s.dk[at]);
    }
    mix::<V>(ds, &s.k, keys.clone(), &mut s.dq, keys.start > 0);
}

/// Turns scores into probabilities, and the gradients of these into those of the scores.
#[inline(always)]
fn slopes<V: Vector>(p: &mut [Row], ds: &mut [Row], shifts: &Row, deltas: &Row) {
    for at in vectors_of_row::<V>() {
        let (shift, delta) = (get::<V>(shifts, at), get::<V>(deltas, at));
        for (p, ds) in p.iter_mut().zip(ds.iter_mut()) {
            let odds = get::<V>(p, at).sub(shift).exp2();
            set(p, at, odds);
            set(ds, at, get::<V>(ds, at).sub(delta).mul(odds));
        }
    }
}

/// `sum_d dout * out` for each query.
#[inline(always)]
fn deltas<V: Vector>(out: &[Row], dout: &[Row]) -> Row {
    let mut sums = [0.0; BLOCK];
    for (out, dout) in out.iter().zip(dout) {
        for at in vectors_of_row::<V>() {
            let sum = get::<V>(out, at).mul_add(get(dout, at), get(&sums, at));
            set(&mut sums, at, sum);
        }
    }
    sums
}
