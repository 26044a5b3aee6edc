//! Operations that move, average or scale whole rows.

use crate::tensor::Segments;
use crate::tensor::gemm::Write;
use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// `x * factor`.
    pub fn scale(&mut self, x: Var, factor: f32) -> Var {
        let (rows, cols) = self.shape(x);
        let mut y = self.buffer(rows * cols);
        y.iter_mut().zip(self.value(x)).for_each(|(y, x)| *y = x * factor);
        let out = self.push(rows, cols, y);
        self.note(Scale { x, factor, out });
        out
    }

    /// Rows `rows[i]` of `x`, `(n, dim)`, as row `i` of the result, `(rows.len(), dim)`; a row may be taken several times.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn gather_rows(&mut self, x: Var, rows: &[usize]) -> Var {
        let dim = self.shape(x).1;
        let mut y = self.buffer(rows.len() * dim);
        for (y, row) in y.chunks_exact_mut(dim).zip(rows) {
            y.copy_from_slice(&self.value(x)[row * dim..(row + 1) * dim]);
        }
        let out = self.push(rows.len(), dim, y);
        self.note(GatherRows { x, rows: rows.to_vec(), out });
        out
    }

    /// The mean row of each segment of `x`, `(n, dim)`: `(segments.len(), dim)`; an empty segment's is zero.
    ///
    /// # Panics
    /// If the segments do not cover `x`.
    pub fn mean_rows(&mut self, x: Var, segments: &Segments) -> Var {
        let (n, dim) = self.shape(x);
        assert_eq!(segments.n_rows(), n, "segments cover the rows");
        let mut y = self.buffer(segments.len() * dim);
        for (y, rows) in y.chunks_exact_mut(dim).zip(segments.iter()) {
            y.fill(0.0);
            let factor = 1.0 / rows.len().max(1) as f32;
            for row in self.value(x)[rows.start * dim..rows.end * dim].chunks_exact(dim) {
                y.iter_mut().zip(row).for_each(|(y, x)| *y += x * factor);
            }
        }
        let out = self.push(segments.len(), dim, y);
        self.note(MeanRows { x, segments: segments.clone(), out });
        out
    }
}

struct Scale {
    x: Var,
    factor: f32,
    out: Var,
}

impl Op for Scale {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut grad) = pass.take(self.out) else { return };
        grad.iter_mut().for_each(|grad| *grad *= self.factor);
        pass.hand_on(self.x, grad);
    }
}

struct GatherRows {
    x: Var,
    rows: Vec<usize>,
    out: Var,
}

impl Op for GatherRows {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(grad) = pass.take(self.out) else { return };
        let (mut dx, write) = pass.open(self.x);
        if write == Write::Set {
            dx.fill(0.0);
        }
        let dim = pass.shape(self.x).1;
        for (from, row) in grad.chunks_exact(dim).zip(&self.rows) {
            dx[row * dim..(row + 1) * dim].iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
        pass.close(self.x, dx);
        pass.recycle(grad);
    }
}

struct MeanRows {
    x: Var,
    segments: Segments,
    out: Var,
}

impl Op for MeanRows {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(grad) = pass.take(self.out) else { return };
        let (mut dx, write) = pass.open(self.x);
        if write == Write::Set {
            dx.fill(0.0);
        }
        let dim = pass.shape(self.x).1;
        for (from, rows) in grad.chunks_exact(dim).zip(self.segments.iter()) {
            let factor = 1.0 / rows.len().max(1) as f32;
            for to in dx[rows.start * dim..rows.end * dim].chunks_exact_mut(dim) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from * factor);
            }
        }
        pass.close(self.x, dx);
        pass.recycle(grad);
    }
}
