//! Proof that a model fits a board, and what is said when it does not. The boards here are made up; their limits are exact.

use serde_json::Value;
use siskin_e2e::{Program, assert_keys, fixture};

const CODE_BYTES: u64 = 30_000;
const STATIC_RAM_BYTES: u64 = 500;
const STACK_BYTES: u64 = 2_000;

/// Writes a board with these limits.
fn add_board(program: &Program, name: &str, flash_bytes: u64, ram_bytes: u64) {
    let folder = format!("boards/{name}");
    std::fs::create_dir_all(program.path(&folder)).unwrap();
    let board = format!(
        "[target]\nlayout = \"row-pairs\"\n\n[memory]\nflash_bytes = {flash_bytes}\nram_bytes = {ram_bytes}\n\n[firmware]\n\
         code_bytes = {CODE_BYTES}\nstatic_ram_bytes = {STATIC_RAM_BYTES}\nstack_bytes = {STACK_BYTES}\n"
    );
    program.write(&format!("{folder}/board.toml"), board);
}

fn number(reply: &Value, key: &str) -> u64 {
    reply[key].as_u64().unwrap_or_else(|| panic!("{key} is no number in {reply}"))
}

#[test]
fn a_board_that_is_one_byte_short_is_short_of_one_byte() {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 2);
    add_board(&program, "large", 1 << 20, 1 << 20);
    let large = program.json(&["plan", "model", "--board", "large"]);
    assert_eq!(large["fits"], true);
    let (flash, ram) = (number(&large, "flash_bytes"), number(&large, "ram_bytes"));
    assert_eq!(number(&large, "stack_bytes"), STACK_BYTES);
    for (part, bytes) in [("flash_parts", CODE_BYTES), ("ram_parts", STATIC_RAM_BYTES)] {
        assert_eq!(large[part][0]["bytes"], bytes);
    }

    add_board(&program, "exact", flash, ram + STACK_BYTES);
    assert_eq!(program.json(&["plan", "model", "--board", "exact"])["fits"], true);

    add_board(&program, "little-flash", flash - 1, ram + STACK_BYTES);
    let out = ["-o", "x.siskin"];
    for (command, out) in [("plan", &[][..]), ("compile", &out)] {
        let args = [&[command, "model", "--board", "little-flash"], out].concat();
        let words = [flash.to_string(), (flash - 1).to_string(), "1 short".to_owned(), "what would help".to_owned()];
        let outcome = program.fails(&args, 4, &words.each_ref().map(String::as_str));
        let reply = outcome.json();
        assert_eq!(
            (number(&reply, "flash_bytes"), number(&reply, "flash_limit_bytes"), number(&reply, "flash_short_bytes")),
            (flash, flash - 1, 1)
        );
        assert_eq!((&reply["fits"], number(&reply, "ram_short_bytes")), (&Value::from(false), 0));
    }
    assert!(!program.path("x.siskin").exists());
}

#[test]
fn the_context_that_is_offered_fits() {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 3);
    add_board(&program, "large", 1 << 20, 1 << 20);
    let shortest = number(&program.json(&["plan", "model", "--board", "large", "--context", "1"]), "ram_bytes");
    // Room for a few positions beyond the first, and for a prefill batch of one token.
    add_board(&program, "tiny", 1 << 20, shortest);

    let outcome = program.fails(&["compile", "model", "--board", "tiny", "-o", "x.siskin"], 4, &["RAM needs"]);
    let reply = outcome.json();
    assert_keys(
        &reply,
        "error exit_code board fits flash_bytes ram_bytes stack_bytes flash_limit_bytes ram_limit_bytes flash_parts ram_parts \
         flash_short_bytes ram_short_bytes remedies",
    );
    let short = number(&reply, "ram_bytes") + number(&reply, "stack_bytes") - number(&reply, "ram_limit_bytes");
    assert_eq!(number(&reply, "ram_short_bytes"), short);

    let remedy = reply["remedies"][0].as_str().unwrap();
    let context = remedy.split("--context ").nth(1).unwrap().split('`').next().unwrap();
    program.text(&["compile", "model", "--board", "tiny", "-o", "x.siskin", "--context", context]);
    let longer = (context.parse::<usize>().unwrap() + 1).to_string();
    program.fails(&["compile", "model", "--board", "tiny", "-o", "y.siskin", "--context", &longer], 4, &[]);
}

#[test]
fn a_file_for_a_board_runs_on_the_host_with_the_same_bits() {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 4);
    add_board(&program, "large", 1 << 20, 1 << 20);
    for (board, out) in [("large", "board.siskin"), ("host", "host.siskin")] {
        program.text(&["compile", "model", "--board", board, "--weights", "int8", "-o", out]);
    }
    assert_eq!(program.json(&["inspect", "board.siskin"])["layout"], "row-pairs");
    let run = |file| program.json(&["run", file, "--prompt", "The alder", "--seed", "3", "--max-new-tokens", "30"]);
    assert_eq!(run("board.siskin"), run("host.siskin"));

    // A packed file is laid out anew for another board, to the same bytes as if it had been compiled for it.
    program.text(&["compile", "host.siskin", "--board", "large", "-o", "again.siskin"]);
    let bytes = |name| std::fs::read(program.path(name)).unwrap();
    assert!(bytes("again.siskin") == bytes("board.siskin"));
}

#[test]
fn boards_that_are_not_there_are_told() {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 5);
    add_board(&program, "large", 1 << 20, 1 << 20);
    let plan = |board, extra: &[&str], words: &[&str]| {
        program.fails(&[&["plan", "model", "--board", board], extra].concat(), 3, words);
    };
    plan("small", &[], &["small", "there are: large, host"]);
    plan("../boards/large", &[], &["there is no such board"]);
    plan("large", &["--boards-dir", "nowhere"], &["nowhere", "--boards-dir"]);
    program.write("boards/large/board.toml", "[target]\nlayout = \"spiral\"\n");
    plan("large", &[], &["board.toml"]);
}
