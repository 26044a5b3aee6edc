//! The boards of the repository: what is listed, and what an emulated one replies.

use std::process::{Command, Stdio};

use siskin_e2e::{Program, assert_keys, fixture};

const BOARDS_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards");
const BOARD: &str = "netduinoplus2";

#[test]
fn every_board_is_listed_with_its_limits() {
    let program = Program::new();
    let reply = program.json(&["board", "list", "--boards-dir", BOARDS_DIR]);
    assert_keys(&reply, "boards");
    let boards = reply["boards"].as_array().unwrap();
    let names: Vec<&str> = boards.iter().map(|board| board["name"].as_str().unwrap()).collect();
    let mut folders: Vec<String> = std::fs::read_dir(BOARDS_DIR)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().join("board.toml").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(names, folders);
    boards
        .iter()
        .for_each(|board| assert_keys(board, "name flash_bytes ram_bytes code_bytes static_ram_bytes stack_bytes"));
}

#[test]
fn an_emulated_board_writes_what_the_host_writes() {
    let qemu = Command::new("qemu-system-arm").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if qemu.is_err() {
        println!("skipped: there is no qemu-system-arm; `cargo xtask test` finds or installs it");
        return;
    }
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 8);
    let board = ["--boards-dir", BOARDS_DIR];
    let compiled = program.json(&[&["compile", "model", "--board", BOARD, "-o", "packed.siskin"], &board[..]].concat());
    let flags =
        ["packed.siskin", "--prompt", "The siskin — マヒワ", "--max-new-tokens", "24", "--stop", "@@", "--seed", "3"];
    let host = program.json(&[&["run"], &flags[..]].concat());
    let run = program.json(&[&["board", "run", BOARD], &flags[..], &board].concat());
    for key in ["text", "tokens", "n_prompt_tokens", "logits_hash", "end"] {
        assert_eq!(run[key], host[key], "{key}");
    }
    assert_keys(
        &run,
        "text tokens n_prompt_tokens logits_hash end instructions draw_instructions prompt_instructions flash_bytes ram_bytes stack_bytes \
         stack_used_bytes",
    );
    assert_eq!(run["instructions"].as_array().unwrap().len(), run["tokens"].as_array().unwrap().len());
    // What was measured is within what was promised.
    for bytes in ["flash_bytes", "ram_bytes", "stack_bytes"] {
        assert!(run[bytes].as_u64().unwrap() <= compiled[bytes].as_u64().unwrap(), "{bytes}: {run} {compiled}");
    }
    assert!(run["stack_used_bytes"].as_u64().unwrap() <= run["stack_bytes"].as_u64().unwrap(), "{run}");

    let elf = ["-o", "firmware.elf"];
    let built = program.json(&[&["board", "build", BOARD, "packed.siskin"], &elf[..], &board].concat());
    assert_keys(&built, "board elf flash_bytes ram_bytes stack_bytes code_bytes static_ram_bytes");
    assert!(program.path("firmware.elf").exists());
}

#[test]
fn what_cannot_go_onto_a_board_is_refused() {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 9);
    program.text(&["compile", "model", "--board", "host", "-o", "packed.siskin"]);
    program.fails(
        &["board", "run", "moon", "packed.siskin", "--prompt", "a", "--boards-dir", BOARDS_DIR],
        3,
        &["moon"],
    );
    program.fails(&["board", "build", "netduinoplus2", "model", "--boards-dir", BOARDS_DIR], 3, &["model"]);
}
