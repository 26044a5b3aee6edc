//! Every objective: it learns, and its result depends neither on threads nor on interruptions.

mod interruption;

use interruption::{StopAt, files, try_train};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_compiler::artifact::hf;
use siskin_compiler::model::Head;
use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::progress::{Progress, Silent};
use siskin_compiler::train::{Options, Outcome, run};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Set for a child process that is to be killed: the folder it works in, and the case.
const CHILD_FOLDER: &str = "SISKIN_TEST_KILLED_FOLDER";
const CHILD_CASE: &str = "SISKIN_TEST_KILLED_CASE";
/// Enough for a child not to end before it is killed.
const N_KILLED_STEPS: usize = 80;

struct Case {
    name: &'static str,
    architecture: &'static str,
    objective: &'static str,
    data: &'static str,
}

const CASES: [Case; 9] = [
    Case { name: "causal", architecture: "gpt2", objective: "kind = 'causal'", data: "text.txt" },
    Case { name: "documents", architecture: "llama", objective: "kind = 'causal'", data: "labels.jsonl" },
    Case { name: "prefix", architecture: "llama", objective: "kind = 'prefix'", data: "text.txt" },
    Case { name: "masked", architecture: "albert", objective: "kind = 'masked'", data: "text.txt" },
    Case {
        name: "whole-words",
        architecture: "bert",
        objective: "kind = 'masked', whole_words = true",
        data: "text.txt",
    },
    Case { name: "spans", architecture: "t5", objective: "kind = 'span_corruption'", data: "text.txt" },
    Case { name: "seq2seq", architecture: "transformer", objective: "kind = 'seq2seq'", data: "pairs.csv" },
    Case { name: "labels", architecture: "bert", objective: "kind = 'classification'", data: "labels.jsonl" },
    Case { name: "tags", architecture: "bert", objective: "kind = 'token_classification'", data: "tags.jsonl" },
];

/// A folder with a text, pairs, labelled texts and tagged words, all of one small grammar.
fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut text, mut pairs) = (String::new(), String::from("source,target\n"));
    let (mut labels, mut tags) = (String::new(), String::new());
    for i in 0..600_usize {
        let noun = ["bird", "cat", "fish", "dog", "bee"][i * 11 % 5];
        let verb = ["sees", "likes", "hears"][i * 7 % 3];
        let other = ["tree", "moon", "sea"][i / 5 % 3];
        let sentence = format!("the {noun} {verb} the {other}");
        writeln!(text, "{sentence}.").unwrap();
        writeln!(pairs, "{noun} {verb} {other},{other} {noun}").unwrap();
        let label = if noun == "bird" || noun == "bee" { "flies" } else { "walks" };
        writeln!(labels, "{{\"text\": \"{sentence}\", \"label\": \"{label}\"}}").unwrap();
        let words = sentence.replace(' ', "\", \"");
        writeln!(tags, "{{\"tokens\": [\"{words}\"], \"tags\": [\"D\", \"N\", \"V\", \"D\", \"N\"]}}").unwrap();
    }
    for (name, content) in [("text.txt", text), ("pairs.csv", pairs), ("labels.jsonl", labels), ("tags.jsonl", tags)] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn recipe(dir: &Path, case: &Case, n_steps: usize) -> Recipe {
    let Case { architecture, objective, data, .. } = case;
    let text = format!(
        "\
model = {{ architecture = '{architecture}', dim = 24, hidden_dim = 44, n_layers = 1, n_heads = 4, context_len = 32 }}
tokenizer = {{ vocab_size = 275 }}
data = {{ text = '{data}', train_fraction = 0.8 }}
objective = {{ {objective} }}
train = {{ steps = {n_steps}, batch_size = 6, accumulate = 2, seed = 3, log_every = 1, checkpoint_every = 5, dropout = 0.05, label_smoothing = 0.01 }}
optimizer = {{ learning_rate = 1e-2, warmup_steps = 5, clip_norm = 1.0, weight_decay = 0.1 }}
"
    );
    let path = dir.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    Recipe::load(&path, &[]).unwrap()
}

fn train(recipe: &Recipe, out: &Path, n_threads: usize, progress: &mut (dyn Progress + Send)) -> Outcome {
    try_train(recipe, out, n_threads, progress).unwrap()
}

#[test]
fn threads_and_interruptions_leave_no_trace() {
    let dir = workshop();
    for (i, case) in CASES.iter().enumerate() {
        let recipe = recipe(dir.path(), case, 14);
        let out = |run: &str| dir.path().join(format!("{}-{run}", case.name));
        train(&recipe, &out("one"), 1, &mut Silent);
        train(&recipe, &out("two"), 2, &mut Silent);
        assert!(files(&out("one")) == files(&out("two")), "{}: threads leave a trace", case.name);
        let flag = AtomicBool::new(false);
        let options = Options { out: &out("parts"), resume: false, interrupt: &flag };
        let stopped = run(&recipe, &options, &mut StopAt(1 + i as u64, &flag)).unwrap();
        assert!(stopped.interrupted && stopped.validation.is_none());
        train(&recipe, &out("parts"), 2, &mut Silent);
        assert!(files(&out("one")) == files(&out("parts")), "{}: an interruption leaves a trace", case.name);
    }
}

#[test]
#[ignore = "run by the test that kills it"]
fn child_trains() {
    let (Ok(folder), Ok(name)) = (std::env::var(CHILD_FOLDER), std::env::var(CHILD_CASE)) else { return };
    let case = CASES.iter().find(|case| case.name == name).unwrap();
    let folder = Path::new(&folder);
    train(&recipe(folder, case, N_KILLED_STEPS), &folder.join(format!("{name}-killed")), 2, &mut Silent);
}

#[test]
fn a_run_killed_at_any_step_resumes_to_the_same_bytes() {
    let dir = workshop();
    let mut rng = ChaCha8Rng::seed_from_u64(std::process::id().into());
    for case in &CASES {
        let recipe = recipe(dir.path(), case, N_KILLED_STEPS);
        let out = |run: &str| dir.path().join(format!("{}-{run}", case.name));
        train(&recipe, &out("whole"), 1, &mut Silent);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_trains", "--ignored"])
            .envs([(CHILD_FOLDER, dir.path().as_os_str()), (CHILD_CASE, case.name.as_ref())])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Some steps on, wherever that is: log lines tell the step, and come before its checkpoint.
        let n_lines = rng.random_range(1..N_KILLED_STEPS / 2);
        let log = out("killed").join("metrics.jsonl");
        let n_logged = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
        while n_logged() < n_lines && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "{}: the child ended before it was killed", case.name);
        train(&recipe, &out("killed"), 2, &mut Silent);
        assert!(files(&out("whole")) == files(&out("killed")), "{}: killed after {n_lines} lines", case.name);
    }
}

#[test]
fn every_objective_learns_and_leaves_a_loadable_model() {
    let dir = workshop();
    for case in &CASES {
        let is_masked = case.objective.contains("masked");
        let mut recipe = recipe(dir.path(), case, if is_masked { 800 } else { 160 });
        if is_masked {
            recipe.optimizer.learning_rate = 5e-3;
        }
        let out = dir.path().join(case.name);
        let outcome = train(&recipe, &out, 2, &mut Silent);
        let validation = outcome.validation.unwrap();
        // A guess is right once in three hundred, or once in two or three labels. Encoders stay long at the most frequent token.
        let expected = match case.name {
            _ if is_masked => outcome.baselines.unwrap().unigram + 0.05,
            "labels" | "tags" => 0.99,
            "seq2seq" => 0.9,
            _ => 0.5,
        };
        assert!(validation.validation_accuracy > expected, "{}: {validation:?}", case.name);
        let model = hf::load_trained(&out).unwrap();
        let labels: &[&str] = match case.name {
            "labels" => &["flies", "walks"],
            "tags" => &["D", "N", "V"],
            _ => &[],
        };
        assert_eq!(model.labels, labels, "{}", case.name);
        assert_eq!(model.architecture.head == Head::MaskedLanguage, outcome.baselines.is_some(), "{}", case.name);
        assert_eq!(validation.validation_bits_per_byte.is_some(), recipe.objective.is_causal());
    }
}
