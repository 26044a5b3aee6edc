//! bfloat16 in training: the same bytes for any number of threads and after any interruption, less memory by what is said,
//! and nearly the same model.

mod interruption;

use interruption::{StopAt, files, try_train};
use siskin_compiler::artifact::hf;
use siskin_compiler::data::Example;
use siskin_compiler::model::{self, Family, Head, Kind, LossOptions, LossSums, Model};
use siskin_compiler::recipe::{ModelSection, Recipe};
use siskin_compiler::tensor::Dtype;
use siskin_compiler::train::memory::{Memory, Share};
use siskin_compiler::train::progress::{Event, Progress, Silent};
use siskin_compiler::train::step::{DropoutSeed, Stepper};
use siskin_compiler::train::{Options, Outcome, run};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What a recipe stores in 16 bits.
const STORAGES: [&[&str]; 5] = [
    &["optimizer.state_dtype=bf16"],
    &["train.activations_dtype=bf16"],
    &["train.activations_dtype=bf16", "train.recompute_activations=true"],
    &["train.weights_dtype=bf16", "optimizer.average_decay=0.9"],
    &ALL,
];

/// All that can be.
const ALL: [&str; 3] = ["train.weights_dtype=bf16", "train.activations_dtype=bf16", "optimizer.state_dtype=bf16"];

/// Set for a child process that is to be killed: the folder it works in, and the model.
const CHILD_FOLDER: &str = "SISKIN_TEST_STORAGE_FOLDER";
const CHILD_CASE: &str = "SISKIN_TEST_STORAGE_CASE";
/// Enough for a child not to end before it is killed.
const N_KILLED_STEPS: u64 = 60;

/// A model, an objective and its data, an optimiser.
const CASES: [[&str; 4]; 4] = [
    ["llama", "causal", "text.txt", "adamw"],
    ["gru", "causal", "text.txt", "adamw"],
    ["transformer", "seq2seq", "pairs.csv", "adamw"],
    ["t5", "span_corruption", "text.txt", "muon"],
];

/// A folder with a text and pairs of one small grammar.
fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut text, mut pairs) = (String::new(), String::from("source,target\n"));
    for i in 0..600_usize {
        let noun = ["bird", "cat", "fish", "dog", "bee"][i * 11 % 5];
        let verb = ["sees", "likes", "hears"][i * 7 % 3];
        let other = ["tree", "moon", "sea"][i / 5 % 3];
        writeln!(text, "the {noun} {verb} the {other}.").unwrap();
        writeln!(pairs, "{noun} {verb} {other},{other} {noun}").unwrap();
    }
    std::fs::write(dir.path().join("text.txt"), text).unwrap();
    std::fs::write(dir.path().join("pairs.csv"), pairs).unwrap();
    dir
}

fn recipe(dir: &Path, [architecture, objective, data, optimizer]: [&str; 4], overrides: &[&str]) -> Recipe {
    let sizes = if architecture == "gru" { "" } else { "hidden_dim = 44, n_heads = 4, " };
    let text = format!(
        "\
model = {{ architecture = '{architecture}', dim = 24, {sizes}n_layers = 2, context_len = 32 }}
tokenizer = {{ vocab_size = 275 }}
data = {{ text = '{data}', train_fraction = 0.8 }}
objective = {{ kind = '{objective}' }}
train = {{ steps = 8, batch_size = 6, accumulate = 2, seed = 3, log_every = 1, checkpoint_every = 5, dropout = 0.05 }}
optimizer = {{ kind = '{optimizer}', learning_rate = 1e-2, warmup_steps = 5, clip_norm = 1.0, weight_decay = 0.1 }}
"
    );
    let path = dir.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    Recipe::load(&path, &overrides.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn train(recipe: &Recipe, out: &Path, n_threads: usize, progress: &mut (dyn Progress + Send)) -> Outcome {
    try_train(recipe, out, n_threads, progress).unwrap()
}

#[test]
fn threads_and_interruptions_leave_no_trace() {
    let dir = workshop();
    for (storage_idx, storage) in STORAGES.iter().enumerate() {
        for case in CASES {
            let recipe = recipe(dir.path(), case, storage);
            let out = |run: &str| dir.path().join(format!("{}-{storage_idx}-{run}", case[0]));
            train(&recipe, &out("one"), 1, &mut Silent);
            train(&recipe, &out("two"), 2, &mut Silent);
            assert!(files(&out("one")) == files(&out("two")), "{case:?}, {storage:?}: threads leave a trace");
            let flag = AtomicBool::new(false);
            let options = Options { out: &out("parts"), resume: false, interrupt: &flag };
            let stopped = run(&recipe, &options, &mut StopAt(3, &flag)).unwrap();
            assert!(stopped.interrupted && stopped.steps == 3);
            train(&recipe, &out("parts"), 2, &mut Silent);
            assert!(
                files(&out("one")) == files(&out("parts")),
                "{case:?}, {storage:?}: an interruption leaves a trace"
            );
        }
    }
}

#[test]
#[ignore = "run by the test that kills it"]
fn child_trains() {
    let (Ok(folder), Ok(name)) = (std::env::var(CHILD_FOLDER), std::env::var(CHILD_CASE)) else { return };
    let case = CASES.into_iter().find(|case| case[0] == name).unwrap();
    let folder = Path::new(&folder);
    let mut recipe = recipe(folder, case, &ALL);
    recipe.train.steps = N_KILLED_STEPS;
    train(&recipe, &folder.join(format!("{name}-killed")), 2, &mut Silent);
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let dir = workshop();
    for case in CASES {
        let out = |run: &str| dir.path().join(format!("{}-{run}", case[0]));
        let mut recipe = recipe(dir.path(), case, &ALL);
        recipe.train.steps = N_KILLED_STEPS;
        train(&recipe, &out("whole"), 1, &mut Silent);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_trains", "--ignored"])
            .envs([(CHILD_FOLDER, dir.path().as_os_str()), (CHILD_CASE, case[0].as_ref())])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // A few steps behind the second checkpoint, or wherever it is by then.
        let log = out("killed").join("metrics.jsonl");
        let n_logged = || std::fs::read_to_string(&log).map_or(0, |text| text.matches("\"loss\"").count());
        while n_logged() < 13 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "{case:?}: the child ended before it was killed");
        let n_logged = n_logged();
        train(&recipe, &out("killed"), 2, &mut Silent);
        assert!(files(&out("whole")) == files(&out("killed")), "{case:?}: killed after {n_logged} steps");
    }
}

#[test]
fn a_state_of_16_bits_is_half_as_long() {
    let dir = workshop();
    let state = |name: &str, overrides: &[&str]| {
        let out = dir.path().join(name);
        let n_params = train(&recipe(dir.path(), CASES[0], overrides), &out, 2, &mut Silent).n_params as usize;
        let bytes = std::fs::read(out.join("training_state.safetensors")).unwrap();
        let state = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let n_bytes = |name: &str| state.tensor(name).unwrap().data().len();
        (n_params, [n_bytes("params"), n_bytes("first_moment"), n_bytes("second_moment")])
    };
    let (n, whole) = state("whole", &[]);
    assert_eq!(whole, [4 * n; 3]);
    assert_eq!(state("half", &["optimizer.state_dtype=bf16"]).1, [4 * n, 2 * n, 2 * n]);
}

#[test]
fn what_is_said_to_be_saved_is_saved() {
    let dir = workshop();
    for case in CASES {
        let memory = |run: &str, overrides: &[&str]| {
            // A layer at a time is widened: of two, no less would be held.
            let overrides = [&["model.n_layers=5"], overrides].concat();
            let outcome = train(&recipe(dir.path(), case, &overrides), &dir.path().join(run), 1, &mut Silent);
            outcome.memory.unwrap()
        };
        let whole = memory(&format!("{}-whole", case[0]), &[]);
        assert_eq!(whole.total().saved_bytes, 0, "{case:?}: {whole}");
        let half = memory(&format!("{}-half", case[0]), &ALL);
        let parts = |memory: &Memory| [memory.weights, memory.optimizer_state, memory.gradients];
        for (half, whole) in parts(&half).into_iter().zip(parts(&whole)) {
            assert_eq!(half.bytes + half.saved_bytes, whole.bytes, "{case:?}: {half} and {whole}");
        }
        let is_half =
            |part: Share| (0.45..=0.5).contains(&(part.saved_bytes as f64 / (part.bytes + part.saved_bytes) as f64));
        assert!(
            is_half(half.weights) && half.optimizer_state.saved_bytes == half.optimizer_state.bytes,
            "{case:?}: {half}"
        );
        assert!(half.activations.saved_bytes > 0 && half.gradients.saved_bytes == 0, "{case:?}: {half}");
        let only = memory(&format!("{}-activations", case[0]), &["train.activations_dtype=bf16"]).activations;
        assert_eq!(only.bytes + only.saved_bytes, whole.activations.bytes, "{case:?}: {only}");
    }
}

#[test]
fn weights_of_16_bits_are_written_and_read_again_to_the_bit() {
    let dir = workshop();
    for (case, key) in [(CASES[0], "torch_dtype"), (CASES[2], "dtype")] {
        let out = dir.path().join(case[0]);
        let outcome = train(&recipe(dir.path(), case, &ALL), &out, 2, &mut Silent);
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config[key], "bfloat16", "{config}");
        let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let n_short = file.tensors().iter().filter(|(_, tensor)| tensor.dtype() == safetensors::Dtype::BF16).count();
        let n_matrices = file.tensors().iter().filter(|(_, tensor)| tensor.shape().len() == 2).count();
        assert!(n_short >= n_matrices && n_matrices > 5, "{n_short} of {n_matrices}");
        assert!(bytes.len() < 3 * outcome.n_params as usize, "{} bytes", bytes.len());

        let model = hf::load_trained(&out).unwrap();
        let built = model::build(&model.architecture).unwrap();
        let params = model.params(built.layout()).unwrap();
        let narrowed = params.clone().stored_as(Dtype::Bf16).stored_as(Dtype::F32);
        assert_eq!(narrowed.values, params.values, "rounding again changes nothing");
        // A run that goes on from it begins where it ended.
        let mut next = recipe(dir.path(), case, &ALL);
        next.model.init_from = Some(out.clone());
        let mut before = Before(None);
        train(&next, &dir.path().join(format!("{}-next", case[0])), 2, &mut before);
        let (ended, begins) = (outcome.validation.unwrap().validation_loss, before.0.unwrap());
        assert!((ended - begins).abs() < 1e-9, "{ended} and {begins}");
    }
}

/// Remembers the loss that a run begins with.
struct Before(Option<f64>);

impl Progress for Before {
    fn event(&mut self, event: &Event) {
        if let Event::Adaptation(record) = event {
            self.0 = self.0.or(record.adaptation.in_domain.map(|figures| figures.loss));
        }
    }
}

#[test]
fn a_model_trained_in_16_bits_is_nearly_as_good() {
    let dir = workshop();
    for case in [CASES[0], CASES[1]] {
        let loss = |run: &str, overrides: &[&str]| {
            let mut recipe = recipe(dir.path(), case, overrides);
            recipe.train.steps = 150;
            let outcome = train(&recipe, &dir.path().join(format!("{}-{run}", case[0])), 2, &mut Silent);
            outcome.validation.unwrap().validation_loss
        };
        let (whole, half) = (loss("whole", &[]), loss("half", &ALL));
        assert!((half - whole).abs() < 0.03 * whole, "{case:?}: {half} nats instead of {whole}");
    }
}

fn model(family: Family, n_layers: usize) -> Box<dyn Model> {
    let sizes = if family.is_recurrent() { "" } else { "hidden_dim = 64, n_heads = 4, " };
    let section: ModelSection = toml::from_str(&format!(
        "architecture = '{}'\ndim = 32\nn_layers = {n_layers}\ncontext_len = 64\n{}",
        family.name(),
        sizes.replace(", ", "\n")
    ))
    .unwrap();
    let head = if family.kind() == Kind::EncoderOnly { Head::MaskedLanguage } else { Head::Language };
    model::build(&section.architecture(128, head)).unwrap()
}

/// A step's sums and gradient, the bytes of its activations, and what they would be in `f32`.
fn step(model: &dyn Model, options: LossOptions) -> (LossSums, Vec<f32>, [usize; 2]) {
    let tokens = |n: usize, salt: usize| (0..n).map(|i| ((i * i * 7 + salt * 5) % 128) as u32).collect::<Vec<u32>>();
    let has_both = model.architecture().family.kind() == Kind::EncoderDecoder;
    let example = |n: usize| {
        let decoder_inputs = if has_both { tokens(n, 3) } else { Vec::new() };
        [Example { decoder_inputs, ..Example::causal(&tokens(n, 0), &tokens(n, 1)) }]
    };
    let params = model.init(3);
    let mut stepper = Stepper::new(model);
    let seed = DropoutSeed { run: 5, first_example: 9 };
    // On one thread: on several, each has memory of its own.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let sums = pool.install(|| stepper.accumulate(&params, &[64, 17, 40, 5].map(example), options, seed));
    (sums, stepper.gradient().to_vec(), [stepper.n_bytes().0, stepper.n_bytes_unnarrowed()])
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

#[test]
fn gradients_from_activations_of_16_bits_are_near_and_losses_the_same() {
    for family in Family::ALL {
        for recompute_activations in [false, true] {
            let name = family.name();
            let model = model(family, 3);
            let plain = LossOptions { dropout: 0.2, recompute_activations, ..LossOptions::plain(0.01) };
            let (want_sums, want, [whole, same]) = step(&*model, plain);
            assert_eq!(whole, same, "{name}");
            let narrowed = LossOptions { activations_dtype: Dtype::Bf16, ..plain };
            let (sums, got, [half, unnarrowed]) = step(&*model, narrowed);
            assert_eq!(sums, want_sums, "{name}");
            let error = norm(want.iter().zip(&got).map(|(a, b)| a - b)) / norm(want.iter().copied());
            assert!((1e-5..1e-2).contains(&error), "{name}, {recompute_activations}: {error}");
            assert_eq!(unnarrowed, whole, "{name}, {recompute_activations}: memory of f32");
            assert!(half < whole, "{name}, {recompute_activations}: {half} bytes instead of {whole}");
        }
    }
}

#[test]
fn activations_of_deep_models_take_little_more_than_half() {
    for family in [Family::Llama, Family::T5, Family::Gru] {
        let options = LossOptions { activations_dtype: Dtype::Bf16, ..LossOptions::plain(0.01) };
        let [half, whole] = step(&*model(family, 24), options).2;
        let share = half as f64 / whole as f64;
        assert!((0.5..0.75).contains(&share), "{family:?}: {half} bytes instead of {whole}");
    }
}
