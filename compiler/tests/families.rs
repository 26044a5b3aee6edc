//! Every family of models as transformers (or, for recurrent ones, PyTorch) sees it: the same logits from the folders that we
//! write, and the same losses over ten steps of AdamW from the same first weights.
//!
//! `tests/oracles/families.py` reads folders that the ignored test below writes. The test in CI builds the same models,
//! compares the hashes of their files, and so knows that what was recorded is theirs.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use siskin_compiler::artifact::{SpecialIds, TokenizerSource, TrainedModel, hf, named_weights};
use siskin_compiler::data::{Example, IGNORED};
use siskin_compiler::model::{self, Architecture, FeedForward, Head, LossOptions, Model};
use siskin_compiler::recipe::{ModelSection, OptimizerSection};
use siskin_compiler::tensor::{Params, Tape};
use siskin_compiler::train::optimizer::Optimizer;
use siskin_compiler::train::step::{DropoutSeed, Stepper};
use std::fs;
use std::path::Path;

const VOCAB: usize = 37;
const STEPS: u64 = 10;

#[derive(Serialize, Deserialize)]
struct Written {
    inputs: Vec<u32>,
    decoder_inputs: Vec<u32>,
    /// -100 where nothing is trained, as PyTorch has it.
    targets: Vec<i64>,
}

#[derive(Deserialize)]
struct Recorded {
    name: String,
    /// Of config.json and model.safetensors, one after the other.
    sha256: String,
    /// Of the last example.
    logits: Vec<Vec<f32>>,
    losses: Vec<f64>,
}

struct Case {
    name: &'static str,
    architecture: Architecture,
}

fn section(architecture: &str, more: &str) -> ModelSection {
    let text = format!("architecture = '{architecture}'\ndim = 24\nn_layers = 2\ncontext_len = 20\n{more}");
    toml::from_str(&text).expect("a model section")
}

fn cases() -> Vec<Case> {
    let sizes = "hidden_dim = 40\nn_heads = 3\n";
    let case = |name, family: &str, more: &str, head| {
        let architecture = section(family, &format!("{}{more}", if family.starts_with("gru") { "" } else { sizes }));
        Case { name, architecture: architecture.architecture(VOCAB, head) }
    };
    let mut relu =
        case("t5-relu-untied", "t5", "tied_head = false\nn_decoder_layers = 1\nhead_dim = 6\n", Head::Language);
    relu.architecture.feed_forward = FeedForward::Relu;
    vec![
        case("llama", "llama", "n_kv_heads = 1\ntied_head = false\n", Head::Language),
        case("gpt2", "gpt2", "", Head::Language),
        case("bert-masked", "bert", "norm_eps = 1e-12\n", Head::MaskedLanguage),
        case("bert-classifier", "bert", "", Head::Classifier { n_labels: 3 }),
        case("bert-tokens", "bert", "", Head::TokenClassifier { n_labels: 5 }),
        case("albert-masked", "albert", "embedding_dim = 10\n", Head::MaskedLanguage),
        case("llama-classifier", "llama", "", Head::Classifier { n_labels: 3 }),
        case("t5-gated", "t5", "relative_buckets = 8\nrelative_max_distance = 12\n", Head::Language),
        relu,
        case("transformer", "transformer", "", Head::Language),
        case("gru", "gru", "embedding_dim = 11\ntied_head = false\n", Head::Language),
        case("gru-seq2seq", "gru_seq2seq", "", Head::Language),
    ]
}

/// Two ragged sequences, some of whose targets are not trained on.
fn examples(architecture: &Architecture) -> Vec<Example> {
    let tokens = |n: u32, salt: u32| (0..n).map(|i| (i * i * 5 + salt * 11 + i) % VOCAB as u32).collect::<Vec<u32>>();
    let has_decoder = architecture.n_encoder_layers > 0 && architecture.n_decoder_layers > 0;
    let example = |n: u32, salt: u32| {
        let decoder_inputs = if has_decoder { tokens(n - 3, salt + 2) } else { Vec::new() };
        let n_outputs = if has_decoder { n - 3 } else { n };
        let targets = match architecture.head {
            Head::Classifier { n_labels } => vec![salt % n_labels as u32],
            Head::TokenClassifier { n_labels } => (0..n_outputs).map(|i| (i + salt) % n_labels as u32).collect(),
            _ => tokens(n_outputs, salt + 5),
        };
        let skip = targets.len() > 1;
        let skipped = |(i, target): (usize, u32)| if skip && i % 4 == 1 { IGNORED } else { target };
        let targets = targets.into_iter().enumerate().map(skipped).collect();
        Example { inputs: tokens(n, salt), prefix_len: 0, decoder_inputs, targets }
    };
    vec![example(7, 1), example(19, 2)]
}

/// First values with nothing left at a round number, so that every bias and gain matters.
fn params(model: &dyn Model) -> Params {
    let mut params = model.init(5);
    for (i, value) in params.values.iter_mut().enumerate() {
        *value += ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 0.2;
    }
    params
}

fn write(folder: &Path, case: &Case) -> (Box<dyn Model>, Params) {
    let model = model::build(&case.architecture).unwrap();
    let params = params(&*model);
    let trained = TrainedModel {
        architecture: case.architecture.clone(),
        tensors: named_weights(&params),
        tokenizer: TokenizerSource::None,
        specials: SpecialIds { bos: Some(0), eos: Some(1), pad: Some(2), decoder_start: Some(2) },
        labels: vec!["red".into(), "green".into(), "blue".into()],
    };
    fs::create_dir_all(folder).unwrap();
    hf::write_trained(folder, &trained).unwrap();
    (model, params)
}

fn sha256_of(folder: &Path) -> String {
    let mut hash = Sha256::new();
    for name in ["config.json", "model.safetensors"] {
        hash.update(fs::read(folder.join(name)).unwrap());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn losses(model: &dyn Model, mut params: Params, examples: &[Example]) -> Vec<f64> {
    let rule: OptimizerSection =
        toml::from_str("learning_rate = 1e-2\nbeta1 = 0.9\nbeta2 = 0.99\nweight_decay = 0.1").unwrap();
    let mut optimizer = Optimizer::new(&rule, model.layout()).unwrap();
    let mut stepper = Stepper::new(model);
    let n_targets = examples.iter().map(Example::n_targets).sum::<usize>();
    let step = |step: u64| {
        stepper.clear();
        let options = LossOptions::plain(1.0 / n_targets as f32);
        let sums = stepper.accumulate(&params, examples, options, DropoutSeed::default());
        optimizer.update(&mut params, stepper.gradient(), 1.0, 1e-2, step);
        assert_eq!(sums.n_targets, n_targets as u64);
        sums.nats / n_targets as f64
    };
    (0..STEPS).map(step).collect()
}

#[test]
fn logits_and_ten_losses_are_those_of_the_reference() {
    let recorded: Vec<Recorded> = serde_json::from_str(include_str!("../../tests/golden/families.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cases = cases();
    assert_eq!(recorded.len(), cases.len());
    for (recorded, case) in recorded.iter().zip(&cases) {
        let name = case.name;
        assert_eq!(recorded.name, name);
        let path = dir.path().join(name);
        let (model, params) = write(&path, case);
        assert_eq!(recorded.sha256, sha256_of(&path), "{name}: record anew with tests/oracles/families.py");
        let loaded = hf::load_trained(&path).unwrap();
        assert_eq!(loaded.architecture, case.architecture, "{name}");
        assert_eq!(loaded.params(model.layout()).unwrap().values, params.values, "{name}");

        let examples = examples(&case.architecture);
        let mut tape = Tape::default();
        let mut graph = tape.evaluate(&params);
        let logits = model.logits(&mut graph, &examples);
        let want = recorded.logits.concat();
        let got = &graph.value(logits)[graph.value(logits).len() - want.len()..];
        let largest = want.iter().fold(0f32, |max, logit| max.max(logit.abs()));
        for (idx, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got - want).abs() <= 2e-5 * largest, "{name}: logit {idx} is {got}, not {want}");
        }
        let losses = losses(&*model, params, &examples);
        assert!(recorded.losses[9] < 0.9 * recorded.losses[0], "{name} learns");
        for (step, (got, want)) in losses.iter().zip(&recorded.losses).enumerate() {
            assert!((got - want).abs() < 1e-4 * want, "{name}: the loss of step {step} is {got}, not {want}");
        }
    }
}

/// Writes the folders for `tests/oracles/families.py` into `ORACLE_FOLDER`.
#[test]
#[ignore = "only to record the golden file anew"]
fn write_folders_for_the_oracle() {
    let folder = std::env::var("ORACLE_FOLDER").expect("ORACLE_FOLDER names the folder to write to");
    let mut names = Vec::new();
    for case in cases() {
        let path = Path::new(&folder).join(case.name);
        write(&path, &case);
        let target = |target: &u32| if *target == IGNORED { -100 } else { i64::from(*target) };
        let written: Vec<Written> = examples(&case.architecture)
            .into_iter()
            .map(|example| Written {
                targets: example.targets.iter().map(target).collect(),
                inputs: example.inputs,
                decoder_inputs: example.decoder_inputs,
            })
            .collect();
        fs::write(path.join("examples.json"), serde_json::to_string(&written).unwrap()).unwrap();
        names.push(case.name);
    }
    fs::write(Path::new(&folder).join("names.json"), serde_json::to_string(&names).unwrap()).unwrap();
}
