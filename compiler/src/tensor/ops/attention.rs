//! Causal attention with rotary positions and grouped key and value heads, in one operation.
//!
//! ```text
//! for each sequence, each key/value head: rotate and pack its keys and values once
//!   for each query head that shares them
//!     for each block of 16 queries, against the keys up to the block's end
//!       scores = q kᵀ, row maxima, probabilities, out = p v
//! ```
//!
//! Scores exist for one block at a time. The way back needs only each row's log-sum-exp: it computes the scores again,
//! which costs less than reading them from memory.

use super::attention_kernel::{BackwardHeads, ForwardHeads, SCRATCH};
use crate::tensor::gemm::Write;
use crate::tensor::simd::dispatch;
use crate::tensor::tape::{Backward, Graph, Op, Var};
use std::sync::Arc;

/// Cosines and sines of the rotary positions, each `(positions, head_dim / 2)`.
#[derive(Clone, Debug)]
pub struct RopeTable {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    /// Angles `position * theta^(-2i / head_dim)`, computed in `f64`.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    pub fn new(positions: usize, head_dim: usize, theta: f32) -> Self {
        assert!(head_dim.is_multiple_of(2), "rotary positions turn pairs");
        let half = head_dim / 2;
        let angle = |at: usize| {
            let exponent = -((at % half) as f64) / half as f64;
            (at / half) as f64 * f64::from(theta).powf(exponent)
        };
        let cos = (0..positions * half).map(|at| angle(at).cos() as f32).collect();
        let sin = (0..positions * half).map(|at| angle(at).sin() as f32).collect();
        Self { cos, sin, half }
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}

/// How the rows and columns of queries, keys and values divide into sequences and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Positions in a sequence; the rows are whole sequences, one after another.
    pub seq_len: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Graph<'_> {
    /// Attention of each position to itself and those before it in its sequence.
    ///
    /// `q` is `(n, n_heads * head_dim)`, `k` and `v` `(n, n_kv_heads * head_dim)` with `n` a multiple of `seq_len`; the result
    /// has the shape of `q`. Queries and keys are turned by `rope` in half-split form (pairs `i`, `i + head_dim / 2`), scores
    /// scaled by `1 / sqrt(head_dim)`.
    ///
    /// # Panics
    /// If the shapes do not fit together or the table has fewer positions than a sequence.
    pub fn attention(&mut self, q: Var, k: Var, v: Var, shape: AttentionShape, rope: &Arc<RopeTable>) -> Var {
        let (n, q_dim) = self.shape(q);
        let kv_dim = shape.n_kv_heads * shape.head_dim;
        assert_eq!(q_dim, shape.n_heads * shape.head_dim, "width of the queries");
        assert_eq!((self.shape(k), self.shape(v)), ((n, kv_dim), (n, kv_dim)), "shapes of keys and values");
        assert!(shape.seq_len > 0 && n.is_multiple_of(shape.seq_len), "rows are whole sequences");
        assert!(shape.n_heads.is_multiple_of(shape.n_kv_heads), "key heads divide query heads");
        assert!(rope.positions() >= shape.seq_len && rope.half * 2 == shape.head_dim, "rotary table");
        let (mut out, mut log_sums) = (self.buffer(n * q_dim), self.buffer(n * shape.n_heads));
        let [q_rows, k_rows, v_rows] = [q, k, v].map(|var| self.value(var));
        let per_sequence =
            out.chunks_exact_mut(shape.seq_len * q_dim).zip(log_sums.chunks_exact_mut(shape.seq_len * shape.n_heads));
        for (i, (out, log_sums)) in per_sequence.enumerate() {
            let at = |rows: usize| i * shape.seq_len * rows..(i + 1) * shape.seq_len * rows;
            let (q, k, v) = (&q_rows[at(q_dim)], &k_rows[at(kv_dim)], &v_rows[at(kv_dim)]);
            SCRATCH.with_borrow_mut(|scratch| dispatch(ForwardHeads { scratch, shape, rope, q, k, v, out, log_sums }));
        }
        let log_sums = self.push(n, shape.n_heads, log_sums);
        let out = self.push(n, q_dim, out);
        self.note(Attention { q, k, v, shape, rope: Arc::clone(rope), log_sums, out });
        out
    }
}

struct Attention {
    q: Var,
    k: Var,
    v: Var,
    shape: AttentionShape,
    rope: Arc<RopeTable>,
    log_sums: Var,
    out: Var,
}

impl Op for Attention {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(dout) = pass.take(self.out) else { return };
        let shape = self.shape;
        let (q_dim, kv_dim) = (shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim);
        let n = pass.shape(self.q).0;
        let mut grads = [self.q, self.k, self.v].map(|var| {
            let (mut grad, write) = pass.open(var);
            if write == Write::Set {
                grad.fill(0.0);
            }
            grad
        });
        let [dq, dk, dv] = &mut grads;
        for i in 0..n / shape.seq_len {
            let at = |rows: usize| i * shape.seq_len * rows..(i + 1) * shape.seq_len * rows;
            let [q, k, v] =
                [(self.q, q_dim), (self.k, kv_dim), (self.v, kv_dim)].map(|(var, cols)| &pass.value(var)[at(cols)]);
            let (out, log_sums) = (&pass.value(self.out)[at(q_dim)], &pass.value(self.log_sums)[at(shape.n_heads)]);
            let (dout, rope) = (&dout[at(q_dim)], &*self.rope);
            let (dq, dk, dv) = (&mut dq[at(q_dim)], &mut dk[at(kv_dim)], &mut dv[at(kv_dim)]);
            SCRATCH.with_borrow_mut(|scratch| {
                dispatch(BackwardHeads { scratch, shape, rope, q, k, v, out, log_sums, dout, dq, dk, dv });
            });
        }
        for (var, grad) in [self.q, self.k, self.v].into_iter().zip(grads) {
            pass.close(var, grad);
        }
        pass.recycle(dout);
    }
}
