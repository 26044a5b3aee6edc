//! The inner loops of attention over one sequence.
//!
//! Rows are padded to blocks of 16 and heads to whole vectors, with zeros, so that every product is made of full tiles; padded
//! columns score zero, padded and future keys get the probability zero, padded queries are never written out.

use super::attention::{AttentionShape, RopeTable};
use crate::tensor::gemm::tile;
use crate::tensor::simd::{Kernel, LANES, Lanes, vectors, vectors_mut};
use std::cell::RefCell;

/// Queries in a block, and keys in a packed panel.
const BLOCK: usize = 16;
/// A score that no probability survives.
const MASKED: f32 = -1e30;

/// The numbers of one head, `(padded, width)`, in the orders that the products read.
#[derive(Default)]
struct Head {
    /// Row-major: the left operand of scores.
    rows: Vec<f32>,
    /// `(width / 8, padded, 8)`: the right operand of sums over positions.
    panels: Vec<f32>,
    /// `(padded / 16, width, 16)`: the right operand of scores.
    columns: Vec<f32>,
}

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
}

thread_local! {
    /// Borrowed around a kernel, not inside it: the closure would not be compiled for the kernel's CPU features.
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Sizes after padding.
#[derive(Clone, Copy)]
struct Padded {
    /// Positions, a multiple of [`BLOCK`].
    len: usize,
    /// Head width, a multiple of [`LANES`].
    width: usize,
    /// Between the rows of a block of scores: off the powers of two, whose cache lines collide.
    stride: usize,
}

impl Padded {
    fn of(shape: AttentionShape) -> Self {
        let len = shape.seq_len.next_multiple_of(BLOCK);
        Self { len, width: shape.head_dim.next_multiple_of(LANES), stride: len + BLOCK }
    }
}

/// Which columns of a matrix of heads to read, and what to do on the way.
#[derive(Clone, Copy)]
struct Source<'a> {
    data: &'a [f32],
    /// Columns of `data`.
    stride: usize,
    /// First column of the head.
    col: usize,
    rope: Option<&'a RopeTable>,
    scale: f32,
}

impl Head {
    /// Reads one head and lays it out; `columns` only where asked for.
    fn pack(&mut self, source: Source<'_>, shape: AttentionShape, padded: Padded, columns: bool) {
        let Padded { len, width, .. } = padded;
        let (head_dim, half) = (shape.head_dim, shape.head_dim / 2);
        self.rows.resize(len * width, 0.0);
        self.panels.resize(len * width, 0.0);
        self.rows[shape.seq_len * width..].fill(0.0);
        for (t, to) in self.rows.chunks_exact_mut(width).take(shape.seq_len).enumerate() {
            let from = &source.data[t * source.stride + source.col..][..head_dim];
            to[head_dim..].fill(0.0);
            let to = &mut to[..head_dim];
            if let Some(rope) = source.rope {
                let (cos, sin) = (&rope.cos[t * half..][..half], &rope.sin[t * half..][..half]);
                let (low, high) = to.split_at_mut(half);
                for i in 0..half {
                    low[i] = (from[i] * cos[i] - from[half + i] * sin[i]) * source.scale;
                    high[i] = (from[half + i] * cos[i] + from[i] * sin[i]) * source.scale;
                }
            } else {
                to.copy_from_slice(from);
            }
        }
        for (t, row) in self.rows.chunks_exact(width).enumerate() {
            for (panel, part) in vectors(row).0.iter().enumerate() {
                self.panels.as_chunks_mut::<LANES>().0[panel * len + t] = *part;
            }
        }
        if columns {
            self.columns.resize(len * width, 0.0);
            let blocks = self.columns.chunks_exact_mut(BLOCK * width).zip(self.rows.chunks_exact(BLOCK * width));
            for (to, from) in blocks {
                for (t, row) in from.chunks_exact(width).enumerate() {
                    for (i, x) in row.iter().enumerate() {
                        to[i * BLOCK + t] = *x;
                    }
                }
            }
        }
    }
}

/// Adds a head's gradient, `(width / 8, padded, 8)`, to its columns of `to`, turned back and scaled as `source` says.
fn unpack_add(to: &mut [f32], panels: &[f32], source: Source<'_>, shape: AttentionShape, padded: Padded) {
    let (head_dim, half) = (shape.head_dim, shape.head_dim / 2);
    let mut row = vec![0.0; padded.width];
    for t in 0..shape.seq_len {
        for (panel, part) in row.chunks_exact_mut(LANES).enumerate() {
            part.copy_from_slice(&panels[(panel * padded.len + t) * LANES..][..LANES]);
        }
        let to = &mut to[t * source.stride + source.col..][..head_dim];
        if let Some(rope) = source.rope {
            let (cos, sin) = (&rope.cos[t * half..][..half], &rope.sin[t * half..][..half]);
            for i in 0..half {
                to[i] += (row[i] * cos[i] + row[half + i] * sin[i]) * source.scale;
                to[half + i] += (row[half + i] * cos[i] - row[i] * sin[i]) * source.scale;
            }
        } else {
            to.iter_mut().zip(&row).for_each(|(to, from)| *to += from);
        }
    }
}

/// `(16, end)` products of a block of rows of `a` with the first `end` rows of `b`.
///
/// # Panics
/// If `end` is not a multiple of [`BLOCK`] or a buffer is too short.
#[inline(always)]
fn scores<V: Lanes>(a: &Head, first: usize, b: &Head, end: usize, padded: Padded, to: &mut [f32]) {
    let Padded { width, stride, .. } = padded;
    let a = &a.rows[first * width..(first + BLOCK) * width];
    let b = &b.columns[..end * width];
    let to = &mut to[..BLOCK * stride];
    assert!(end <= stride && end.is_multiple_of(BLOCK));
    for panel in 0..end / BLOCK {
        for row in (0..BLOCK).step_by(4) {
            let (a, b) = (a[row * width..].as_ptr(), b[panel * BLOCK * width..].as_ptr());
            let to = to[row * stride + panel * BLOCK..].as_mut_ptr();
            // SAFETY: four rows of `width` lie ahead of `a`, one panel ahead of `b`, and the tile ends within the block.
            unsafe { tile::<V, 4, 2>(width, a, width, 1, b, to, stride, false) };
        }
    }
}

/// `to[i] = sum_t p[i, t] b[t]` over the first `end` positions, for a block of rows from `first` on.
///
/// `to` is laid out as the panels of `b`.
#[inline(always)]
fn mix<V: Lanes>(p: &[f32], end: usize, b: &[f32], padded: Padded, first: usize, to: &mut [f32]) {
    let Padded { len, stride, .. } = padded;
    assert!(end <= len && first + BLOCK <= len && p.len() >= BLOCK * stride && b.len() == to.len());
    for panel in (0..b.len()).step_by(len * LANES) {
        let (b, to) = (&b[panel..panel + len * LANES], &mut to[panel..panel + len * LANES]);
        for row in (0..BLOCK).step_by(8) {
            let to = to[(first + row) * LANES..].as_mut_ptr();
            // SAFETY: `p` holds the block's rows up to `end <= stride`, `b` and `to` hold `len` rows of one vector each.
            unsafe { tile::<V, 8, 1>(end, p[row * stride..].as_ptr(), stride, 1, b.as_ptr(), to, LANES, false) };
        }
    }
}

/// `to[t] += sum_i p[i, t] b[first + i]` for the first `end` positions: [`mix`] the other way round.
#[inline(always)]
fn mix_back<V: Lanes>(p: &[f32], end: usize, b: &[f32], padded: Padded, first: usize, to: &mut [f32]) {
    let Padded { len, stride, .. } = padded;
    assert!(end <= len && first + BLOCK <= len && p.len() >= BLOCK * stride && b.len() == to.len());
    for panel in (0..b.len()).step_by(len * LANES) {
        let (b, to) = (&b[panel..panel + len * LANES], &mut to[panel..panel + len * LANES]);
        for t in (0..end).step_by(8) {
            let (p, b, to) = (p[t..].as_ptr(), b[first * LANES..].as_ptr(), to[t * LANES..].as_mut_ptr());
            // SAFETY: as in `mix`, with the axes of `p` exchanged; `end` is a multiple of 8.
            unsafe { tile::<V, 8, 1>(BLOCK, p, 1, stride, b, to, LANES, true) };
        }
    }
}

/// Forward over all heads of one sequence.
pub(super) struct ForwardHeads<'a> {
    pub scratch: &'a mut Scratch,
    pub shape: AttentionShape,
    pub rope: &'a RopeTable,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a mut [f32],
    /// Log-sum-exp of each row's scores, `(seq_len, n_heads)`.
    pub log_sums: &'a mut [f32],
}

impl Kernel for ForwardHeads<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { scratch, shape, rope, q, k, v, out, log_sums } = self;
        let padded = Padded::of(shape);
        let (q_dim, head_dim) = (shape.n_heads * shape.head_dim, shape.head_dim);
        let Scratch { q: q_head, k: k_head, v: v_head, scores: block, dq: mixed, .. } = scratch;
        block.resize(BLOCK * padded.stride, 0.0);
        mixed.resize(padded.len * padded.width, 0.0);
        for head in 0..shape.n_heads {
            if let Some(kv_head) = shape.first_query_of(head) {
                k_head.pack(shape.keys(k, kv_head, Some(rope)), shape, padded, true);
                v_head.pack(shape.keys(v, kv_head, None), shape, padded, false);
            }
            q_head.pack(shape.queries(q, head, Some(rope)), shape, padded, false);
            for first in (0..padded.len).step_by(BLOCK) {
                let end = first + BLOCK;
                scores::<V>(q_head, first, k_head, end, padded, block);
                let sums = softmax_rows::<V>(block, first, end, padded.stride);
                mix::<V>(block, end, &v_head.panels, padded, first, mixed);
                for (i, (top, sum)) in sums.into_iter().enumerate().take(shape.seq_len.saturating_sub(first)) {
                    let t = first + i;
                    log_sums[t * shape.n_heads + head] = top + sum.ln();
                    let to = &mut out[t * q_dim + head * head_dim..][..head_dim];
                    for (panel, to) in to.chunks_mut(LANES).enumerate() {
                        let from = &mixed[(panel * padded.len + t) * LANES..];
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = from / sum);
                    }
                }
            }
        }
    }
}

/// Turns each row of scores into `exp(score - maximum)` for itself and earlier keys, zero after; gives `(maximum, sum)`.
#[inline(always)]
fn softmax_rows<V: Lanes>(block: &mut [f32], first: usize, end: usize, stride: usize) -> [(f32, f32); BLOCK] {
    let mut sums = [(0.0, 1.0); BLOCK];
    for (i, sums) in sums.iter_mut().enumerate() {
        let row = &mut block[i * stride..][..end];
        row[first + i + 1..].fill(MASKED);
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
        *sums = (top, sum.reduce_sum());
    }
    sums
}

/// The way back over all heads of one sequence.
pub(super) struct BackwardHeads<'a> {
    pub scratch: &'a mut Scratch,
    pub shape: AttentionShape,
    pub rope: &'a RopeTable,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a [f32],
    pub log_sums: &'a [f32],
    pub dout: &'a [f32],
    /// Added to, like `dk` and `dv`.
    pub dq: &'a mut [f32],
    pub dk: &'a mut [f32],
    pub dv: &'a mut [f32],
}

impl Kernel for BackwardHeads<'_> {
    type Output = ();

    /// With `p` the probabilities: `dv = pᵀ dout`, `ds = p (dout vᵀ - sum(dout out))`, `dq = ds k`, `dk = dsᵀ q`.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { scratch: s, shape, rope, q, k, v, out, log_sums, dout, dq, dk, dv } = self;
        let padded = Padded::of(shape);
        for buffer in [&mut s.scores, &mut s.slopes] {
            buffer.resize(BLOCK * padded.stride, 0.0);
        }
        for buffer in [&mut s.dq, &mut s.dk, &mut s.dv] {
            buffer.resize(padded.len * padded.width, 0.0);
        }
        s.deltas.resize(padded.len, 0.0);
        for head in 0..shape.n_heads {
            if let Some(kv_head) = shape.first_query_of(head) {
                s.k.pack(shape.keys(k, kv_head, Some(rope)), shape, padded, true);
                s.v.pack(shape.keys(v, kv_head, None), shape, padded, true);
                s.dk.fill(0.0);
                s.dv.fill(0.0);
            }
            s.q.pack(shape.queries(q, head, Some(rope)), shape, padded, false);
            s.dout.pack(shape.queries(dout, head, None), shape, padded, false);
            deltas(shape, head, out, dout, &mut s.deltas);
            for first in (0..padded.len).step_by(BLOCK) {
                let end = first + BLOCK;
                scores::<V>(&s.q, first, &s.k, end, padded, &mut s.scores);
                scores::<V>(&s.dout, first, &s.v, end, padded, &mut s.slopes);
                for i in 0..BLOCK {
                    let at = i * padded.stride..i * padded.stride + end;
                    let (p, ds) = (&mut s.scores[at.clone()], &mut s.slopes[at]);
                    p[first + i + 1..].fill(MASKED);
                    let log_sum = log_sums.get((first + i) * shape.n_heads + head).copied().unwrap_or(0.0);
                    let (shift, delta) = (V::splat(log_sum), V::splat(s.deltas[first + i]));
                    for (p, ds) in vectors_mut(p).0.iter_mut().zip(vectors_mut(ds).0) {
                        let odds = V::load(p).sub(shift).exp();
                        odds.store(p);
                        V::load(ds).sub(delta).mul(odds).store(ds);
                    }
                }
                mix_back::<V>(&s.scores, end, &s.dout.panels, padded, first, &mut s.dv);
                mix_back::<V>(&s.slopes, end, &s.q.panels, padded, first, &mut s.dk);
                mix::<V>(&s.slopes, end, &s.k.panels, padded, first, &mut s.dq);
            }
            unpack_add(dq, &s.dq, shape.queries(q, head, Some(rope)), shape, padded);
            if let Some(kv_head) = shape.last_query_of(head) {
                unpack_add(dk, &s.dk, shape.keys(k, kv_head, Some(rope)), shape, padded);
                unpack_add(dv, &s.dv, shape.keys(v, kv_head, None), shape, padded);
            }
        }
    }
}

/// `sum(dout * out)` of one head at each position.
#[inline(always)]
fn deltas(shape: AttentionShape, head: usize, out: &[f32], dout: &[f32], to: &mut [f32]) {
    let q_dim = shape.n_heads * shape.head_dim;
    for (t, to) in to.iter_mut().enumerate().take(shape.seq_len) {
        let at = t * q_dim + head * shape.head_dim..t * q_dim + (head + 1) * shape.head_dim;
        *to = out[at.clone()].iter().zip(&dout[at]).map(|(a, b)| a * b).sum();
    }
}

impl AttentionShape {
    /// The key head of a query head that is the first to use it.
    fn first_query_of(self, head: usize) -> Option<usize> {
        let group = self.n_heads / self.n_kv_heads;
        head.is_multiple_of(group).then_some(head / group)
    }

    /// The key head of a query head that is the last to use it.
    fn last_query_of(self, head: usize) -> Option<usize> {
        let group = self.n_heads / self.n_kv_heads;
        (head + 1).is_multiple_of(group).then_some(head / group)
    }

    /// A query head, with the scale of the scores where it is turned.
    fn queries<'a>(self, data: &'a [f32], head: usize, rope: Option<&'a RopeTable>) -> Source<'a> {
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        Source { data, stride: self.n_heads * self.head_dim, col: head * self.head_dim, rope, scale }
    }

    /// A key or value head.
    fn keys<'a>(self, data: &'a [f32], kv_head: usize, rope: Option<&'a RopeTable>) -> Source<'a> {
        Source { data, stride: self.n_kv_heads * self.head_dim, col: kv_head * self.head_dim, rope, scale: 1.0 }
    }
}
