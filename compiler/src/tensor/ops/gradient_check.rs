//! Every operation against central differences of its own forward pass.

use super::{Activation, AttentionInputs, AttentionShape, CrossEntropy, Mask, RelativeBias, RopeTable};
use crate::tensor::{Graph, ParamGrads, ParamId, ParamLayout, Params, Segments, Tape, Var};
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
    check_by(case, false);
}

/// As [`check`], for operations that do something else in a pass that only computes.
fn check_recorded(case: &Case<'_>) {
    check_by(case, true);
}

fn check_by(case: &Case<'_>, recorded: bool) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut tape = Tape::default();
    let mut inputs: Vec<Vec<f32>> = case.inputs.iter().map(|(rows, cols)| random(rows * cols, &mut rng)).collect();
    let mut params = Params::zeros(case.params.clone());
    params.values = random(params.values.len(), &mut rng).as_slice().into();

    let mut param_grads = ParamGrads::new(&case.params);
    let mut graph = tape.record(&params, &mut param_grads);
    let vars = put(&mut graph, &case.inputs, &inputs);
    let out = (case.run)(&mut graph, &vars);
    let n_out = graph.value(out).len();
    let weights = if n_out == 1 { vec![1.0] } else { random(n_out, &mut rng) };
    graph.backward(out, &weights);
    let input_grads: Vec<Vec<f32>> = vars.iter().map(|var| graph.grad(*var).expect("used").to_vec()).collect();

    let mut unused_grads = ParamGrads::new(&case.params);
    let mut value = |inputs: &[Vec<f32>], params: &Params| -> f64 {
        let mut graph = if recorded { tape.record(params, &mut unused_grads) } else { tape.evaluate(params) };
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
    compare("parameters", param_grads.values(&case.params), |i, step| {
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
        let (mut params, w) = one_matrix(outputs, inputs);
        let bias = params.vector("b", outputs);
        for (bias, activation) in [
            (None, Activation::None),
            (Some(bias), Activation::None),
            (Some(bias), Activation::Gelu),
            (Some(bias), Activation::Tanh),
            (None, Activation::Silu),
        ] {
            let run = move |g: &mut Graph<'_>, x: &[Var]| {
                // Twice on one input, so that the second gradient is added to the first.
                let (a, b) = (g.linear(x[0], w, bias, activation), g.linear(x[0], w, bias, Activation::GeluTanh));
                g.add(a, b)
            };
            let params = if bias.is_some() { params.clone() } else { one_matrix(outputs, inputs).0 };
            check(&Case { inputs: vec![(n, inputs)], params, run: &run });
        }
    }
}

#[test]
fn layer_norm() {
    for dim in [2, 6, 16, 21] {
        let mut params = ParamLayout::default();
        let (gain, bias) = (params.vector("g", dim), params.vector("b", dim));
        let run = move |g: &mut Graph<'_>, x: &[Var]| {
            let (a, b) = (g.layer_norm(x[0], gain, bias, 0.1), g.layer_norm(x[0], gain, bias, 0.3));
            g.add(a, b)
        };
        check(&Case { inputs: vec![(4, dim)], params, run: &run });
    }
}

#[test]
fn rows() {
    let segments = Segments::new([2, 0, 3]);
    let run = move |g: &mut Graph<'_>, x: &[Var]| {
        let (gathered, scaled) = (g.gather_rows(x[0], &[4, 0, 4]), g.scale(x[0], -1.7));
        let means = g.mean_rows(scaled, &segments);
        g.add(gathered, means)
    };
    check(&Case { inputs: vec![(5, 7)], params: ParamLayout::default(), run: &run });
}

#[test]
fn dropout() {
    let run = |g: &mut Graph<'_>, x: &[Var]| {
        let dropped = g.dropout(x[0], 0.4);
        g.add(dropped, x[1])
    };
    check_recorded(&Case { inputs: vec![(5, 7), (5, 7)], params: ParamLayout::default(), run: &run });
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
fn glu() {
    for (cols, activation) in [(3, Activation::Silu), (16, Activation::GeluTanh), (19, Activation::Gelu)] {
        let run = move |g: &mut Graph<'_>, x: &[Var]| g.glu(x[0], x[1], activation);
        check(&Case { inputs: vec![(3, cols), (3, cols)], params: ParamLayout::default(), run: &run });
        let run = move |g: &mut Graph<'_>, x: &[Var]| g.glu(x[0], x[0], activation);
        check(&Case { inputs: vec![(3, 11)], params: ParamLayout::default(), run: &run });
    }
}

/// Attention over sequences of these lengths, with everything that it can have.
struct AttentionCase {
    queries: &'static [usize],
    /// As the queries where empty.
    keys: &'static [usize],
    heads: (usize, usize, usize),
    mask: Mask<'static>,
    has_rope: bool,
    has_bias: bool,
    dropout: f32,
}

fn check_attention(case: &AttentionCase) {
    let (n_heads, n_kv_heads, head_dim) = case.heads;
    let queries = Segments::new(case.queries.iter().copied());
    let keys = if case.keys.is_empty() { queries.clone() } else { Segments::new(case.keys.iter().copied()) };
    let (n, n_keys) = (queries.n_rows(), keys.n_rows());
    let mut params = ParamLayout::default();
    let table = case.has_bias.then(|| params.matrix("bias", 8, n_heads));
    let shape = AttentionShape { n_heads, n_kv_heads, head_dim, scale: 0.4 };
    let rope = case.has_rope.then(|| Arc::new(RopeTable::new(queries.max_len(), head_dim, 100.0)));
    let (mask, dropout) = (case.mask, case.dropout);
    let run = move |g: &mut Graph<'_>, x: &[Var]| {
        let bias =
            table.map(|table| RelativeBias { table, bidirectional: mask == Mask::Bidirectional, max_distance: 11 });
        let (queries, keys, rope) = (&queries, &keys, rope.as_ref());
        let inputs = AttentionInputs { q: x[0], k: x[1], v: x[2], queries, keys, shape, mask, rope, bias, dropout };
        let out = g.attention(&inputs);
        // Where a query has one key, queries and keys have no effect: keep their gradients from vanishing.
        if n_keys > 1 {
            return out;
        }
        let (with_q, with_k) = (g.add(out, x[0]), g.add(out, x[1]));
        g.add(with_q, with_k)
    };
    let kv = (n_keys, n_kv_heads * head_dim);
    let case = Case { inputs: vec![(n, n_heads * head_dim), kv, kv], params, run: &run };
    if dropout > 0.0 { check_recorded(&case) } else { check(&case) }
}

#[test]
fn attention() {
    let base = AttentionCase {
        queries: &[5, 5],
        keys: &[],
        heads: (4, 2, 8),
        mask: Mask::Causal,
        has_rope: true,
        has_bias: false,
        dropout: 0.0,
    };
    check_attention(&base);
    check_attention(&AttentionCase { queries: &[1], heads: (1, 1, 2), ..base });
    check_attention(&AttentionCase { queries: &[19], heads: (2, 1, 6), ..base });
    check_attention(&AttentionCase { queries: &[33], heads: (3, 3, 12), ..base });
    check_attention(&AttentionCase { queries: &[16, 0, 3], heads: (2, 2, 16), ..base });
    let encoder =
        AttentionCase { mask: Mask::Bidirectional, has_rope: false, queries: &[7, 18], heads: (2, 2, 5), ..base };
    check_attention(&encoder);
    check_attention(&AttentionCase { has_bias: true, ..encoder });
    check_attention(&AttentionCase { has_bias: true, mask: Mask::Causal, ..encoder });
    check_attention(&AttentionCase { keys: &[3, 17], ..encoder });
    check_attention(&AttentionCase { keys: &[17, 1], heads: (4, 2, 3), ..encoder });
    check_attention(&AttentionCase { mask: Mask::Prefix(&[4, 0]), has_rope: true, heads: (2, 1, 4), ..encoder });
    check_attention(&AttentionCase { dropout: 0.3, ..encoder });
}

/// Sequences side by side give what each gives alone, bit for bit.
#[test]
fn attention_stays_within_its_sequence() {
    let (lens, width) = ([3, 40, 1, 17], 12);
    let shape = AttentionShape { n_heads: 3, n_kv_heads: 1, head_dim: 4, scale: 0.5 };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let all = Segments::new(lens);
    let [q, k, v] = [width, 4, 4].map(|cols| random(all.n_rows() * cols, &mut rng));
    let params = Params::zeros(ParamLayout::default());
    let rope = Arc::new(RopeTable::new(40, 4, 100.0));
    let attend = |segments: &Segments, rows: std::ops::Range<usize>| {
        let mut tape = Tape::default();
        let mut graph = tape.evaluate(&params);
        let n = rows.len();
        let mut put = |data: &[f32], cols: usize| graph.input(n, cols, &data[rows.start * cols..rows.end * cols]);
        let (q, k, v) = (put(&q, width), put(&k, 4), put(&v, 4));
        let (queries, keys, mask, rope) = (segments, segments, Mask::Causal, Some(&rope));
        let inputs = AttentionInputs { q, k, v, queries, keys, shape, mask, rope, bias: None, dropout: 0.0 };
        let out = graph.attention(&inputs);
        graph.value(out).to_vec()
    };
    let together = attend(&all, 0..all.n_rows());
    let apart: Vec<f32> = all.iter().flat_map(|rows| attend(&Segments::uniform(1, rows.len()), rows)).collect();
    assert_eq!(together, apart);
}

#[test]
fn linear_cross_entropy() {
    for (vocab, dim) in [(5, 3), (19, 8), (70_001, 1)] {
        let (params, head) = one_matrix(vocab, dim);
        // The differences touch every parameter: keep the wide case, which needs several blocks of rows, to its inputs.
        let wide = vocab > 1000;
        let n = if wide { 40 } else { 6 };
        let targets: Vec<u32> = (0..n).map(|i| (i * 7919 % vocab) as u32).collect();
        let plain = CrossEntropy { weight: 0.25, label_smoothing: 0.0 };
        let run = |g: &mut Graph<'_>, x: &[Var]| g.linear_cross_entropy(x[0], head, None, &targets, plain).0;
        if wide {
            wide_head(params, &run, n);
            continue;
        }
        check(&Case { inputs: vec![(n, dim)], params: params.clone(), run: &run });
        let mut params = params;
        let bias = params.vector("b", vocab);
        let smoothed = CrossEntropy { label_smoothing: 0.2, ..plain };
        let run = |g: &mut Graph<'_>, x: &[Var]| g.linear_cross_entropy(x[0], head, Some(bias), &targets, smoothed).0;
        check(&Case { inputs: vec![(n, dim)], params, run: &run });
    }
}

#[test]
fn gru() {
    for (lens, hidden) in [(&[3, 0, 5][..], 4), (&[1][..], 9), (&[2, 2][..], 3)] {
        let segments = Segments::new(lens.iter().copied());
        let n = segments.n_rows();
        let (mut params, weight) = one_matrix(3 * hidden, hidden);
        let bias = params.vector("b", 3 * hidden);
        let run = |g: &mut Graph<'_>, x: &[Var]| g.gru(x[0], weight, bias, &segments, Some(x[1]));
        let inputs = vec![(n, 3 * hidden), (segments.len(), hidden)];
        check(&Case { inputs, params: params.clone(), run: &run });
        let run = |g: &mut Graph<'_>, x: &[Var]| {
            let states = g.gru(x[0], weight, bias, &segments, None);
            g.gru(x[0], weight, bias, &segments, None);
            g.add(states, x[1])
        };
        check(&Case { inputs: vec![(n, 3 * hidden), (n, hidden)], params, run: &run });
    }
}

#[test]
fn kl_divergence() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let teacher = random(4 * 7, &mut rng);
    for temperature in [1.0, 2.5] {
        let run = |g: &mut Graph<'_>, x: &[Var]| g.kl_divergence(x[0], &teacher, temperature, 0.5).0;
        check(&Case { inputs: vec![(4, 7)], params: ParamLayout::default(), run: &run });
    }
}

/// The loss over several blocks of rows equals the sum over its rows one by one.
fn wide_head(layout: ParamLayout, run: &dyn Fn(&mut Graph<'_>, &[Var]) -> Var, n: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut params = Params::zeros(layout);
    params.values = random(params.values.len(), &mut rng).as_slice().into();
    let x = random(n, &mut rng);
    let mut tape = Tape::default();
    let mut grads = ParamGrads::new(&params.layout);
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
