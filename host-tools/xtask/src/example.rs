//! `cargo xtask example`: firmware of one's own around the device library, from boards/examples.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::board::{Board, boards_dir};
use crate::toolchain::Toolchain;
use crate::{firmware, repo};

/// The board that the examples are for.
const BOARD: &str = "mps2-an386";

/// What to build.
#[derive(clap::Args)]
pub struct Args {
    /// One of boards/examples/src/bin.
    name: String,
    /// The packed model, for those that bring none of their own.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Where the firmware goes.
    #[arg(long, value_name = "ELF")]
    out: PathBuf,
}

/// Builds it.
pub fn run(args: &Args) -> Result<()> {
    let source = dir().join("src/bin").join(&args.name).with_extension("rs");
    ensure!(source.is_file(), "there is no example {}: see {}", args.name, dir().join("src/bin").display());
    let board = Board::load(BOARD)?;
    let target_dir = repo::root().join("target/boards-examples");
    let mut cargo = Toolchain::find(&board.target.triple)?.cargo("build", &board.target.triple, &board.target.cpu);
    cargo.args(["--quiet", "--release", "--bin", &args.name, "--target-dir"]).arg(&target_dir).current_dir(dir());
    if let Some(model) = &args.model {
        let model = model.canonicalize().with_context(|| format!("failed to find {}", model.display()))?;
        cargo.env("SISKIN_MODEL", model);
    }
    repo::run_quietly(&mut cargo)?;
    firmware::put(&target_dir.join(&board.target.triple).join("release").join(&args.name), &args.out)
}

/// Lints them all, around `model` where they bring none.
pub fn lint(model: &Path) -> Result<()> {
    repo::run(repo::cargo(["fmt", "--check"]).current_dir(dir()))?;
    let board = Board::load(BOARD)?;
    let mut clippy = Toolchain::find(&board.target.triple)?.cargo("clippy", &board.target.triple, &board.target.cpu);
    clippy.args(["--quiet", "--release", "--target-dir"]).arg(repo::root().join("target/boards-examples"));
    clippy.args(["--", "-D", "warnings"]).current_dir(dir());
    repo::run(clippy.env("SISKIN_MODEL", model))
}

fn dir() -> PathBuf {
    boards_dir().join("examples")
}
