//! `cargo xtask bench grammar`: many hot texts within a JSON schema, written by an emulated board over its serial line: each is the host's,
//! and valid by another's reading of the schema.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{page, peers};
use crate::board::Board;
use crate::firmware::{self, App};
use crate::repo;

const MODEL: &str = "tests/golden/shakespeare-260k.siskin";
const SCHEMA: &str = "tests/golden/reply.schema.json";
const PROMPT: &str = "Speak:";
/// Far above what a model is usually drawn at: without the grammar, noise.
const TEMPERATURE: &str = "1.5";
/// The schema's longest text has fewer.
const MAX_NEW_TOKENS: &str = "90";

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// The emulated board, one that talks over a serial line.
    #[arg(long, default_value = "mps2-an386")]
    board: String,
    /// Texts, of seeds from 0 on.
    #[arg(long, default_value_t = 10_000)]
    texts: u64,
    /// Print, and leave boards/BENCH.md as it is.
    #[arg(long)]
    dry_run: bool,
}

/// Has the board write the texts, compares and validates them.
pub fn run(args: &Args) -> Result<()> {
    let siskin = repo::release_siskin()?;
    let requirements = repo::root().join("tests/oracles/requirements-grammar.txt");
    let python = peers::python_with("jsonschema-python", "jsonschema", &requirements)?;
    let board = Board::load(&args.board)?;
    let out = repo::root().join("runs/bench-grammar");
    let (packed, elf, texts) = (out.join("held.siskin"), out.join("serial.elf"), out.join("texts.jsonl"));
    let siskin = || {
        let mut command = Command::new(&siskin);
        command.current_dir(repo::root());
        command
    };
    let compile = ["compile", MODEL, "--board", &args.board, "--grammar", SCHEMA, "-o"];
    repo::run(siskin().args(compile).arg(&packed))?;
    firmware::build(&board, Some(&packed), Some(App::Serial), &elf)?;

    repo::announce(&format!("{} texts on {}", args.texts, args.board));
    let mut check = siskin();
    check.args(["device", "check"]).arg(&packed).args(["--qemu", &args.board, "--elf"]).arg(&elf);
    check.args(["--prompt", PROMPT, "--temperature", TEMPERATURE, "--max-new-tokens", MAX_NEW_TOKENS]);
    check.args(["--texts", &args.texts.to_string(), "--format", "json", "--out"]).arg(&texts);
    let reply: Value = serde_json::from_str(&repo::output(check.stderr(std::process::Stdio::inherit()))?)?;
    let validate = repo::output(Command::new(python).arg(repo::root().join("tests/oracles/grammar.py")).arg(&texts))?;
    let count = |key: &str| reply.get(key).and_then(Value::as_u64).with_context(|| format!("the reply has no {key}"));
    let body = format!(
        "Written by `cargo xtask bench grammar`. The golden 260K model on {}, at temperature {TEMPERATURE} within `{SCHEMA}`:\n\
         {} texts of {} tokens over the serial line, {} of them different. Each has the host's tokens, logits and end.\n\
         By the Python package jsonschema: {}.\n",
        args.board,
        count("n_texts")?,
        count("n_tokens")?,
        count("n_distinct")?,
        validate.trim(),
    );
    println!("{body}");
    if args.dry_run { Ok(()) } else { page::BOARDS.replace_section("Within a grammar", &body) }
}
