//! Whole training runs: the same bytes on any number of threads and after any interruption.

use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::progress::{Event, Progress, Silent};
use siskin_compiler::train::{Options, Outcome, TrainError, run};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set for the child process that is to be killed: the folder it works in.
const CHILD_FOLDER: &str = "SISKIN_TEST_TRAINING_FOLDER";
const STATE: &str = "training_state.safetensors";

const RECIPE: &str = "\
model = { dim = 24, hidden_dim = 44, n_layers = 2, n_heads = 4, n_kv_heads = 2, head_dim = 6, context_len = 21 }
tokenizer = { vocab_size = 270 }
data = { text = 'text.txt', train_fraction = 0.8 }
train = { steps = 30, batch_size = 5, accumulate = 2, seed = 3, log_every = 4, eval_every = 10, checkpoint_every = 3 }
optimizer = { learning_rate = 1e-2, warmup_steps = 5, clip_norm = 1.0, weight_decay = 0.1, average_decay = 0.9 }
";

/// A folder with a recipe and a text of a small grammar.
fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("recipe.toml"), RECIPE).unwrap();
    let mut text = String::new();
    for i in 0..900_usize {
        let word = |words: &[&str], by: usize| words[i * by % words.len()].to_owned();
        text += &format!(
            "the {} {} {} the {}.\n",
            word(&["small", "grey", "naïve"], 7),
            word(&["bird", "cat", "fish", "dog", "bee"], 11),
            word(&["sees", "likes", "follows", "hears"], 13),
            word(&["tree", "moon", "sea"], 5)
        );
    }
    std::fs::write(dir.path().join("text.txt"), text).unwrap();
    dir
}

fn train(dir: &Path, out: &str, resume: bool, overrides: &[&str]) -> Result<Outcome, TrainError> {
    train_with(dir, out, resume, overrides, &AtomicBool::new(false), &mut Silent)
}

fn train_with(
    dir: &Path,
    out: &str,
    resume: bool,
    overrides: &[&str],
    interrupt: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Outcome, TrainError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let recipe = Recipe::load(&dir.join("recipe.toml"), &overrides).unwrap();
    run(&recipe, &Options { out: &dir.join(out), resume, interrupt }, progress)
}

fn bytes(dir: &Path, out: &str, file: &str) -> Vec<u8> {
    std::fs::read(dir.join(out).join(file)).unwrap()
}

fn assert_same_model(dir: &Path, a: &str, b: &str) {
    for file in ["model.safetensors", "config.json", "tokenizer.json", STATE] {
        assert!(bytes(dir, a, file) == bytes(dir, b, file), "{file} differs between {a} and {b}");
    }
}

/// Steps of the log, in order: no record of a resumed run may be missing or twice.
fn logged(dir: &Path, out: &str) -> Vec<(u64, bool)> {
    let log = String::from_utf8(bytes(dir, out, "metrics.jsonl")).unwrap();
    log.lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            (record["step"].as_u64().unwrap(), record.get("loss").is_some())
        })
        .collect()
}

#[test]
fn training_learns_and_leaves_a_loadable_model() {
    let dir = workshop();
    let outcome = train(dir.path(), "run", false, &["train.steps=120"]).unwrap();
    let bits = outcome.validation.unwrap().validation_bits_per_byte.unwrap();
    assert!(bits < 1.2, "{bits} bits per byte on a text of a small grammar");
    let path = dir.path().join("run");
    let checkpoint = siskin_compiler::artifact::load_model(&path, &Default::default()).unwrap();
    assert_eq!((checkpoint.bos_id, checkpoint.eos_ids), (Some(0), vec![1]));
    assert_eq!(checkpoint.config.vocab_size, 270);
}

#[test]
fn threads_leave_no_trace() {
    let dir = workshop();
    for (out, n_threads) in [("one", 1), ("two", 2), ("five", 5)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| train(dir.path(), out, false, &[])).unwrap();
    }
    assert_same_model(dir.path(), "one", "two");
    assert_same_model(dir.path(), "one", "five");
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

#[test]
fn an_interrupted_run_goes_on_as_if_nothing_had_happened() {
    let dir = workshop();
    let whole = train(dir.path(), "whole", false, &[]).unwrap();
    let flag = AtomicBool::new(false);
    let stopped = train_with(dir.path(), "parts", false, &[], &flag, &mut StopAt(8, &flag)).unwrap();
    assert!(stopped.interrupted && stopped.steps == 8 && stopped.validation.is_none());
    let resumed = train(dir.path(), "parts", true, &[]).unwrap();
    assert_eq!((resumed.steps, resumed.interrupted), (30, false));
    assert_eq!(resumed.validation, whole.validation);
    assert_same_model(dir.path(), "whole", "parts");
    assert_eq!(logged(dir.path(), "whole"), logged(dir.path(), "parts"));
}

#[test]
#[ignore = "run by the test that kills it"]
fn child_trains() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    train(Path::new(&folder), "killed", true, &["train.steps=300"]).unwrap();
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let dir = workshop();
    train(dir.path(), "whole", false, &["train.steps=300"]).unwrap();
    let state = dir.path().join("killed").join(STATE);
    let program = std::env::current_exe().unwrap();
    // Kill at three moments, each later than the last; a state written meanwhile must be whole each time.
    for wait_ms in [0, 35, 70] {
        let before = std::fs::read(&state).ok();
        let mut child = Command::new(&program)
            .args(["--exact", "child_trains", "--ignored"])
            .env(CHILD_FOLDER, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while std::fs::read(&state).ok() == before {
            assert!(started.elapsed() < Duration::from_secs(120), "the child writes no checkpoint");
            assert!(child.try_wait().unwrap().is_none(), "the child ended before it could be killed");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "the child ended before it was killed");
        siskin_compiler::artifact::load_model(&dir.path().join("killed"), &Default::default()).unwrap();
    }
    train(dir.path(), "killed", true, &["train.steps=300"]).unwrap();
    assert_same_model(dir.path(), "whole", "killed");
    assert_eq!(logged(dir.path(), "whole"), logged(dir.path(), "killed"));
}

#[test]
fn a_run_is_not_overwritten_nor_mixed_with_another() {
    let dir = workshop();
    train(dir.path(), "run", false, &[]).unwrap();
    let again = train(dir.path(), "run", false, &[]).expect_err("a run is there");
    assert!(matches!(again, TrainError::RunExists { .. }) && again.is_input(), "{again}");
    let other = train(dir.path(), "run", true, &["train.seed=4"]).expect_err("another recipe");
    assert!(matches!(other, TrainError::OtherRecipe { .. }), "{other}");
    let state = dir.path().join("run").join(STATE);
    let whole = std::fs::read(&state).unwrap();
    for len in [0, 7, 100, whole.len() - 1] {
        std::fs::write(&state, &whole[..len]).unwrap();
        let error = train(dir.path(), "run", true, &[]).expect_err("a damaged state");
        assert!(matches!(error, TrainError::BadState { .. }), "{len} bytes: {error}");
    }
}

#[test]
fn bad_input_is_named() {
    let dir = workshop();
    let missing = train(dir.path(), "run", false, &["data.text=none.txt"]).expect_err("no such text");
    assert!(missing.to_string().contains("none.txt") && missing.is_input(), "{missing}");
    std::fs::write(dir.path().join("short.txt"), "too short for this").unwrap();
    let short = train(dir.path(), "run", false, &["data.text=short.txt"]).expect_err("a short text");
    assert!(short.is_input(), "{short}");
    let diverged = train(dir.path(), "run", false, &["optimizer.learning_rate=1e30", "optimizer.clip_norm=0"]);
    assert!(matches!(diverged, Err(TrainError::Diverged { .. })), "{diverged:?}");
}
