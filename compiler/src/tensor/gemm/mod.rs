//! Matrix products for the sizes of small models.
//!
//! ```text
//! for each block of up to 320 inner positions
//!   for each group of panels of B: pack it, if that pays    (columns of a few vectors, tail padded with zeros)
//!     for each block of rows of A: copy it, if it is spread over many pages
//!       for each panel of the group
//!         for each strip of the block: a tile of C, its sums in registers
//! ```
//!
//! Each element of the product is summed in the order of the inner index by fused multiply-adds, in blocks of nearly equal size: the
//! result depends on the operands alone, not on how rows and columns fall into tiles or on how wide the vectors are.

mod block;
mod pack;
mod tile;

use super::simd::{add_assign, dispatch_wide};
use block::{Gemm, Right};
use std::cell::RefCell;
use std::ops::Range;

pub use block::PackedRight;
pub(super) use tile::{Strip, tile};

/// What a product does with the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replace what is there.
    Set,
    /// Add to what is there.
    Add,
}

impl Write {
    /// Replaces or adds, number by number.
    pub fn store(self, to: &mut [f32], from: &[f32]) {
        match self {
            Self::Set => to.copy_from_slice(from),
            Self::Add => add_assign(to, from),
        }
    }
}

/// A borrowed matrix, `(rows, cols)`, with a stride of one along one of its two axes.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If `data` is not `rows * cols` long.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} x {cols}");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Some rows and columns of it.
    fn block(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        assert!(rows.end <= self.rows && cols.end <= self.cols, "a block of the matrix");
        let data = &self.data[rows.start * self.row_stride + cols.start * self.col_stride..];
        Self { data, rows: rows.len(), cols: cols.len(), ..self }
    }

    /// The same numbers with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// Computes `c = a b` or `c += a b` with `c` row-major, `(a.rows, b.cols)`.
///
/// # Panics
/// If the shapes do not fit together.
pub fn gemm(write: Write, a: MatRef<'_>, b: MatRef<'_>, c: &mut [f32]) {
    assert_eq!(a.cols, b.rows, "inner sizes of the product");
    assert_eq!(c.len(), a.rows * b.cols, "size of the product");
    PACKED.with_borrow_mut(|packed| dispatch_wide(Gemm { write, a, b: Right::Matrix(b), c, packed }));
}

/// [`gemm`] with a right operand that is packed already.
///
/// # Panics
/// If the shapes do not fit together.
pub fn gemm_packed(write: Write, a: MatRef<'_>, b: PackedRight<'_>, c: &mut [f32]) {
    assert_eq!(a.cols, b.inner(), "inner sizes of the product");
    assert_eq!(c.len(), a.rows * b.cols(), "size of the product");
    PACKED.with_borrow_mut(|packed| dispatch_wide(Gemm { write, a, b: Right::Packed(b), c, packed }));
}

thread_local! {
    /// Packed panels of B, then packed strips of A.
    static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Portable, WideKernel};
    use super::*;
    use rand::RngExt;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn random(n: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn element(m: MatRef<'_>, i: usize, j: usize) -> f64 {
        f64::from(m.data[i * m.row_stride + j * m.col_stride])
    }

    fn check(rows: usize, inner: usize, cols: usize, a_flipped: bool, b_flipped: bool) {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (a, b) = (random(rows * inner, &mut rng), random(inner * cols, &mut rng));
        let a = if a_flipped { MatRef::new(&a, inner, rows).transposed() } else { MatRef::new(&a, rows, inner) };
        let b = if b_flipped { MatRef::new(&b, cols, inner).transposed() } else { MatRef::new(&b, inner, cols) };
        for write in [Write::Set, Write::Add] {
            let before = random(rows * cols, &mut rng);
            let mut got = before.clone();
            gemm(write, a, b, &mut got);
            let mut portable = before.clone();
            Gemm { write, a, b: Right::Matrix(b), c: &mut portable, packed: &mut Vec::new() }.run::<Portable>();
            let mut memory = vec![0.0; PackedRight::memory(inner, cols)];
            let mut packed = before.clone();
            gemm_packed(write, a, PackedRight::new(b, &mut memory), &mut packed);
            assert!(got == packed, "packing changes {rows} x {inner} x {cols}");
            assert!(got == portable, "lanes disagree at {rows} x {inner} x {cols}");
            for i in 0..rows {
                for j in 0..cols {
                    let product: f64 = (0..inner).map(|p| element(a, i, p) * element(b, p, j)).sum();
                    let old = if write == Write::Add { f64::from(before[i * cols + j]) } else { 0.0 };
                    let error = (f64::from(got[i * cols + j]) - product - old).abs();
                    assert!(
                        error < 1e-6 * (inner as f64 + 4.0),
                        "{rows} x {inner} x {cols} at ({i}, {j}): off by {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_definition_at_every_layout_and_odd_size() {
        let sizes = [
            (1, 1, 1),
            (6, 8, 16),
            (7, 3, 17),
            (13, 64, 31),
            (5, 330, 9),
            (64, 257, 20),
            (3, 0, 4),
            (9, 21, 270),
            (200, 650, 203),
            (15, 640, 850),
            (5, 3, 300),
            (29, 17, 260),
            (1, 700, 300),
            (5, 2050, 1030),
            (515, 9, 70),
        ];
        for (rows, inner, cols) in sizes {
            for (a_flipped, b_flipped) in [(false, false), (false, true), (true, false), (true, true)] {
                check(rows, inner, cols, a_flipped, b_flipped);
            }
        }
    }
}
