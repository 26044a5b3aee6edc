//! all-MiniLM-L6-v2 from its folder to vectors of sentences: its WordPiece encodes the text, on the host and on a board, with the same bits.
//!
//! The model is fetched by `cargo xtask data`; without it the test says so and passes.

use std::path::Path;

use serde_json::Value;
use siskin_e2e::Program;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/data/minilm");
const BOARDS_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards");
const BOARD: &str = "aarch64-virt";
const GOLDEN: &str = include_str!("../../golden/minilm.json");
/// The texts whose tokens the golden file has, but for the longest.
const TEXTS: [&str; 3] =
    ["The siskin is a small finch of the forest.", "x", "Ein Zeisig fliegt über den Wald; 3.14159 & 2.71828!"];

fn vector(reply: &Value) -> Vec<f64> {
    let numbers = reply["vector"].as_array().unwrap_or_else(|| panic!("no vector in {reply}"));
    numbers.iter().filter_map(Value::as_f64).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn sentences_become_vectors_on_the_host_and_on_a_board() {
    if !Path::new(FOLDER).join("model.safetensors").exists() {
        println!("skipped: {FOLDER} is not there; `cargo xtask data` fetches it");
        return;
    }
    let program = Program::new();
    let boards = ["--boards-dir", BOARDS_DIR];
    let compile = ["compile", FOLDER, "--board", BOARD, "--weights", "int8-g32", "-o", "minilm.siskin"];
    program.text(&[&compile, &boards[..]].concat());
    let run = |text: &str| program.json(&["run", "minilm.siskin", "--prompt", text]);

    let golden: Vec<Value> = serde_json::from_str(GOLDEN).expect("the golden file");
    for (text, recorded) in TEXTS.iter().zip(&golden) {
        let n_tokens = recorded["ids"].as_array().map(Vec::len);
        assert_eq!(run(text)["n_prompt_tokens"].as_u64(), n_tokens.map(|n| n as u64), "{text}");
    }

    let said = run("A small bird sings in the tree.");
    let [near, far] = ["A little finch is singing on a branch.", "Interest rates rose again this quarter."]
        .map(|text| cosine(&vector(&said), &vector(&run(text))));
    println!("cosine {near:.3} to what means much the same, {far:.3} to what does not");
    assert!(near > 0.6 && far < 0.2, "{near} {far}");

    let text = ["--prompt", TEXTS[2]];
    let board = program.json(&[&["board", "run", BOARD, "minilm.siskin"], &text[..], &boards].concat());
    let host = run(TEXTS[2]);
    for key in ["vector", "n_prompt_tokens", "logits_hash"] {
        assert_eq!(board[key], host[key], "{key}");
    }
    println!("{} instructions on {BOARD}", board["prompt_instructions"]);
}
