//! all-MiniLM-L6-v2 from its safetensors: hidden states against transformers on the same weights.
//!
//! `tests/oracles/minilm.py` recorded the golden file. The model is fetched by `cargo xtask data`; without it the test says so
//! and passes.

use serde::Deserialize;
use siskin_compiler::artifact::hf;
use siskin_compiler::data::Example;
use siskin_compiler::model::{Family, Model, Transformer};
use siskin_compiler::tensor::Tape;
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

#[test]
fn hidden_states_are_the_references() {
    if !Path::new(FOLDER).join("model.safetensors").exists() {
        println!("skipped: {FOLDER} is not there; `cargo xtask data` fetches it");
        return;
    }
    let loaded = hf::load_trained(Path::new(FOLDER)).unwrap();
    assert_eq!((loaded.architecture.family, loaded.architecture.dim), (Family::Bert, 384));
    let model = Transformer::new(&loaded.architecture).unwrap();
    let params = loaded.params(model.layout()).unwrap();
    let texts: Vec<Text> = serde_json::from_str(include_str!("../../tests/golden/minilm.json")).unwrap();
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
