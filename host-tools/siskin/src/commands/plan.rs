//! `siskin plan`: says what a model needs on a board, part by part, and whether it fits.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use siskin_compiler::plan::MemoryReport;

use crate::boards::BoardArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::packing::{self, PackingArgs, ReportText};

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

#[derive(Serialize)]
#[serde(transparent)]
struct Reply(MemoryReport);

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ReportText(&self.0).fmt(f)
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let board = args.board.load()?;
    let file = args.packing.pack(&args.model, &board, console)?;
    let model = file.model();
    let report = MemoryReport::new(&model, &board);
    packing::check_fits(&model, &board, &report, console)?;
    console.reply(&Reply(report))
}
