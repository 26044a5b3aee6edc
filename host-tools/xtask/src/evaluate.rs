//! `cargo xtask evaluate`: the full recipe, trained and measured. Its last results are in recipes/RESULTS.md.

use std::process::Command;

use anyhow::Result;

use crate::{data, repo};

const BOARD: &str = "netduinoplus2";

/// Trains recipes/shakespeare-260k.toml, packs it, and evaluates both forms on the text that was held out.
pub fn run() -> Result<()> {
    data::shakespeare()?;
    let siskin = repo::release_siskin()?;
    let out = repo::root().join("runs/shakespeare-260k");
    let siskin = || {
        let mut command = Command::new(&siskin);
        command.current_dir(repo::root());
        command
    };
    repo::announce("training; a run that was interrupted goes on");
    let mut train = siskin();
    train.args(["train", "recipes/shakespeare-260k.toml", "--out"]).arg(&out);
    if out.exists() {
        train.arg("--resume");
    }
    repo::run(&mut train)?;
    let packed = out.join("shakespeare-260k.siskin");
    repo::run(siskin().arg("compile").arg(&out).args(["--board", BOARD, "--weights", "int8", "-o"]).arg(&packed))?;
    repo::announce("bits per byte of the held-out text, packed and in f32");
    let held_out = out.join("validation.txt");
    repo::run(siskin().arg("eval").arg(&packed).arg("--against").arg(&out).arg("--text").arg(&held_out))
}
