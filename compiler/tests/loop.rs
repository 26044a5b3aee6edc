//! The training loop's options, each in whole runs: the same bytes on any number of threads and after interruptions.

use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::progress::{Event, Progress, Silent};
use siskin_compiler::train::{Options, Outcome, TrainError, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const RECIPE: &str = "\
model = { dim = 16, hidden_dim = 28, n_layers = 2, n_heads = 2, n_kv_heads = 1, head_dim = 8, context_len = 16 }
tokenizer = { vocab_size = 270 }
data = { text = 'text.txt', train_fraction = 0.9 }
train = { steps = 24, batch_size = 4, accumulate = 2, seed = 5, log_every = 1, eval_every = 6, checkpoint_every = 4 }
optimizer = { learning_rate = 1e-2, clip_norm = 1.0, weight_decay = 0.1, average_decay = 0.9 }
";

/// A folder with a recipe and a text in which each word follows from its place.
fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("recipe.toml"), RECIPE).unwrap();
    let words = ["bird", "cat", "fish", "dog", "bee", "moon", "tree"];
    let text: String = (0..2500_usize).map(|i| format!("{} {}\n", words[i * i % 7], words[i * 11 % 7])).collect();
    std::fs::write(dir.path().join("text.txt"), text).unwrap();
    dir
}

fn train_with(
    dir: &Path,
    out: &str,
    overrides: &[&str],
    interrupt: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Outcome, TrainError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let recipe = Recipe::load(&dir.join("recipe.toml"), &overrides).unwrap();
    run(&recipe, &Options { out: &dir.join(out), resume: true, interrupt }, progress)
}

fn train(dir: &Path, out: &str, overrides: &[&str]) -> Result<Outcome, TrainError> {
    train_with(dir, out, overrides, &AtomicBool::new(false), &mut Silent)
}

fn bytes(dir: &Path, out: &str, file: &str) -> Vec<u8> {
    std::fs::read(dir.join(out).join(file)).unwrap()
}

/// Raises the flag after some steps.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Progress for StopAt<'_> {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Step(record) if record.step >= self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs a recipe on one thread, on two, and on two with interruptions; all must end in the same bytes. Returns the first's outcome.
fn check(dir: &Path, overrides: &[&str]) -> Outcome {
    let on = |n_threads, out| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| train(dir, out, overrides)).unwrap()
    };
    let outcome = on(1, "one");
    on(2, "two");
    for stop in [5, 11, 18] {
        let flag = AtomicBool::new(false);
        train_with(dir, "parts", overrides, &flag, &mut StopAt(stop, &flag)).unwrap();
    }
    let resumed = train(dir, "parts", overrides).unwrap();
    assert_eq!((outcome.steps, outcome.validation), (resumed.steps, resumed.validation));
    for other in ["two", "parts"] {
        for file in ["model.safetensors", "training_state.safetensors"] {
            assert!(bytes(dir, "one", file) == bytes(dir, other, file), "{file} of {other} with {overrides:?}");
        }
    }
    outcome
}

fn loss(outcome: &Outcome) -> f64 {
    outcome.validation.unwrap().validation_loss
}

#[test]
fn groups_have_rates_of_their_own() {
    let dir = workshop();
    let frozen = "optimizer.group=[{ params = ['model.layers.0.*'], learning_rate_scale = 0.0 }]";
    check(dir.path(), &[frozen, "optimizer.average_decay=0"]);
    let first = train(dir.path(), "first", &[frozen, "optimizer.average_decay=0", "train.steps=1"]).unwrap();
    assert_eq!(first.steps, 1);
    let tensors = |out: &str| {
        let bytes = bytes(dir.path(), out, "model.safetensors");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |layer_idx: usize| {
            let name = format!("model.layers.{layer_idx}.mlp.up_proj.weight");
            tensors.tensor(&name).unwrap().data().to_vec()
        };
        (tensor(0), tensor(1))
    };
    let (early, late) = (tensors("first"), tensors("one"));
    assert!(early.0 == late.0 && early.1 != late.1, "the first layer alone stays as it was");
    let idle = train(dir.path(), "idle", &["optimizer.group=[{ params = ['*.bias'] }]"]).expect_err("no bias");
    assert!(idle.is_input() && idle.to_string().contains("model.layers.*.mlp.up_proj.weight"), "{idle}");
}

#[test]
fn muon_learns_and_resumes() {
    let dir = workshop();
    let muon = check(dir.path(), &["optimizer.kind=muon", "optimizer.muon_learning_rate=0.05"]);
    assert!(loss(&muon) < 3.3, "{} nats of the first ln 270", loss(&muon));
}
