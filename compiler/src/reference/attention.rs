//! Rotary embedding and causal grouped-query attention over a window.

use rayon::prelude::*;
use siskin_runtime::ModelConfig;

use super::TASK_POSITIONS;
use super::gemm::{View, product};
use crate::artifact::RopeTables;

/// Turns element `i` of each head with element `i + head_dim / 2` by the position's angle.
///
/// `x` is `(n_positions, n_heads * head_dim)`; its first row is position 0.
pub(super) fn rotate(x: &mut [f32], n_heads: usize, head_dim: usize, rope: &RopeTables) {
    let half = head_dim / 2;
    for (position, row) in x.chunks_exact_mut(n_heads * head_dim).enumerate() {
        let cos = &rope.cos[position * half..][..half];
        let sin = &rope.sin[position * half..][..half];
        for head in row.chunks_exact_mut(head_dim) {
            let (first, second) = head.split_at_mut(half);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// Softmax of scaled scores times values, each position seeing itself and those before.
///
/// `q` is `(n, n_heads * head_dim)`, `k` and `v` `(n, n_kv_heads * head_dim)`; the result has `q`'s shape.
pub(super) fn causal_attention(config: &ModelConfig, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let (head_dim, q_dim, kv_dim) = (config.head_dim, config.q_dim(), config.kv_dim());
    let group = config.n_heads / config.n_kv_heads;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut out = vec![0.0; q.len()];
    let tasks = out.par_chunks_mut(TASK_POSITIONS * q_dim).zip(q.par_chunks(TASK_POSITIONS * q_dim)).enumerate();
    tasks.for_each(|(task_idx, (out, q))| {
        let start = task_idx * TASK_POSITIONS;
        // Keys that the task's last position sees.
        let n_keys = start + q.len() / q_dim;
        let mut scores = vec![0.0; (q.len() / q_dim) * n_keys];
        for head_idx in 0..config.n_heads {
            let kv_start = head_idx / group * head_dim;
            let keys = View::new(&k[kv_start..n_keys * kv_dim], head_dim, kv_dim);
            let values = View::new(&v[kv_start..n_keys * kv_dim], head_dim, kv_dim);
            let queries = View::new(&q[head_idx * head_dim..], head_dim, q_dim);
            product(queries, keys.transposed(), &mut scores, n_keys, scale);
            for (row_idx, row) in scores.chunks_exact_mut(n_keys).enumerate() {
                let (seen, unseen) = row.split_at_mut(start + row_idx + 1);
                softmax(seen);
                unseen.fill(0.0);
            }
            product(View::new(&scores, n_keys, n_keys), values, &mut out[head_idx * head_dim..], q_dim, 1.0);
        }
    });
    out
}

/// Replaces `x`, not empty, by its softmax.
fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in x.iter_mut() {
        *value = (*value - max).exp();
        sum += *value;
    }
    for value in x {
        *value /= sum;
    }
}
