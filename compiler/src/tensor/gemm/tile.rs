//! The innermost products: a tile of C whose sums stay in registers.

use crate::tensor::simd::Vector;

/// Most rows of a tile on any CPU.
const ROWS_MAX: usize = 8;
/// Inner positions between two jumps: what they cost shows beside short sums.
const UNROLLED: usize = 4;

/// Most rows of a tile that is `vectors` wide: its sums take as many registers as those of the widest tile.
#[inline(always)]
pub(super) const fn tile_rows<V: Vector>(vectors: usize) -> usize {
    let rows = V::TILE_ROWS * V::TILE_VECTORS / vectors;
    let most = if V::WIDTH < ROWS_MAX { V::WIDTH } else { ROWS_MAX };
    if rows < most { rows } else { most }
}

/// Where a strip of A starts and which of its axes is contiguous.
#[derive(Clone, Copy)]
pub(in crate::tensor) enum Strip {
    /// Each row is contiguous, and they are `stride` apart.
    Rows { start: *const f32, stride: usize },
    /// Each column is contiguous, and they are `stride` apart.
    Columns { start: *const f32, stride: usize },
}

/// Where whole vectors of columns of B start and how far apart rows are.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub start: *const f32,
    pub row: usize,
}

/// The part of C that a tile covers.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub start: *mut f32,
    pub stride: usize,
    /// At most the rows of a tile.
    pub rows: usize,
    /// At most the columns of a tile.
    pub cols: usize,
    /// Whether the product is added to what is there.
    pub add: bool,
    /// Whether what is there was not touched lately.
    pub is_cold: bool,
}

/// `c[i, j] (+)= sum_p a[i, p] b[p, j]` for a tile of up to [`Vector::TILE_VECTORS`] vectors of columns and [`tile_rows`] rows.
///
/// Rows of `b` hold as few whole vectors as `out` has columns for.
///
/// # Safety
/// `a` must be valid for reading `out.rows` rows and `depth` columns, `b` for its vectors, and `out` for writing, and reading if it adds.
#[inline(always)]
pub(super) unsafe fn tile_of<V: Vector>(depth: usize, a: Strip, b: Panel, out: Out) {
    macro_rules! by_shape {
        ($($vectors:literal: $($rows:literal)*;)*) => {
            match (out.cols.div_ceil(V::WIDTH), out.rows) {
                $($(($vectors, $rows) if $vectors <= V::TILE_VECTORS && $rows <= tile_rows::<V>($vectors) => {
                    // SAFETY: the caller's promise.
                    unsafe { edge_tile::<V, $rows, $vectors>(depth, a, b, out) }
                })*)*
                (vectors, rows) => unreachable!("a tile of {rows} rows and {vectors} vectors"),
            }
        };
    }
    by_shape! {
        1: 1 2 3 4 5 6 7 8;
        2: 1 2 3 4 5 6 7 8;
        3: 1 2 3 4 5 6 7 8;
        4: 1 2 3 4 5 6;
    }
}

/// [`tile`] whose last vector may reach over the edge of C.
///
/// # Safety
/// As for [`tile_of`].
#[inline(always)]
unsafe fn edge_tile<V: Vector, const ROWS: usize, const VECTORS: usize>(depth: usize, a: Strip, b: Panel, out: Out) {
    // SAFETY: the caller's promise; the last vector is read and written as far as C goes.
    unsafe {
        if out.is_cold {
            // Far from the previous tile's rows: no prefetcher would know, and there is time until the sums are made.
            for i in 0..ROWS {
                for j in 0..VECTORS {
                    V::prefetch(out.start.wrapping_add(i * out.stride + j * V::WIDTH));
                }
            }
        }
        let sums = sums::<V, ROWS, VECTORS>(depth, a, b);
        let n_last = out.cols - (VECTORS - 1) * V::WIDTH;
        match (n_last < V::WIDTH, out.add) {
            (false, true) => store::<V, ROWS, VECTORS, false, true>(sums, out),
            (false, false) => store::<V, ROWS, VECTORS, false, false>(sums, out),
            (true, true) => store::<V, ROWS, VECTORS, true, true>(sums, out),
            (true, false) => store::<V, ROWS, VECTORS, true, false>(sums, out),
        }
    }
}

/// Writes sums to C, or adds them; with `PART`, only as much of the last vector as there are columns for.
///
/// # Safety
/// As for [`tile_of`].
#[inline(always)]
unsafe fn store<V: Vector, const ROWS: usize, const VECTORS: usize, const PART: bool, const ADD: bool>(
    sums: [[V; VECTORS]; ROWS],
    out: Out,
) {
    let n_last = out.cols - (VECTORS - 1) * V::WIDTH;
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let to = out.start.add(i * out.stride + j * V::WIDTH);
                match (PART && j + 1 == VECTORS, ADD) {
                    (false, true) => V::load_ptr(to).add(*sum).store_ptr(to),
                    (false, false) => sum.store_ptr(to),
                    (true, true) => V::load_first(to, n_last).add(*sum).store_first(to, n_last),
                    (true, false) => sum.store_first(to, n_last),
                }
            }
        }
    }
}

/// `c[i, j] (+)= sum_p a[i, p] b[p, j]` for `ROWS` rows and `VECTORS` vectors of columns.
///
/// # Safety
/// `a` must be valid for reading `ROWS` rows and `depth` columns, `b` for `depth * VECTORS` vectors one after
/// another, and `c` for reading and writing `ROWS` rows of `VECTORS` vectors, `c_row` apart.
#[inline(always)]
pub(in crate::tensor) unsafe fn tile<V: Vector, const ROWS: usize, const VECTORS: usize>(
    depth: usize,
    a: Strip,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = Panel { start: b, row: VECTORS * V::WIDTH };
        let out = Out { start: c, stride: c_row, rows: ROWS, cols: VECTORS * V::WIDTH, add, is_cold: false };
        edge_tile::<V, ROWS, VECTORS>(depth, a, b, out);
    }
}

/// The sums of a tile, all of them in registers from the first position to the last.
///
/// # Safety
/// As for [`tile`], without `c`.
#[inline(always)]
unsafe fn sums<V: Vector, const ROWS: usize, const VECTORS: usize>(
    depth: usize,
    a: Strip,
    b: Panel,
) -> [[V; VECTORS]; ROWS] {
    let mut sums = [[V::zero(); VECTORS]; ROWS];
    let mut b_at = b.start;
    // SAFETY: every address that is read is one of those that the caller promised.
    unsafe {
        match a {
            Strip::Columns { mut start, stride } => {
                for _ in 0..depth / UNROLLED {
                    for p in 0..UNROLLED {
                        add_products(&mut sums, start.add(p * stride), 1, b_at.add(p * b.row));
                    }
                    (start, b_at) = (start.wrapping_add(UNROLLED * stride), b_at.wrapping_add(UNROLLED * b.row));
                }
                for p in 0..depth % UNROLLED {
                    add_products(&mut sums, start.add(p * stride), 1, b_at.add(p * b.row));
                }
            }
            Strip::Rows { start, stride } => {
                let whole = depth / UNROLLED * UNROLLED;
                for first in (0..whole).step_by(UNROLLED) {
                    for p in 0..UNROLLED {
                        add_products(&mut sums, start.add(first + p), stride, b_at.add(p * b.row));
                    }
                    b_at = b_at.wrapping_add(UNROLLED * b.row);
                }
                for p in whole..depth {
                    add_products(&mut sums, start.add(p), stride, b_at);
                    b_at = b_at.wrapping_add(b.row);
                }
            }
        }
    }
    sums
}

/// Adds the products of a column of A, its numbers `a_row` apart, with a row of B.
///
/// # Safety
/// `a` must be valid for reading `ROWS` numbers that far apart, and `b` for `VECTORS` vectors.
#[inline(always)]
unsafe fn add_products<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    a: *const f32,
    a_row: usize,
    b: *const f32,
) {
    let mut row = [V::zero(); VECTORS];
    for (j, vector) in row.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *vector = unsafe { V::load_ptr(b.add(j * V::WIDTH)) };
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let factor = V::splat(unsafe { *a.add(i * a_row) });
        for (sum, column) in sums.iter_mut().zip(row) {
            *sum = factor.mul_add(column, *sum);
        }
    }
}
