//! The library for C: its example, built by a C compiler and run in the emulator, draws the host's tokens.

use std::path::Path;
use std::process::{Command, Output};

use siskin_e2e::Program;

const BOARD: &str = "mps2-an386";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");

fn xtask(args: &[&str]) -> Output {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository's root");
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--package", "xtask", "--"]).args(args).current_dir(root);
    command.output().expect("cargo xtask")
}

#[test]
fn the_example_in_c_draws_the_tokens_of_the_host() {
    let program = Program::new();
    let dir = program.path("c").display().to_string();
    let library = ["c-library", "--board", BOARD, "--out", &dir];
    let built = xtask(&library);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let built = xtask(&[&library[..], &["--example", MODEL]].concat());
    let said = String::from_utf8_lossy(&built.stderr);
    if said.contains("a C compiler for Cortex-M is ") {
        eprintln!("skipped: {said}");
        return;
    }
    assert!(built.status.success(), "{said}");

    let (elf, run_dir) = (format!("{dir}/example.elf"), program.path("run").display().to_string());
    let output = xtask(&["emulate", "--board", BOARD, "--elf", &elf, "--run-dir", &run_dir]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let drawn: Vec<u32> = said.lines().map(|line| line["token ".len()..].parse().expect("a number")).collect();
    let host = program.json(&["run", MODEL, "--prompt", "ROMEO:", "--greedy", "--max-new-tokens", "32"]);
    assert_eq!(host["tokens"], serde_json::json!(drawn));
}
