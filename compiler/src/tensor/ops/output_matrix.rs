//! Products with a model's output matrix, the largest that it has: from 16 bits it is widened some rows at a time.

use crate::tensor::Buffer;
use crate::tensor::gemm::{MatRef, Write, gemm};
use crate::tensor::params::{ParamId, Weight};
use crate::tensor::tape::Graph;

/// Rows that are widened at a time.
const ROWS: usize = 1024;

/// A matrix, `(outputs, dim)`, and room to widen some of its rows.
pub(super) struct OutputMatrix<'a> {
    weight: Weight<'a>,
    outputs: usize,
    dim: usize,
    /// Some rows of the matrix; empty where it is not widened.
    widened: Buffer,
    /// Their products, `(rows of x, widened rows)`; empty where all rows are widened at once.
    products: Buffer,
}

impl<'a> OutputMatrix<'a> {
    /// For products with at most `n` rows at a time.
    pub fn new(graph: &mut Graph<'a>, head: ParamId, n: usize) -> Self {
        let params = graph.params();
        let (weight, spec) = (params.weight(head), params.layout.spec(head));
        let (outputs, dim) = (spec.rows, spec.cols);
        let (widened, products) = match weight {
            Weight::F32(_) => Default::default(),
            Weight::Bf16(_) => {
                let rows = ROWS.min(outputs);
                (graph.buffer(rows * dim), graph.buffer(if rows < outputs { n * rows } else { 0 }))
            }
        };
        Self { weight, outputs, dim, widened, products }
    }

    /// Gives the room back.
    pub fn recycle(self, graph: &mut Graph<'_>) {
        [self.widened, self.products].into_iter().for_each(|buffer| graph.recycle(buffer));
    }

    /// `logits = x Wᵀ` for `x`, `(n, dim)`.
    pub fn logits(&mut self, x: &[f32], logits: &mut [f32]) {
        let (dim, outputs, n) = (self.dim, self.outputs, x.len() / self.dim);
        let x = MatRef::new(x, n, dim);
        if let Some(weight) = self.whole() {
            return gemm(Write::Set, x, MatRef::new(weight, outputs, dim).transposed(), logits);
        }
        for first in (0..outputs).step_by(ROWS) {
            let (rows, products) = self.widen(first, n);
            let n_rows = rows.len() / dim;
            gemm(Write::Set, x, MatRef::new(rows, n_rows, dim).transposed(), products);
            for (logits, products) in logits.chunks_exact_mut(outputs).zip(products.chunks_exact(n_rows)) {
                logits[first..first + n_rows].copy_from_slice(products);
            }
        }
    }

    /// `dx = slopes W` for `slopes`, `(n, outputs)`.
    pub fn gradient(&mut self, slopes: &[f32], dx: &mut [f32]) {
        let (dim, outputs, n) = (self.dim, self.outputs, slopes.len() / self.outputs);
        if let Some(weight) = self.whole() {
            return gemm(Write::Set, MatRef::new(slopes, n, outputs), MatRef::new(weight, outputs, dim), dx);
        }
        for first in (0..outputs).step_by(ROWS) {
            let (rows, part) = self.widen(first, n);
            let n_rows = rows.len() / dim;
            for (slopes, part) in slopes.chunks_exact(outputs).zip(part.chunks_exact_mut(n_rows)) {
                part.copy_from_slice(&slopes[first..first + n_rows]);
            }
            let write = if first == 0 { Write::Set } else { Write::Add };
            gemm(write, MatRef::new(part, n, n_rows), MatRef::new(rows, n_rows, dim), dx);
        }
    }

    /// The matrix, if it is there as a whole or small enough to be widened so.
    fn whole(&mut self) -> Option<&[f32]> {
        match self.weight {
            Weight::F32(weight) => Some(weight),
            Weight::Bf16(_) if self.outputs <= ROWS => Some(self.widen(0, 0).0),
            Weight::Bf16(_) => None,
        }
    }

    /// Widens rows from `first` on; gives them, and room for `n` numbers with each.
    fn widen(&mut self, first: usize, n: usize) -> (&[f32], &mut [f32]) {
        let n_rows = ROWS.min(self.outputs - first);
        let rows = &mut self.widened[..n_rows * self.dim];
        self.weight.part(first * self.dim..(first + n_rows) * self.dim).widen_into(rows);
        (rows, &mut self.products[..n * n_rows])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Dtype, ParamLayout, Params, Tape};

    /// Cutting the matrix changes sums by their rounding at most.
    #[test]
    fn products_from_16_bits_are_those_of_the_widened_matrix() {
        let (n, dim) = (5, 24);
        for outputs in [7, ROWS, 2 * ROWS + 3] {
            let mut layout = ParamLayout::default();
            let head = layout.matrix("head", outputs, dim);
            let numbers = |len: usize, by: f32| (0..len).map(|i| (i as f32 * by).sin()).collect::<Vec<f32>>();
            let params = Params::new(layout, numbers(outputs * dim, 0.7).as_slice().into()).stored_as(Dtype::Bf16);
            let widened = params.clone().stored_as(Dtype::F32);
            let mut results = [&params, &widened].map(|params| {
                let mut tape = Tape::default();
                let graph = &mut tape.evaluate(params);
                let mut matrix = OutputMatrix::new(graph, head, n);
                let (mut logits, mut dx) = (vec![0.0; n * outputs], vec![0.0; n * dim]);
                matrix.logits(&numbers(n * dim, 0.3), &mut logits);
                matrix.gradient(&numbers(n * outputs, 0.9), &mut dx);
                matrix.recycle(graph);
                [logits, dx]
            });
            let [got, want] = &mut results;
            assert!(got[0] == want[0], "{outputs} logits");
            for (got, want) in got[1].iter().zip(&want[1]) {
                assert!((got - want).abs() < 1e-6 * outputs as f32, "{outputs} outputs: {got}, not {want}");
            }
        }
    }
}
