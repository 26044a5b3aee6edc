//! A classifier of nearly 100,000 parameters on a board with 16 KB of RAM: text goes in and is encoded there, and its label and scores are
//! those of the host, bit for bit.

use std::fs;

use siskin_e2e::Program;
use siskin_e2e::device::boards_dir;
use siskin_e2e::families::{Family, write_family_of};
use siskin_e2e::fixture::Shape;

const BOARD: &str = "microbit";
const RAM_BYTES: u64 = 16384;
const SHAPE: Shape =
    Shape { dim: 64, hidden_dim: 136, n_layers: 2, n_heads: 4, n_kv_heads: 4, context_len: 20, n_merges: 8 };
const TEXTS: [&str; 5] =
    ["the siskin sings", "in the river", "a", "マヒワが", "the others are on the river, and then they are gone"];

/// Numbers in the checkpoint, which stores each in four bytes after a header of a known length.
fn n_parameters(program: &Program) -> u64 {
    let file = fs::read(program.path("model/model.safetensors")).expect("the checkpoint");
    let header_bytes = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
    (file.len() as u64 - 8 - header_bytes) / 4
}

#[test]
fn a_classifier_of_100_000_parameters_runs_in_16_kb() {
    let program = Program::new();
    let boards_dir = boards_dir();
    write_family_of(&program.path("model"), Family::Classifier, 5, &SHAPE);
    let n_parameters = n_parameters(&program);
    assert!((90_000..=100_000).contains(&n_parameters), "{n_parameters} parameters");
    let boards = ["--boards-dir", &boards_dir];
    for weights in ["int8", "int8-g32"] {
        let compile = ["compile", "model", "--board", BOARD, "--weights", weights, "-o", "c.siskin"];
        program.text(&[&compile, &boards[..]].concat());
        let sizes = program.json(&[&["board", "build", BOARD, "c.siskin", "-o", "c.elf"], &boards[..]].concat());
        let number = |key: &str| sizes[key].as_u64().unwrap_or_else(|| panic!("no {key} in {sizes}"));
        let ram_bytes = number("ram_bytes") + number("stack_bytes");
        let instructions = TEXTS.map(|text| {
            let prompt = ["--prompt", text];
            let host = program.json(&[&["run", "c.siskin"], &prompt[..]].concat());
            let run = ["board", "run", BOARD, "c.siskin", "--elf", "c.elf"];
            let board = program.json(&[&run, &prompt[..], &boards].concat());
            for key in ["label", "scores", "n_prompt_tokens", "logits_hash"] {
                assert_eq!(board[key], host[key], "{key} of {text:?} in {weights}");
            }
            assert!(board["stack_used_bytes"].as_u64() <= board["stack_bytes"].as_u64(), "{board}");
            board["prompt_instructions"].as_u64().unwrap_or(0)
        });
        println!(
            "{n_parameters} parameters in {weights}: {sizes}, {ram_bytes} bytes of RAM with the stack; {instructions:?} instructions"
        );
        assert!(ram_bytes <= RAM_BYTES, "{ram_bytes} bytes of RAM");
    }
}
