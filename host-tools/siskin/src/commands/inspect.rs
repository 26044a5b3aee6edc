//! `siskin inspect`: shows the config, sections, sizes and checksums of a packed file.

use std::path::PathBuf;

use crate::console::Console;
use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  siskin inspect shakespeare.siskin
  siskin inspect shakespeare.siskin --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The packed .siskin.
    file: PathBuf,
}

pub(crate) fn run(_args: &Args, _console: &Console) -> Result<(), Failure> {
    Err(Failure::failed("inspect", anyhow::anyhow!("it is not wired yet")))
}
