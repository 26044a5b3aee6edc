//! Attention over one sequence, forward.

use super::lanes::{BLOCK, Head, Row, get, load_block, set, store_block, vectors_of_row};
use super::products::{mix, scores};
use super::sequence::{MASKED, Sequence};
use crate::tensor::gemm::Write;
use crate::tensor::simd::{Vector, WideKernel};

/// Running maxima and sums over keys: more than one, since each waits for its last addition.
const CHAINS: usize = 4;

/// Memory of a thread, kept between calls.
#[derive(Default)]
pub(super) struct ForwardScratch {
    k: Head,
    v: Head,
    q: Vec<Row>,
    scores: Vec<Row>,
    out: Vec<Row>,
    bias: Vec<f32>,
}

/// Forward over all heads of one sequence.
pub(super) struct ForwardHeads<'a> {
    pub scratch: &'a mut ForwardScratch,
    pub sequence: &'a Sequence<'a>,
    pub out: &'a mut [f32],
    /// What the way back makes the probabilities of again: the largest score of each query, `(n_heads, n_queries)`, and then one over
    /// the sum of 2 to the power of the scores less the largest, as many.
    pub softmax: &'a mut [f32],
}

impl WideKernel for ForwardHeads<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { scratch: s, sequence, out, softmax: kept } = self;
        s.q.resize(sequence.width(), Row::default());
        s.out.resize(sequence.width(), Row::default());
        s.scores.resize(sequence.padded_keys(), Row::default());
        let (tops, inverses) = kept.split_at_mut(kept.len() / 2);
        let n = sequence.n_queries;
        for (head, (tops, inverses)) in tops.chunks_exact_mut(n).zip(inverses.chunks_exact_mut(n)).enumerate() {
            if let Some(kv_head) = sequence.first_query_of(head) {
                s.k.pack::<V>(sequence.k, sequence.keys(kv_head, sequence.rope, 1.0), true, false);
                s.v.pack::<V>(sequence.v, sequence.keys(kv_head, None, 1.0), false, true);
            }
            sequence.bias_of(head, &mut s.bias);
            for (block, (tops, inverses)) in tops.chunks_mut(BLOCK).zip(inverses.chunks_mut(BLOCK)).enumerate() {
                let first = block * BLOCK;
                let queries = sequence.queries(head, sequence.rope, sequence.query_scale());
                load_block::<V>(sequence.q, queries, first, &mut s.q);
                let end = sequence.end_of_block(first);
                let p = &mut s.scores[..end];
                scores::<V>(&s.k, 0..end, &s.q, p);
                sequence.finish_scores::<V>(p, first, 0, &s.bias);
                let (top, inverse) = softmax::<V>(p);
                sequence.drop_rows(head, first, 0, p);
                mix::<V>(p, &s.v, 0..end, &mut s.out, false);
                scale::<V>(&mut s.out, &inverse);
                store_block::<V>(&mut s.out, out, sequence.queries(head, None, 1.0), first, Write::Set);
                tops.copy_from_slice(&top.0[..tops.len()]);
                inverses.copy_from_slice(&inverse.0[..inverses.len()]);
            }
        }
    }
}

/// Turns scores into `2^(score - maximum)`; gives each query's maximum, and one over its sum.
#[inline(always)]
fn softmax<V: Vector>(scores: &mut [Row]) -> (Row, Row) {
    let (mut tops, mut inverses) = (Row::default(), Row::default());
    let chains = scores.as_chunks_mut::<CHAINS>().0;
    for at in vectors_of_row::<V>() {
        let mut top = [V::splat(MASKED); CHAINS];
        for rows in chains.iter() {
            for (top, row) in top.iter_mut().zip(rows) {
                *top = top.max(get(row, at));
            }
        }
        let [a, b, c, d] = top;
        let top = a.max(b).max(c.max(d));
        let mut sum = [V::zero(); CHAINS];
        for rows in chains.iter_mut() {
            for (sum, row) in sum.iter_mut().zip(rows) {
                let odds = get::<V>(row, at).sub(top).exp2();
                *sum = sum.add(odds);
                set(row, at, odds);
            }
        }
        let [a, b, c, d] = sum;
        set(&mut tops, at, top);
        set(&mut inverses, at, V::splat(1.0).div(a.add(b).add(c.add(d))));
    }
    (tops, inverses)
}

/// Multiplies each row by `by`.
#[inline(always)]
pub(super) fn scale<V: Vector>(rows: &mut [Row], by: &Row) {
    for row in rows {
        for at in vectors_of_row::<V>() {
            set(row, at, get::<V>(row, at).mul(get(by, at)));
        }
    }
}
