//! Muon (Jordan et al. 2024): momentum whose singular values are all brought near 1, for the matrices inside a model.
//!
//! ```text
//! momentum  = momentum + (1 - beta) (gradient - momentum)
//! x         = gradient + beta (momentum - gradient)            (Nesterov)
//! x         = x / |x|
//! five times: a = x x';  x = 3.4445 x + (-4.7750 a + 2.0315 a a) x
//! matrix    = (1 - rate decay) matrix - rate max(1, rows / columns)^0.5 x
//! ```
//!
//! A matrix with more rows than columns is turned first, so that `a` is the smaller of the two squares.

use super::groups::Member;
use super::norm::norm;
use crate::recipe::OptimizerSection;
use crate::tensor::bf16::{Dithers, Numbers, Stored};
use crate::tensor::gemm::{MatRef, Write, gemm};
use crate::tensor::{Dtype, WeightMut};
use rayon::prelude::*;
use std::sync::Mutex;

/// Iterations, and their polynomial: not the one that converges, but one that raises small singular values fastest.
const ITERATIONS: usize = 5;
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// Rows of a symmetric product that are computed together.
const STRIP_ROWS: usize = 64;
/// Keeps a gradient of zeros from being divided by its norm.
const NORM_MIN: f64 = 1e-7;

/// A parameter of one matrix, or of several stacked ones.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    pub member: Member,
    /// Rows of each matrix.
    pub rows: usize,
    pub cols: usize,
}

/// The rule for some of a model's matrices, and its running averages of their gradients.
#[derive(Clone, Debug)]
pub(super) struct Muon {
    stacks: Vec<Stack>,
    /// Running averages of the gradient, of one parameter after the other.
    pub momentum: Numbers,
    /// What each thread computed with last.
    memory: Vec<Memory>,
}

impl Muon {
    /// The state before the first step, stored as `dtype`; `stacks` in the order of their places.
    pub fn new(stacks: Vec<Stack>, dtype: Dtype) -> Self {
        let len = stacks.iter().map(|stack| stack.member.range.len()).sum();
        Self { stacks, momentum: Numbers::zeros(dtype, len), memory: Vec::new() }
    }

    /// One update with the gradient times `factor`; `n_before` updates were made before it. Takes its matrices of all parameters.
    pub fn update(
        &mut self,
        weights: &mut [Option<WeightMut<'_>>],
        gradient: &[f32],
        factor: f64,
        rule: &OptimizerSection,
        (rate, n_before): (f64, u64),
    ) {
        let Self { stacks, momentum, memory } = self;
        let dithers = Dithers::new(n_before);
        let scales = |Stack { member, rows, cols }: &Stack| {
            let rate = rate * member.rate_scale;
            Scales {
                factor: factor as f32,
                beta: rule.muon_momentum as f32,
                rate: (rate * (*rows as f64 / *cols as f64).max(1.0).sqrt()) as f32,
                keep: (1.0 - rate * member.weight_decay) as f32,
            }
        };
        match momentum {
            Numbers::F32(momentum) => update_all(stacks, weights, momentum, gradient, dithers, scales, memory),
            Numbers::Bf16(momentum) => update_all(stacks, weights, momentum, gradient, dithers, scales, memory),
        }
    }
}

/// Updates all matrices, each on one thread.
fn update_all<S: Stored>(
    stacks: &[Stack],
    weights: &mut [Option<WeightMut<'_>>],
    mut momentum: &mut [S],
    gradient: &[f32],
    dithers: Dithers,
    scales: impl Fn(&Stack) -> Scales,
    memory: &mut Vec<Memory>,
) {
    let mut jobs = Vec::new();
    for stack in stacks {
        let (Stack { member, rows, cols }, scales) = (stack, scales(stack));
        let range = member.range.clone();
        let Some(mut weights) = weights[member.param_idx].take() else { unreachable!("each parameter once") };
        for start in range.step_by(rows * cols) {
            let Some(momentum) = momentum.split_off_mut(..rows * cols) else { unreachable!("that of each matrix") };
            let (values, gradient) = (weights.split_off(rows * cols), &gradient[start..start + rows * cols]);
            jobs.push(Job { values, momentum, gradient, rows: *rows, cols: *cols, scales, dithers, start });
        }
    }
    let free = Mutex::new(std::mem::take(memory));
    jobs.into_par_iter().with_max_len(1).for_each(|job| {
        let mut own = free.lock().ok().and_then(|mut free| free.pop()).unwrap_or_default();
        job.run(&mut own);
        if let Ok(mut free) = free.lock() {
            free.push(own);
        }
    });
    *memory = free.into_inner().unwrap_or_default();
}

/// What an update multiplies, the same for all numbers of a matrix.
#[derive(Clone, Copy)]
struct Scales {
    factor: f32,
    beta: f32,
    /// Learning rate times the scale of the shape.
    rate: f32,
    /// What decay leaves of a number.
    keep: f32,
}

/// The update of one matrix, `(rows, cols)`.
struct Job<'a, S> {
    values: WeightMut<'a>,
    momentum: &'a mut [S],
    gradient: &'a [f32],
    rows: usize,
    cols: usize,
    scales: Scales,
    dithers: Dithers,
    /// The place of its first number among all parameters.
    start: usize,
}

/// Where a matrix is brought to singular values near 1.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// The matrix.
    x: Vec<f32>,
    /// Its next value, or itself before it was turned.
    other: Vec<f32>,
    /// It times itself, `(n, n)` for the shorter side `n`.
    square: Vec<f32>,
    /// The polynomial of `square`.
    polynomial: Vec<f32>,
    /// Some rows of a symmetric product.
    strip: Vec<f32>,
}

impl<S: Stored> Job<'_, S> {
    fn run(self, memory: &mut Memory) {
        let Scales { factor, beta, .. } = self.scales;
        memory.x.clear();
        let places = (0..self.gradient.len()).map(|idx| (self.start + idx) as u32);
        memory.x.extend(self.momentum.iter_mut().zip(self.gradient).zip(places).map(|((stored, gradient), place)| {
            let (g, before) = (gradient * factor, stored.widen());
            let momentum = before + (1.0 - beta) * (g - before);
            *stored = S::round(momentum, self.dithers.state.bits(place));
            g + beta * (momentum - g)
        }));
        memory.orthogonalize(self.rows, self.cols);
        match self.values {
            WeightMut::F32(values) => self.scales.apply(values, &memory.x, self.dithers, self.start),
            WeightMut::Bf16(values) => self.scales.apply(values, &memory.x, self.dithers, self.start),
        }
    }
}

impl Scales {
    /// Moves `values` by `x`; `start` is the place of the first among all parameters.
    fn apply<W: Stored>(self, values: &mut [W], x: &[f32], dithers: Dithers, start: usize) {
        for (idx, (value, x)) in values.iter_mut().zip(x).enumerate() {
            let moved = value.widen() * self.keep - self.rate * x;
            *value = W::round(moved, dithers.weights.bits((start + idx) as u32));
        }
    }
}

impl Memory {
    /// Brings the singular values of `x`, `(rows, cols)`, near 1: between 0.67 and 1.15 unless they were tiny beside the largest.
    fn orthogonalize(&mut self, rows: usize, cols: usize) {
        let Self { x, other, square, polynomial, strip } = self;
        let scale = (1.0 / (norm(x) + NORM_MIN)) as f32;
        x.iter_mut().for_each(|x| *x *= scale);
        let (n, longer) = (rows.min(cols), rows.max(cols));
        if rows > cols {
            turn(x, rows, cols, other);
            std::mem::swap(x, other);
        }
        square.resize(n * n, 0.0);
        polynomial.resize(n * n, 0.0);
        other.resize(n * longer, 0.0);
        let [linear, cubic, quintic] = COEFFICIENTS;
        for _ in 0..ITERATIONS {
            times_own_transpose(x, n, longer, square, strip);
            // A symmetric matrix is its own transpose.
            times_own_transpose(square, n, n, polynomial, strip);
            for (fourth, second) in polynomial.iter_mut().zip(&*square) {
                *fourth = cubic * second + quintic * *fourth;
            }
            gemm(Write::Set, MatRef::new(polynomial, n, n), MatRef::new(x, n, longer), other);
            for (x, product) in x.iter_mut().zip(&*other) {
                *x = linear * *x + product;
            }
        }
        if rows > cols {
            turn(x, n, longer, other);
            std::mem::swap(x, other);
        }
    }
}

/// Writes the transpose of `from`, `(rows, cols)`.
fn turn(from: &[f32], rows: usize, cols: usize, to: &mut Vec<f32>) {
    to.clear();
    to.extend((0..cols).flat_map(|col| (0..rows).map(move |row| from[row * cols + col])));
}

/// Computes `m m'`, `(rows, rows)`, for `m`, `(rows, cols)`: strips of rows up to the diagonal, and their mirror image.
fn times_own_transpose(m: &[f32], rows: usize, cols: usize, to: &mut [f32], strip: &mut Vec<f32>) {
    for start in (0..rows).step_by(STRIP_ROWS) {
        let end = (start + STRIP_ROWS).min(rows);
        strip.resize((end - start) * end, 0.0);
        let left = MatRef::new(&m[start * cols..end * cols], end - start, cols);
        gemm(Write::Set, left, MatRef::new(&m[..end * cols], end, cols).transposed(), strip);
        for (row, products) in (start..end).zip(strip.chunks_exact(end)) {
            for (col, product) in products.iter().enumerate() {
                to[row * rows + col] = *product;
                to[col * rows + row] = *product;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::OptimizerSection;
    use crate::tensor::gemm::{MatRef, Write, gemm};
    use crate::tensor::{ParamLayout, Params};
    use crate::train::optimizer::Optimizer;
    use serde::Deserialize;

    /// A case of `tests/oracles/muon.py`.
    #[derive(Deserialize)]
    struct Case {
        rows: usize,
        cols: usize,
        n_stacked: usize,
        rate: f64,
        weight_decay: f64,
        start: Vec<f32>,
        gradients: Vec<Vec<f32>>,
        want: Vec<f32>,
    }

    #[test]
    fn follows_the_reference() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/golden/muon.json")).unwrap();
        for case in &cases {
            let Case { rows, cols, n_stacked, rate, weight_decay, start, gradients, want } = case;
            let rule: OptimizerSection = toml::from_str(&format!(
                "kind = 'muon'\nlearning_rate = 1.0\nmuon_learning_rate = {rate}\nweight_decay = {weight_decay}"
            ))
            .unwrap();
            let mut layout = ParamLayout::default();
            let name = if *n_stacked == 3 { "decoder.weight_hh_l0" } else { "model.layers.0.mlp.up_proj.weight" };
            layout.matrix(name, n_stacked * rows, *cols);
            let mut optimizer = Optimizer::new(&rule, &layout).unwrap();
            let mut params = Params::new(layout.clone(), start.as_slice().into());
            for (step, gradient) in gradients.iter().enumerate() {
                optimizer.update(&mut params, gradient, 1.0, 1.0, step as u64);
            }
            for (idx, (got, want)) in params.values.iter().zip(want).enumerate() {
                assert!((got - want).abs() < 2e-6, "{n_stacked} of {rows} x {cols}, number {idx}: {got}, not {want}");
            }
        }
    }

    #[test]
    fn strips_and_their_mirror_image_are_the_whole_product() {
        let (rows, cols) = (2 * super::STRIP_ROWS + 13, 37);
        let m: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin()).collect();
        let (mut got, mut want) = (vec![0.0; rows * rows], vec![0.0; rows * rows]);
        super::times_own_transpose(&m, rows, cols, &mut got, &mut Vec::new());
        let m = MatRef::new(&m, rows, cols);
        gemm(Write::Set, m, m.transposed(), &mut want);
        assert!(got == want);
    }

    /// The singular values of a diagonal matrix are its numbers.
    #[test]
    fn singular_values_come_near_one() {
        let n = 40;
        let mut memory = super::Memory { x: vec![0.0; n * n], ..Default::default() };
        (0..n).for_each(|i| memory.x[i * n + i] = if i % 2 == 0 { 1.0 } else { -1.0 } / (1 + i) as f32);
        memory.orthogonalize(n, n);
        for (i, x) in memory.x.iter().enumerate() {
            let (row, col) = (i / n, i % n);
            let want = if row == col { 0.67..1.15 } else { 0.0..1e-9 };
            assert!(want.contains(&x.abs()) && (row != col || (*x > 0.0) == (row % 2 == 0)), "{x} at {row}, {col}");
        }
        memory.x.fill(0.0);
        memory.orthogonalize(n, n);
        assert!(memory.x.iter().all(|x| *x == 0.0));
    }
}
