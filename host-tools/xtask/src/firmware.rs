//! `cargo xtask firmware`: a board's firmware with a packed model inside.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::board::Board;
use crate::repo;
use crate::toolchain::Toolchain;

/// What to build.
#[derive(clap::Args)]
pub struct Args {
    /// A folder of boards/.
    #[arg(long)]
    board: String,
    /// The packed model.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Where the firmware goes.
    #[arg(long, value_name = "ELF")]
    out: PathBuf,
}

/// Builds what the command line asks for.
pub fn run(args: &Args) -> Result<()> {
    build(&Board::load(&args.board)?, &args.model, &args.out)
}

/// Builds the firmware of `board` around `model` and puts it at `out`.
pub fn build(board: &Board, model: &Path, out: &Path) -> Result<()> {
    ensure!(model.is_file(), "there is no packed model {}", model.display());
    let model = model.canonicalize().with_context(|| format!("failed to find {}", model.display()))?;
    let target_dir = repo::root().join("target/boards");
    fs::create_dir_all(&target_dir).with_context(|| format!("failed to create {}", target_dir.display()))?;
    // Two builds around different models would overwrite each other's result before it is copied.
    let lock_path = target_dir.join("xtask.lock");
    let lock = File::create(&lock_path).with_context(|| format!("failed to create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("failed to lock {}", lock_path.display()))?;

    let toolchain = Toolchain::find(&board.target.triple)?;
    let mut cargo = toolchain.cargo("build", &board.target.triple, &board.target.cpu);
    cargo.args(["--quiet", "--release", "--package", &board.name, "--target-dir"]).arg(&target_dir);
    cargo.env("SISKIN_MODEL", &model);
    repo::run_quietly(&mut cargo)?;
    let built = target_dir.join(&board.target.triple).join("release").join(&board.name);
    put(&built, out)
}

/// Copies under a temporary name, then renames, so that `out` is never half a file.
fn put(built: &Path, out: &Path) -> Result<()> {
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    }
    let partial = out.with_extension(format!("{}.partial", std::process::id()));
    fs::copy(built, &partial).with_context(|| format!("failed to copy {}", built.display()))?;
    fs::rename(&partial, out).with_context(|| format!("failed to write {}", out.display()))
}
