//! Attention of every kind in one operation: causal, bidirectional, prefix, across sequences; rotary or relative positions;
//! grouped key and value heads; sequences of any lengths with no padding.
//!
//! ```text
//! for each sequence, each key/value head: turn and pack its keys and values once
//!   for each query head that shares them
//!     for each block of 16 queries, against the keys that any of them sees
//!       scores = k qᵀ, maxima over the keys, probabilities, out = vᵀ p
//! ```
//!
//! Scores exist for one block at a time, with the queries as lanes. The way back needs only each query's maximum and sum: it computes the
//! scores again, which costs less than reading them from memory. Scores are to base 2, which spares each a multiplication.

mod backward;
mod forward;
mod lanes;
mod products;
mod relative_bias;
mod rope;
mod sequence;
#[cfg(test)]
mod tests;

pub use relative_bias::RelativeBias;
pub(crate) use relative_bias::bucket;
pub use rope::RopeTable;

use super::dropout::DropoutMask;
use crate::tensor::Segments;
use crate::tensor::gemm::Write;
use crate::tensor::simd::dispatch_wide;
use crate::tensor::tape::{Backward, Graph, Op, Var};
use backward::{BackwardHeads, BackwardScratch};
use forward::{ForwardHeads, ForwardScratch};
use sequence::Sequence;
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    /// Borrowed around a kernel, not inside it: the closure would not be compiled for the kernel's CPU features.
    static SCRATCH: RefCell<(ForwardScratch, BackwardScratch)> = RefCell::default();
}

/// How the columns of queries, keys and values divide into heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What the products of queries and keys are multiplied with.
    pub scale: f32,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask<'a> {
    /// Its own and those before.
    Causal,
    /// All of its sequence.
    Bidirectional,
    /// Its own and those before, and the first few of its sequence: as many as are named here, sequence by sequence.
    Prefix(&'a [usize]),
}

/// What attention works on.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a> {
    /// Queries, `(queries.n_rows(), n_heads * head_dim)`.
    pub q: Var,
    /// Keys, `(keys.n_rows(), n_kv_heads * head_dim)`.
    pub k: Var,
    /// Values, as the keys.
    pub v: Var,
    /// Where each sequence's queries are.
    pub queries: &'a Segments,
    /// Where the keys and values that they attend to are: as many sequences.
    pub keys: &'a Segments,
    /// Heads.
    pub shape: AttentionShape,
    /// Which keys a query sees.
    pub mask: Mask<'a>,
    /// Turns queries and keys by their positions, in half-split form (pairs `i`, `i + head_dim / 2`).
    pub rope: Option<&'a Arc<RopeTable>>,
    /// Scores by distance.
    pub bias: Option<RelativeBias>,
    /// Share of the probabilities that are dropped, as [`Graph::dropout`] does.
    pub dropout: f32,
}

impl Graph<'_> {
    /// `softmax(scale * q kᵀ + bias) v` head by head, inside each sequence.
    ///
    /// # Panics
    /// If the shapes do not fit together, a sequence with queries has no key, a causal mask meets other keys than queries,
    /// or the rotary table has fewer positions than a sequence.
    pub fn attention(&mut self, inputs: &AttentionInputs<'_>) -> Var {
        let AttentionInputs { q, k, v, queries, keys, shape, mask, rope, bias, dropout } = *inputs;
        self.check_attention(inputs);
        self.follow(bias.map(|bias| bias.table));
        let (n, q_dim) = self.shape(q);
        let params = self.params();
        let key = if dropout > 0.0 && self.records() { self.next_dropout_key() } else { 0 };
        let dropout = (dropout > 0.0 && self.records()).then(|| DropoutMask::new(key, dropout));
        let prefixes = match mask {
            Mask::Prefix(prefixes) => prefixes.to_vec(),
            _ => Vec::new(),
        };
        let is_causal = mask != Mask::Bidirectional;
        let (mut out, mut softmax) = (self.buffer(n * q_dim), self.buffer(2 * n * shape.n_heads));
        let op = Attention {
            q,
            k,
            v,
            queries: queries.clone(),
            keys: keys.clone(),
            shape,
            is_causal,
            prefixes,
            rope: rope.cloned(),
            bias,
            dropout,
            softmax: None,
            out: q,
        };
        let [q_rows, k_rows, v_rows] = [q, k, v].map(|var| self.value(var));
        let bias_rows = bias.map(|bias| params.get(bias.table));
        for at in 0..queries.len() {
            let (rows, key_rows) = (queries.rows(at), keys.rows(at));
            if rows.is_empty() {
                continue;
            }
            let [q, k, v] = op.slices(at, [q_rows, k_rows, v_rows]);
            let sequence = op.sequence(at, q, k, v, bias_rows);
            debug_assert_eq!(k.len(), key_rows.len() * shape.n_kv_heads * shape.head_dim);
            let out = &mut out[rows.start * q_dim..rows.end * q_dim];
            let softmax = &mut softmax[2 * rows.start * shape.n_heads..2 * rows.end * shape.n_heads];
            SCRATCH.with_borrow_mut(|(scratch, _)| {
                dispatch_wide(ForwardHeads { scratch, sequence: &sequence, out, softmax });
            });
        }
        let softmax = self.push_exact(n, 2 * shape.n_heads, softmax);
        let out = self.push(n, q_dim, out);
        self.note(Attention { softmax: Some(softmax), out, ..op });
        out
    }

    fn check_attention(&self, inputs: &AttentionInputs<'_>) {
        let AttentionInputs { q, k, v, queries, keys, shape, mask, rope, bias, .. } = *inputs;
        let kv_dim = shape.n_kv_heads * shape.head_dim;
        assert_eq!(self.shape(q), (queries.n_rows(), shape.n_heads * shape.head_dim), "shape of the queries");
        assert_eq!(self.shape(k), (keys.n_rows(), kv_dim), "shape of the keys");
        assert_eq!(self.shape(v), (keys.n_rows(), kv_dim), "shape of the values");
        assert!(shape.n_heads.is_multiple_of(shape.n_kv_heads), "key heads divide query heads");
        assert_eq!(queries.len(), keys.len(), "keys for each sequence of queries");
        let is_served = |(q, k): (std::ops::Range<usize>, std::ops::Range<usize>)| q.is_empty() || !k.is_empty();
        assert!(queries.iter().zip(keys.iter()).all(is_served), "a query needs a key");
        assert!(mask == Mask::Bidirectional || queries == keys, "a causal mask is over the queries' own sequences");
        if let Mask::Prefix(prefixes) = mask {
            assert_eq!(prefixes.len(), queries.len(), "a prefix for each sequence");
        }
        if let Some(rope) = rope {
            let longest = queries.max_len().max(keys.max_len());
            assert!(rope.positions() >= longest && rope.half * 2 == shape.head_dim, "rotary table");
        }
        if let Some(bias) = bias {
            assert_eq!(self.params().layout.spec(bias.table).cols, shape.n_heads, "a bias for each head");
        }
    }
}

struct Attention {
    q: Var,
    k: Var,
    v: Var,
    queries: Segments,
    keys: Segments,
    shape: AttentionShape,
    is_causal: bool,
    /// Empty, or one a sequence.
    prefixes: Vec<usize>,
    rope: Option<Arc<RopeTable>>,
    bias: Option<RelativeBias>,
    dropout: Option<DropoutMask>,
    /// For each sequence, what [`ForwardHeads`] keeps of its softmax.
    softmax: Option<Var>,
    out: Var,
}

impl Attention {
    /// The queries, keys and values of one sequence.
    fn slices<'s>(&self, at: usize, [q, k, v]: [&'s [f32]; 3]) -> [&'s [f32]; 3] {
        let (q_dim, kv_dim) = (self.shape.n_heads * self.shape.head_dim, self.shape.n_kv_heads * self.shape.head_dim);
        let (rows, key_rows) = (self.queries.rows(at), self.keys.rows(at));
        let keys = key_rows.start * kv_dim..key_rows.end * kv_dim;
        [&q[rows.start * q_dim..rows.end * q_dim], &k[keys.clone()], &v[keys]]
    }

    /// One sequence as the kernels want it.
    fn sequence<'s>(
        &'s self,
        at: usize,
        q: &'s [f32],
        k: &'s [f32],
        v: &'s [f32],
        bias: Option<&'s [f32]>,
    ) -> Sequence<'s> {
        let (n_queries, n_keys) = (self.queries.rows(at).len(), self.keys.rows(at).len());
        let buckets = match (&self.bias, bias) {
            (Some(relative), Some(table)) => relative.buckets(n_queries, n_keys, table.len() / self.shape.n_heads),
            _ => Vec::new(),
        };
        Sequence {
            shape: self.shape,
            n_queries,
            n_keys,
            is_causal: self.is_causal,
            prefix_len: self.prefixes.get(at).copied().unwrap_or(0),
            rope: self.rope.as_deref(),
            buckets,
            bias: bias.unwrap_or(&[]),
            dropout: self.dropout,
            first_place: self.queries.rows(at).start as u64,
            q,
            k,
            v,
        }
    }
}

impl Op for Attention {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(dout) = pass.take(self.out) else { return };
        let shape = self.shape;
        let (q_dim, kv_dim) = (shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim);
        let [(mut dq, q_write), (mut dk, k_write), (mut dv, v_write)] =
            [self.q, self.k, self.v].map(|var| pass.open(var));
        let values = [self.q, self.k, self.v].map(|var| pass.value(var));
        let (out_rows, softmax_rows) = (pass.value(self.out), pass.value(self.softmax.unwrap_or(self.out)));
        let bias = self.bias.map(|bias| pass.param(bias.table));
        let mut dbias = vec![0.0; bias.map_or(0, <[f32]>::len)];
        for at in 0..self.queries.len() {
            let (rows, keys) = (self.queries.rows(at), self.keys.rows(at));
            let key_range = keys.start * kv_dim..keys.end * kv_dim;
            if rows.is_empty() {
                for (grad, write) in [(&mut dk, k_write), (&mut dv, v_write)] {
                    if write == Write::Set {
                        grad[key_range.clone()].fill(0.0);
                    }
                }
                continue;
            }
            let [q, k, v] = self.slices(at, values);
            let sequence = self.sequence(at, q, k, v, bias);
            let queries = rows.start * q_dim..rows.end * q_dim;
            SCRATCH.with_borrow_mut(|(_, scratch)| {
                dispatch_wide(BackwardHeads {
                    scratch,
                    sequence: &sequence,
                    out: &out_rows[queries.clone()],
                    softmax: &softmax_rows[2 * rows.start * shape.n_heads..2 * rows.end * shape.n_heads],
                    dout: &dout[queries.clone()],
                    dq: (&mut dq[queries], q_write),
                    dk: (&mut dk[key_range.clone()], k_write),
                    dv: (&mut dv[key_range], v_write),
                    dbias: &mut dbias,
                });
            });
        }
        for (var, grad) in [(self.q, dq), (self.k, dk), (self.v, dv)] {
            pass.close(var, grad);
        }
        if let Some((table, write)) = self.bias.and_then(|bias| pass.param_grad(bias.table)) {
            write.store(table, &dbias);
        }
        pass.recycle(dout);
    }
}
