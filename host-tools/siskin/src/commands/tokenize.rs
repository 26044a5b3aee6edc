//! `siskin tokenize`: shows the tokens of a text.

use std::path::PathBuf;

use crate::console::Console;
use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  siskin tokenize shakespeare.siskin --text test.txt
  siskin tokenize runs/shakespeare --text test.txt --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A packed .siskin, or a model that compile takes.
    model: PathBuf,
    /// The text, in UTF-8.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// The tokenizer of a llama2.c .bin.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

pub(crate) fn run(_args: &Args, _console: &Console) -> Result<(), Failure> {
    Err(Failure::failed("tokenize", anyhow::anyhow!("it is not wired yet")))
}
