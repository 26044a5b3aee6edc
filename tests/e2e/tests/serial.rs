//! A model behind a serial line: what a board says there is what the host says, and noise on the line does no harm.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use siskin_e2e::fixture::write_lora;
use siskin_e2e::{Program, assert_keys};

const BOARD: &str = "mps2-an386";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
const BOARDS_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards");

fn xtask(args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(BOARDS_DIR).parent().expect("the repository's root");
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--package", "xtask", "--"]).args(args).current_dir(root);
    command
}

/// A folder with firmware that talks over the serial line, for `board` around the packed file `model`.
fn firmware(program: &Program, board: &str, model: &str) -> String {
    let elf = program.path(&format!("{board}.elf")).display().to_string();
    let built = xtask(&["firmware", "--board", board, "--app", "serial", "--model", model, "--out", &elf]).output();
    let built = built.expect("cargo xtask");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    elf
}

#[test]
fn a_device_says_what_the_host_says() {
    let program = Program::new();
    let elf = firmware(&program, BOARD, MODEL);
    let device = ["--qemu", BOARD, "--elf", &elf, "--boards-dir", BOARDS_DIR];
    let hello = program.json(&[&["device", "hello"], &device[..]].concat());
    assert_keys(&hello, "board model_bytes model_crc context_len frame_bytes");
    assert_eq!((&hello["board"], &hello["context_len"]), (&BOARD.into(), &256.into()));

    let random =
        ["--temperature", "0.9", "--top-k", "40", "--min-p", "0.02", "--presence-penalty", "0.5", "--seed", "7"];
    for flags in [&["--greedy"][..], &random, &["--mirostat-tau", "4", "--seed", "1"], &["--greedy", "--stop", "queen"]]
    {
        let flags = [&["--prompt", "ROMEO:", "--max-new-tokens", "40"], flags].concat();
        let told = program.json(&[&["device", "run"], &device[..], &flags].concat());
        let host = program.json(&[&["run", MODEL], &flags[..]].concat());
        assert_eq!(told, host, "{flags:?}");
    }
    // Longer than the context, and longer than the board's memory for a request.
    for (n_words, what) in [(300, "the context"), (3000, "the frame is too long for this device")] {
        let too_long = "O ".repeat(n_words);
        let refused = [&["device", "run"], &device[..], &["--prompt", &too_long]].concat();
        program.fails(&refused, 1, &["continue the prompt on the device", what]);
    }
    program.fails(&[&["device", "run"], &device[..], &["--prompt", "a", "--chat"]].concat(), 2, &["packed file"]);
}

#[test]
fn many_texts_of_a_device_are_compared_with_the_hosts() {
    let program = Program::new();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/reply.schema.json");
    let boards = ["--boards-dir", BOARDS_DIR];
    program
        .text(&[&["compile", MODEL, "--board", BOARD, "--grammar", schema, "-o", "held.siskin"], &boards[..]].concat());
    let elf = firmware(&program, BOARD, &program.path("held.siskin").display().to_string());
    let flags = ["--prompt", "Speak:", "--temperature", "1.5", "--max-new-tokens", "90", "--seed", "100"];
    let check =
        |file: &'static str| [&["device", "check", file, "--qemu", BOARD, "--elf", &elf], &boards[..], &flags].concat();
    let reply = program.json(&[&check("held.siskin")[..], &["--texts", "12", "-o", "texts.jsonl"]].concat());
    assert_keys(&reply, "n_texts n_tokens n_distinct");
    assert_eq!(reply["n_texts"], 12);
    let texts = std::fs::read_to_string(program.path("texts.jsonl")).expect("the device's texts");
    for (seed, line) in (100..).zip(texts.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).expect("an object a line");
        assert_keys(&line, "seed text tokens n_prompt_tokens logits_hash end");
        let text: serde_json::Value = serde_json::from_str(line["text"].as_str().expect("a text")).expect("JSON");
        assert_eq!((&line["seed"], text["who"].is_string()), (&seed.into(), true), "{line}");
    }
    assert_eq!(texts.lines().count(), 12);
    // The same model without the grammar is another file.
    program.fails(&check(MODEL), 3, &["CRC-32", "built around"]);
}

#[test]
fn adapters_and_a_soft_prompt_are_switched_between_without_a_reset() {
    let program = Program::new();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/adapters");
    write_lora(&program.path("sailor"), 4, 5, 64);
    let mut compile =
        vec!["compile".to_owned(), MODEL.into(), "--board".into(), BOARD.into(), "-o".into(), "m.siskin".into()];
    compile.extend(["--boards-dir".into(), BOARDS_DIR.into(), "--adapter=sailor=sailor".into()]);
    compile.extend(["poet", "legal", "soft"].map(|name| format!("--adapter={name}={golden}/{name}")));
    program.text(&compile.iter().map(String::as_str).collect::<Vec<_>>());
    let elf = firmware(&program, BOARD, &program.path("m.siskin").display().to_string());
    let device = ["--qemu", BOARD, "--elf", &elf, "--boards-dir", BOARDS_DIR];
    let asked = ["--prompt", "ROMEO:", "--greedy", "--max-new-tokens", "16"];
    let adapters = ["poet", "soft", "legal", "-", "sailor", "soft"].map(|name| format!("--adapter={name}"));
    let adapters: Vec<&str> = adapters.iter().map(String::as_str).collect();
    let check = [&["device", "check", "m.siskin", "--texts", "18"], &device[..], &asked, &adapters].concat();
    let reply = program.json(&check);
    assert_eq!((&reply["n_texts"], &reply["n_distinct"]), (&18.into(), &5.into()));
    let told = program.json(&[&["device", "run", "--adapter=legal"], &device[..], &asked].concat());
    assert_eq!(told, program.json(&[&["run", "m.siskin", "--adapter=legal"], &asked[..]].concat()));
    program.fails(&[&["device", "run", "--adapter=peot"], &device[..], &asked].concat(), 1, &["no adapter peot"]);
}

#[test]
fn noise_on_the_line_is_told_and_the_next_frame_is_served() {
    let program = Program::new();
    let elf = firmware(&program, BOARD, MODEL);
    let mut emulator = xtask(&["emulate", "--board", BOARD, "--elf", &elf, "--serial"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo xtask");
    // A greeting: version 1, variant 0, CRC-32, in COBS; then noise, a frame that is cut short, and a changed one.
    let hello = [0, 2, 1, 5, 0xbe, 0x23, 0xc2, 0x58, 0];
    let mut state = 1u32;
    let noise: Vec<u8> = (0..400)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let mut changed = hello;
    changed[5] ^= 4;
    let mut input = emulator.stdin.take().expect("piped");
    for bytes in [&noise[..], &[0], &hello[..6], &[0], &changed, &hello] {
        input.write_all(bytes).expect("the emulator reads");
    }
    input.flush().expect("the emulator reads");
    // The greeting's answer is the only event that holds the board's name behind a zero length of its variant.
    let (mut said, mut byte) = (Vec::new(), [0]);
    let mut output = emulator.stdout.take().expect("piped");
    let answer = b"\x0amps2-an386";
    while !said.windows(answer.len()).any(|bytes| bytes == answer) && output.read(&mut byte).is_ok_and(|n| n == 1) {
        said.push(byte[0]);
    }
    emulator.kill().expect("it runs");
    emulator.wait().expect("it was started");
    let damaged = b"a damaged frame: send it again";
    let n_damaged = said.windows(damaged.len()).filter(|bytes| bytes == damaged).count();
    assert!(n_damaged >= 3, "{n_damaged} in {:?}", String::from_utf8_lossy(&said));
    assert!(said.ends_with(answer), "{:?}", String::from_utf8_lossy(&said));
}
