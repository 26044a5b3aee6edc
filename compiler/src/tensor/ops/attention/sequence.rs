//! One sequence: what its queries see, and how its scores become probabilities.
//!
//! Every mask here lets a query see the first so many keys of its sequence, and later queries no fewer. Unseen and padded keys get the
//! probability zero, padded queries are never written out.

use super::lanes::{BLOCK, Row, Source, get, set, vectors_of_row};
use super::rope::RopeTable;
use super::{AttentionShape, DropoutMask};
use crate::tensor::simd::{LANES, Vector};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// A score that no probability survives.
pub(super) const MASKED: f32 = -1e30;

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
    pub fn end_of_block(&self, first: usize) -> usize {
        self.n_visible(first + BLOCK - 1).next_multiple_of(BLOCK)
    }

    pub fn padded_keys(&self) -> usize {
        self.n_keys.next_multiple_of(BLOCK)
    }

    /// Dimensions of a head, padded to eights.
    pub fn width(&self) -> usize {
        self.shape.head_dim.next_multiple_of(LANES)
    }

    /// A query head; turned where `rope` is wanted, scaled by `scale`.
    pub fn queries(&self, head: usize, rope: Option<&'a RopeTable>, scale: f32) -> Source<'a> {
        let AttentionShape { n_heads, head_dim, .. } = self.shape;
        Source { n_rows: self.n_queries, stride: n_heads * head_dim, col: head * head_dim, head_dim, rope, scale }
    }

    /// A key or value head.
    pub fn keys(&self, kv_head: usize, rope: Option<&'a RopeTable>, scale: f32) -> Source<'a> {
        let AttentionShape { n_kv_heads, head_dim, .. } = self.shape;
        let (stride, col) = (n_kv_heads * head_dim, kv_head * head_dim);
        Source { n_rows: self.n_keys, stride, col, head_dim, rope, scale }
    }

    /// What queries are multiplied with, so that scores are powers of 2.
    pub fn query_scale(&self) -> f32 {
        self.shape.scale * LOG2_E
    }

    /// The key head of a query head that is the first to use it.
    pub fn first_query_of(&self, head: usize) -> Option<usize> {
        let group = self.shape.n_heads / self.shape.n_kv_heads;
        head.is_multiple_of(group).then_some(head / group)
    }

    /// The key head of a query head that is the last to use it.
    pub fn last_query_of(&self, head: usize) -> Option<usize> {
        let group = self.shape.n_heads / self.shape.n_kv_heads;
        (head + 1).is_multiple_of(group).then_some(head / group)
    }

    /// One head's scores by distance as powers of 2, the largest distance first, between paddings of a block.
    pub fn bias_of(&self, head: usize, to: &mut Vec<f32>) {
        to.clear();
        if !self.buckets.is_empty() {
            to.resize(BLOCK, 0.0);
            to.extend(self.buckets.iter().rev().map(|at| self.bias[at * self.shape.n_heads + head] * LOG2_E));
            to.resize(to.len() + BLOCK, 0.0);
        }
    }

    /// Adds up by bucket what was added to numbers laid out as [`Sequence::bias_of`] has them.
    pub fn add_dbias(&self, head: usize, from: &[f32], to: &mut [f32]) {
        for (bucket, grad) in self.buckets.iter().rev().zip(from.iter().skip(BLOCK)) {
            to[bucket * self.shape.n_heads + head] += grad;
        }
    }

    /// Where a block of queries from `first` on finds its distances to key `t`.
    #[inline(always)]
    pub fn distances(&self, first: usize, t: usize) -> Range<usize> {
        let start = BLOCK + self.n_keys - 1 + first - t;
        start..start + BLOCK
    }

    /// Adds the scores by distance to those of keys from `first_key` on, and masks the keys that a query does not see.
    #[inline(always)]
    pub fn finish_scores<V: Vector>(&self, scores: &mut [Row], first: usize, first_key: usize, bias: &[f32]) {
        if !bias.is_empty() {
            for (t, scores) in scores.iter_mut().enumerate() {
                let bias = &bias[self.distances(first, first_key + t)];
                scores.0.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
            }
        }
        let mut ends = Row::default();
        for (i, end) in ends.0.iter_mut().enumerate() {
            *end = self.n_visible(first + i) as f32;
        }
        let seen_by_all = self.n_visible(first).saturating_sub(first_key);
        for (t, scores) in scores.iter_mut().enumerate().skip(seen_by_all) {
            let key = V::splat((first_key + t) as f32);
            for at in vectors_of_row::<V>() {
                let seen = get::<V>(scores, at).where_less(key, get(&ends, at), V::splat(MASKED));
                set(scores, at, seen);
            }
        }
    }

    /// Multiplies rows of keys from `first_key` on by their dropout factors, if there are any.
    #[inline(always)]
    pub fn drop_rows(&self, head: usize, first: usize, first_key: usize, rows: &mut [Row]) {
        let Some(mask) = self.dropout else { return };
        for (t, row) in rows.iter_mut().enumerate() {
            for (i, p) in row.0.iter_mut().enumerate() {
                let row = (self.first_place + (first + i) as u64) * self.shape.n_heads as u64 + head as u64;
                *p *= mask.factor((row << 20) + (first_key + t) as u64);
            }
        }
    }
}
