//! `siskin compile`: quantises a model and packs it for a board, or says by how much it does not fit.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use siskin_compiler::artifact::write_atomic;
use siskin_compiler::pack::{PackedFile, dropped_blocks, with_prefix, with_section};
use siskin_compiler::plan::MemoryReport;
use siskin_runtime::Kernels;
use siskin_runtime::format::SectionKind;

use crate::adapter::{self, NamedFolder};
use crate::boards::BoardArgs;
use crate::console::Console;
use crate::encoding::input_tokens;
use crate::failure::{Failure, OrFail as _};
use crate::packing::{self, PackingArgs, ReportText};
use crate::{draft, golden, grammar, input};

const AFTER_HELP: &str = "\
Examples:
  siskin compile runs/shakespeare --board netduinoplus2 -o shakespeare.siskin
  siskin compile shakespeare.siskin --board netduinoplus2 --grammar reply.gbnf -o constrained.siskin
  siskin compile runs/shakespeare --board netduinoplus2 --adapter poet=poet-lora -o shakespeare.siskin
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
    /// Pack a grammar that all generated text keeps to: GBNF, or a JSON schema in a .json.
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// Pack an adapter that generation can switch to by name: the folder that PEFT saved it to. May be given several times.
    #[arg(long = "adapter", value_name = "NAME=FOLDER", value_parser = NamedFolder::parse)]
    adapters: Vec<NamedFolder>,
    /// Pack a small packed model with the same tokenizer, which guesses ahead when the model is run on a host.
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,
    /// Pack what the model makes of a text that every other begins with, a system prompt or examples: the device need not read it.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prefix: Option<String>,
    /// The same, of the text in a file.
    #[arg(long, value_name = "FILE", conflicts_with = "prefix")]
    prefix_file: Option<PathBuf>,
    /// Pack what the model answers to TEXT, for firmware that tests itself: up to 16 tokens, or what an encoder finds.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    self_test: Option<String>,
}

impl Args {
    /// The file with the prefix that was asked for, or as it was.
    fn with_prefix(&self, file: PackedFile) -> Result<PackedFile, Failure> {
        let text = match (&self.prefix, &self.prefix_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => input::read_text(path)?,
            (None, None) => return Ok(file),
        };
        let doing = || "read the prefix".to_owned();
        let tokens = input_tokens(&file.model(), &input::packed_tokenizer(&file.model())?, &text)?;
        let bytes = with_prefix(&file, Kernels::detect(), &tokens).or_invalid_input(doing)?;
        PackedFile::from_bytes(bytes).or_failed(doing)
    }
}

#[derive(Serialize)]
struct Reply {
    out: String,
    file_bytes: u64,
    weights: &'static str,
    layout: &'static str,
    kv: &'static str,
    context_len: usize,
    prefill_batch: u32,
    beams: u32,
    /// Blocks of zero weights that are not stored, and all blocks of the matrices where they were.
    zero_blocks_dropped: usize,
    blocks_of_sparse_matrices: usize,
    #[serde(flatten)]
    report: MemoryReport,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", ReportText(&self.report))?;
        write!(f, "{}: {} bytes, {} weights, ", self.out, self.file_bytes, self.weights)?;
        write!(f, "context {} in {}", self.context_len, self.kv)?;
        let (n_dropped, n_all) = (self.zero_blocks_dropped, self.blocks_of_sparse_matrices);
        if n_all == 0 { Ok(()) } else { write!(f, "\n{n_dropped} of {n_all} blocks are zero and left out") }
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let board = args.board.load()?;
    let mut file = args.packing.pack(&args.model, &board, console)?;
    if let Some(path) = &args.grammar {
        let section = grammar::compile(path, &file.model())?;
        let doing = || "pack the grammar".to_owned();
        let bytes = with_section(&file.model(), SectionKind::Grammar, &section).or_failed(doing)?;
        file = PackedFile::from_bytes(bytes).or_failed(doing)?;
    }
    if let Some(path) = &args.draft {
        let draft = draft::open(path, &file.model())?;
        let doing = || "pack the draft".to_owned();
        let bytes = with_section(&file.model(), SectionKind::Draft, draft.bytes()).or_failed(doing)?;
        file = PackedFile::from_bytes(bytes).or_failed(doing)?;
    }
    let file = adapter::add(file, &args.adapters)?;
    let mut file = args.with_prefix(file)?;
    if let Some(text) = &args.self_test {
        file = golden::with_golden_text(&file, text)?;
    }
    let model = file.model();
    let report = MemoryReport::new(&model, &board);
    packing::check_fits(&model, &board, &report, console)?;
    write_atomic(&args.out, file.bytes()).or_failed(|| "write the packed model".to_owned())?;
    let header = model.header();
    let (zero_blocks_dropped, blocks_of_sparse_matrices) = dropped_blocks(&model);
    console.reply(&Reply {
        out: args.out.display().to_string(),
        file_bytes: header.file_bytes,
        weights: header.format.name(),
        layout: header.layout.name(),
        kv: header.kv.name(),
        context_len: header.config.context_len,
        prefill_batch: header.prefill_batch,
        beams: header.n_beams,
        zero_blocks_dropped,
        blocks_of_sparse_matrices,
        report,
    })
}
