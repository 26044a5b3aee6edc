//! Who computes products.

use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use siskin_compiler::tensor::{Buffer, gemm as siskin};

use crate::product::{Operand, Product};

/// An implementation, and what its threads do.
pub struct Contestant {
    implementation: Implementation,
    /// Threads that share a product; 1 if each has its own.
    n_sharing: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Implementation {
    Siskin,
    Gemm,
    MatrixMultiply,
    Faer,
}

impl Contestant {
    /// Everyone, Siskin first.
    pub fn all(n_threads: usize) -> Vec<Self> {
        use Implementation::{Faer, Gemm, MatrixMultiply, Siskin};
        let alone = [Siskin, Gemm, MatrixMultiply, Faer].map(|implementation| Self { implementation, n_sharing: 1 });
        let sharing = [Gemm, Faer].map(|implementation| Self { implementation, n_sharing: n_threads });
        alone.into_iter().chain(sharing.into_iter().filter(|_| n_threads > 1)).collect()
    }

    /// What the table calls it.
    pub fn name(&self) -> String {
        let name = match self.implementation {
            Implementation::Siskin => "siskin",
            Implementation::Gemm => "gemm",
            Implementation::MatrixMultiply => "matrixmultiply",
            Implementation::Faer => "faer",
        };
        if self.n_sharing > 1 { format!("{name} shared") } else { name.to_owned() }
    }

    /// Computes the product `n_repeats` times on every thread, or on all threads together; gives how many it were.
    pub fn run(&self, product: &Product, n_repeats: usize, results: &mut [Buffer]) -> usize {
        if self.n_sharing > 1 || results.len() == 1 {
            (0..n_repeats).for_each(|_| self.once(product, &mut results[0]));
            return n_repeats;
        }
        let n_threads = results.len();
        results.par_iter_mut().with_max_len(1).for_each(|to| (0..n_repeats).for_each(|_| self.once(product, to)));
        n_repeats * n_threads
    }

    /// Computes the product.
    pub fn once(&self, product: &Product, to: &mut [f32]) {
        match self.implementation {
            Implementation::Siskin => by_siskin(product, to),
            Implementation::Gemm => by_gemm(product, to, self.n_sharing),
            Implementation::MatrixMultiply => by_matrixmultiply(product, to),
            Implementation::Faer => by_faer(product, to, self.n_sharing),
        }
    }
}

fn by_siskin(product: &Product, to: &mut [f32]) {
    fn matrix(operand: &Operand) -> siskin::MatRef<'_> {
        match operand.is_transposed {
            false => siskin::MatRef::new(&operand.numbers, operand.rows, operand.cols),
            true => siskin::MatRef::new(&operand.numbers, operand.cols, operand.rows).transposed(),
        }
    }
    let write = if product.adds { siskin::Write::Add } else { siskin::Write::Set };
    siskin::gemm(write, matrix(&product.a), matrix(&product.b), to);
}

fn by_gemm(product: &Product, to: &mut [f32], n_sharing: usize) {
    let Product { m, n, k, a, b, adds } = product;
    let ((a_row, a_col), (b_row, b_col)) = (a.strides(), b.strides());
    let parallelism = if n_sharing > 1 { gemm::Parallelism::Rayon(n_sharing) } else { gemm::Parallelism::None };
    assert_eq!(to.len(), m * n);
    let (to, to_row) = (to.as_mut_ptr(), *n as isize);
    // SAFETY: `to` is `(m, n)`, row-major; the operands are `(m, k)` and `(k, n)` at these strides.
    unsafe {
        gemm::gemm(
            *m,
            *n,
            *k,
            to,
            1,
            to_row,
            *adds,
            a.numbers.as_ptr(),
            a_col,
            a_row,
            b.numbers.as_ptr(),
            b_col,
            b_row,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn by_matrixmultiply(product: &Product, to: &mut [f32]) {
    let Product { m, n, k, a, b, adds } = product;
    let ((a_row, a_col), (b_row, b_col)) = (a.strides(), b.strides());
    assert_eq!(to.len(), m * n);
    let (to, to_row, keep) = (to.as_mut_ptr(), *n as isize, f32::from(u8::from(*adds)));
    // SAFETY: `to` is `(m, n)`, row-major; the operands are `(m, k)` and `(k, n)` at these strides.
    unsafe {
        matrixmultiply::sgemm(
            *m,
            *k,
            *n,
            1.0,
            a.numbers.as_ptr(),
            a_row,
            a_col,
            b.numbers.as_ptr(),
            b_row,
            b_col,
            keep,
            to,
            to_row,
            1,
        );
    }
}

fn by_faer(product: &Product, to: &mut [f32], n_sharing: usize) {
    fn view(operand: &Operand) -> MatRef<'_, f32> {
        let Operand { numbers, rows, cols, is_transposed } = operand;
        match is_transposed {
            false => MatRef::from_row_major_slice(numbers, *rows, *cols),
            true => MatRef::from_column_major_slice(numbers, *rows, *cols),
        }
    }
    let accumulate = if product.adds { Accum::Add } else { Accum::Replace };
    let parallelism = if n_sharing > 1 { Par::rayon(n_sharing) } else { Par::Seq };
    let to = MatMut::from_row_major_slice_mut(to, product.m, product.n);
    faer::linalg::matmul::matmul(to, accumulate, view(&product.a), view(&product.b), 1.0, parallelism);
}
