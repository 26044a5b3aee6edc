//! Every operation against central differences of its own forward pass.

use super::{AttentionShape, RopeTable};
use crate::tensor::{Graph, ParamId, ParamLayout, Params, Tape, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// Step of the differences: its square is the error of a smooth function, its inverse multiplies rounding.
const STEP: f32 = 4e-3;
/// Largest error allowed, relative to the largest number of the gradient.
const TOLERANCE: f64 = 1e-3;

struct Case<'a> {
    inputs: Vec<(usize, usize)>,
    params: ParamLayout,
    run: &'a dyn Fn(&mut Graph<'_>, &[Var]) -> Var,
}

fn random(n: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.5..1.5)).collect()
}

/// Checks the gradients of `sum(weights * output)` with random weights in every input and parameter.
fn check(case: &Case<'_>) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut tape = Tape::default();
    let mut inputs: Vec<Vec<f32>> = case.inputs.iter().map(|(rows, cols)| random(rows * cols, &mut rng)).collect();
    let mut params = Params::zeros(case.params.clone());
    params.values = random(params.values.len(), &mut rng);

    let mut param_grads = vec![0.0; params.values.len()];
    let mut graph = tape.record(&params, &mut param_grads);
    let vars = put(&mut graph, &case.inputs, &inputs);
    let out = (case.run)(&mut graph, &vars);
    let n_out = graph.value(out).len();
    let weights = if n_out == 1 { vec![1.0] } else { random(n_out, &mut rng) };
    graph.backward(out, &weights);
    let input_grads: Vec<Vec<f32>> = vars.iter().map(|var| graph.grad(*var).expect("used").to_vec()).collect();

    let mut value = |inputs: &[Vec<f32>], params: &Params| -> f64 {
        let mut graph = tape.evaluate(params);
        let vars = put(&mut graph, &case.inputs, inputs);
        let out = (case.run)(&mut graph, &vars);
        graph.value(out).iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
    };
    for (which, grads) in input_grads.iter().enumerate() {
        compare(&format!("input {which}"), grads, |i, step| {
            let old = inputs[which][i];
            inputs[which][i] = old + step;
            let moved = value(&inputs, &params);
            inputs[which][i] = old;
            moved
        });
    }
    compare("parameters", &param_grads, |i, step| {
        let old = params.values[i];
        params.values[i] = old + step;
        let moved = value(&inputs, &params);
        params.values[i] = old;
        moved
    });
}

fn put(graph: &mut Graph<'_>, shapes: &[(usize, usize)], data: &[Vec<f32>]) -> Vec<Var> {
    shapes.iter().zip(data).map(|(&(rows, cols), data)| graph.input(rows, cols, data)).collect()
}

fn compare(what: &str, grads: &[f32], mut value_at: impl FnMut(usize, f32) -> f64) {
    let scale = grads.iter().fold(0.0_f64, |top, g| top.max(f64::from(g.abs())));
    assert!(grads.is_empty() || scale > 1e-3, "{what}: gradient vanishes");
    for (i, &grad) in grads.iter().enumerate() {
        let slope = (value_at(i, STEP) - value_at(i, -STEP)) / (2.0 * f64::from(STEP));
        let error = (slope - f64::from(grad)).abs();
        assert!(error < TOLERANCE * scale, "{what}[{i}]: gradient {grad}, differences {slope}");
    }
}

fn one_matrix(rows: usize, cols: usize) -> (ParamLayout, ParamId) {
    let mut layout = ParamLayout::default();
    let id = layout.matrix("w", rows, cols);
    (layout, id)
}

#[test]
fn add() {
    check(&Case { inputs: vec![(3, 5), (3, 5)], params: ParamLayout::default(), run: &|g, x| g.add(x[0], x[1]) });
    // Both inputs the same: the gradients add up.
    check(&Case { inputs: vec![(2, 9)], params: ParamLayout::default(), run: &|g, x| g.add(x[0], x[0]) });
}

#[test]
fn embedding() {
    let (params, table) = one_matrix(7, 5);
    check(&Case { inputs: vec![], params, run: &move |g, _| g.embedding(&[3, 0, 3, 6], table) });
}

#[test]
fn linear() {
    for (n, inputs, outputs) in [(1, 1, 1), (7, 13, 5), (18, 8, 17)] {
        let (params, w) = one_matrix(outputs, inputs);
        check(&Case { inputs: vec![(n, inputs)], params, run: &move |g, x| g.linear(x[0], w) });
    }
}

#[test]
fn rms_norm() {
    for dim in [1, 6, 16, 21] {
        let mut params = ParamLayout::default();
        let gain = params.vector("g", dim);
        let run = move |g: &mut Graph<'_>, x: &[Var]| {
            // Twice on one input, so that the second gradient is added to the first.
            let (a, b) = (g.rms_norm(x[0], gain, 0.1), g.rms_norm(x[0], gain, 0.3));
            g.add(a, b)
        };
        check(&Case { inputs: vec![(4, dim)], params, run: &run });
    }
}

#[test]
fn swiglu() {
    for cols in [3, 16, 19] {
        let run = |g: &mut Graph<'_>, x: &[Var]| g.swiglu(x[0], x[1]);
        check(&Case { inputs: vec![(3, cols), (3, cols)], params: ParamLayout::default(), run: &run });
    }
    let run = |g: &mut Graph<'_>, x: &[Var]| g.swiglu(x[0], x[0]);
    check(&Case { inputs: vec![(3, 11)], params: ParamLayout::default(), run: &run });
}

#[test]
fn attention() {
    for (n_sequences, seq_len, n_heads, n_kv_heads, head_dim) in
        [(1, 1, 1, 1, 2), (2, 5, 4, 2, 8), (1, 19, 2, 1, 6), (1, 33, 3, 3, 12), (2, 16, 2, 2, 16)]
    {
        let shape = AttentionShape { seq_len, n_heads, n_kv_heads, head_dim };
        let rope = Arc::new(RopeTable::new(seq_len, head_dim, 100.0));
        let run = move |g: &mut Graph<'_>, x: &[Var]| {
            let out = g.attention(x[0], x[1], x[2], shape, &rope);
            // A single position's output does not depend on its query or key: keep their gradients from vanishing.
            if seq_len > 1 {
                return out;
            }
            let (with_q, with_k) = (g.add(out, x[0]), g.add(out, x[1]));
            g.add(with_q, with_k)
        };
        let n = n_sequences * seq_len;
        let kv = (n, n_kv_heads * head_dim);
        check(&Case { inputs: vec![(n, n_heads * head_dim), kv, kv], params: ParamLayout::default(), run: &run });
    }
}

#[test]
fn linear_cross_entropy() {
    for (vocab, dim) in [(5, 3), (19, 8), (70_001, 1)] {
        let (params, head) = one_matrix(vocab, dim);
        // The differences touch every parameter: keep the wide case, which needs several blocks of rows, to its inputs.
        let wide = vocab > 1000;
        let n = if wide { 40 } else { 6 };
        let targets: Vec<u32> = (0..n).map(|i| (i * 7919 % vocab) as u32).collect();
        let run = move |g: &mut Graph<'_>, x: &[Var]| g.linear_cross_entropy(x[0], head, &targets, 0.25).0;
        if !wide {
            check(&Case { inputs: vec![(n, dim)], params, run: &run });
        } else {
            wide_head(params, &run, n);
        }
    }
}

/// The loss over several blocks of rows equals the sum over its rows one by one.
fn wide_head(layout: ParamLayout, run: &dyn Fn(&mut Graph<'_>, &[Var]) -> Var, n: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut params = Params::zeros(layout);
    params.values = random(params.values.len(), &mut rng);
    let x = random(n, &mut rng);
    let mut tape = Tape::default();
    let mut grads = vec![0.0; params.values.len()];
    let mut graph = tape.record(&params, &mut grads);
    let var = graph.input(n, 1, &x);
    let loss = run(&mut graph, &[var]);
    graph.backward(loss, &[1.0]);
    let got = graph.grad(var).expect("used").to_vec();
    let vocab = params.values.len();
    for (i, x) in x.iter().enumerate() {
        let odds: Vec<f64> = params.values.iter().map(|w| (f64::from(*w) * f64::from(*x)).exp()).collect();
        let total: f64 = odds.iter().sum();
        let mean: f64 = odds.iter().zip(&params.values).map(|(p, w)| p / total * f64::from(*w)).sum();
        let want = 0.25 * (mean - f64::from(params.values[i * 7919 % vocab]));
        assert!((f64::from(got[i]) - want).abs() < 1e-4, "row {i}: {} against {want}", got[i]);
    }
}
