//! The same packed model, prompt, sampling and seed give the same tokens and the same logits, bit for bit, everywhere: on the
//! host with every kernel and number of threads, and on every emulated board whose RAM holds the model; `every_board` has smaller ones of
//! every family for all. The prompts are the files of golden/prompts.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use siskin_e2e::Program;

const GREEDY: [&str; 1] = ["--greedy"];
const SEEDED: [&str; 8] = ["--temperature", "0.9", "--top-k", "40", "--top-p", "0.95", "--seed", "20260412"];

/// Every filter, penalty and bias, but mirostat.
const FILTERED: [&str; 20] = [
    "--temperature",
    "1.3",
    "--typical-p",
    "0.9",
    "--min-p",
    "0.01",
    "--repetition-penalty",
    "1.1",
    "--frequency-penalty",
    "0.3",
    "--presence-penalty",
    "0.2",
    "--top-p",
    "0.97",
    "--ban",
    " the",
    "--logit-bias",
    "10=-2.5",
    "--seed",
    "7",
];
const STEERED: [&str; 6] = ["--temperature", "1.2", "--mirostat-tau", "4", "--mirostat-eta", "0.2"];

/// A file and its contents.
type Prompt = (String, String);

fn prompts() -> Vec<Prompt> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/prompts");
    let mut files: Vec<PathBuf> = dir.read_dir().expect("the prompts").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let read = |file: &PathBuf| (file.display().to_string(), fs::read_to_string(file).expect("a prompt in UTF-8"));
    files.iter().map(read).collect()
}

fn boards_dir() -> String {
    format!("{}/../../boards", env!("CARGO_MANIFEST_DIR"))
}

/// What recipes/shakespeare-260k.toml gives, packed in int8 for netduinoplus2: it fills the smallest board's RAM.
fn model() -> String {
    format!("{}/../golden/shakespeare-260k.siskin", env!("CARGO_MANIFEST_DIR"))
}

/// Everything that must agree.
fn same(reply: &Value) -> [&Value; 5] {
    ["text", "tokens", "n_prompt_tokens", "logits_hash", "end"].map(|key| &reply[key])
}

fn every_case(mut check: impl FnMut(&str, &[&str])) {
    let prompts = prompts();
    assert!(prompts.len() >= 20, "only {} prompts", prompts.len());
    for (idx, (name, prompt)) in prompts.iter().enumerate() {
        // The rarer settings take their turns, to bound the time.
        let rarer = [&FILTERED[..], &STEERED][idx % 2];
        let samplings = [&GREEDY[..], &SEEDED, rarer];
        for &sampling in &samplings[..if idx % 4 < 2 { 3 } else { 2 }] {
            let case = [&["--prompt", prompt, "--max-new-tokens", "64"], sampling].concat();
            check(name, &case);
        }
    }
}

#[test]
fn every_kernel_and_thread_count_agrees_on_the_host() {
    let program = Program::new();
    let file = model();
    every_case(|name, case| {
        let run = |flags: &[&str]| program.json(&[&["run", &file], case, flags].concat());
        let want = run(&["--kernels", "generic"]);
        for flags in [&["--threads", "1"][..], &["--threads", "2"]] {
            assert_eq!(same(&run(flags)), same(&want), "{name} {flags:?}");
        }
    });
}

fn board_agrees_with_the_host(board: &str) {
    let program = Program::new();
    let boards_dir = boards_dir();
    // In the order of bytes that the board's core reads.
    program.text(&["compile", &model(), "--board", board, "--boards-dir", &boards_dir, "-o", "model.siskin"]);
    let file = "model.siskin";
    program.text(&["board", "build", board, file, "--boards-dir", &boards_dir, "-o", "firmware.elf"]);
    every_case(|name, case| {
        let want = program.json(&[&["run", file], case].concat());
        let run = ["board", "run", board, file, "--boards-dir", &boards_dir, "--elf", "firmware.elf"];
        let got = program.json(&[&run, case].concat());
        assert_eq!(same(&got), same(&want), "{name} on {board}");
        let counted = got["instructions"].as_array().map_or(0, Vec::len);
        assert_eq!(Some(counted), got["tokens"].as_array().map(Vec::len), "{name} on {board}");
        assert!(got["stack_used_bytes"].as_u64() <= got["stack_bytes"].as_u64(), "{name} on {board}: {got}");
    });
}

#[test]
fn aarch64_virt_agrees_with_the_host() {
    board_agrees_with_the_host("aarch64-virt");
}

#[test]
fn mps2_an386_agrees_with_the_host() {
    board_agrees_with_the_host("mps2-an386");
}

#[test]
fn mps2_an500_agrees_with_the_host() {
    board_agrees_with_the_host("mps2-an500");
}

#[test]
fn mps2_an505_agrees_with_the_host() {
    board_agrees_with_the_host("mps2-an505");
}

#[test]
fn mps3_an547_agrees_with_the_host() {
    board_agrees_with_the_host("mps3-an547");
}

#[test]
fn netduinoplus2_agrees_with_the_host() {
    board_agrees_with_the_host("netduinoplus2");
}

#[test]
fn raspi3b_agrees_with_the_host() {
    board_agrees_with_the_host("raspi3b");
}

#[test]
fn riscv32_virt_agrees_with_the_host() {
    board_agrees_with_the_host("riscv32-virt");
}

#[test]
fn riscv32_virt_v_agrees_with_the_host() {
    board_agrees_with_the_host("riscv32-virt-v");
}

#[test]
fn riscv64_virt_agrees_with_the_host() {
    board_agrees_with_the_host("riscv64-virt");
}
