//! The inner loops of attention over one sequence.
//!
//! Every mask here lets a query see the first so many keys of its sequence, so a row of scores is cut at one place. Padded columns
//! score zero, padded and unseen keys get the probability zero, padded queries are never written out.

use super::head::{BLOCK, Head, Source, unpack_add};
use super::rope::RopeTable;
use super::{AttentionShape, DropoutMask};
use crate::tensor::gemm::{Strip, tile};
use crate::tensor::simd::{Kernel, LANES, Lanes, vectors, vectors_mut};
use std::cell::RefCell;

/// A score that no probability survives.
const MASKED: f32 = -1e30;

/// Memory of a thread, kept between calls.
#[derive(Default)]
pub(super) struct Scratch {
    q: Head,
    k: Head,
    v: Head,
    dout: Head,
    scores: Vec<f32>,
    slopes: Vec<f32>,
    /// `(width / 8, padded, 8)` each.
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    deltas: Vec<f32>,
    /// One head's scores by distance, and their gradient.
    bias: Vec<f32>,
    dbias: Vec<f32>,
}

thread_local! {
    /// Borrowed around a kernel, not inside it: the closure would not be compiled for the kernel's CPU features.
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One sequence and how it is attended to.
pub(super) struct Sequence<'a> {
    pub shape: AttentionShape,
    pub n_queries: usize,
    pub n_keys: usize,
    /// Whether a query sees no later key, but for the prefix.
    pub is_causal: bool,
    pub prefix_len: usize,
    pub rope: Option<&'a RopeTable>,
    /// Bucket of each distance from `-(n_queries - 1)` on; empty without relative positions.
    pub buckets: Vec<usize>,
    /// Scores of the buckets, `(n_buckets, n_heads)`.
    pub bias: &'a [f32],
    pub dropout: Option<DropoutMask>,
    /// Row of the first query among all sequences: where its dropout masks start.
    pub first_place: u64,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
}

impl<'a> Sequence<'a> {
    /// Keys that query `i` sees: the first so many.
    #[inline(always)]
    fn n_visible(&self, i: usize) -> usize {
        if self.is_causal { (i + 1).max(self.prefix_len).min(self.n_keys) } else { self.n_keys }
    }

    /// Padded keys that a block of queries from `first` on is multiplied with.
    #[inline(always)]
    fn end_of_block(&self, first: usize) -> usize {
        self.n_visible(first + BLOCK - 1).next_multiple_of(BLOCK)
    }

    /// Numbers between the rows of a block of scores: off the powers of two, whose cache lines collide.
    fn stride(&self) -> usize {
        self.n_keys.next_multiple_of(BLOCK) + BLOCK
    }

    fn padded_queries(&self) -> usize {
        self.n_queries.next_multiple_of(BLOCK)
    }

    fn width(&self) -> usize {
        self.shape.head_dim.next_multiple_of(LANES)
    }

    /// A query head; turned where `rope` is wanted, scaled by `scale`.
    fn queries(&self, head: usize, rope: Option<&'a RopeTable>, scale: f32) -> Source<'a> {
        let AttentionShape { n_heads, head_dim, .. } = self.shape;
        Source { n_rows: self.n_queries, stride: n_heads * head_dim, col: head * head_dim, head_dim, rope, scale }
    }

    /// A key or value head.
    fn keys(&self, kv_head: usize, rope: Option<&'a RopeTable>) -> Source<'a> {
        let AttentionShape { n_kv_heads, head_dim, .. } = self.shape;
        let (stride, col) = (n_kv_heads * head_dim, kv_head * head_dim);
        Source { n_rows: self.n_keys, stride, col, head_dim, rope, scale: 1.0 }
    }

    /// The key head of a query head that is the first to use it.
    fn first_query_of(&self, head: usize) -> Option<usize> {
        let group = self.shape.n_heads / self.shape.n_kv_heads;
        head.is_multiple_of(group).then_some(head / group)
    }

    /// The key head of a query head that is the last to use it.
    fn last_query_of(&self, head: usize) -> Option<usize> {
        let group = self.shape.n_heads / self.shape.n_kv_heads;
        (head + 1).is_multiple_of(group).then_some(head / group)
    }

    /// One head's scores by distance, padded so that a whole vector may be read from any.
    fn bias_of(&self, head: usize, to: &mut Vec<f32>) {
        to.clear();
        to.extend(self.buckets.iter().map(|bucket| self.bias[bucket * self.shape.n_heads + head]));
        if !to.is_empty() {
            to.resize(to.len() + 2 * BLOCK, 0.0);
        }
    }

    /// Where the distances of query `i` start in [`Sequence::bias_of`].
    #[inline(always)]
    fn first_distance(&self, i: usize) -> usize {
        self.n_queries - 1 - i
    }

    /// Multiplies a row of probabilities by its dropout factors, if there are any.
    #[inline(always)]
    fn drop_row(&self, head: usize, i: usize, p: &mut [f32]) {
        if let Some(mask) = self.dropout {
            let row = (self.first_place + i as u64) * self.shape.n_heads as u64 + head as u64;
            p.iter_mut().enumerate().for_each(|(t, p)| *p *= mask.factor((row << 20) + t as u64));
        }
    }
}

/// `(16, end)` products of a block of rows of `a` with the first `end` rows of `b`.
///
/// # Panics
/// If `end` is not a multiple of [`BLOCK`] or a buffer is too short.
#[inline(always)]
fn scores<V: Lanes>(a: &Head, first: usize, b: &Head, end: usize, width: usize, stride: usize, to: &mut [f32]) {
    let a = &a.rows[first * width..(first + BLOCK) * width];
    let b = &b.columns[..end * width];
    let to = &mut to[..BLOCK * stride];
    assert!(end <= stride && end.is_multiple_of(BLOCK));
    for panel in 0..end / BLOCK {
        for row in (0..BLOCK).step_by(4) {
            let (a, b) = (a[row * width..].as_ptr(), b[panel * BLOCK * width..].as_ptr());
            let to = to[row * stride + panel * BLOCK..].as_mut_ptr();
            // SAFETY: four rows of `width` lie ahead of `a`, one panel ahead of `b`, and the tile ends within the block.
            unsafe { tile::<V, 4, 2>(width, Strip::Rows { start: a, stride: width }, b, to, stride, false) };
        }
    }
}

/// `to[first + i] = sum_t p[i, t] b[t]` over the first `end` positions, for a block of rows from `first` on.
///
/// `to` holds panels of `n_rows` rows, as those of `b` hold `b.padded`.
#[inline(always)]
fn mix<V: Lanes>(p: &[f32], stride: usize, end: usize, b: &Head, first: usize, n_rows: usize, to: &mut [f32]) {
    assert!(end <= b.padded && end <= stride && first + BLOCK <= n_rows && p.len() >= BLOCK * stride);
    assert!(b.panels.len() * n_rows == to.len() * b.padded);
    let panels = b.panels.chunks_exact(b.padded * LANES).zip(to.chunks_exact_mut(n_rows * LANES));
    for (b, to) in panels {
        for row in (0..BLOCK).step_by(8) {
            let to = to[(first + row) * LANES..].as_mut_ptr();
            let p = Strip::Rows { start: p[row * stride..].as_ptr(), stride };
            // SAFETY: `p` holds the block's rows up to `end <= stride`, `b` holds `end` rows of one vector and `to` the block's.
            unsafe { tile::<V, 8, 1>(end, p, b.as_ptr(), to, LANES, false) };
        }
    }
}

/// `to[t] += sum_i p[i, t] b[first + i]` for the first `end` positions: [`mix`] the other way round.
#[inline(always)]
fn mix_back<V: Lanes>(p: &[f32], stride: usize, end: usize, b: &Head, first: usize, n_rows: usize, to: &mut [f32]) {
    assert!(end <= n_rows && end <= stride && first + BLOCK <= b.padded && p.len() >= BLOCK * stride);
    assert!(b.panels.len() * n_rows == to.len() * b.padded && end.is_multiple_of(LANES));
    let panels = b.panels.chunks_exact(b.padded * LANES).zip(to.chunks_exact_mut(n_rows * LANES));
    for (b, to) in panels {
        for t in (0..end).step_by(8) {
            let (p, b, to) = (p[t..].as_ptr(), b[first * LANES..].as_ptr(), to[t * LANES..].as_mut_ptr());
            // SAFETY: as in `mix`, with the axes of `p` exchanged.
            unsafe { tile::<V, 8, 1>(BLOCK, Strip::Columns { start: p, stride }, b, to, LANES, true) };
        }
    }
}

/// Adds the scores by distance to a row, and masks the keys that it does not see.
#[inline(always)]
fn finish_scores<V: Lanes>(row: &mut [f32], sequence: &Sequence<'_>, i: usize, bias: &[f32]) {
    if !bias.is_empty() && i < sequence.n_queries {
        let bias = &bias[sequence.first_distance(i)..];
        for (scores, bias) in vectors_mut(row).0.iter_mut().zip(vectors(bias).0) {
            V::load(scores).add(V::load(bias)).store(scores);
        }
    }
    row[sequence.n_visible(i)..].fill(MASKED);
}

/// Forward over all heads of one sequence.
pub(super) struct ForwardHeads<'a> {
    pub scratch: &'a mut Scratch,
    pub sequence: &'a Sequence<'a>,
    pub out: &'a mut [f32],
    /// Log-sum-exp of each row's scores, `(n_queries, n_heads)`.
    pub log_sums: &'a mut [f32],
}

impl Kernel for ForwardHeads<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { scratch, sequence, out, log_sums } = self;
        let AttentionShape { n_heads, head_dim, scale, .. } = sequence.shape;
        let (stride, width, n_rows) = (sequence.stride(), sequence.width(), sequence.padded_queries());
        let Scratch { q: q_head, k: k_head, v: v_head, scores: block, dq: mixed, bias, .. } = scratch;
        block.resize(BLOCK * stride, 0.0);
        mixed.resize(n_rows * width, 0.0);
        for head in 0..n_heads {
            if let Some(kv_head) = sequence.first_query_of(head) {
                k_head.pack(sequence.k, sequence.keys(kv_head, sequence.rope), true);
                v_head.pack(sequence.v, sequence.keys(kv_head, None), false);
            }
            q_head.pack(sequence.q, sequence.queries(head, sequence.rope, scale), false);
            sequence.bias_of(head, bias);
            for first in (0..n_rows).step_by(BLOCK) {
                let end = sequence.end_of_block(first);
                scores::<V>(q_head, first, k_head, end, width, stride, block);
                let mut sums = [(0.0, 1.0); BLOCK];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row = &mut block[i * stride..][..end];
                    finish_scores::<V>(row, sequence, first + i, bias);
                    *sums = softmax_row::<V>(row);
                    sequence.drop_row(head, first + i, row);
                }
                mix::<V>(block, stride, end, v_head, first, n_rows, mixed);
                for (i, (top, sum)) in sums.into_iter().enumerate().take(sequence.n_queries.saturating_sub(first)) {
                    let t = first + i;
                    log_sums[t * n_heads + head] = top + sum.ln();
                    let to = &mut out[(t * n_heads + head) * head_dim..][..head_dim];
                    for (panel, to) in to.chunks_mut(LANES).enumerate() {
                        let from = &mixed[(panel * n_rows + t) * LANES..];
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = from / sum);
                    }
                }
            }
        }
    }
}

/// Turns a row of scores into `exp(score - maximum)`; gives `(maximum, sum)`.
#[inline(always)]
fn softmax_row<V: Lanes>(row: &mut [f32]) -> (f32, f32) {
    let mut top = V::splat(MASKED);
    for scores in vectors(row).0 {
        top = top.max(V::load(scores));
    }
    let top = top.reduce_max();
    let (shift, mut sum) = (V::splat(top), V::zero());
    for scores in vectors_mut(row).0 {
        let odds = V::load(scores).sub(shift).exp();
        sum = sum.add(odds);
        odds.store(scores);
    }
    (top, sum.reduce_sum())
}

/// The way back over all heads of one sequence.
pub(super) struct BackwardHeads<'a> {
    pub scratch: &'a mut Scratch,
    pub sequence: &'a Sequence<'a>,
    pub out: &'a [f32],
    pub log_sums: &'a [f32],
    pub dout: &'a [f32],
    /// Added to, like `dk`, `dv` and `dbias`.
    pub dq: &'a mut [f32],
    pub dk: &'a mut [f32],
    pub dv: &'a mut [f32],
    /// `(n_buckets, n_heads)`.
    pub dbias: &'a mut [f32],
}

impl Kernel for BackwardHeads<'_> {
    type Output = ();

    /// With `p` the probabilities: `dv = pᵀ dout`, `ds = p (dout vᵀ - sum(dout out))`, `dq = ds k`, `dk = dsᵀ q`.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { scratch: s, sequence, out, log_sums, dout, dq, dk, dv, dbias } = self;
        let AttentionShape { n_heads, scale, .. } = sequence.shape;
        let (stride, width, n_rows) = (sequence.stride(), sequence.width(), sequence.padded_queries());
        let n_keys = sequence.n_keys.next_multiple_of(BLOCK);
        s.scores.resize(BLOCK * stride, 0.0);
        s.slopes.resize(BLOCK * stride, 0.0);
        s.dq.resize(n_rows * width, 0.0);
        s.dk.resize(n_keys * width, 0.0);
        s.dv.resize(n_keys * width, 0.0);
        s.deltas.clear();
        s.deltas.resize(n_rows, 0.0);
        for head in 0..n_heads {
            if let Some(kv_head) = sequence.first_query_of(head) {
                s.k.pack(sequence.k, sequence.keys(kv_head, sequence.rope), true);
                s.v.pack(sequence.v, sequence.keys(kv_head, None), true);
                s.dk.fill(0.0);
                s.dv.fill(0.0);
            }
            s.q.pack(sequence.q, sequence.queries(head, sequence.rope, scale), false);
            s.dout.pack(dout, sequence.queries(head, None, 1.0), false);
            sequence.bias_of(head, &mut s.bias);
            s.dbias.clear();
            s.dbias.resize(s.bias.len(), 0.0);
            deltas(sequence.shape, head, out, dout, &mut s.deltas);
            for first in (0..n_rows).step_by(BLOCK) {
                let end = sequence.end_of_block(first);
                scores::<V>(&s.q, first, &s.k, end, width, stride, &mut s.scores);
                scores::<V>(&s.dout, first, &s.v, end, width, stride, &mut s.slopes);
                for i in 0..BLOCK {
                    slope_row::<V>(s, sequence, log_sums, head, first + i, i * stride..i * stride + end);
                }
                mix_back::<V>(&s.scores, stride, end, &s.dout, first, n_keys, &mut s.dv);
                mix_back::<V>(&s.slopes, stride, end, &s.q, first, n_keys, &mut s.dk);
                mix::<V>(&s.slopes, stride, end, &s.k, first, n_rows, &mut s.dq);
            }
            for (bucket, grad) in sequence.buckets.iter().zip(&s.dbias) {
                dbias[bucket * n_heads + head] += grad;
            }
            unpack_add(dq, &s.dq, sequence.queries(head, sequence.rope, scale));
            if let Some(kv_head) = sequence.last_query_of(head) {
                unpack_add(dk, &s.dk, sequence.keys(kv_head, sequence.rope));
                unpack_add(dv, &s.dv, sequence.keys(kv_head, None));
            }
        }
    }
}

/// Turns query `i`'s row of scores into the probabilities that met the values, and its row of slopes from the gradients of these
/// into those of the scores.
#[inline(always)]
fn slope_row<V: Lanes>(
    s: &mut Scratch,
    sequence: &Sequence<'_>,
    log_sums: &[f32],
    head: usize,
    i: usize,
    at: std::ops::Range<usize>,
) {
    let (p, ds) = (&mut s.scores[at.clone()], &mut s.slopes[at]);
    finish_scores::<V>(p, sequence, i, &s.bias);
    let log_sum = log_sums.get(i * sequence.shape.n_heads + head).copied().unwrap_or(0.0);
    let (shift, delta) = (V::splat(log_sum), V::splat(s.deltas[i]));
    if sequence.dropout.is_some() {
        sequence.drop_row(head, i, ds);
    }
    for (p, ds) in vectors_mut(p).0.iter_mut().zip(vectors_mut(ds).0) {
        let odds = V::load(p).sub(shift).exp();
        odds.store(p);
        V::load(ds).sub(delta).mul(odds).store(ds);
    }
    sequence.drop_row(head, i, p);
    if !s.dbias.is_empty() && i < sequence.n_queries {
        let to = &mut s.dbias[sequence.first_distance(i)..];
        for (to, ds) in vectors_mut(to).0.iter_mut().zip(vectors(ds).0) {
            V::load(to).add(V::load(ds)).store(to);
        }
    }
}

/// `sum(dout * out)` of one head at each position.
#[inline(always)]
fn deltas(shape: AttentionShape, head: usize, out: &[f32], dout: &[f32], to: &mut [f32]) {
    let rows = out.chunks_exact(shape.n_heads * shape.head_dim).zip(dout.chunks_exact(shape.n_heads * shape.head_dim));
    for (to, (out, dout)) in to.iter_mut().zip(rows) {
        let at = head * shape.head_dim..(head + 1) * shape.head_dim;
        *to = out[at.clone()].iter().zip(&dout[at]).map(|(a, b)| a * b).sum();
    }
}
