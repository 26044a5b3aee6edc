//! Questions with known answers: what a packed model answers on this machine and on a board, and what that is worth.

use serde_json::{Value, json};
use siskin_e2e::device::boards_dir;
use siskin_e2e::{Program, assert_keys};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
const BOARD: &str = "mps2-an386";
const PROMPTS: [&str; 4] = ["ROMEO:\n", "What is", "The king", "O, "];

fn write(program: &Program, name: &str, records: &[Value]) {
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    std::fs::write(program.path(name), lines).expect("a file");
}

/// What the model goes on with.
fn continuation(program: &Program, prompt: &str) -> String {
    let run = program.json(&["run", MODEL, "--prompt", prompt, "--greedy", "--max-new-tokens", "10"]);
    run["text"].as_str().expect("a text").to_owned()
}

fn figure(reply: &Value, metric: &str) -> f64 {
    let figures = reply["figures"].as_array().expect("figures");
    let found = figures.iter().find(|figure| figure["metric"] == metric);
    found.unwrap_or_else(|| panic!("no {metric} in {reply}"))["value"].as_f64().expect("a number")
}

/// Questions whose answers are the model's own, but for the last.
fn write_own(program: &Program) {
    let mut records: Vec<Value> =
        PROMPTS.iter().map(|prompt| json!({ "prompt": prompt, "completion": continuation(program, prompt) })).collect();
    records[3]["completion"] = "nothing of the kind".into();
    write(program, "own.jsonl", &records);
}

#[test]
fn texts_are_graded_and_kept() {
    let program = Program::new();
    write_own(&program);
    let asked = ["eval", MODEL, "--questions", "own.jsonl", "--max-new-tokens", "10"];
    let reply = program.json(&[&asked[..], &["--out", "kept"]].concat());
    assert_keys(&reply, "model questions on n_questions n_shots figures seconds");
    assert_eq!((&reply["on"], &reply["n_shots"]), (&json!("host"), &json!([0, 0])));
    assert_eq!(figure(&reply, "exact_match"), 0.75);
    assert!(figure(&reply, "bleu") > 30.0 && figure(&reply, "rougeL") >= 0.75 && figure(&reply, "json_match") == 0.0);
    assert_keys(&reply["figures"][0], "metric value low high");
    let kept = |name: &str| std::fs::read_to_string(program.path("kept").join(name)).expect("a file");
    let answers: Vec<Value> =
        kept("answers.jsonl").lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_keys(&answers[3], "id question prompt_tokens expected answered score");
    assert_eq!((answers.len(), &answers[0]["score"], &answers[3]["score"]), (4, &json!(1.0), &json!(0.0)));
    assert_eq!(answers[3]["answered"], continuation(&program, PROMPTS[3]));
    assert!(kept("report.html").contains("nothing of the kind") && kept("results.json").contains("exact_match"));
}

#[test]
fn examples_go_before_a_question_as_long_as_there_is_room() {
    let program = Program::new();
    write_own(&program);
    let shots = ["--pool", "own.jsonl", "--select", "random", "--num-fewshot"];
    let asked = ["eval", MODEL, "--questions", "own.jsonl", "--max-new-tokens", "10", "--metrics", "rougeL"];
    let reply = program.json(&[&asked[..], &shots, &["3"]].concat());
    assert_eq!(reply["n_shots"], json!([3, 3]));
    // Its own context is 256 tokens.
    let many: Vec<Value> =
        (0..60).map(|idx| json!({ "prompt": format!("Number {idx} is"), "completion": "odd" })).collect();
    write(&program, "many.jsonl", &many);
    let asked = ["eval", MODEL, "--questions", "own.jsonl", "--max-new-tokens", "10", "--pool", "many.jsonl"];
    let reply = program.json(&[&asked[..], &["--num-fewshot", "60"]].concat());
    let most = reply["n_shots"][1].as_u64().expect("a number");
    assert!((5..60).contains(&most), "{reply}");
}

#[test]
fn choices_are_told_by_likelihood() {
    let program = Program::new();
    let choices = |prompt: &&str| {
        let likely = continuation(&program, prompt);
        json!({ "prompt": prompt, "choices": ["zzq xkq", likely, "qqqqqqqqq"], "answer": 1 })
    };
    write(&program, "choices.jsonl", &PROMPTS.iter().map(choices).collect::<Vec<_>>());
    let reply = program.json(&["eval", MODEL, "--questions", "choices.jsonl"]);
    assert_eq!((figure(&reply, "acc_norm"), figure(&reply, "acc_bytes")), (1.0, 1.0));
}

#[test]
fn a_board_answers_as_the_host_does() {
    let program = Program::new();
    write_own(&program);
    let asked = ["eval", MODEL, "--questions", "own.jsonl", "--max-new-tokens", "10", "--out"];
    let host = program.json(&[&asked[..], &["host"]].concat());
    let board = program.json(&[&asked[..], &["board", "--on", BOARD, "--boards-dir", &boards_dir()]].concat());
    assert_eq!((&board["on"], &board["figures"]), (&json!(BOARD), &host["figures"]));
    let answers = |out: &str| std::fs::read_to_string(program.path(out).join("answers.jsonl")).expect("a file");
    assert_eq!(answers("board"), answers("host"));
}

#[test]
fn what_cannot_be_asked_is_told() {
    let program = Program::new();
    write_own(&program);
    let fails =
        |args: &[&str], code: i32, words: &[&str]| program.fails(&[&["eval", MODEL], args].concat(), code, words);
    fails(&[], 2, &["--text"]);
    fails(&["--questions", "own.jsonl", "--metrics", "meteor"], 2, &["meteor", "rougeL"]);
    fails(&["--questions", "own.jsonl", "--doc-to-text", "{{ question }}"], 3, &["template"]);
    fails(&["--questions", "own.jsonl", "--max-new-tokens", "250"], 3, &["question 1", "room"]);
    fails(&["--questions", "own.jsonl", "--chat"], 3, &["chat template"]);
    fails(&["--questions", "own.jsonl", "--num-fewshot", "2"], 2, &["--pool"]);
    write(&program, "labels.jsonl", &[json!({ "text": "a", "label": "b" })]);
    fails(&["--questions", "labels.jsonl"], 3, &["labels", "no such head"]);
    write(&program, "bad.jsonl", &[json!({ "prompt": "a", "completion": "b" }), json!({ "prompt": "a" }), json!({})]);
    fails(&["--questions", "bad.jsonl"], 3, &["line 2", "line 3"]);
}
