//! The examples of firmware around the device library, in the emulator: they write what the host writes.

use std::path::Path;
use std::process::{Command, Output};

use siskin_e2e::Program;

const BOARD: &str = "mps2-an386";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
const BOARDS_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards");

fn xtask(args: &[&str]) -> Output {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(BOARDS_DIR).parent().expect("the repository's root");
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--package", "xtask", "--"]).args(args).current_dir(root);
    command.output().expect("cargo xtask")
}

/// Builds an example, runs it, and gives what it said.
fn said(program: &Program, name: &str, model: Option<&Path>) -> String {
    let elf = program.path(&format!("{name}.elf")).display().to_string();
    let model = model.map(|path| path.display().to_string());
    let mut args = vec!["example", name, "--out", &elf];
    args.extend(model.iter().flat_map(|path| ["--model", path.as_str()]));
    let built = xtask(&args);
    assert!(built.status.success(), "{name}: {}", String::from_utf8_lossy(&built.stderr));
    let run_dir = program.path(&format!("run-{name}")).display().to_string();
    let output = xtask(&["emulate", "--board", BOARD, "--elf", &elf, "--run-dir", &run_dir]);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{name}: {said}");
    said
}

#[test]
fn bare_metal_embassy_and_rtic_write_what_the_host_writes() {
    let program = Program::new();
    let host = program.json(&["run", MODEL, "--prompt", "ROMEO:", "--greedy", "--max-new-tokens", "48"]);
    let host = host["text"].as_str().expect("a text");
    assert_eq!(said(&program, "bare-metal", None), host);

    let embassy = said(&program, "embassy", None);
    let rest = embassy.strip_prefix(host).unwrap_or_else(|| panic!("{embassy}"));
    assert_eq!(rest, "\n48 tokens, and 48 turns of other work\n");

    let rtic = said(&program, "rtic", None);
    let rest = rtic.strip_prefix(host).unwrap_or_else(|| panic!("{rtic}"));
    let n_ticks = rest.strip_prefix("\n48 tokens, interrupted ").and_then(|rest| rest.strip_suffix(" times\n"));
    assert!(n_ticks.and_then(|n_ticks| n_ticks.parse::<u32>().ok()).is_some_and(|n_ticks| n_ticks > 0), "{rest}");
}

#[test]
fn pins_do_what_the_model_says_within_its_grammar() {
    let program = Program::new();
    let grammar = Path::new(BOARDS_DIR).join("examples/leds.gbnf").display().to_string();
    let compile = ["compile", MODEL, "--board", BOARD, "--boards-dir", BOARDS_DIR, "--grammar", &grammar];
    program.text(&[&compile[..], &["-o", "leds.siskin"]].concat());
    let said = said(&program, "leds", Some(&program.path("leds.siskin")));
    let (mut leds, mut n_lit) = (0, 0);
    for (seed, line) in said.lines().enumerate() {
        let seed = seed.to_string();
        let flags = ["--prompt", "PAGE:", "--temperature", "1", "--seed", &seed, "--max-new-tokens", "16"];
        let host = program.json(&[&["run", "leds.siskin"], &flags[..]].concat());
        let command = host["text"].as_str().expect("a text");
        leds = match command {
            "on 0" => leds | 1,
            "on 1" => leds | 2,
            "off 0" => leds & !1,
            "off 1" => leds & !2,
            other => panic!("{other}"),
        };
        n_lit += usize::from(leds != 0);
        assert_eq!(line, format!("{command}: {leds:02b}"), "{said}");
    }
    assert_eq!(said.lines().count(), 8, "{said}");
    assert!(n_lit > 0, "{said}");
}
