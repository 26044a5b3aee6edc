//! Dense products on views into row-major buffers.

use rayon::prelude::*;

/// Most rows of the weights that one task multiplies by: each task packs all of `x` anew, so many rows pay.
const TASK_ROWS_MAX: usize = 512;
/// Rows of the widest micro-kernel: tasks begin at its multiples.
const KERNEL_ROWS: usize = 16;

/// `x w^T`: `x` is `(n, columns)`, `w` `(rows, columns)`, the result `(n, rows)`; all row-major.
///
/// # Panics
/// If `columns` does not divide the lengths of `x` and `w`.
pub(super) fn matmul(x: &[f32], w: &[f32], columns: usize) -> Vec<f32> {
    assert!(x.len().is_multiple_of(columns) && w.len().is_multiple_of(columns), "whole rows");
    let (n, rows) = (x.len() / columns, w.len() / columns);
    let n_tasks = rows.div_ceil(TASK_ROWS_MAX).next_multiple_of(2);
    let task_rows = rows.div_ceil(n_tasks).next_multiple_of(KERNEL_ROWS);
    let blocks: Vec<Vec<f32>> = w
        .par_chunks(task_rows * columns)
        .map(|w| {
            let block_rows = w.len() / columns;
            let mut block = vec![0.0; n * block_rows];
            let (x, w) = (View::new(x, columns, columns), View::new(w, columns, columns).transposed());
            product(x, w, &mut block, block_rows, 1.0);
            block
        })
        .collect();
    let mut out = vec![0.0; n * rows];
    out.par_chunks_mut(rows).enumerate().for_each(|(row_idx, out)| {
        for (out, block) in out.chunks_mut(task_rows).zip(&blocks) {
            out.copy_from_slice(&block[row_idx * out.len()..][..out.len()]);
        }
    });
    out
}

/// A matrix in a slice: element `(row, column)` is at `row * row_stride + column * column_stride`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// All rows of `n_columns` that start `row_stride` apart in `data`; the last may end with the slice.
    ///
    /// # Panics
    /// If a row is longer than the stride, or the last row does not fit.
    pub fn new(data: &'a [f32], n_columns: usize, row_stride: usize) -> Self {
        assert!(n_columns <= row_stride, "rows overlap");
        let n_rows = data.len().div_ceil(row_stride);
        assert!(n_rows == 0 || (n_rows - 1) * row_stride + n_columns <= data.len(), "the last row is cut");
        Self { data, n_rows, n_columns, row_stride, column_stride: 1 }
    }

    /// The same numbers, rows as columns.
    pub fn transposed(self) -> Self {
        Self {
            n_rows: self.n_columns,
            n_columns: self.n_rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `out = scale * a b`, where rows of `out` start `out_stride` apart.
///
/// # Panics
/// If the inner extents differ or `out` is too short.
pub(super) fn product(a: View<'_>, b: View<'_>, out: &mut [f32], out_stride: usize, scale: f32) {
    assert_eq!(a.n_columns, b.n_rows, "inner extents");
    assert!(b.n_columns <= out_stride, "rows of the result overlap");
    assert!(a.n_rows == 0 || (a.n_rows - 1) * out_stride + b.n_columns <= out.len(), "the result does not fit");
    // SAFETY: `View::new` checked that every element of `a` and `b` lies in its slice, and the asserts above that
    // every element of the result lies in `out`, which no other slice overlaps.
    unsafe {
        matrixmultiply::sgemm(
            a.n_rows,
            a.n_columns,
            b.n_columns,
            scale,
            a.data.as_ptr(),
            a.row_stride as isize,
            a.column_stride as isize,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.column_stride as isize,
            0.0,
            out.as_mut_ptr(),
            out_stride as isize,
            1,
        );
    }
}
