//! Grammars from the command line: what keeps to one on the host keeps to it on a board, with the same bits; what one costs there.

use siskin_e2e::Program;

const BOARDS_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards");
const BOARD: &str = "mps2-an386";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/reply.schema.json");
const N_SEEDS: usize = 12;
/// Most that a grammar may add to a token, in hundredths.
const COST_MAX: u64 = 8;

/// What the schema asks for, looked at member by member.
fn assert_valid(text: &str) {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let members = value.as_object().expect("an object");
    let is_one_of = |names: &[&str], name: &str| names.contains(&name);
    assert!(members.keys().all(|key| is_one_of(&["who", "says", "mood", "to"], key)), "{text}");
    assert!(is_one_of(&["Romeo", "Juliet", "Nurse"], value["who"].as_str().expect("a name")), "{text}");
    assert!(value["says"].as_str().expect("words").chars().count() <= 12, "{text}");
    assert!(matches!(value["to"].as_array().expect("a list").len(), 1..=3), "{text}");
    assert!(value["mood"].is_null() || value["mood"].is_i64(), "{text}");
}

#[test]
fn a_board_keeps_to_the_same_grammar_with_the_same_bits() {
    let program = Program::new();
    let boards = ["--boards-dir", BOARDS_DIR];
    let compile = |grammar: &[&str], out: &str| {
        program.text(&[&["compile", MODEL, "--board", BOARD, "-o", out], &boards[..], grammar].concat());
    };
    compile(&["--grammar", SCHEMA], "held.siskin");
    compile(&[], "free.siskin");
    program.text(&[&["board", "build", BOARD, "held.siskin", "-o", "held.elf"], &boards[..]].concat());
    program.text(&[&["board", "build", BOARD, "free.siskin", "-o", "free.elf"], &boards[..]].concat());
    let instructions = |reply: &serde_json::Value, n: usize| -> u64 {
        let steps = reply["instructions"].as_array().expect("counts");
        steps[1..n].iter().filter_map(serde_json::Value::as_u64).sum()
    };
    let (mut held_total, mut free_total, mut n_tokens) = (0, 0, 0);
    for seed in 0..N_SEEDS {
        let seed = seed.to_string();
        let flags = ["--prompt", "Speak:", "--temperature", "1.5", "--seed", &seed, "--max-new-tokens", "90"];
        let host = program.json(&[&["run", "held.siskin"], &flags[..]].concat());
        let given = program.json(&[&["run", "free.siskin", "--grammar", SCHEMA], &flags[..]].concat());
        let elf = |name: &str| {
            let file = format!("{name}.siskin");
            let elf = format!("{name}.elf");
            program.json(&[&["board", "run", BOARD, &file, "--elf", &elf], &flags[..], &boards].concat())
        };
        let (held, free) = (elf("held"), elf("free"));
        for key in ["text", "tokens", "n_prompt_tokens", "logits_hash", "end"] {
            assert_eq!(held[key], host[key], "{key} of seed {seed}");
            assert_eq!(given[key], host[key], "{key} of seed {seed}");
        }
        assert_valid(host["text"].as_str().expect("a text"));
        // What a step costs depends on its position alone, so the same positions tell what the grammar adds.
        let n_both =
            [&held, &free].map(|reply| reply["tokens"].as_array().map_or(0, Vec::len)).into_iter().min().unwrap_or(0);
        held_total += instructions(&held, n_both);
        free_total += instructions(&free, n_both);
        n_tokens += n_both as u64 - 1;
    }
    let (held, free) = (held_total / n_tokens, free_total / n_tokens);
    println!("{BOARD}: {held} instructions a token within the grammar, {free} without, over {n_tokens} tokens");
    assert!(held <= free + free * COST_MAX / 100, "{held} instructions a token, {free} without the grammar");
}

#[test]
fn a_grammar_that_cannot_be_used_is_told() {
    let program = Program::new();
    program.write("bad.gbnf", b"root ::= \"a\" | other");
    program.write("bad.json", b"{\"type\": \"string\", \"format\": \"date\"}");
    program.write("long.gbnf", b"root ::= \"a\"{40}");
    let run = |grammar: &str, code: i32, words: &[&str]| {
        program.fails(&["run", MODEL, "--prompt", "x", "--max-new-tokens", "20", "--grammar", grammar], code, words);
    };
    run("bad.gbnf", 3, &["bad.gbnf", "the rule other is used but not defined"]);
    run("bad.json", 3, &["bad.json", "format is not supported"]);
    run("nowhere.gbnf", 3, &["nowhere.gbnf"]);
    run("long.gbnf", 3, &["40 tokens, but 20 can be drawn"]);
}
