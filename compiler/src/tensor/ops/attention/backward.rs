//! Attention over one sequence, backward.

use super::forward::scale;
use super::lanes::{
    BLOCK, Head, Row, Source, fold_pairs, get, load_block, pair_block, set, store_block, vectors_of_row,
};
use super::products::{mix, mix_back, scores};
use super::sequence::Sequence;
use crate::tensor::gemm::Write;
use crate::tensor::simd::{LANES, Vector, WideKernel};
use std::f32::consts::LN_2;
use std::ops::Range;

/// Rows of `dk` and `dv`, eight dimensions of a key each, that stay in the first-level cache while all queries pass by.
const CHUNK_ROWS: usize = 8 * BLOCK;

/// A head's queries, or the gradient of what they have read, block by block in both orders.
#[derive(Default)]
struct Blocks {
    /// A row for each dimension.
    lanes: Vec<Row>,
    /// `(width / 8, 8)` rows of pairs.
    pairs: Vec<Row>,
}

impl Blocks {
    fn resize(&mut self, n_rows: usize) {
        for rows in [&mut self.lanes, &mut self.pairs] {
            rows.resize(n_rows, Row::default());
        }
    }
}

/// Memory of a thread, kept between calls.
#[derive(Default)]
pub(super) struct BackwardScratch {
    k: Head,
    v: Head,
    q: Blocks,
    dout: Blocks,
    /// `sum(dout * out)`, and the largest score, of the queries of each block.
    deltas: Vec<Row>,
    tops: Vec<Row>,
    /// Rows for each dimension of a block.
    block: Vec<Row>,
    /// Rows for each dimension of each block.
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
    fn resize(&mut self, width: usize, n_blocks: usize, padded_keys: usize) {
        self.block.resize(width, Row::default());
        self.q.resize(n_blocks * width);
        self.dout.resize(n_blocks * width);
        self.dq.resize(n_blocks * width, Row::default());
        for rows in [&mut self.deltas, &mut self.tops] {
            rows.resize(n_blocks, Row::default());
        }
        for rows in [&mut self.dk, &mut self.dv] {
            rows.resize(width / LANES * padded_keys, Row::default());
        }
        for rows in [&mut self.scores, &mut self.slopes] {
            rows.resize(CHUNK_ROWS, Row::default());
        }
    }
}

/// The way back over all heads of one sequence.
pub(super) struct BackwardHeads<'a> {
    pub scratch: &'a mut BackwardScratch,
    pub sequence: &'a Sequence<'a>,
    pub out: &'a [f32],
    /// As [`ForwardHeads`](super::forward::ForwardHeads) has left it.
    pub softmax: &'a [f32],
    pub dout: &'a [f32],
    /// Where the gradient of the queries goes, and whether it is added; so for keys and values.
    pub dq: (&'a mut [f32], Write),
    pub dk: (&'a mut [f32], Write),
    pub dv: (&'a mut [f32], Write),
    /// `(n_buckets, n_heads)`, added to.
    pub dbias: &'a mut [f32],
}

impl WideKernel for BackwardHeads<'_> {
    type Output = ();

    /// With `p` the probabilities, here times their sum, and `dout` divided by it: `dv = pᵀ dout`,
    /// `ds = p (dout vᵀ - sum(dout out))`, `dq = ds k`, `dk = dsᵀ q`.
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { scratch: s, sequence, out, softmax, dout, dq, dk, dv, dbias } = self;
        let (width, padded) = (sequence.width(), sequence.padded_keys());
        s.resize(width, sequence.n_queries.div_ceil(BLOCK), padded);
        let (tops, inverses) = softmax.split_at(softmax.len() / 2);
        let n = sequence.n_queries;
        for (head, (tops, inverses)) in tops.chunks_exact(n).zip(inverses.chunks_exact(n)).enumerate() {
            if let Some(kv_head) = sequence.first_query_of(head) {
                s.k.pack::<V>(sequence.k, sequence.keys(kv_head, sequence.rope, 1.0), true, true);
                s.v.pack::<V>(sequence.v, sequence.keys(kv_head, None, 1.0), true, false);
                s.dk.fill(Row::default());
                s.dv.fill(Row::default());
            }
            let queries = |scale| sequence.queries(head, sequence.rope, scale);
            let (q, plain) = (queries(sequence.query_scale()), sequence.queries(head, None, 1.0));
            for (block, (tops, inverses)) in tops.chunks(BLOCK).zip(inverses.chunks(BLOCK)).enumerate() {
                s.load_queries::<V>(block, (sequence.q, q), ([out, dout], plain), (tops, inverses));
            }
            sequence.bias_of(head, &mut s.bias);
            s.dbias.clear();
            s.dbias.resize(s.bias.len(), 0.0);
            head_backward::<V>(s, sequence, head);
            sequence.add_dbias(head, &s.dbias, dbias);
            for (block, rows) in s.dq.chunks_exact_mut(width).enumerate() {
                store_block::<V>(rows, dq.0, queries(sequence.shape.scale), block * BLOCK, dq.1);
            }
            if let Some(kv_head) = sequence.last_query_of(head) {
                // The queries that `dk` is made of were scaled for powers of 2.
                let (turned, plain) = (sequence.keys(kv_head, sequence.rope, LN_2), sequence.keys(kv_head, None, 1.0));
                for first in (0..padded).step_by(BLOCK) {
                    fold_pairs(&s.dk, padded, first, &mut s.block);
                    store_block::<V>(&mut s.block, dk.0, turned, first, dk.1);
                    fold_pairs(&s.dv, padded, first, &mut s.block);
                    store_block::<V>(&mut s.block, dv.0, plain, first, dv.1);
                }
            }
        }
    }
}

impl BackwardScratch {
    /// Reads a block of a head's queries, what they have read and the gradient of it, which it divides by the sums of the softmax: so
    /// `2^(score - top)` does for the probabilities in all that follows.
    #[inline(always)]
    fn load_queries<V: Vector>(
        &mut self,
        block: usize,
        (q, turned): (&[f32], Source<'_>),
        ([out, dout], plain): ([&[f32]; 2], Source<'_>),
        (tops, inverses): (&[f32], &[f32]),
    ) {
        let (first, width) = (block * BLOCK, self.block.len());
        let of_block = block * width..(block + 1) * width;
        // Zeros for the padding: gradients of zero.
        let (mut top, mut inverse, mut delta) = (Row::default(), Row::default(), Row::default());
        top.0[..tops.len()].copy_from_slice(tops);
        inverse.0[..inverses.len()].copy_from_slice(inverses);
        let (q_lanes, dout_lanes) = (&mut self.q.lanes[of_block.clone()], &mut self.dout.lanes[of_block.clone()]);
        load_block::<V>(q, turned, first, q_lanes);
        pair_block(q_lanes, &mut self.q.pairs[of_block.clone()]);
        load_block::<V>(dout, plain, first, dout_lanes);
        scale::<V>(dout_lanes, &inverse);
        pair_block(dout_lanes, &mut self.dout.pairs[of_block]);
        load_block::<V>(out, plain, first, &mut self.block);
        for (out, dout) in self.block.iter().zip(dout_lanes) {
            for at in vectors_of_row::<V>() {
                let sum = get::<V>(out, at).mul_add(get(dout, at), get(&delta, at));
                set(&mut delta, at, sum);
            }
        }
        (self.tops[block], self.deltas[block]) = (top, delta);
    }
}

/// Adds the gradients of one head to `dk` and `dv`, and sets `dq`: some keys after the other, all queries that see them.
#[inline(always)]
fn head_backward<V: Vector>(s: &mut BackwardScratch, sequence: &Sequence<'_>, head: usize) {
    let panels = s.block.len() / LANES;
    let chunk_keys = (CHUNK_ROWS / panels / BLOCK * BLOCK).max(BLOCK);
    for start in (0..sequence.padded_keys()).step_by(chunk_keys) {
        for block in 0..s.deltas.len() {
            let first = block * BLOCK;
            let end = sequence.end_of_block(first).min(start + chunk_keys);
            if end > start {
                chunk_backward::<V>(s, sequence, Place { head, block, keys: start..end });
            }
        }
    }
}

/// A block of queries against some keys.
struct Place {
    head: usize,
    block: usize,
    keys: Range<usize>,
}

/// Adds what a block of queries and some keys have to do with each other to `dq`, which the first keys begin, `dk` and `dv`.
#[inline(always)]
fn chunk_backward<V: Vector>(s: &mut BackwardScratch, sequence: &Sequence<'_>, place: Place) {
    let Place { head, block, keys } = place;
    let (first, width, padded) = (block * BLOCK, s.block.len(), sequence.padded_keys());
    let of_block = block * width..(block + 1) * width;
    let (p, ds) = (&mut s.scores[..keys.len()], &mut s.slopes[..keys.len()]);
    let (q, dout) = (&s.q.lanes[of_block.clone()], &s.dout.lanes[of_block.clone()]);
    scores::<V>(&s.k, keys.clone(), q, p);
    scores::<V>(&s.v, keys.clone(), dout, ds);
    sequence.finish_scores::<V>(p, first, keys.start, &s.bias);
    sequence.drop_rows(head, first, keys.start, ds);
    slopes::<V>(p, ds, &s.tops[block], &s.deltas[block]);
    sequence.drop_rows(head, first, keys.start, p);
    if !s.dbias.is_empty() {
        for (t, ds) in keys.clone().zip(&*ds) {
            s.dbias[sequence.distances(first, t)].iter_mut().zip(ds.0).for_each(|(to, ds)| *to += ds);
        }
    }
    let (q, dout) = (&s.q.pairs[of_block.clone()], &s.dout.pairs[of_block.clone()]);
    for (panel, (q, dout)) in q.as_chunks().0.iter().zip(dout.as_chunks().0).enumerate() {
        let at = panel * padded + keys.start..panel * padded + keys.end;
        mix_back::<V>(p, dout, &mut s.dv[at.clone()]);
        mix_back::<V>(ds, q, &mut s.dk[at]);
    }
    mix::<V>(ds, &s.k, keys.clone(), &mut s.dq[of_block], keys.start > 0);
}

/// Turns scores into probabilities, and the gradients of these into those of the scores.
#[inline(always)]
fn slopes<V: Vector>(p: &mut [Row], ds: &mut [Row], tops: &Row, deltas: &Row) {
    for at in vectors_of_row::<V>() {
        let (top, delta) = (get::<V>(tops, at), get::<V>(deltas, at));
        for (p, ds) in p.iter_mut().zip(ds.iter_mut()) {
            // At most 1, or little more where queries and keys were rounded to 16 bits since `top` was found.
            let odds = get::<V>(p, at).sub(top).exp2();
            set(p, at, odds);
            set(ds, at, get::<V>(ds, at).sub(delta).mul(odds));
        }
    }
}
