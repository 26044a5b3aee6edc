//! The products of attention, all of them with 16 queries as lanes.

use super::lanes::{BLOCK, Head, PAIRS, Row, get, set, vectors_of_row};
use crate::tensor::gemm::{Strip, tile};
use crate::tensor::simd::{LANES, Vector};
use std::ops::Range;

/// `to[t, i] = sum_d keys[t, d] * queries[d, i]` for whole blocks of keys; `queries` has a row for each dimension of the padded head.
///
/// # Panics
/// If the keys are not whole blocks of `keys`, or a buffer is too short.
#[inline(always)]
pub(super) fn scores<V: Vector>(keys: &Head, range: Range<usize>, queries: &[Row], to: &mut [Row]) {
    assert!(range.start.is_multiple_of(BLOCK) && range.len().is_multiple_of(BLOCK) && to.len() == range.len());
    assert!(queries.len() == keys.width);
    if let Ok(queries) = queries.try_into() {
        narrow_scores::<V>(&keys.rows[range.start * LANES..range.end * LANES], queries, to);
    } else {
        wide_scores::<V>(&keys.blocks[range.start / BLOCK * keys.width..range.end / BLOCK * keys.width], queries, to);
    }
}

/// [`scores`] of heads so narrow that a block of queries stays in the registers: a key's score takes no more than its own numbers.
#[inline(always)]
fn narrow_scores<V: Vector>(keys: &[f32], queries: &[Row; LANES], to: &mut [Row]) {
    for at in vectors_of_row::<V>() {
        let queries = columns::<V>(queries, at);
        for (key, to) in keys.as_chunks::<LANES>().0.iter().zip(to.iter_mut()) {
            let mut sum = V::zero();
            for (key, queries) in key.iter().zip(queries) {
                sum = V::splat(*key).mul_add(queries, sum);
            }
            set(to, at, sum);
        }
    }
}

/// Eight rows, from lane `at` on.
#[inline(always)]
pub(super) fn columns<V: Vector>(rows: &[Row; LANES], at: usize) -> [V; LANES] {
    let mut columns = [V::zero(); LANES];
    for (column, row) in columns.iter_mut().zip(rows) {
        *column = get(row, at);
    }
    columns
}

/// [`scores`] by tiles of 16 keys.
#[inline(always)]
fn wide_scores<V: Vector>(keys: &[Row], queries: &[Row], to: &mut [Row]) {
    let depth = queries.len();
    for (keys, to) in keys.chunks_exact(depth).zip(to.as_chunks_mut::<BLOCK>().0) {
        let (keys, queries) = (keys.as_ptr().cast::<f32>(), queries.as_ptr().cast());
        let to = to.as_mut_ptr().cast::<f32>();
        // SAFETY: `depth` rows of 16 numbers lie ahead of the keys and of the queries, and 16 of them are written.
        unsafe {
            if V::WIDTH == BLOCK {
                tile::<V, BLOCK, 1>(depth, Strip::Columns { start: keys, stride: BLOCK }, queries, to, BLOCK, false);
            } else {
                for t in (0..BLOCK).step_by(4) {
                    let keys = Strip::Columns { start: keys.add(t), stride: BLOCK };
                    tile::<V, 4, 2>(depth, keys, queries, to.add(t * BLOCK), BLOCK, false);
                }
            }
        }
    }
}

/// `to[d, i] (+)= sum_t values[t, d] * p[t, i]` for the keys of `range`; `to` has a row for each dimension of the padded head.
///
/// # Panics
/// If a buffer is too short.
#[inline(always)]
pub(super) fn mix<V: Vector>(p: &[Row], values: &Head, range: Range<usize>, to: &mut [Row], add: bool) {
    let (width, depth) = (values.width, range.len());
    assert!(p.len() == depth && to.len() == width && width.is_multiple_of(LANES));
    let values = values.rows[range.start * width..range.end * width].as_ptr();
    let (p, to) = (p.as_ptr().cast(), to.as_mut_ptr().cast::<f32>());
    let mut d = 0;
    while d < width {
        // SAFETY: eight, or sixteen, more dimensions lie ahead of each row of `values` and in `to`; `p` holds `depth` rows.
        unsafe {
            let columns = |d| Strip::Columns { start: values.add(d), stride: width };
            if V::WIDTH == BLOCK && d + 2 * LANES <= width {
                tile::<V, { 2 * LANES }, 1>(depth, columns(d), p, to.add(d * BLOCK), BLOCK, add);
                d += LANES;
            } else if V::WIDTH == BLOCK {
                tile::<V, LANES, 1>(depth, columns(d), p, to.add(d * BLOCK), BLOCK, add);
            } else {
                tile::<V, 4, 2>(depth, columns(d), p, to.add(d * BLOCK), BLOCK, add);
                tile::<V, 4, 2>(depth, columns(d + 4), p, to.add((d + 4) * BLOCK), BLOCK, add);
            }
        }
        d += LANES;
    }
}

/// `to[t, d] += sum_i p[t, i] * pairs[i, d]` with even and odd `i` apart: [`mix`] the other way round.
///
/// Sums over lanes would cross them. So two queries sit side by side for each of eight dimensions, and each of the sums is in two parts
/// until all queries are done: no lane is idle, however narrow the head.
///
/// # Panics
/// If a buffer is too short.
#[inline(always)]
pub(super) fn mix_back<V: Vector>(p: &[Row], pairs: &[Row; PAIRS], to: &mut [Row]) {
    assert!(p.len() == to.len() && p.len().is_multiple_of(BLOCK));
    for (p, to) in p.as_chunks::<BLOCK>().0.iter().zip(to.as_chunks_mut::<BLOCK>().0) {
        let (pairs, p, to) = (pairs.as_ptr().cast(), p.as_ptr().cast::<f32>(), to.as_mut_ptr().cast::<f32>());
        // SAFETY: all three hold whole rows: eight of pairs, and sixteen of the other two.
        unsafe {
            if V::WIDTH == BLOCK {
                pair_tile::<V, BLOCK, 1>(p, pairs, to);
            } else {
                for t in (0..BLOCK).step_by(4) {
                    pair_tile::<V, 4, 2>(p.add(t * BLOCK), pairs, to.add(t * BLOCK));
                }
            }
        }
    }
}

/// [`mix_back`] for `KEYS` keys, with rows of `VECTORS` vectors.
///
/// # Safety
/// `p` and `to` must be valid for `KEYS` rows, `pairs` for [`PAIRS`].
#[inline(always)]
unsafe fn pair_tile<V: Vector, const KEYS: usize, const VECTORS: usize>(
    p: *const f32,
    pairs: *const f32,
    to: *mut f32,
) {
    let mut sums = [[V::zero(); VECTORS]; KEYS];
    // SAFETY: the caller's promise.
    unsafe {
        for (t, sums) in sums.iter_mut().enumerate() {
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = V::load_ptr(to.add(t * BLOCK + at * V::WIDTH));
            }
        }
        for pair in 0..PAIRS {
            let mut columns = [V::zero(); VECTORS];
            for (at, column) in columns.iter_mut().enumerate() {
                *column = V::load_ptr(pairs.add(pair * BLOCK + at * V::WIDTH));
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                let factors = V::splat_pair(p.add(t * BLOCK + 2 * pair));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = factors.mul_add(column, *sum);
                }
            }
        }
        for (t, sums) in sums.into_iter().enumerate() {
            for (at, sum) in sums.into_iter().enumerate() {
                sum.store_ptr(to.add(t * BLOCK + at * V::WIDTH));
            }
        }
    }
}
