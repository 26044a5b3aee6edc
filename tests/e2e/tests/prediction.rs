//! What `siskin plan` says of instructions, against what emulated boards count; and what it makes of a clock.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use siskin_e2e::device::boards_dir;
use siskin_e2e::fixture::{Shape, write_checkpoint, write_shape};
use siskin_e2e::{Program, assert_keys};

/// Heads of 12 that share a key head, and widths that no layout divides: no board's costs were fitted to it.
const ODD: Shape =
    Shape { dim: 84, hidden_dim: 150, n_layers: 3, n_heads: 7, n_kv_heads: 1, context_len: 48, n_merges: 8 };

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Whether a prediction is within five per cent of a count.
fn agrees(what: &str, predicted: &Value, counted: f64) {
    let off = number(predicted) / counted - 1.0;
    assert!(off.abs() < 0.05, "{what}: {predicted} predicted, {counted} counted");
}

fn is_predicted(board: &str, weights: &str) {
    let program = Program::new();
    write_shape(&program.path("model"), 21, &ODD);
    let dir = boards_dir();
    let flags = ["--board", board, "--boards-dir", &dir];
    program.text(&[&["compile", "model", "--weights", weights, "-o", "packed.siskin"], &flags[..]].concat());
    let run = ["board", "run", board, "packed.siskin", "--boards-dir", &dir, "--prompt", "a siskin sings"];
    let run = program.json(&[&run[..], &["--greedy", "--max-new-tokens", "30"]].concat());
    let counts: Vec<f64> = run["instructions"].as_array().expect("a list").iter().map(number).collect();
    let n_prompt_tokens = run["n_prompt_tokens"].as_u64().expect("a number");
    // Of each token but the first, which is drawn from the prompt's own prediction.
    assert!(counts.len() > 2, "{run}");
    let last = n_prompt_tokens + counts.len() as u64 - 2;
    let plan = |position: u64| {
        let (position, prompt) = (position.to_string(), n_prompt_tokens.to_string());
        let asked = ["plan", "packed.siskin", "--position", &position, "--prompt-tokens", &prompt];
        let plan = program.json(&[&asked[..], &flags].concat());
        assert_keys(&plan["prediction"], "counted_on prompt_tokens prompt first_token mean_token at_position");
        assert_keys(&plan["prediction"]["at_position"], "position instructions");
        plan["prediction"].clone()
    };
    let (early, late) = (plan(n_prompt_tokens), plan(last));
    agrees("the second token", &early["at_position"]["instructions"], counts[1]);
    agrees("the last token", &late["at_position"]["instructions"], counts[counts.len() - 1]);
    agrees("the prompt", &late["prompt"], number(&run["prompt_instructions"]));
}

#[test]
fn instructions_are_predicted_within_five_per_cent() {
    let qemu = Command::new("qemu-system-arm").arg("--version").stdout(Stdio::null()).status();
    if qemu.is_err() {
        println!("skipped: there is no qemu-system-arm; `cargo xtask test` finds or installs it");
        return;
    }
    is_predicted("mps2-an386", "int8");
}

/// Boards as they are, but that of one somebody says what it draws.
fn boards_dir_with_power(program: &Program) -> String {
    let power = "[speed.power]\nmilliamperes = 40.0\nvolts = 3.3\nsource = \"a meter\"\n\n[instructions]";
    for (board, file) in [
        ("netduinoplus2", "board.toml"),
        ("stm32h743", "board.toml"),
        ("mps2-an386", "board.toml"),
        ("mps2-an386", "costs.toml"),
    ] {
        let text = std::fs::read_to_string(Path::new(&boards_dir()).join(board).join(file)).expect("a board's file");
        let text = if board == "netduinoplus2" { text.replace("[instructions]", power) } else { text };
        std::fs::create_dir_all(program.path("boards").join(board)).expect("a folder");
        std::fs::write(program.path("boards").join(board).join(file), text).expect("a file");
    }
    program.path("boards").display().to_string()
}

#[test]
fn time_and_energy_are_estimates_at_a_clock() {
    let program = Program::new();
    write_checkpoint(&program.path("model"), 22);
    let dir = boards_dir_with_power(&program);
    let plan = |board: &str, extra: &[&str]| {
        program.json(&[&["plan", "model", "--boards-dir", &dir, "--board", board], extra].concat())
    };
    let full = plan("netduinoplus2", &[]);
    assert_eq!(full["prediction"]["counted_on"], "mps2-an386");
    let speed = &full["speed"];
    assert_keys(
        speed,
        "estimate clock_hz cycles_per_instruction cycles_source tokens_per_second prompt_seconds microjoules_per_token milliamperes \
         power_source",
    );
    assert_eq!((&speed["estimate"], &speed["clock_hz"]), (&Value::from(true), &Value::from(168_000_000)));
    // Milliamperes by volts for as long as a token takes.
    let microjoules = 40.0 * 3.3 * 1e3 / number(&speed["tokens_per_second"]);
    assert!((number(&speed["microjoules_per_token"]) / microjoules - 1.0).abs() < 1e-6, "{speed}");
    let cycles = number(&full["prediction"]["mean_token"]) * number(&speed["cycles_per_instruction"]);
    assert!((number(&speed["tokens_per_second"]) * cycles / 168e6 - 1.0).abs() < 1e-6, "{speed}");

    let half = plan("netduinoplus2", &["--clock", "84MHz"]);
    let ratio = number(&speed["tokens_per_second"]) / number(&half["speed"]["tokens_per_second"]);
    assert!((ratio - 2.0).abs() < 1e-6);

    // Nobody has said what this one draws, and no clock means anything to a machine that is none.
    let silent = plan("stm32h743", &[]);
    assert!(silent["speed"]["estimate"] == true && silent["speed"]["microjoules_per_token"].is_null(), "{silent}");
    assert!(plan("mps2-an386", &[])["speed"].is_null());
    let refused = |extra: &[&str], words: &[&str]| {
        let args = ["plan", "model", "--boards-dir", &dir, "--board", "mps2-an386"];
        program.fails(&[&args, extra].concat(), 2, words);
    };
    refused(&["--clock", "25MHz"], &["[speed]"]);
    refused(&["--clock", "fast"], &["168MHz"]);
    refused(&["--position", "64"], &["the context has 64"]);
}
