//! Adapters from the command line: packed with a model or sent after it, the host and a board generate the same with them; what cannot be
//! used is named, and the firmware goes on.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use siskin_e2e::{Program, assert_keys};

const BOARDS_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards");
const BOARD: &str = "mps2-an386";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
const ADAPTERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/adapters");
const FLAGS: [&str; 7] = ["--prompt", "ROMEO:", "--max-new-tokens", "12", "--temperature", "1", "--seed=5"];

fn compile(program: &Program, adapters: &[&str], out: &str) {
    let flags: Vec<String> = adapters.iter().map(|name| format!("--adapter={name}={ADAPTERS}/{name}")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let compile = ["compile", MODEL, "--board", BOARD, "--boards-dir", BOARDS_DIR, "-o", out];
    program.text(&[&compile[..], &flags].concat());
}

fn assert_same(board: &Value, host: &Value, what: &str) {
    for key in ["text", "tokens", "n_prompt_tokens", "logits_hash", "end"] {
        assert_eq!(board[key], host[key], "{key} of {what}");
    }
}

fn emulate(elf: &Path, requests: &[&Path], run_dir: &Path) -> Output {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--package", "xtask", "--", "emulate", "--board", BOARD, "--elf"]).arg(elf);
    command.arg("--run-dir").arg(run_dir).current_dir(Path::new(BOARDS_DIR).parent().expect("the repository's root"));
    for request in requests {
        command.arg("--request").arg(request);
    }
    command.output().expect("cargo xtask")
}

#[test]
fn a_board_generates_what_the_host_does_with_each_adapter() {
    let program = Program::new();
    compile(&program, &["poet", "legal", "soft"], "m.siskin");
    let listed = program.json(&["inspect", "m.siskin"]);
    let adapters = listed["adapters"].as_array().expect("a list");
    adapters.iter().for_each(|adapter| assert_keys(adapter, "name bytes n_pairs rank n_virtual crc32"));
    let column = |key: &str| -> Vec<&Value> { adapters.iter().map(|adapter| &adapter[key]).collect() };
    assert_eq!(column("name"), ["poet", "legal", "soft"]);
    assert_eq!(column("n_pairs"), [10, 35, 0]);
    assert_eq!(column("rank"), [4, 6, 0]);
    assert_eq!(column("n_virtual"), [0, 0, 6]);

    let boards = ["--boards-dir", BOARDS_DIR];
    program.text(&[&["board", "build", BOARD, "m.siskin", "-o", "m.elf"], &boards[..]].concat());
    let plain = program.json(&[&["run", MODEL], &FLAGS[..]].concat());
    let mut hashes = Vec::new();
    for adapter in [&[][..], &["--adapter=poet"], &["--adapter=legal"], &["--adapter=soft"]] {
        let host = program.json(&[&["run", "m.siskin"], &FLAGS[..], adapter].concat());
        let generic = program.json(&[&["run", "m.siskin", "--kernels", "generic"], &FLAGS[..], adapter].concat());
        let run = ["board", "run", BOARD, "m.siskin", "--elf", "m.elf"];
        let board = program.json(&[&run, &FLAGS[..], adapter, &boards].concat());
        assert_same(&generic, &host, &format!("{adapter:?} with generic kernels"));
        assert_same(&board, &host, &format!("{adapter:?} on {BOARD}"));
        hashes.push(host["logits_hash"].clone());
    }
    assert_eq!(hashes[0], plain["logits_hash"]);
    let mut distinct: Vec<String> = hashes.iter().map(Value::to_string).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{hashes:?}");

    // An unknown name is told on both; the firmware serves the next request as if nothing had been.
    program.fails(
        &[&["run", "m.siskin", "--adapter", "peot"], &FLAGS[..]].concat(),
        3,
        &["\"peot\"; it has poet, legal, soft"],
    );
    let run = ["board", "run", BOARD, "m.siskin", "--elf", "m.elf", "--run-dir"];
    let bad = [&run[..], &["bad", "--adapter", "peot"], &FLAGS, &boards].concat();
    program.fails(&bad, 1, &["the model has no adapter peot"]);
    program.json(&[&run[..], &["good", "--adapter", "poet"], &FLAGS, &boards].concat());
    let request = |run_dir: &str| program.path(run_dir).join("siskin-request.bin");
    let (bad, good) = (request("bad"), request("good"));
    let output = emulate(&program.path("m.elf"), &[&bad, &good, &bad], &program.path("three"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.lines().filter(|line| *line == "error the model has no adapter peot").count(), 2, "{said}");
    let hash = format!("hash {}", hashes[1].as_str().expect("a hash"));
    assert_eq!(said.lines().filter(|line| *line == hash).count(), 1, "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
}

#[test]
fn an_adapter_sent_to_a_device_is_as_one_packed_with_its_model() {
    let program = Program::new();
    compile(&program, &[], "plain.siskin");
    compile(&program, &["poet"], "poet.siskin");
    let folder = format!("{ADAPTERS}/poet");
    let make = ["adapter", &folder, "--for", "plain.siskin", "-o", "poet.siskin-adapter"];
    let made = program.json(&make);
    assert_keys(&made, "out name bytes n_pairs rank n_virtual crc32");
    let packed = program.json(&[&["run", "poet.siskin", "--adapter", "poet"], &FLAGS[..]].concat());
    let sent = ["--adapter-file", "poet.siskin-adapter"];
    let host = program.json(&[&["run", "plain.siskin"], &sent[..], &FLAGS].concat());
    assert_same(&host, &packed, "a file of its own");
    let boards = ["--boards-dir", BOARDS_DIR];
    let run = ["board", "run", BOARD, "plain.siskin", "--run-dir", "run"];
    let board = program.json(&[&run[..], &sent, &FLAGS, &boards].concat());
    assert_same(&board, &packed, "a file sent to a board");

    // Damaged on the way; then one for another core, whose order of bytes takes more.
    let elf = Path::new(BOARDS_DIR).parent().expect("the repository's root");
    let elf = elf.join(format!("target/firmware/{BOARD}-plain.elf"));
    let adapter = program.path("run").join("siskin-adapter.bin");
    let good = std::fs::read(&adapter).expect("what the board was sent");
    let mut damaged = good.clone();
    damaged[5000] ^= 1;
    program.text(&["compile", MODEL, "--board", "host", "-o", "host.siskin"]);
    program.text(&["adapter", &folder, "--for", "host.siskin", "-o", "host.siskin-adapter"]);
    let other = std::fs::read(program.path("host.siskin-adapter")).expect("the adapter");
    let cases = [
        (damaged, "error the adapter's checksum is wrong"),
        (other, "error siskin-adapter.bin is longer than the room"),
        (good, "hash "),
    ];
    for (bytes, wanted) in cases {
        std::fs::write(&adapter, bytes).expect("the run's folder");
        let request = program.path("run").join("siskin-request.bin");
        let output = emulate(&elf, &[&request], &program.path("run"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.lines().any(|line| line.starts_with(wanted)), "{wanted}: {said}");
    }
    let wrong = ["run", "host.siskin", "--adapter-file", "poet.siskin-adapter"];
    program.fails(&[&wrong[..], &FLAGS].concat(), 3, &["another order"]);
}
