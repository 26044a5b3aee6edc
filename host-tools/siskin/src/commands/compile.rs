//! `siskin compile`: quantises a model and packs it for a board, or says by how much it does not fit.

use std::path::PathBuf;

use crate::boards::BoardArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::packing::PackingArgs;

const AFTER_HELP: &str = "\
Examples:
  siskin compile runs/shakespeare --board netduinoplus2 -o shakespeare.siskin
  siskin compile smollm2.gguf --board host --weights int8-g32 --context 512 -o smollm2.siskin";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A checkpoint folder, a Hugging Face folder, a .gguf, or a llama2.c .bin.
    model: PathBuf,
    #[command(flatten)]
    board: BoardArgs,
    /// The packed file to write.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    packing: PackingArgs,
}

pub(crate) fn run(_args: &Args, _console: &Console) -> Result<(), Failure> {
    Err(Failure::failed("compile", anyhow::anyhow!("it is not wired yet")))
}
