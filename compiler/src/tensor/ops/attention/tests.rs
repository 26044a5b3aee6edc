//! The same bits from vectors of any width.

use super::backward::{BackwardHeads, BackwardScratch};
use super::forward::{ForwardHeads, ForwardScratch};
use super::sequence::Sequence;
use super::{AttentionShape, RopeTable};
use crate::tensor::gemm::Write;
use crate::tensor::ops::dropout::DropoutMask;
use crate::tensor::simd::{Portable, WideKernel, dispatch_wide};

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 700.0 - 1.4).collect()
}

/// What attention is asked for.
struct Case {
    shape: AttentionShape,
    n_queries: usize,
    n_keys: usize,
    is_causal: bool,
    prefix_len: usize,
    rope: Option<RopeTable>,
    n_buckets: usize,
    dropout: Option<DropoutMask>,
}

/// Runs both ways, each by `run_*`; gives all that comes out.
fn results(
    case: &Case,
    run_forward: impl Fn(ForwardHeads<'_>),
    run_backward: impl Fn(BackwardHeads<'_>),
) -> Vec<Vec<f32>> {
    let AttentionShape { n_heads, n_kv_heads, head_dim, .. } = case.shape;
    let (n_q, n_kv) = (case.n_queries * n_heads * head_dim, case.n_keys * n_kv_heads * head_dim);
    let (q, k, v, dout) = (numbers(n_q, 1), numbers(n_kv, 2), numbers(n_kv, 3), numbers(n_q, 4));
    let bias = numbers(case.n_buckets * n_heads, 5);
    let n_distances = if case.n_buckets > 0 { case.n_queries + case.n_keys - 1 } else { 0 };
    let sequence = Sequence {
        shape: case.shape,
        n_queries: case.n_queries,
        n_keys: case.n_keys,
        is_causal: case.is_causal,
        prefix_len: case.prefix_len,
        rope: case.rope.as_ref(),
        buckets: (0..n_distances).map(|distance| distance % case.n_buckets).collect(),
        bias: &bias,
        dropout: case.dropout,
        first_place: 3,
        q: &q,
        k: &k,
        v: &v,
    };
    let (mut out, mut softmax) = (vec![0.0; n_q], vec![0.0; 2 * case.n_queries * n_heads]);
    let scratch = &mut ForwardScratch::default();
    run_forward(ForwardHeads { scratch, sequence: &sequence, out: &mut out, softmax: &mut softmax });
    let [mut dq, mut dk, mut dv] = [(n_q, 6), (n_kv, 7), (n_kv, 8)].map(|(n, seed)| numbers(n, seed));
    let mut dbias = vec![0.0; bias.len()];
    run_backward(BackwardHeads {
        scratch: &mut BackwardScratch::default(),
        sequence: &sequence,
        out: &out,
        softmax: &softmax,
        dout: &dout,
        dq: (&mut dq, Write::Set),
        dk: (&mut dk, Write::Add),
        dv: (&mut dv, Write::Set),
        dbias: &mut dbias,
    });
    vec![out, softmax, dq, dk, dv, dbias]
}

#[test]
fn any_width_of_vectors_gives_the_same_bits() {
    for (head_dim, n_heads, n_kv_heads) in [(8, 4, 2), (6, 2, 1), (12, 1, 1), (24, 2, 2), (48, 2, 1)] {
        for (n_queries, n_keys, is_causal, prefix_len) in
            [(1, 1, true, 0), (37, 37, true, 0), (150, 150, true, 20), (16, 70, false, 0), (33, 5, false, 0)]
        {
            for extras in [false, true] {
                let case = Case {
                    shape: AttentionShape { n_heads, n_kv_heads, head_dim, scale: 0.3 },
                    n_queries,
                    n_keys,
                    is_causal,
                    prefix_len,
                    rope: (!extras).then(|| RopeTable::new(160, head_dim, 500.0)),
                    n_buckets: if extras { 7 } else { 0 },
                    dropout: extras.then(|| DropoutMask::new(9, 0.2)),
                };
                let wide = results(&case, |kernel| dispatch_wide(kernel), |kernel| dispatch_wide(kernel));
                let portable = results(&case, |kernel| kernel.run::<Portable>(), |kernel| kernel.run::<Portable>());
                assert!(wide.iter().flatten().all(|x| x.is_finite()));
                let is_same = wide
                    .iter()
                    .zip(&portable)
                    .map(|(a, b)| a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())));
                let is_same: Vec<bool> = is_same.collect();
                assert!(
                    is_same.iter().all(|same| *same),
                    "heads {n_heads}/{n_kv_heads} of {head_dim}, {n_queries} queries, {n_keys} keys, extras {extras}: {is_same:?}"
                );
            }
        }
    }
}
