//! Operands copied into the order in which tiles read them.

use super::MatRef;
use super::tile::TILE_VECTORS;
use crate::tensor::simd::{LANES, Lanes, Vector};
use std::ops::Range;

/// How many columns of A before it is copied a column is asked for: with a large stride, each is on another page, and no
/// prefetcher guesses that.
const COLUMNS_AHEAD: usize = 4;

/// Copies a panel of B, rows `depth` and columns `cols`: row after row in as few whole vectors as hold it, zeros past the edge.
///
/// `to` takes `depth.len()` rows of that many vectors.
#[inline(always)]
pub(super) fn pack_panel<V: Vector>(b: MatRef<'_>, depth: Range<usize>, cols: Range<usize>, to: &mut [f32]) {
    let width = cols.len().next_multiple_of(V::WIDTH);
    debug_assert!(width <= TILE_VECTORS * V::WIDTH && to.len() == depth.len() * width);
    if b.col_stride == 1 {
        for (p, to) in depth.zip(to.chunks_exact_mut(width)) {
            let from = &b.data[p * b.row_stride + cols.start..][..cols.len()];
            for (from, to) in from.chunks(V::WIDTH).zip(to.chunks_exact_mut(V::WIDTH)) {
                // SAFETY: a whole vector of `to`, and as much of `from` as there is.
                unsafe { V::load_first(from.as_ptr(), from.len()).store_ptr(to.as_mut_ptr()) };
            }
        }
        return;
    }
    assert!(to.len() >= depth.len() * width && depth.end <= b.rows && cols.end <= b.cols);
    let from = b.data[cols.start * b.col_stride + depth.start..].as_ptr();
    // SAFETY: `to` holds `depth.len()` rows of `width` numbers, a multiple of eight; the columns that are read lie in B.
    unsafe { interleave::<V::Lanes>(from, b.col_stride, cols.len(), depth.len(), to.as_mut_ptr(), width) }
}

/// Copies rows `rows` of A between columns `depth`, strip by strip, and in each a column after the other:
/// `to[p * n + i] = a[rows.start + i, depth.start + p]` for a strip of `n` rows.
///
/// `strips` are the first rows of each strip and the end of the last, counted from `rows.start`.
///
/// # Panics
/// If `to` does not hold `rows.len() * depth.len()` numbers and a vector more, a strip has more than [`Vector::TILE_ROWS`] rows, or
/// the rows and columns are not inside A.
#[inline(always)]
pub(super) fn pack_strips<V: Vector>(
    a: MatRef<'_>,
    rows: Range<usize>,
    strips: impl Iterator<Item = Range<usize>> + Clone,
    depth: Range<usize>,
    to: &mut [f32],
) {
    const { assert!(V::TILE_ROWS <= V::WIDTH && V::WIDTH <= 2 * LANES) };
    assert!(to.len() >= rows.len() * depth.len() + V::WIDTH && rows.end <= a.rows && depth.end <= a.cols);
    if a.row_stride != 1 {
        for strip in strips {
            let from = a.data[(rows.start + strip.start) * a.row_stride + depth.start..].as_ptr();
            let to = to[strip.start * depth.len()..].as_mut_ptr();
            // SAFETY: the rows lie in A, the strip in `to` with a vector after it.
            unsafe { transpose_strip::<V::Lanes>(from, a.row_stride, strip.len(), depth.len(), to) };
        }
        return;
    }
    // A whole row of the block at a time: with a large stride, its neighbours would be gone from the cache when the next strip asks for them.
    let to = to.as_mut_ptr();
    for (p, at) in depth.clone().enumerate() {
        let from = &a.data[at * a.col_stride + rows.start..][..rows.len()];
        for line in (0..rows.len()).step_by(16) {
            V::prefetch(from.as_ptr().wrapping_add(COLUMNS_AHEAD * a.col_stride + line));
        }
        for strip in strips.clone() {
            let (start, n) = (strip.start, strip.len());
            // SAFETY: `n` numbers of a column of A. What a whole vector spills over the strip's column is overwritten by the next ones,
            // and where it would spill over the strip, whose neighbour is there already, no more than the column is stored.
            unsafe {
                let (lanes, to) = (V::load_first(from[start..].as_ptr(), n), to.add(start * depth.len() + p * n));
                if (depth.len() - p) * n >= V::WIDTH { lanes.store_ptr(to) } else { lanes.store_first(to, n) }
            }
        }
    }
}

/// A strip of `n` rows, at most sixteen, of a row-major A, eight by eight.
///
/// # Safety
/// `from` must be valid for reading `n` rows of `depth` numbers, `stride` apart, and `to` for writing `n * depth + 16`.
#[inline(always)]
unsafe fn transpose_strip<L: Lanes>(from: *const f32, stride: usize, n: usize, depth: usize, to: *mut f32) {
    let whole = depth / LANES * LANES;
    // SAFETY: the caller's promise. Whole vectors are stored, and what they spill over a column is overwritten by the next.
    unsafe {
        for p in (0..whole).step_by(LANES) {
            let upper = transposed_block::<L>(from.add(p), stride, n.min(LANES));
            let lower = if n > LANES {
                transposed_block::<L>(from.add(LANES * stride + p), stride, n - LANES)
            } else {
                [L::zero(); LANES]
            };
            for j in 0..LANES {
                let to = to.add((p + j) * n);
                upper[j].store_ptr(to);
                if n > LANES {
                    lower[j].store_ptr(to.add(LANES));
                }
            }
        }
        for p in whole..depth {
            for i in 0..n {
                *to.add(p * n + i) = *from.add(i * stride + p);
            }
        }
    }
}

/// Eight numbers of `n` rows, at most eight, with rows and columns exchanged; zeros below.
///
/// # Safety
/// `from` must be valid for reading eight numbers of `n` rows, `stride` apart.
#[inline(always)]
unsafe fn transposed_block<L: Lanes>(from: *const f32, stride: usize, n: usize) -> [L; LANES] {
    let mut block = [L::zero(); LANES];
    for (i, lanes) in block.iter_mut().enumerate() {
        if i < n {
            // SAFETY: the caller's promise.
            *lanes = unsafe { L::load_ptr(from.add(i * stride)) };
        }
    }
    L::transpose(block)
}

/// Copies `n` columns of `depth` numbers, `stride` apart, so that rows of `width` are contiguous: eight by eight, zeros past the last column.
///
/// # Safety
/// `from` must be valid for reading the columns; `to` for writing `depth` rows of `width`, a multiple of eight not less than `n`.
#[inline(always)]
unsafe fn interleave<L: Lanes>(from: *const f32, stride: usize, n: usize, depth: usize, to: *mut f32, width: usize) {
    let whole = depth / LANES * LANES;
    for first in (0..width).step_by(LANES) {
        let n_cols = LANES.min(n.saturating_sub(first));
        // SAFETY: the caller's promise.
        unsafe {
            let (from, to) = (from.add(first.min(n) * stride), to.add(first));
            for p in (0..whole).step_by(LANES) {
                let rows = transposed_block::<L>(from.add(p), stride, n_cols);
                for (i, row) in rows.into_iter().enumerate() {
                    row.store_ptr(to.add((p + i) * width));
                }
            }
            for p in whole..depth {
                for j in 0..LANES {
                    *to.add(p * width + j) = if j < n_cols { *from.add(j * stride + p) } else { 0.0 };
                }
            }
        }
    }
}
