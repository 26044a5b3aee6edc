//! The folders we write, as Hugging Face transformers reads them.
//!
//! `tests/oracles/hf_logits.py` loads folders that the ignored test below writes and records their files' hashes and
//! logits. The test in CI writes the same folders, compares the hashes, and so knows that the recorded logits are theirs.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use siskin_compiler::artifact::{Checkpoint, LoadOptions, RopeScaling, hf, load_model};
use siskin_compiler::reference::ReferenceModel;
use siskin_runtime::ModelConfig;

#[derive(Deserialize)]
struct Recorded {
    name: String,
    /// Of config.json and model.safetensors, one after the other.
    sha256: String,
    ids: Vec<u32>,
    /// Position of the first row of `logits`.
    first_position: usize,
    logits: Vec<Vec<f32>>,
}

/// Small models that between them use every degree of freedom of the configuration.
fn cases() -> Vec<(&'static str, Checkpoint)> {
    let grouped = ModelConfig {
        dim: 24,
        hidden_dim: 40,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        vocab_size: 48,
        context_len: 64,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        tied_head: false,
        parts: siskin_runtime::Parts::LLAMA,
    };
    let tied = ModelConfig { n_heads: 3, n_kv_heads: 3, norm_eps: 1e-6, rope_theta: 500.0, tied_head: true, ..grouped };
    let single = ModelConfig { n_kv_heads: 1, head_dim: 6, n_layers: 3, ..grouped };
    let model = |config, seed, rope| {
        let mut checkpoint = Checkpoint::random(config, seed).unwrap();
        checkpoint.rope = rope;
        checkpoint.bos_id = Some(1);
        checkpoint.eos_ids = vec![2];
        checkpoint
    };
    let llama3 =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context_len: 32 };
    vec![
        ("grouped-untied-llama3", model(grouped, 1, llama3)),
        ("tied-plain", model(tied, 2, RopeScaling::None)),
        ("one-key-head-linear", model(single, 3, RopeScaling::Linear { factor: 4.0 })),
    ]
}

fn sha256_of(folder: &Path) -> String {
    let mut hash = Sha256::new();
    for name in ["config.json", "model.safetensors"] {
        hash.update(fs::read(folder.join(name)).unwrap());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn transformers_computes_the_same_logits_from_our_folders() {
    let recorded: Vec<Recorded> = serde_json::from_str(include_str!("../../tests/golden/hf_logits.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(recorded.len(), cases().len());
    for (recorded, (name, checkpoint)) in recorded.iter().zip(cases()) {
        assert_eq!(recorded.name, name);
        let path = dir.path().join(name);
        hf::save_folder(&path, &checkpoint).unwrap();
        assert_eq!(recorded.sha256, sha256_of(&path), "{name}: record anew with tests/oracles/hf_logits.py");
        let loaded = load_model(&path, &LoadOptions::default()).unwrap();
        let logits = ReferenceModel::new(&loaded).logits(&recorded.ids).unwrap();
        let logits = &logits[recorded.first_position * loaded.config.vocab_size..];
        let expected = recorded.logits.concat();
        let largest = expected.iter().fold(0f32, |max, logit| max.max(logit.abs()));
        assert_eq!(logits.len(), expected.len());
        for (idx, (got, want)) in logits.iter().zip(&expected).enumerate() {
            assert!((got - want).abs() <= 1e-5 * largest, "{name}: logit {idx} is {got}, not {want}");
        }
    }
}

/// Writes the folders for `tests/oracles/hf_logits.py` into `ORACLE_FOLDER`.
#[test]
#[ignore = "only to record the golden file anew"]
fn write_folders_for_the_oracle() {
    let folder = std::env::var("ORACLE_FOLDER").expect("ORACLE_FOLDER names the folder to write to");
    for (name, checkpoint) in cases() {
        hf::save_folder(&Path::new(&folder).join(name), &checkpoint).unwrap();
    }
}
