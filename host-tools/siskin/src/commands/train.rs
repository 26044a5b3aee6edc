//! `siskin train`: trains a model as a recipe says, in a run folder that can be resumed.

use std::path::PathBuf;

use crate::console::Console;
use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  siskin train recipes/shakespeare-260k.toml --out runs/shakespeare
  siskin train recipes/shakespeare-260k.toml --out runs/short --set train.steps=200
  siskin train recipes/shakespeare-260k.toml --out runs/shakespeare --resume";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The recipe.
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,
    /// Change a value of the recipe, as in --set train.steps=200; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The run folder: checkpoints, log and report [default: runs/ and the name of the recipe].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the last checkpoint in the run folder.
    #[arg(long)]
    resume: bool,
}

pub(crate) fn run(_args: &Args, _console: &Console) -> Result<(), Failure> {
    Err(Failure::failed("train", anyhow::anyhow!("it is not wired yet")))
}
