//! `cargo xtask c-library`: `siskin.h` and `libsiskin.a` for a board's core, and the example in C around them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::board::{Board, boards_dir};
use crate::toolchain::Toolchain;
use crate::{firmware, packages, repo};

/// Debian's compiler for C on bare metal.
const COMPILER: &str = "arm-none-eabi-gcc";
const COMPILER_PACKAGE: &str = "gcc-arm-none-eabi";
/// The board that the example in C is for.
const EXAMPLE_BOARD: &str = "mps2-an386";

/// What to build.
#[derive(clap::Args)]
pub struct Args {
    /// A folder of boards/, one with a Cortex-M.
    #[arg(long)]
    board: String,
    /// The folder that siskin.h and libsiskin.a go to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also build the example in C around this packed model, as example.elf in the folder; needs a C compiler for the core.
    #[arg(long, value_name = "FILE")]
    example: Option<PathBuf>,
}

/// Builds it.
pub fn run(args: &Args) -> Result<()> {
    let board = Board::load(&args.board)?;
    let Some(features) = features(&board) else {
        bail!("the library in C is for Cortex-M, which {} has none of", board.name)
    };
    let target_dir = repo::root().join("target/boards");
    let mut cargo = Toolchain::find(&board.target.triple)?.cargo("build", &board.target.triple, &board.target.cpu);
    cargo.args(["--quiet", "--release", "--package", "siskin-c", "--features", features, "--target-dir"]);
    repo::run_quietly(cargo.arg(&target_dir))?;
    let library = args.out.join("libsiskin.a");
    firmware::put(&target_dir.join(&board.target.triple).join("release/libsiskin.a"), &library)?;
    firmware::put(&sources().join("siskin.h"), &args.out.join("siskin.h"))?;
    match &args.example {
        Some(model) => build_example(&board, model, &library, &args.out.join("example.elf")),
        None => Ok(()),
    }
}

/// The kernels of the board's core.
fn features(board: &Board) -> Option<&'static str> {
    match board.target.cpu.as_str() {
        "cortex-m4" | "cortex-m7" | "cortex-m33" => Some("cortex-m-dsp"),
        "cortex-m55" => Some("cortex-m-mve"),
        "cortex-m3" => Some("cortex-m3"),
        "cortex-m0" => Some("cortex-m-scalar"),
        _ => None,
    }
}

fn build_example(board: &Board, model: &Path, library: &Path, elf: &Path) -> Result<()> {
    ensure!(board.name == EXAMPLE_BOARD, "the example in C is for {EXAMPLE_BOARD}");
    packages::ensure("a C compiler for Cortex-M", &[COMPILER_PACKAGE], || packages::find(COMPILER).is_some())?;
    let model = model.canonicalize().with_context(|| format!("failed to find {}", model.display()))?;
    let dir = sources().join("example");
    let mut gcc = Command::new(COMPILER);
    gcc.args([
        "-mcpu=cortex-m4",
        "-mthumb",
        "-mfloat-abi=hard",
        "-mfpu=fpv4-sp-d16",
        "-std=c11",
        "-Os",
        "-Wall",
        "-Wextra",
    ]);
    gcc.args(["-Werror", "-ffreestanding", "-nostdlib", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments"]);
    gcc.arg("-T").arg(dir.join("link.ld")).arg(format!("-DMODEL=\"{}\"", model.display()));
    gcc.args(["-x", "assembler-with-cpp"]).arg(dir.join("start.s")).args(["-x", "c"]).arg(dir.join("main.c"));
    gcc.args(["-x", "none"]).arg(library).arg("-o").arg(elf);
    repo::run_quietly(&mut gcc)
}

fn sources() -> PathBuf {
    boards_dir().join("c-library")
}
