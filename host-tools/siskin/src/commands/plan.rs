//! `siskin plan`: says what a model needs on a board, part by part, and whether it fits.

use std::path::PathBuf;

use crate::boards::BoardArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::packing::PackingArgs;

const AFTER_HELP: &str = "\
Examples:
  siskin plan shakespeare.siskin --board netduinoplus2
  siskin plan runs/shakespeare --board netduinoplus2 --context 128 --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A packed .siskin, or a model that compile takes.
    model: PathBuf,
    #[command(flatten)]
    board: BoardArgs,
    #[command(flatten)]
    packing: PackingArgs,
}

pub(crate) fn run(_args: &Args, _console: &Console) -> Result<(), Failure> {
    Err(Failure::failed("plan", anyhow::anyhow!("it is not wired yet")))
}
