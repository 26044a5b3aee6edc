//! SmolLM2-135M-Instruct from its GGUF: logits and perplexity against transformers on the same weights.
//!
//! `tests/oracles/smollm2_logits.py` recorded the golden file. The model is fetched by `cargo xtask data`; without it
//! the test says so and passes.

use std::path::Path;

use serde::Deserialize;
use siskin_compiler::artifact::{Checkpoint, LoadOptions, load_model};
use siskin_compiler::eval::{EncodedText, LogitsSource, PackedLogits, compare, evaluate};
use siskin_compiler::pack::{AlignedBytes, PackOptions, PackedFile, pack};
use siskin_compiler::reference::ReferenceModel;
use siskin_compiler::threads::with_threads;
use siskin_runtime::{Kernels, WeightFormat};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/data/smollm2/smollm2-135m-instruct-q4_1.gguf");
const GOLDEN: &str = include_str!("../../tests/golden/smollm2_logits.json");
/// Largest difference accepted, as a share of the row's largest logit by magnitude.
const RELATIVE_ERROR_MAX: f32 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    prompts: Vec<Prompt>,
    perplexity: Perplexity,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    position: usize,
    top_ids: Vec<u32>,
    top_logits: Vec<f32>,
    sampled_stride: usize,
    sampled_logits: Vec<f32>,
}

#[derive(Deserialize)]
struct Perplexity {
    ids: Vec<u32>,
    perplexity: f64,
}

fn load() -> Option<Checkpoint> {
    let path = Path::new(MODEL);
    if !path.exists() {
        println!("skipped: {MODEL} is not there; `cargo xtask data` fetches it");
        return None;
    }
    Some(load_model(path, &LoadOptions::default()).unwrap())
}

/// Largest difference between `row`'s recorded logits and `logits`, relative to the largest recorded magnitude.
fn relative_error(row: &Row, logits: &[f32]) -> f32 {
    let top = row.top_ids.iter().map(|&id| id as usize).zip(&row.top_logits);
    let sampled = (0..).step_by(row.sampled_stride).zip(&row.sampled_logits);
    let recorded: Vec<(usize, f32)> = top.chain(sampled).map(|(id, &logit)| (id, logit)).collect();
    let largest = recorded.iter().map(|(_, logit)| logit.abs()).fold(0.0, f32::max);
    let difference = recorded.iter().map(|&(id, logit)| (logits[id] - logit).abs()).fold(0.0, f32::max);
    difference / largest
}

#[test]
fn logits_and_perplexity_agree_with_transformers() {
    let Some(checkpoint) = load() else { return };
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let mut model = ReferenceModel::new(&checkpoint);
    let vocab_size = model.vocab_size();
    let mut worst = 0f32;
    for prompt in &golden.prompts {
        let logits = model.logits(&prompt.ids).unwrap();
        for row in &prompt.rows {
            let logits = &logits[row.position * vocab_size..][..vocab_size];
            let error = relative_error(row, logits);
            assert!(error <= RELATIVE_ERROR_MAX, "position {} of {:?}: {error}", row.position, prompt.ids);
            let top = (0..vocab_size).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            assert_eq!(top as u32, row.top_ids[0], "likeliest token at position {}", row.position);
            worst = worst.max(error);
        }
    }
    println!("largest relative error of a logit: {worst:.2e}");

    let ids = &golden.perplexity.ids;
    let text = EncodedText { tokens: ids, n_bytes: 1 };
    let score = evaluate(&mut model, text, checkpoint.config.context_len, &mut |_| {}).unwrap();
    assert_eq!(score.n_tokens, ids.len() - 1);
    let relative = score.perplexity() / golden.perplexity.perplexity - 1.0;
    println!("perplexity {:.4} against {:.4}", score.perplexity(), golden.perplexity.perplexity);
    assert!(relative.abs() < 1e-4, "perplexity {} off by {relative}", score.perplexity());
}

/// int8 in groups of 32, the format recommended for models with activation outliers, costs less than 0.7 % of perplexity.
#[test]
fn packed_perplexity_is_within_seven_thousandths_of_f32() {
    let Some(checkpoint) = load() else { return };
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let ids = &golden.perplexity.ids;
    let kernels = Kernels::detect();
    let options = PackOptions {
        format: WeightFormat::Int8G32,
        exceptions: Vec::new(),
        layout: kernels.preferred_layout(),
        context_len: None,
        prefill_batch: 32,
        keep_zero_blocks: false,
        sections: Vec::new(),
    };
    let file = PackedFile::from_bytes(pack(&checkpoint, &options).unwrap()).unwrap();
    let model = file.model();
    let mut arena = AlignedBytes::zeroed(model.header().arena_bytes as usize);
    let two = std::num::NonZeroUsize::new(2).unwrap();
    let comparison = with_threads(two, |join| {
        let mut packed = PackedLogits::new(&model, &mut arena, kernels, join).unwrap();
        let mut exact = ReferenceModel::new(&checkpoint);
        let text = EncodedText { tokens: ids, n_bytes: 1 };
        compare(&mut exact, &mut packed, text, checkpoint.config.context_len, &mut |_| {}).unwrap()
    })
    .unwrap();
    let increase = comparison.perplexity_increase();
    println!(
        "perplexity {:.4} packed, {:.4} in f32: {:+.3} %; KL {:.5}; same top token {:.1} %",
        comparison.other.perplexity(),
        comparison.reference.perplexity(),
        100.0 * increase,
        comparison.mean_kl_nats,
        100.0 * comparison.same_top_share,
    );
    assert!(increase.abs() < 0.007, "packing costs {increase} of perplexity");
}
