//! `siskin eval`: measures bits per byte and perplexity on a text, float and packed side by side.

use std::path::PathBuf;

use crate::console::Console;
use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  siskin eval runs/shakespeare --text test.txt
  siskin eval shakespeare.siskin --text test.txt --against runs/shakespeare";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A packed .siskin, or a model that compile takes.
    model: PathBuf,
    /// The text, in UTF-8.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// A second model on the same text, such as the one that a packed file was made from.
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// The tokenizer of a llama2.c .bin.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

pub(crate) fn run(_args: &Args, _console: &Console) -> Result<(), Failure> {
    Err(Failure::failed("eval", anyhow::anyhow!("it is not wired yet")))
}
