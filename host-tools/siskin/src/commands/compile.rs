//! `siskin compile`: quantises a model and packs it for a board, or says by how much it does not fit.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use siskin_compiler::artifact::write_atomic;
use siskin_compiler::plan::MemoryReport;

use crate::boards::BoardArgs;
use crate::console::Console;
use crate::failure::{Failure, OrFail as _};
use crate::packing::{self, PackingArgs, ReportText};

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

#[derive(Serialize)]
struct Reply {
    out: String,
    file_bytes: u64,
    weights: &'static str,
    layout: &'static str,
    context_len: usize,
    prefill_batch: u32,
    #[serde(flatten)]
    report: MemoryReport,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", ReportText(&self.report))?;
        write!(f, "{}: {} bytes, {} weights, context {}", self.out, self.file_bytes, self.weights, self.context_len)
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let board = args.board.load()?;
    let file = args.packing.pack(&args.model, &board, console)?;
    let model = file.model();
    let report = MemoryReport::new(&model, &board);
    packing::check_fits(&model, &board, &report, console)?;
    write_atomic(&args.out, file.bytes()).or_failed(|| "write the packed model".to_owned())?;
    let header = model.header();
    console.reply(&Reply {
        out: args.out.display().to_string(),
        file_bytes: header.file_bytes,
        weights: header.format.name(),
        layout: header.layout.name(),
        context_len: header.config.context_len,
        prefill_batch: header.prefill_batch,
        report,
    })
}
