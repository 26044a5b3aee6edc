//! A real chat model, from its GGUF to an answer.

use std::path::Path;

use siskin_e2e::Program;

const GGUF: &str = "../../.cache/data/smollm2/smollm2-135m-instruct-q4_1.gguf";

#[test]
fn smollm2_answers_a_question() {
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join(GGUF);
    if !gguf.exists() {
        println!("skipped: {} is not there; `cargo xtask data` fetches it", gguf.display());
        return;
    }
    let program = Program::new();
    let gguf = gguf.to_str().expect("a path in UTF-8");
    program.text(&["compile", gguf, "--board", "host", "--context", "256", "-o", "smollm2.siskin"]);
    let question = "What is the capital of France?";
    let flags = ["--chat", "--prompt", question, "--greedy", "--max-new-tokens", "32", "--threads", "2"];
    let answer = program.json(&[&["run", "smollm2.siskin"], &flags[..]].concat());
    assert!(answer["text"].as_str().unwrap().contains("Paris"), "{answer}");
    assert_eq!(answer["end"], "end_token", "{answer}");

    // A model of this size says by how much it misses a microcontroller.
    let board = ["--board", "netduinoplus2", "--boards-dir", concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards")];
    let outcome = program.fails(&[&["plan", "smollm2.siskin"], &board[..]].concat(), 4, &["flash needs", "RAM needs"]);
    assert_eq!(outcome.json()["fits"], false);
}
