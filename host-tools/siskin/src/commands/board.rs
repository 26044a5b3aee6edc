//! `siskin board`: lists the boards, builds firmware for one, or runs it emulated.

use std::path::PathBuf;

use clap::Subcommand;

use crate::boards::BoardsDirArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::generation::GenerationArgs;

const AFTER_HELP: &str = "\
Examples:
  siskin board list
  siskin board build netduinoplus2 shakespeare.siskin
  siskin board run netduinoplus2 shakespeare.siskin --prompt 'ROMEO:' --greedy --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    boards_dir: BoardsDirArgs,
}

#[derive(Subcommand)]
enum Action {
    /// List the boards and their limits.
    List,
    /// Build the firmware of a board around a packed model.
    Build(BuildArgs),
    /// Build the firmware, run it in an emulator, and continue a prompt there.
    Run(RunArgs),
}

#[derive(clap::Args)]
struct BuildArgs {
    /// A folder of boards/.
    board: String,
    /// The packed .siskin.
    file: PathBuf,
}

#[derive(clap::Args)]
struct RunArgs {
    /// A folder of boards/.
    board: String,
    /// The packed .siskin.
    file: PathBuf,
    #[command(flatten)]
    generation: GenerationArgs,
}

pub(crate) fn run(_args: &Args, _console: &Console) -> Result<(), Failure> {
    Err(Failure::failed("board", anyhow::anyhow!("it is not wired yet")))
}
