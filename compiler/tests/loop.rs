//! The training loop's options, each in whole runs: the same bytes on any number of threads and after interruptions.

use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::lr_range::{RateReport, lr_range};
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

/// The lines of the log that have a key, as the value of the key and the step.
fn logged(dir: &Path, out: &str, key: &str) -> Vec<(u64, f64)> {
    logged_in(dir, &format!("{out}/metrics.jsonl"), key)
}

fn logged_in(dir: &Path, log: &str, key: &str) -> Vec<(u64, f64)> {
    let log = std::fs::read_to_string(dir.join(log)).unwrap();
    let records = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.filter_map(|record| Some((record["step"].as_u64()?, record.get(key)?.as_f64()?))).collect()
}

/// Names of the folders of the best models.
fn best_folders(dir: &Path, out: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join(out)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.contains("best-"));
    names.sort();
    names
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
    let recipe = |file: &str| Recipe::load(&dir.join(file), &[]).unwrap();
    let written = Recipe { data: recipe("recipe.toml").data, ..recipe("one/recipe.toml") };
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(written, Recipe::load(&dir.join("recipe.toml"), &overrides).unwrap());
    let figures = |outcome: &Outcome| (outcome.steps, outcome.n_tokens, outcome.n_skipped, outcome.validation);
    assert_eq!(figures(&outcome), figures(&resumed));
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

#[test]
fn outlier_steps_are_left_out_and_counted() {
    let dir = workshop();
    let outcome = check(dir.path(), &["train.skip_outliers=1.02", "train.skip_window=6"]);
    assert!((1..20).contains(&outcome.n_skipped), "{} skipped", outcome.n_skipped);
    for out in ["one", "parts"] {
        let counts = logged(dir.path(), out, "n_skipped");
        let want: Vec<f64> = (1..=outcome.n_skipped).map(|count| count as f64).collect();
        assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), want);
        let norms = logged(dir.path(), out, "gradient_norm");
        for ((step, norm), (_, bound)) in
            logged(dir.path(), out, "skipped_gradient_norm").iter().zip(logged(dir.path(), out, "gradient_norm_max"))
        {
            assert!(norms.contains(&(*step, *norm)) && *norm > bound, "step {step}: {norm} and {bound}");
        }
    }
    // A norm that is not a number: one step is left out, but not step after step.
    let diverged = train(dir.path(), "diverged", &["train.skip_outliers=9.0", "optimizer.learning_rate=1e30"]);
    assert!(matches!(diverged, Err(TrainError::Diverged { .. })), "{diverged:?}");
    assert_eq!(logged(dir.path(), "diverged", "n_skipped").last().map(|(_, count)| *count), Some(3.0));
}

#[test]
fn a_batch_ramp_reads_every_example_once() {
    let dir = workshop();
    let ramp = ["train.accumulate=3", "train.batch_ramp={ from = 1, steps = 12 }"];
    let outcome = check(dir.path(), &ramp);
    let n_batches = 4 + 4 * 2 + 4 * 3 + 12 * 3;
    assert_eq!(outcome.n_tokens, n_batches * 4 * 16);
}

#[test]
fn a_run_stops_when_evaluations_do_not_become_better() {
    let dir = workshop();
    let patience = ["train.eval_every=3", "train.early_stopping_patience=2", "train.early_stopping_min_delta=100.0"];
    let outcome = check(dir.path(), &patience);
    assert!(outcome.stopped_early && outcome.steps == 9 && !outcome.interrupted, "{outcome:?}");
    let again = train(dir.path(), "one", &patience).unwrap();
    assert_eq!((again.steps, again.stopped_early, again.validation), (9, true, outcome.validation));
    let patient = train(dir.path(), "patient", &[patience[0], "train.early_stopping_patience=9"]).unwrap();
    assert!(!patient.stopped_early && patient.steps == 24);
    let blind = train(dir.path(), "blind", &[patience[0], patience[1], "data.train_fraction=1.0"]);
    let error = blind.expect_err("nothing to evaluate");
    assert!(error.is_input() && error.to_string().contains("early_stopping_patience"), "{error}");
}

#[test]
fn the_best_models_are_kept() {
    let dir = workshop();
    // The learning rate grows until nothing is learned: the best is not the last.
    let settings =
        ["train.keep_best=2", "train.eval_every=2", "optimizer.warmup_steps=24", "optimizer.learning_rate=4.0"];
    let outcome = check(dir.path(), &settings);
    let mut losses = logged(dir.path(), "one", "validation_loss");
    losses.sort_by(|a, b| a.1.total_cmp(&b.1));
    let best = outcome.best.unwrap();
    assert_eq!((best.step, best.validation_loss), losses[0]);
    assert!(best.step < 24, "{losses:?}");
    assert_eq!(best.model, dir.path().join("one").join(format!("best-{}", best.step)));
    let mut want: Vec<String> = losses[..2].iter().map(|(step, _)| format!("best-{step}")).collect();
    want.sort();
    for out in ["one", "two", "parts"] {
        assert_eq!(best_folders(dir.path(), out), want);
        for name in &want {
            let file = format!("{name}/model.safetensors");
            assert!(bytes(dir.path(), out, &file) == bytes(dir.path(), "one", &file), "{file} of {out}");
        }
    }
    let checkpoint = siskin_compiler::artifact::load_model(&best.model, &Default::default()).unwrap();
    assert_eq!(checkpoint.config.vocab_size, 270);
}

#[test]
fn all_options_together_leave_no_trace_of_threads_or_interruptions() {
    let dir = workshop();
    check(
        dir.path(),
        &[
            "optimizer.kind=muon",
            "optimizer.group=[{ params = ['*norm*'], learning_rate_scale = 0.5 }]",
            "train.accumulate=4",
            "train.batch_ramp={ from = 2, steps = 10 }",
            "train.skip_outliers=1.1",
            "train.skip_window=4",
            "train.keep_best=1",
            "train.early_stopping_patience=3",
            "train.dropout=0.1",
        ],
    );
}

#[test]
fn the_range_test_finds_a_rate_that_learns_and_leaves_no_model() {
    let dir = workshop();
    let find = |out: &str, n_threads| -> RateReport {
        let recipe = Recipe::load(&dir.path().join("recipe.toml"), &["optimizer.clip_norm=0".to_owned()]).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let range = ("1e-4..1000".parse().unwrap(), 80);
        let (out, interrupt) = (dir.path().join(out), AtomicBool::new(false));
        pool.install(|| lr_range(&recipe, range, &out, &interrupt, &mut Silent)).unwrap()
    };
    let report = find("one", 1);
    find("two", 2);
    assert!(report.exploded && report.advice.is_none() && report.steps < 80, "{report:?}");
    assert!(
        report.suggested <= report.steepest && report.steepest < report.lowest && report.lowest < 10.0,
        "{report:?}"
    );
    for file in ["lr-range.jsonl", "lr-range.svg"] {
        assert!(bytes(dir.path(), "one", file) == bytes(dir.path(), "two", file), "{file}");
    }
    let log = String::from_utf8(bytes(dir.path(), "one", "lr-range.jsonl")).unwrap();
    assert_eq!(log.lines().count() as u64, report.steps);
    let svg = String::from_utf8(bytes(dir.path(), "one", "lr-range.svg")).unwrap();
    for part in ["<svg", "learning rate", "suggested: "] {
        assert!(svg.contains(part), "no {part}");
    }
    // The folder takes a run afterwards, and the suggested rate learns.
    assert_eq!(std::fs::read_dir(dir.path().join("one")).unwrap().count(), 2);
    let rate = format!("optimizer.learning_rate={}", report.suggested);
    let outcome = train(dir.path(), "one", &[&rate, "train.steps=60", "optimizer.average_decay=0"]).unwrap();
    assert!(loss(&outcome) < 4.0, "{report:?} gives {}", loss(&outcome));
}

#[test]
fn the_range_test_begins_with_the_model_that_a_run_would_go_on_from() {
    let dir = workshop();
    let trained = train(dir.path(), "base", &["train.steps=40"]).unwrap();
    let text = RECIPE.lines().filter(|line| !line.starts_with("model") && !line.starts_with("tokenizer"));
    let text = format!("model = {{ init_from = 'base' }}\n{}", text.collect::<Vec<_>>().join("\n"));
    std::fs::write(dir.path().join("going_on.toml"), text).unwrap();
    let recipe = Recipe::load(&dir.path().join("going_on.toml"), &[]).unwrap();
    let (range, interrupt) = (("1e-6..1e-5".parse().unwrap(), 3), AtomicBool::new(false));
    lr_range(&recipe, range, &dir.path().join("out"), &interrupt, &mut Silent).unwrap();
    for (step, first) in logged_in(dir.path(), "out/lr-range.jsonl", "loss") {
        assert!((first - loss(&trained)).abs() < 0.5, "step {step}: {first} after training to {}", loss(&trained));
    }
}
