//! The innermost products: a tile of C whose sums stay in registers.

use crate::tensor::simd::Vector;

/// Vectors of columns in a tile.
pub(super) const TILE_VECTORS: usize = 2;
/// Most rows of a tile on any CPU.
const ROWS_MAX: usize = 14;

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
}

/// `c[i, j] (+)= sum_p a[i, p] b[p, j]` for a tile of up to [`Vector::TILE_ROWS`] rows and [`TILE_VECTORS`] vectors of columns.
///
/// Rows of `b` hold as few whole vectors as `out` has columns for.
///
/// # Safety
/// `a` must be valid for reading `out.rows` rows and `depth` columns, `b` for its vectors, and `out` for writing, and reading if it adds.
#[inline(always)]
pub(super) unsafe fn tile_of<V: Vector>(depth: usize, a: Strip, b: Panel, out: Out) {
    const { assert!(V::TILE_ROWS <= ROWS_MAX) };
    macro_rules! by_rows {
        ($vectors:literal: $($rows:literal)*) => {
            match out.rows {
                // SAFETY: the caller's promise.
                $($rows if $rows <= V::TILE_ROWS => unsafe { edge_tile::<V, $rows, $vectors>(depth, a, b, out) },)*
                _ => unreachable!("a tile of {} rows", out.rows),
            }
        };
    }
    if out.cols > V::WIDTH {
        by_rows!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    } else {
        by_rows!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
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
        for i in 0..ROWS {
            // Far from the previous tile's rows: no prefetcher would know, and there is time until the sums are made.
            V::prefetch(out.start.add(i * out.stride));
            V::prefetch(out.start.add(i * out.stride + out.cols - 1));
        }
        let sums = sums::<V, ROWS, VECTORS>(depth, a, b);
        let n_last = out.cols - (VECTORS - 1) * V::WIDTH;
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                let to = out.start.add(i * out.stride + j * V::WIDTH);
                match (j + 1 == VECTORS && n_last < V::WIDTH, out.add) {
                    (false, true) => V::load_ptr(to).add(sum).store_ptr(to),
                    (false, false) => sum.store_ptr(to),
                    (true, true) => V::load_first(to, n_last).add(sum).store_first(to, n_last),
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
        for (i, sums) in sums::<V, ROWS, VECTORS>(depth, a, b).into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                let to = c.add(i * c_row + j * V::WIDTH);
                if add { V::load_ptr(to).add(sum).store_ptr(to) } else { sum.store_ptr(to) }
            }
        }
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
                for _ in 0..depth {
                    let columns = load_row::<V, VECTORS>(b_at);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        add_products(sums, V::splat(*start.add(i)), columns);
                    }
                    (start, b_at) = (start.wrapping_add(stride), b_at.wrapping_add(b.row));
                }
            }
            Strip::Rows { mut start, stride } => {
                for _ in 0..depth {
                    let columns = load_row::<V, VECTORS>(b_at);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        add_products(sums, V::splat(*start.add(i * stride)), columns);
                    }
                    (start, b_at) = (start.wrapping_add(1), b_at.wrapping_add(b.row));
                }
            }
        }
    }
    sums
}

/// # Safety
/// `at` must be valid for reading `VECTORS` vectors.
#[inline(always)]
unsafe fn load_row<V: Vector, const VECTORS: usize>(at: *const f32) -> [V; VECTORS] {
    let mut row = [V::zero(); VECTORS];
    for (j, vector) in row.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *vector = unsafe { V::load_ptr(at.add(j * V::WIDTH)) };
    }
    row
}

#[inline(always)]
fn add_products<V: Vector, const VECTORS: usize>(sums: &mut [V; VECTORS], factor: V, columns: [V; VECTORS]) {
    for (sum, column) in sums.iter_mut().zip(columns) {
        *sum = factor.mul_add(column, *sum);
    }
}
