//! Operands copied into the order in which tiles read them.

use super::MatRef;
use crate::tensor::simd::{LANES, Lanes, Portable, Vector};
use std::ops::Range;

/// Numbers in a line of the caches.
pub(super) const CACHE_LINE: usize = 16;
/// How many rows of B before it is packed a row is asked for: a panel has too little of each for a prefetcher to follow.
const ROWS_AHEAD: usize = 8;
/// How many lines of A before it is copied a line is asked for: with a large stride, each is on another page, and no
/// prefetcher guesses that.
const LINES_AHEAD: usize = 4;

/// Copies a panel of B, rows `depth` and columns `cols`: row after row in as few whole vectors as hold it, zeros past the edge.
///
/// `to` takes `depth.len()` rows of that many vectors.
#[inline(always)]
pub(super) fn pack_panel<V: Vector>(b: MatRef<'_>, depth: Range<usize>, cols: Range<usize>, to: &mut [f32]) {
    let width = cols.len().next_multiple_of(V::WIDTH);
    debug_assert!(width <= V::TILE_VECTORS * V::WIDTH && to.len() == depth.len() * width);
    if b.col_stride == 1 {
        for (p, to) in depth.zip(to.chunks_exact_mut(width)) {
            for col in cols.clone().step_by(CACHE_LINE) {
                V::prefetch(b.data.as_ptr().wrapping_add((p + ROWS_AHEAD) * b.row_stride + col));
            }
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

/// How far apart [`copy_block`] puts lines of `len` numbers: an odd number of cache lines, so that they do not compete for a few places of the cache.
pub(super) fn copied_stride(len: usize) -> usize {
    (len.div_ceil(CACHE_LINE) | 1) * CACHE_LINE
}

/// Copies rows `rows` and columns `depth` of A, in the order they have, close to each other.
///
/// # Panics
/// If `to` does not hold [`copied_stride`] numbers for each line, or the rows and columns are not inside A.
pub(super) fn copy_block<'a>(a: MatRef<'_>, rows: Range<usize>, depth: Range<usize>, to: &'a mut [f32]) -> MatRef<'a> {
    let is_by_rows = a.col_stride == 1;
    let (lines, in_line, from_stride) = if is_by_rows {
        (rows.clone(), depth.clone(), a.row_stride)
    } else {
        (depth.clone(), rows.clone(), a.col_stride)
    };
    let stride = copied_stride(in_line.len());
    for (line, to) in lines.zip(to.chunks_exact_mut(stride)) {
        let start = line * from_stride + in_line.start;
        for number in (0..in_line.len()).step_by(CACHE_LINE) {
            Portable::prefetch(a.data.as_ptr().wrapping_add(start + LINES_AHEAD * from_stride + number));
        }
        to[..in_line.len()].copy_from_slice(&a.data[start..][..in_line.len()]);
    }
    let (row_stride, col_stride) = if is_by_rows { (stride, 1) } else { (1, stride) };
    MatRef { data: to, rows: rows.len(), cols: depth.len(), row_stride, col_stride }
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
