//! What a run tells of itself: the report, the doctor's findings and the log, and that none of it changes what is trained.

use serde_json::Value;
use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::doctor::FindingKind;
use siskin_compiler::train::progress::{Event, Progress};
use siskin_compiler::train::{Options, Outcome, REPORT_FILE, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const MODEL: &str = "dim = 24, hidden_dim = 44, n_layers = 1, n_heads = 4, context_len = 24";

/// A folder with a text and labelled texts of a small grammar.
fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut text, mut labels) = (String::new(), String::new());
    for i in 0..500_usize {
        let noun = ["bird", "cat", "<b>fish</b>", "dog", "bee"][i * 11 % 5];
        let sentence =
            format!("the {noun} {} the {}", ["sees", "likes", "hears"][i * 7 % 3], ["tree", "sea"][i / 5 % 2]);
        let label = if noun == "bird" || noun == "bee" { "flies" } else { "walks" };
        text += &format!("{sentence}.\n");
        labels += &format!("{{\"text\": \"{sentence}\", \"label\": \"{label}\"}}\n");
    }
    std::fs::write(dir.path().join("text.txt"), text).unwrap();
    std::fs::write(dir.path().join("labels.jsonl"), labels).unwrap();
    dir
}

struct Run<'a> {
    architecture: &'a str,
    objective: &'a str,
    data: &'a str,
    learning_rate: &'a str,
}

const CAUSAL: Run<'_> = Run { architecture: "llama", objective: "causal", data: "text.txt", learning_rate: "1e-2" };

/// Hears everything, and raises the flag after some steps.
struct Listener<'a> {
    events: Vec<Event>,
    stop: Option<(u64, &'a AtomicBool)>,
}

impl Progress for Listener<'_> {
    fn event(&mut self, event: &Event) {
        if let (Event::Step(record), Some((at, flag))) = (event, self.stop)
            && record.step >= at
        {
            flag.store(true, Ordering::Relaxed);
        }
        self.events.push(event.clone());
    }
}

impl Run<'_> {
    fn train(&self, dir: &Path, out: &str, stop_at: Option<u64>) -> (Outcome, Vec<Event>) {
        let Self { architecture, objective, data, learning_rate } = self;
        let recipe = format!(
            "\
model = {{ architecture = '{architecture}', {MODEL} }}
tokenizer = {{ vocab_size = 275 }}
data = {{ text = '{data}', train_fraction = 0.8 }}
objective = {{ kind = '{objective}' }}
train = {{ steps = 60, batch_size = 8, seed = 3, log_every = 2, eval_every = 20, checkpoint_every = 10 }}
optimizer = {{ learning_rate = {learning_rate}, warmup_steps = 5, clip_norm = 1.0 }}
"
        );
        let path = dir.join("recipe.toml");
        std::fs::write(&path, recipe).unwrap();
        let recipe = Recipe::load(&path, &[]).unwrap();
        let interrupt = AtomicBool::new(false);
        let mut listener = Listener { events: Vec::new(), stop: stop_at.map(|at| (at, &interrupt)) };
        let options = Options { out: &dir.join(out), resume: true, interrupt: &interrupt };
        let outcome = run(&recipe, &options, &mut listener).unwrap();
        (outcome, listener.events)
    }
}

fn read(dir: &Path, out: &str, file: &str) -> String {
    std::fs::read_to_string(dir.join(out).join(file)).unwrap()
}

/// The log without what the clock says, and what memory so many threads happened to need.
fn timeless_log(dir: &Path, out: &str) -> Vec<Value> {
    let line = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let fields = record.as_object_mut().unwrap();
        fields.retain(|key, _| !["tokens_per_second", "seconds_left", "elapsed_seconds"].contains(&key.as_str()));
        record
    };
    read(dir, out, "metrics.jsonl").lines().map(line).filter(|record| record.get("memory").is_none()).collect()
}

#[test]
fn an_interrupted_run_logs_and_finds_what_a_whole_one_does() {
    let dir = workshop();
    let (whole, _) = CAUSAL.train(dir.path(), "whole", None);
    let (stopped, _) = CAUSAL.train(dir.path(), "parts", Some(14));
    assert!(stopped.interrupted);
    assert!(read(dir.path(), "parts", REPORT_FILE).contains("state interrupted"));
    let (resumed, _) = CAUSAL.train(dir.path(), "parts", None);
    assert_eq!(timeless_log(dir.path(), "parts"), timeless_log(dir.path(), "whole"));
    assert_eq!(resumed.doctor, whole.doctor);
    let report = read(dir.path(), "parts", REPORT_FILE);
    assert!(report.contains("state finished") && report.contains("step 60 of 60"));
    assert!(report.contains("step 2: "), "the curve begins where the first part did");
    let log = timeless_log(dir.path(), "whole");
    let looks: Vec<&Value> = log.iter().filter_map(|line| line.get("gradient_rms")).collect();
    assert_eq!(looks.len(), 60);
    assert!(looks.iter().all(|look| look.as_object().unwrap().values().all(|rms| rms.as_f64().unwrap() > 1e-8)));
}

#[test]
fn a_report_that_cannot_be_written_is_one_warning_and_changes_nothing() {
    let dir = workshop();
    let (_, events) = CAUSAL.train(dir.path(), "free", None);
    assert!(!events.iter().any(|event| matches!(event, Event::Warning(_))));
    std::fs::create_dir_all(dir.path().join("blocked").join(REPORT_FILE)).unwrap();
    let (_, events) = CAUSAL.train(dir.path(), "blocked", None);
    let is_warning = |event: &&Event| matches!(event, Event::Warning(text) if text.contains(REPORT_FILE));
    assert_eq!(events.iter().filter(is_warning).count(), 1);
    for file in ["model.safetensors", "training_state.safetensors"] {
        let [free, blocked] = ["free", "blocked"].map(|out| std::fs::read(dir.path().join(out).join(file)).unwrap());
        assert!(free == blocked, "{file}");
    }
}

#[test]
fn samples_are_shown_for_each_kind_of_objective() {
    let dir = workshop();
    let kinds = [
        ("llama", "causal", "text.txt"),
        ("llama", "prefix", "text.txt"),
        ("bert", "masked", "text.txt"),
        ("t5", "span_corruption", "text.txt"),
        ("bert", "classification", "labels.jsonl"),
    ];
    for (architecture, objective, data) in kinds {
        let run = Run { architecture, objective, data, learning_rate: "1e-2" };
        let (outcome, _) = run.train(dir.path(), objective, None);
        let log = timeless_log(dir.path(), objective);
        let shows: Vec<&Value> = log.iter().filter(|line| line.get("samples").is_some()).collect();
        assert_eq!(shows.len(), 3, "{objective}");
        let samples = shows[2]["samples"].as_array().unwrap();
        assert_eq!(samples.len(), if objective == "causal" { 2 } else { 4 }, "{objective}");
        for sample in samples {
            let (read, said) = (sample["read"].as_str().unwrap(), sample["said"].as_str().unwrap());
            assert!(!read.is_empty() && !said.is_empty(), "{objective}: {sample}");
            let is_right = sample["expected"].as_str().map(|expected| expected == said);
            assert_eq!(sample["is_right"].as_bool(), is_right, "{objective}: {sample}");
        }
        let report = read(dir.path(), objective, REPORT_FILE);
        assert!(!report.contains("<b>fish"), "{objective}: a text breaks out of the page");
        assert_eq!(report.matches("should say").count(), if objective == "causal" { 0 } else { 12 }, "{objective}");
        let ends = outcome.doctor.iter().any(|finding| finding.kind == FindingKind::EndNeverTrained);
        assert_eq!(ends, matches!(objective, "causal" | "prefix"), "{objective}");
    }
    let answers = &timeless_log(dir.path(), "classification");
    let last = answers.iter().rev().find_map(|line| line["samples"].as_array()).unwrap();
    assert!(last.iter().all(|sample| ["flies", "walks"].contains(&sample["expected"].as_str().unwrap())), "{last:?}");
}

#[test]
fn a_learning_rate_that_teaches_nothing_is_found_while_the_run_goes_on() {
    let dir = workshop();
    let (outcome, events) = Run { learning_rate: "3.0", ..CAUSAL }.train(dir.path(), "hot", None);
    let suspects = [FindingKind::NothingLearned, FindingKind::LearningRateTooHigh];
    assert!(outcome.doctor.iter().any(|finding| suspects.contains(&finding.kind)), "{:?}", outcome.doctor);
    let told = events.iter().filter(|event| matches!(event, Event::Found(finding) if suspects.contains(&finding.kind)));
    assert!(told.count() >= 1);
    assert!(read(dir.path(), "hot", "metrics.jsonl").contains("\"severity\":\"warning\""));
}
