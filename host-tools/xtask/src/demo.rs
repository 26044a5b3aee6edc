//! `cargo xtask demo`: from a text to an emulated microcontroller that continues it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{corpus, data, repo};

const BOARD: &str = "mps2-an386";
/// Bytes of the corpus that stands in for the plays.
const CORPUS_BYTES: usize = 1_000_000;

/// Trains, compiles, plans and runs.
pub fn run() -> Result<()> {
    let (text, prompt) = text()?;
    let siskin = repo::release_siskin()?;
    let out = repo::root().join("runs/demo");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    repo::announce("training a small model, about two minutes");
    let mut train = siskin_command(&siskin, &["train", "recipes/demo.toml", "--set"]);
    repo::run(train.arg(format!("data.text={:?}", text.display().to_string())).arg("--out").arg(&out))?;

    let packed = out.join("demo.siskin");
    repo::announce("packing it to int8 for the board");
    let mut compile = siskin_command(&siskin, &["compile"]);
    repo::run(compile.arg(&out).args(["--board", BOARD, "--weights", "int8", "-o"]).arg(&packed))?;
    repo::announce("does it fit?");
    repo::run(siskin_command(&siskin, &["plan"]).arg(&packed).args(["--board", BOARD]))?;
    repo::announce("running it on the emulated Cortex-M4");
    let generation = ["--prompt", prompt, "--max-new-tokens", "120", "--temperature", "0.8", "--seed", "1"];
    repo::run(siskin_command(&siskin, &["board", "run", BOARD]).arg(&packed).args(generation))
}

fn siskin_command(siskin: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(siskin);
    command.args(args).current_dir(repo::root());
    command
}

/// The text to train on, and a prompt that suits it.
fn text() -> Result<(PathBuf, &'static str)> {
    match data::shakespeare() {
        Ok(text) => Ok((text, "ROMEO:\nWhat light")),
        Err(error) => {
            eprintln!(
                "the plays cannot be fetched: {error:#}\nthe demo trains on a corpus from its own grammar instead"
            );
            let text = repo::cache().join("data/generated/stories.txt");
            fs::create_dir_all(text.parent().expect("the file is in a folder"))?;
            fs::write(&text, corpus::generate(CORPUS_BYTES))?;
            Ok((text, "On a quiet morning the siskin"))
        }
    }
}
