//! Logits of an imported llama2.c checkpoint against run.c's own: `tests/oracles/llama2c_logits.c` recorded them.

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

/// Writes the checkpoint for `tests/oracles/llama2c_logits.c` into `ORACLE_FOLDER`.
#[test]
#[ignore = "only to record the golden file anew"]
fn write_the_checkpoint_for_the_oracle() {
    let folder = std::env::var("ORACLE_FOLDER").expect("ORACLE_FOLDER names the folder to write to");
    let file = files::llama2c(&small_checkpoint(false), Llama2cVersion::Legacy);
    std::fs::write(std::path::Path::new(&folder).join("untied.bin"), file).unwrap();
}
