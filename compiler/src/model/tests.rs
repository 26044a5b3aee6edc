//! The Llama against the reference forward pass and against differences.

use super::*;
use crate::artifact::{Checkpoint, names};
use crate::reference::ReferenceModel;
use crate::tensor::{ParamGrads, Tape};
use siskin_runtime::ModelConfig;

fn config(tied_head: bool) -> ModelConfig {
    ModelConfig {
        dim: 20,
        hidden_dim: 37,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 6,
        vocab_size: 31,
        context_len: 19,
        norm_eps: 1e-5,
        rope_theta: 500.0,
        tied_head,
        parts: siskin_runtime::Parts::LLAMA,
    }
}

fn llama(config: &ModelConfig) -> Transformer {
    Transformer::new(&Architecture::llama(config)).unwrap()
}

/// A model with the weights of a random checkpoint.
fn model_of(checkpoint: &Checkpoint) -> (Transformer, Params) {
    let model = llama(&checkpoint.config);
    let mut params = Params::zeros(model.layout().clone());
    for spec in model.layout().specs() {
        params.values[spec.range.clone()].copy_from_slice(&checkpoint.tensors[&spec.name].data);
    }
    (model, params)
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * i * 7 % 31).collect()
}

#[test]
fn parameters_are_those_of_a_checkpoint() {
    for tied_head in [false, true] {
        let config = config(tied_head);
        let layout = llama(&config).layout().clone();
        let expected = names::expected_shapes(&config);
        assert_eq!((layout.specs().len(), layout.len() as u64), (expected.len(), config.n_params()));
        for spec in layout.specs() {
            let shape = if spec.is_vector { vec![spec.cols] } else { vec![spec.rows, spec.cols] };
            assert_eq!(expected.get(&spec.name), Some(&shape), "{}", spec.name);
        }
    }
}

#[test]
fn logits_agree_with_the_reference() {
    for tied_head in [false, true] {
        let checkpoint = Checkpoint::random(config(tied_head), 5).unwrap();
        let (model, params) = model_of(&checkpoint);
        let tokens = tokens(19);
        let mut tape = Tape::default();
        let mut graph = tape.evaluate(&params);
        let logits = model.logits(&mut graph, &[Example::causal(&tokens, &[])]);
        let want = ReferenceModel::new(&checkpoint).logits(&tokens).unwrap();
        let top = want.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
        for (got, want) in graph.value(logits).iter().zip(&want) {
            assert!((got - want).abs() < 1e-5 * top, "{got} against {want}");
        }
    }
}

#[test]
fn gradients_of_the_whole_model_agree_with_differences() {
    let checkpoint = Checkpoint::random(config(true), 6).unwrap();
    let (model, mut params) = model_of(&checkpoint);
    let text = tokens(23);
    let halves = [Example::causal(&text[..11], &text[1..12]), Example::causal(&text[11..22], &text[12..])];
    let mut tape = Tape::default();
    let mut grads = ParamGrads::new(model.layout());
    let mut graph = tape.record(&params, &mut grads);
    let (loss, _) = model.loss(&mut graph, &halves, LossOptions::plain(1.0 / 22.0));
    graph.backward(loss, &[1.0]);
    let mut nats =
        |params: &Params| model.loss(&mut tape.evaluate(params), &halves, LossOptions::plain(1.0)).1.nats / 22.0;
    let grads = grads.values(model.layout());
    let step = 2e-3;
    for spec in model.layout().specs() {
        let grads = &grads[spec.range.clone()];
        let scale = grads.iter().fold(0.0_f64, |top, g| top.max(f64::from(g.abs())));
        for i in (0..grads.len()).step_by(grads.len() / 5 + 1) {
            let at = spec.range.start + i;
            let old = params.values[at];
            params.values[at] = old + step;
            let above = nats(&params);
            params.values[at] = old - step;
            let slope = (above - nats(&params)) / (2.0 * f64::from(step));
            params.values[at] = old;
            let error = (slope - f64::from(grads[i])).abs();
            assert!(error < 1e-2 * scale + 1e-5, "{}[{i}]: {} against {slope}", spec.name, grads[i]);
        }
    }
}

#[test]
fn first_values_depend_on_the_seed_and_have_their_deviations() {
    let config = ModelConfig { dim: 64, vocab_size: 512, ..config(true) };
    let model = llama(&config);
    assert_eq!(model.init(1).values, model.init(1).values);
    assert_ne!(model.init(1).values, model.init(2).values);
    let params = model.init(1);
    for (name, want) in [
        (names::EMBEDDING, 0.02),
        ("model.layers.0.self_attn.q_proj.weight", 0.125),
        ("model.layers.1.mlp.down_proj.weight", 1.0 / (37.0_f64 * 4.0).sqrt()),
    ] {
        let spec = model.layout().specs().iter().find(|spec| spec.name == name).unwrap();
        let values = &params.values[spec.range.clone()];
        let mean_square = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean_square.sqrt() / want - 1.0).abs() < 0.06, "{name}: {}", mean_square.sqrt());
    }
}
