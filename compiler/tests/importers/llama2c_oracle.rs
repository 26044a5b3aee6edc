//! Logits of an imported llama2.c checkpoint against those that llama2.c's own run.c (commit 350e04f) gave for the same file.
//!
//! The golden file holds the tokens and the logits after the last three of them, rounded to 6 places.

use serde::Deserialize;
use siskin_compiler::artifact::llama2c;
use siskin_compiler::reference::ReferenceModel;

use super::files::{self, Llama2cVersion, small_checkpoint};

#[derive(Deserialize)]
struct Recorded {
    ids: Vec<u32>,
    /// After the last tokens of `ids`.
    logits: Vec<Vec<f32>>,
}

#[test]
fn run_c_computes_the_same_logits() {
    let recorded: Recorded = serde_json::from_str(include_str!("../../../tests/golden/llama2c_logits.json")).unwrap();
    let imported = llama2c::parse(&files::llama2c(&small_checkpoint(false), Llama2cVersion::Legacy)).unwrap();
    let logits = ReferenceModel::new(&imported).logits(&recorded.ids).unwrap();
    let expected = recorded.logits.concat();
    assert_eq!(expected.len(), 3 * imported.config.vocab_size);
    let largest = expected.iter().fold(0f32, |max, logit| max.max(logit.abs()));
    for (got, want) in logits[logits.len() - expected.len()..].iter().zip(&expected) {
        assert!((got - want).abs() <= 1e-5 * largest, "{got} is not {want}");
    }
}
