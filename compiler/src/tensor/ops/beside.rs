//! Operations of what is trained beside a frozen weight: gains of columns, DoRA's magnitudes, rows before a sequence's own.

use super::Activation;
use crate::tensor::Segments;
use crate::tensor::gemm::{MatRef, Write, gemm};
use crate::tensor::params::ParamId;
use crate::tensor::tape::{Backward, Graph, Op, Var};
use std::ops::Range;

/// A weight and what DoRA trains beside it.
#[derive(Clone, Copy, Debug)]
pub struct Dora {
    /// `(outputs, inputs)`.
    pub weight: ParamId,
    /// Added after the gain, `(outputs,)`.
    pub bias: Option<ParamId>,
    /// `(rank, inputs)`.
    pub a: ParamId,
    /// `(outputs, rank)`.
    pub b: ParamId,
    /// Multiplies `b a`.
    pub scale: f32,
    /// The norm that each row of the weight gets, `(outputs,)`.
    pub magnitude: ParamId,
}

/// Rows of a table that stand first in every sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstRows {
    /// The table; its rows are as many as stand first.
    pub table: ParamId,
    /// The first of its columns that is meant.
    pub first_col: usize,
}

impl Graph<'_> {
    /// `activation(x)`, element by element.
    pub fn activate(&mut self, x: Var, activation: Activation) -> Var {
        if activation == Activation::None {
            return x;
        }
        let (rows, cols) = self.shape(x);
        let mut y = self.buffer(rows * cols);
        y.copy_from_slice(self.value(x));
        activation.apply(&mut y);
        let out = self.push(rows, cols, y);
        self.note(Activate { x, activation, out });
        out
    }

    /// Column `c` of `x`, `(n, cols)`, times `gain[c]`.
    ///
    /// # Panics
    /// If the gain has another length.
    pub fn scale_columns(&mut self, x: Var, gain: ParamId) -> Var {
        self.follow([gain]);
        let (n, cols) = self.shape(x);
        let gains = self.params().get(gain);
        assert_eq!(gains.len(), cols, "a gain for each column");
        let mut y = self.buffer(n * cols);
        for (y, x) in y.chunks_exact_mut(cols).zip(self.value(x).chunks_exact(cols)) {
            y.iter_mut().zip(x).zip(gains).for_each(|((y, x), gain)| *y = x * gain);
        }
        let out = self.push(n, cols, y);
        self.note(ScaleColumns { x, gain, out });
        out
    }

    /// What DoRA (Liu et al. 2024) makes of `x (weight + scale b a)ᵀ`, `(n, outputs)`: each column over the norm of its row of that
    /// matrix, times its magnitude. The norm is taken as a constant on the way back, as the paper does.
    pub fn dora(&mut self, product: Var, dora: Dora) -> Var {
        self.follow([dora.magnitude]);
        let (n, outputs) = self.shape(product);
        let norms = self.row_norms(dora);
        let params = self.params();
        let gains: Vec<f32> = params.get(dora.magnitude).iter().zip(&norms).map(|(m, norm)| m / norm).collect();
        let bias = dora.bias.map(|bias| params.get(bias));
        let mut y = self.buffer(n * outputs);
        for (y, x) in y.chunks_exact_mut(outputs).zip(self.value(product).chunks_exact(outputs)) {
            y.iter_mut().zip(x).zip(&gains).for_each(|((y, x), gain)| *y = x * gain);
            if let Some(bias) = bias {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        let out = self.push(n, outputs, y);
        self.note(DoraGain { product, magnitude: dora.magnitude, norms, gains, out });
        out
    }

    /// The norm of each row of `weight + scale b a`.
    fn row_norms(&mut self, Dora { weight, a, b, scale, .. }: Dora) -> Vec<f32> {
        let params = self.params();
        let (spec, rank) = (params.layout.spec(weight), params.layout.spec(a).rows);
        let (outputs, inputs) = (spec.rows, spec.cols);
        let mut whole = self.buffer(outputs * inputs);
        params.weight(weight).widen_into(&mut whole);
        let scaled: Vec<f32> = params.get(b).iter().map(|b| b * scale).collect();
        gemm(Write::Add, MatRef::new(&scaled, outputs, rank), MatRef::new(params.get(a), rank, inputs), &mut whole);
        let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
        let norms = whole.chunks_exact(inputs).map(norm).collect();
        self.recycle(whole);
        norms
    }

    /// Each segment of `x` with `n_first` rows before it: those of a table, or zeros.
    ///
    /// # Panics
    /// If the segments do not cover `x`, or the table has other rows.
    pub fn prepend_rows(&mut self, x: Var, table: Option<ParamId>, n_first: usize, segments: &Segments) -> Var {
        self.follow(table);
        let (n, cols) = self.shape(x);
        assert_eq!(segments.n_rows(), n, "segments cover the rows");
        let first = table.map(|table| self.params().get(table));
        assert!(first.is_none_or(|first| first.len() == n_first * cols), "as many rows, as wide");
        let n_out = n + segments.len() * n_first;
        let mut y = self.buffer(n_out * cols);
        for (at, rows) in segments.iter().enumerate() {
            let start = rows.start + at * n_first;
            let (before, own) = y[start * cols..(start + n_first + rows.len()) * cols].split_at_mut(n_first * cols);
            match first {
                Some(first) => before.copy_from_slice(first),
                None => before.fill(0.0),
            }
            own.copy_from_slice(&self.value(x)[rows.start * cols..rows.end * cols]);
        }
        let out = self.push(n_out, cols, y);
        self.note(PrependRows { x, table, n_first, segments: segments.clone(), out });
        out
    }

    /// `x` with the first rows of each segment replaced by those of a table.
    ///
    /// # Panics
    /// If a segment is shorter than the table.
    pub fn replace_first_rows(&mut self, x: Var, first: FirstRows, segments: &Segments) -> Var {
        self.follow([first.table]);
        let (n, cols) = self.shape(x);
        let params = self.params();
        let (table, width) = (params.get(first.table), params.layout.spec(first.table).cols);
        let mut y = self.buffer(n * cols);
        y.copy_from_slice(self.value(x));
        for rows in segments.iter() {
            for (row, from) in rows.zip(table.chunks_exact(width)) {
                y[row * cols..(row + 1) * cols].copy_from_slice(&from[first.cols(cols)]);
            }
        }
        let out = self.push(n, cols, y);
        let n_first = table.len() / width;
        self.note(ReplaceFirstRows { x, first, n_first, segments: segments.clone(), out });
        out
    }
}

impl FirstRows {
    fn cols(self, n: usize) -> Range<usize> {
        self.first_col..self.first_col + n
    }
}

struct Activate {
    x: Var,
    activation: Activation,
    out: Var,
}

impl Op for Activate {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut grad) = pass.take(self.out) else { return };
        self.activation.apply_slope(pass.value(self.x), &mut grad);
        pass.hand_on(self.x, grad);
    }
}

struct ScaleColumns {
    x: Var,
    gain: ParamId,
    out: Var,
}

impl Op for ScaleColumns {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut grad) = pass.take(self.out) else { return };
        let (gains, x) = (pass.param(self.gain), pass.value(self.x));
        if let Some(sums) = pass.param_grad_to_add(self.gain) {
            for (dy, x) in grad.chunks_exact(gains.len()).zip(x.chunks_exact(gains.len())) {
                sums.iter_mut().zip(dy).zip(x).for_each(|((sum, dy), x)| *sum += dy * x);
            }
        }
        for dy in grad.chunks_exact_mut(gains.len()) {
            dy.iter_mut().zip(gains).for_each(|(dy, gain)| *dy *= gain);
        }
        pass.hand_on(self.x, grad);
    }
}

struct DoraGain {
    product: Var,
    magnitude: ParamId,
    norms: Vec<f32>,
    gains: Vec<f32>,
    out: Var,
}

impl Op for DoraGain {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut grad) = pass.take(self.out) else { return };
        let (outputs, product) = (self.gains.len(), pass.value(self.product));
        if let Some(sums) = pass.param_grad_to_add(self.magnitude) {
            for (dy, x) in grad.chunks_exact(outputs).zip(product.chunks_exact(outputs)) {
                let terms = dy.iter().zip(x).zip(&self.norms).map(|((dy, x), norm)| dy * x / norm);
                sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
        }
        for dy in grad.chunks_exact_mut(outputs) {
            dy.iter_mut().zip(&self.gains).for_each(|(dy, gain)| *dy *= gain);
        }
        pass.hand_on(self.product, grad);
    }
}

struct PrependRows {
    x: Var,
    table: Option<ParamId>,
    n_first: usize,
    segments: Segments,
    out: Var,
}

impl Op for PrependRows {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(grad) = pass.take(self.out) else { return };
        let (cols, n_first) = (pass.shape(self.x).1, self.n_first);
        let starts = || self.segments.iter().enumerate().map(|(at, rows)| (rows.start + at * n_first, rows));
        if let Some(table) = self.table.and_then(|table| pass.param_grad_to_add(table)) {
            for (start, _) in starts() {
                Write::Add.store(table, &grad[start * cols..(start + n_first) * cols]);
            }
        }
        let (mut dx, write) = pass.open(self.x);
        for (start, rows) in starts() {
            let own = (start + n_first) * cols..(start + n_first + rows.len()) * cols;
            write.store(&mut dx[rows.start * cols..rows.end * cols], &grad[own]);
        }
        pass.close(self.x, dx);
        pass.recycle(grad);
    }
}

struct ReplaceFirstRows {
    x: Var,
    first: FirstRows,
    n_first: usize,
    segments: Segments,
    out: Var,
}

impl Op for ReplaceFirstRows {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut grad) = pass.take(self.out) else { return };
        let (cols, n_first) = (pass.shape(self.x).1, self.n_first);
        if let Some(table) = pass.param_grad_to_add(self.first.table) {
            let width = table.len() / n_first;
            for rows in self.segments.iter() {
                for (row, to) in rows.zip(table.chunks_exact_mut(width)) {
                    Write::Add.store(&mut to[self.first.cols(cols)], &grad[row * cols..(row + 1) * cols]);
                }
            }
        }
        for rows in self.segments.iter() {
            grad[rows.start * cols..(rows.start + n_first) * cols].fill(0.0);
        }
        pass.hand_on(self.x, grad);
    }
}
