//! Training from the outside: it learns, what it makes can be used, and an interruption changes nothing.

use std::thread::sleep;
use std::time::{Duration, Instant};

use siskin_e2e::{Program, assert_keys, fixture};

/// A small model on a text of few words, so that a few steps show.
const RECIPE: &str = "\
[model]
dim = 32
hidden_dim = 64
n_layers = 1
n_heads = 2
n_kv_heads = 1
head_dim = 16
context_len = 32

[tokenizer]
vocab_size = 270

[data]
text = \"corpus.txt\"

[train]
steps = 60
batch_size = 4
seed = 1
log_every = 10
checkpoint_every = 5

[optimizer]
learning_rate = 1e-2
warmup_steps = 5
";

/// What a run goes on from.
const STATE: &str = "training_state.safetensors";

const REPLY_KEYS: &str = "model steps n_tokens n_params validation_loss validation_accuracy validation_exact_match \
    validation_bits_per_byte doctor report memory elapsed_seconds interrupted";

fn program() -> Program {
    let program = Program::new();
    program.write("corpus.txt", fixture::TEXT.repeat(60));
    program.write("recipe.toml", RECIPE);
    program
}

/// The files that make up the model of a run.
fn model_files(program: &Program, run: &str) -> [Vec<u8>; 3] {
    ["model.safetensors", "config.json", "tokenizer.json"]
        .map(|file| std::fs::read(program.path(run).join(file)).unwrap())
}

#[test]
fn a_trained_model_is_better_than_chance_and_runs() {
    let program = program();
    let reply = program.json(&["train", "recipe.toml", "--out", "run", "--tensorboard"]);
    assert_keys(&reply, REPLY_KEYS);
    assert_eq!((&reply["steps"], &reply["interrupted"]), (&60.into(), &false.into()));
    // A uniform choice among 270 tokens takes over 5 bits a byte on this text.
    let bits_per_byte = reply["validation_bits_per_byte"].as_f64().unwrap();
    assert!(bits_per_byte < 3.0, "{reply}");

    // Beside the model there is a page, and what TensorBoard reads.
    let report = std::fs::read_to_string(program.path("run/report.html")).unwrap();
    assert!(report.contains("<span class=\"state finished\">") && report.matches("<svg").count() == 4);
    assert_eq!(reply["doctor"][0]["finding"], "end_never_trained", "{reply}");
    let mut names = std::fs::read_dir(program.path("run")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.any(|name| name.to_string_lossy().starts_with("events.out.tfevents.")));

    // What training says of the held-out text is what anyone finds who measures it.
    let measured = program.json(&["eval", "run", "--text", "run/validation.txt"])["bits_per_byte"].as_f64().unwrap();
    assert!((measured / bits_per_byte - 1.0).abs() < 1e-3, "{measured} and {bits_per_byte}");

    program.text(&["compile", "run", "--board", "host", "-o", "trained.siskin"]);
    let scores = program.json(&["eval", "trained.siskin", "--against", "run", "--text", "run/validation.txt"]);
    assert!(scores["bits_per_byte"].as_f64().unwrap() < 3.0, "{scores}");
    assert!(scores["perplexity_increase"].as_f64().unwrap().abs() < 0.01, "{scores}");
    let run = program.json(&["run", "trained.siskin", "--prompt", "The siskin", "--greedy", "--max-new-tokens", "8"]);
    assert_eq!(run["tokens"].as_array().unwrap().len(), 8);

    // A folder with a run in it is not overwritten.
    program.fails(&["train", "recipe.toml", "--out", "run"], 3, &["already holds", "resume"]);
}

/// Starts a run of 400 steps, or goes on with it, sends it a signal some time after its next checkpoint, and returns its exit code.
fn stopped_by(program: &Program, signal: &str, out: &str, after_ms: u64) -> Option<i32> {
    let mut training =
        program.start(&["train", "recipe.toml", "--out", out, "--resume", "--quiet", "--set", "train.steps=400"]);
    let (state, patience) = (program.path(out).join(STATE), Instant::now());
    let before = std::fs::read(&state).ok();
    while std::fs::read(&state).ok() == before {
        assert!(patience.elapsed() < Duration::from_secs(120), "no checkpoint came");
        sleep(Duration::from_millis(2));
    }
    sleep(Duration::from_millis(after_ms));
    let sent = std::process::Command::new("kill").args(["-s", signal, &training.id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -s {signal}");
    training.wait().unwrap().code()
}

/// Names in a run's folder of files that were never finished.
fn unfinished(program: &Program, run: &str) -> Vec<String> {
    let names =
        std::fs::read_dir(program.path(run)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".tmp")).collect()
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let program = program();
    let steps = ["--set", "train.steps=400"];
    program.json(&[&["train", "recipe.toml", "--out", "whole"], &steps[..]].concat());
    for (signal, moments) in [("KILL", vec![0, 2, 5, 11]), ("INT", vec![0])] {
        let out = format!("after-{signal}");
        for after_ms in moments {
            match stopped_by(&program, signal, &out, after_ms) {
                None => assert_eq!(signal, "KILL"),
                code => assert_eq!((signal, code), ("INT", Some(5)), "interrupted, can be resumed"),
            }
        }
        if signal == "INT" {
            let report = std::fs::read_to_string(program.path(&out).join("report.html")).unwrap();
            assert!(report.contains("<span class=\"state interrupted\">"), "the report says how it stands");
        }
        let reply = program.json(&[&["train", "recipe.toml", "--out", &out, "--resume"], &steps[..]].concat());
        assert_eq!(reply["steps"], 400);
        assert!(model_files(&program, &out) == model_files(&program, "whole"), "after SIG{signal}");
        assert_eq!(unfinished(&program, &out), [""; 0]);
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_last_checkpoint_to_go_on_from() {
    let program = program();
    let steps = ["--set", "train.steps=400"];
    program.json(&[&["train", "recipe.toml", "--out", "whole"], &steps[..]].concat());
    assert_eq!(stopped_by(&program, "INT", "full", 0), Some(5));
    let state = || std::fs::read(program.path("full").join(STATE)).unwrap();
    let saved = state();
    let resume = [&["train", "recipe.toml", "--out", "full", "--resume"], &steps[..]].concat();

    // The state is three times the model: there is room for the one and not for the other.
    let model_bytes = model_files(&program, "full")[0].len();
    let outcome = program.run_without_room(&resume, 2 * model_bytes as u64);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    for words in [STATE, "no room for its", "the checkpoint of step", "can be resumed"] {
        assert!(outcome.stderr.contains(words), "{words}: {outcome:#?}");
    }
    let needed = outcome.stderr.split("no room for its ").nth(1).and_then(|rest| rest.split(' ').next());
    let needed_bytes: usize = needed.unwrap().parse().unwrap();
    assert!(needed_bytes.abs_diff(saved.len()) < 100, "{needed_bytes} and {}", saved.len());
    assert!(state() == saved, "the last checkpoint is as it was");
    assert_eq!(unfinished(&program, "full"), [""; 0]);
    program.json(&["eval", "full", "--text", "full/validation.txt"]);
    let report = std::fs::read_to_string(program.path("full/report.html")).unwrap();
    assert!(report.contains("no room for its"), "the report says why the run failed");

    // Not even a copy of the recipe.
    let outcome = program.run_without_room(&resume, 0);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(state() == saved && unfinished(&program, "full").is_empty());

    let reply = program.json(&resume);
    assert_eq!(reply["steps"], 400);
    assert!(model_files(&program, "full") == model_files(&program, "whole"));
}

#[test]
fn what_is_wrong_with_a_recipe_is_said() {
    let program = program();
    let fails = |name: &str, recipe: String, words: &[&str]| {
        program.write(name, recipe);
        program.fails(&["train", name, "--out", "never"], 3, &[&[name], words].concat());
    };
    fails("key.toml", RECIPE.replace("batch_size", "batch_sise"), &["batch_sise", "batch_size", "line 18"]);
    fails("toml.toml", RECIPE.replace("[model]", "[model"), &["line 1"]);
    fails("heads.toml", RECIPE.replace("n_kv_heads = 1", "n_kv_heads = 3"), &["head"]);
    program.fails(&["train", "recipe.toml", "--out", "never", "--set", "train.stops=1"], 3, &["stops", "steps"]);
    program.fails(&["train", "missing.toml", "--out", "never"], 3, &["missing.toml"]);
    program.write("no_text.toml", RECIPE.replace("corpus.txt", "nowhere.txt"));
    program.fails(&["train", "no_text.toml", "--out", "never"], 3, &["nowhere.txt"]);
    assert!(!program.path("never").join("model.safetensors").exists());
}

#[test]
fn a_range_of_learning_rates_is_tried_without_a_run() {
    let program = program();
    let reply =
        program.json(&["train", "recipe.toml", "--out", "run", "--lr-range", "1e-4..10", "--lr-range-steps", "40"]);
    let keys = "suggested steepest lowest lowest_loss exploded interrupted steps log picture";
    assert_keys(&reply, keys);
    let rate = reply["suggested"].as_f64().unwrap();
    assert!(rate > 1e-5 && rate < 1.0, "{reply}");
    assert!(std::fs::read_to_string(program.path("run/lr-range.svg")).unwrap().starts_with("<svg"));
    assert!(!program.path("run/model.safetensors").exists());
    program.fails(&["train", "recipe.toml", "--out", "run", "--lr-range", "1..1e-4"], 2, &["1e-5..1e-1"]);
}
