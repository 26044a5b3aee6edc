//! Attention over one sequence, backward.

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
    #[inline(always)]
    fn load<V: Vector>(&mut self, data: &[f32], source: Source<'_>, width: usize) {
        let n_blocks = source.n_rows.div_ceil(BLOCK);
        for rows in [&mut self.lanes, &mut self.pairs] {
            rows.resize(n_blocks * width, Row::default());
        }
        let blocks = self.lanes.chunks_exact_mut(width).zip(self.pairs.chunks_exact_mut(width));
        for (block, (lanes, pairs)) in blocks.enumerate() {
            load_block::<V>(data, source, block * BLOCK, lanes);
            pair_block(lanes, pairs);
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
    /// `sum(dout * out)`, and the log-sum-exp, of the queries of each block.
    deltas: Vec<Row>,
    shifts: Vec<Row>,
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
        self.dq.resize(n_blocks * width, Row::default());
        for rows in [&mut self.deltas, &mut self.shifts] {
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
    /// As [`ForwardHeads`](super::forward::ForwardHeads) has left them.
    pub log_sums: &'a [f32],
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

    /// With `p` the probabilities: `dv = pᵀ dout`, `ds = p (dout vᵀ - sum(dout out))`, `dq = ds k`, `dk = dsᵀ q`.
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { scratch: s, sequence, out, log_sums, dout, dq, dk, dv, dbias } = self;
        let (width, padded) = (sequence.width(), sequence.padded_keys());
        s.resize(width, sequence.n_queries.div_ceil(BLOCK), padded);
        for (head, log_sums) in log_sums.chunks_exact(sequence.n_queries).enumerate() {
            if let Some(kv_head) = sequence.first_query_of(head) {
                s.k.pack::<V>(sequence.k, sequence.keys(kv_head, sequence.rope, 1.0), true, true);
                s.v.pack::<V>(sequence.v, sequence.keys(kv_head, None, 1.0), true, false);
                s.dk.fill(Row::default());
                s.dv.fill(Row::default());
            }
            let queries = |scale| sequence.queries(head, sequence.rope, scale);
            s.q.load::<V>(sequence.q, queries(sequence.query_scale()), width);
            s.dout.load::<V>(dout, sequence.queries(head, None, 1.0), width);
            s.load_sums::<V>(out, sequence.queries(head, None, 1.0), log_sums);
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
    /// Fills `deltas` and `shifts` for one head, whose gradients are in `dout`.
    #[inline(always)]
    fn load_sums<V: Vector>(&mut self, out: &[f32], source: Source<'_>, log_sums: &[f32]) {
        let width = self.block.len();
        for (block, log_sums) in log_sums.chunks(BLOCK).enumerate() {
            load_block::<V>(out, source, block * BLOCK, &mut self.block);
            let mut sums = Row::default();
            for (out, dout) in self.block.iter().zip(&self.dout.lanes[block * width..]) {
                for at in vectors_of_row::<V>() {
                    let sum = get::<V>(out, at).mul_add(get(dout, at), get(&sums, at));
                    set(&mut sums, at, sum);
                }
            }
            self.deltas[block] = sums;
            // Zeros for the padding: their probabilities meet gradients of zero.
            self.shifts[block] = Row::default();
            self.shifts[block].0[..log_sums.len()].copy_from_slice(log_sums);
        }
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
    scores::<V>(&s.k, keys.clone(), &s.q.lanes[of_block.clone()], p);
    scores::<V>(&s.v, keys.clone(), &s.dout.lanes[of_block.clone()], ds);
    sequence.finish_scores::<V>(p, first, keys.start, &s.bias);
    sequence.drop_rows(head, first, keys.start, ds);
    slopes::<V>(p, ds, &s.shifts[block], &s.deltas[block]);
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
