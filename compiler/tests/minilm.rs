//! all-MiniLM-L6-v2 from its safetensors: hidden states against transformers on the same weights, and packed vectors of texts against
//! ours.
//!
//! `tests/oracles/minilm.py` recorded the golden file. The model is fetched by `cargo xtask data`; without it the test says so
//! and passes.

use serde::Deserialize;
use siskin_compiler::artifact::{TrainedModel, hf};
use siskin_compiler::data::Example;
use siskin_compiler::model::{Family, Model, Transformer};
use siskin_compiler::pack::{AlignedBytes, PackOptions, pack_trained};
use siskin_compiler::tensor::Tape;
use siskin_runtime::{Encoder, Kernels, PackedModel, WeightFormat};
use std::path::Path;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/data/minilm");
/// Largest difference of a state's number; the largest number is about 3.
const ERROR_MAX: f32 = 1e-4;

#[derive(Deserialize)]
struct Text {
    ids: Vec<u32>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    position: usize,
    state: Vec<f32>,
}

/// The model, if it is there.
fn load() -> Option<TrainedModel> {
    if !Path::new(FOLDER).join("model.safetensors").exists() {
        println!("skipped: {FOLDER} is not there; `cargo xtask data` fetches it");
        return None;
    }
    Some(hf::load_trained(Path::new(FOLDER)).unwrap())
}

fn texts() -> Vec<Text> {
    serde_json::from_str(include_str!("../../tests/golden/minilm.json")).unwrap()
}

#[test]
fn hidden_states_are_the_references() {
    let Some(loaded) = load() else { return };
    assert_eq!((loaded.architecture.family, loaded.architecture.dim), (Family::Bert, 384));
    let model = Transformer::new(&loaded.architecture).unwrap();
    let params = loaded.params(model.layout()).unwrap();
    let texts = texts();
    // All texts in one pass: none may see another.
    let examples: Vec<Example> =
        texts.iter().map(|text| Example { inputs: text.ids.clone(), ..Example::default() }).collect();
    let mut tape = Tape::default();
    let mut graph = tape.evaluate(&params);
    let hidden = model.hidden(&mut graph, &examples, 0.0);
    let mut start = 0;
    let mut largest = 0_f32;
    for text in &texts {
        for Row { position, state } in &text.rows {
            let at = (start + position) * state.len();
            let got = &graph.value(hidden)[at..at + state.len()];
            largest = got.iter().zip(state).fold(largest, |max, (got, want)| max.max((got - want).abs()));
        }
        start += text.ids.len();
    }
    println!("largest difference: {largest:e}");
    assert!(largest < ERROR_MAX, "{largest}");
}

/// The mean of a text's hidden states in `f32`.
fn float_vector(model: &Transformer, loaded: &TrainedModel, ids: &[u32]) -> Vec<f32> {
    let params = loaded.params(model.layout()).unwrap();
    let mut tape = Tape::default();
    let mut graph = tape.evaluate(&params);
    let hidden = model.hidden(&mut graph, &[Example { inputs: ids.to_vec(), ..Example::default() }], 0.0);
    let (n, dim) = graph.shape(hidden);
    let states = graph.value(hidden);
    (0..dim).map(|i| (0..n).map(|row| states[row * dim + i]).sum::<f32>() / n as f32).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn packed_vectors_point_where_the_float_models_do() {
    let Some(loaded) = load() else { return };
    let model = Transformer::new(&loaded.architecture).unwrap();
    let kernels = Kernels::detect();
    // A scale a token for all of a state: its few large elements leave the others less of int8.
    for (format, least) in [(WeightFormat::Int8, 0.985), (WeightFormat::Int8G32, 0.9995)] {
        let layout = kernels.preferred_layout();
        let options = PackOptions {
            format,
            exceptions: Vec::new(),
            layout,
            context_len: None,
            prefill_batch: 16,
            keep_zero_blocks: false,
            sections: Vec::new(),
        };
        let file = pack_trained(&loaded, &options, None).unwrap();
        let packed = PackedModel::parse(&file).unwrap();
        let mut arena = AlignedBytes::zeroed(packed.header().arena_bytes as usize);
        let mut encoder = Encoder::new(&packed, &mut arena, kernels).unwrap();
        for text in texts() {
            encoder.read(&text.ids).unwrap();
            let cosine = cosine(encoder.vector(), &float_vector(&model, &loaded, &text.ids));
            println!("{} {} tokens: cosine {cosine:.5}", format.name(), text.ids.len());
            assert!(cosine > least, "{} cosine {cosine}", format.name());
        }
    }
}
