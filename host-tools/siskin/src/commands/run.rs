//! `siskin run`: continues a prompt with a packed model.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::console::Console;
use crate::failure::Failure;
use crate::generation::GenerationArgs;

const AFTER_HELP: &str = "\
Examples:
  siskin run shakespeare.siskin --prompt 'ROMEO:' --greedy --max-new-tokens 64
  siskin run smollm2.siskin --chat --prompt 'Why is the sky blue?' --temperature 0.7 --top-p 0.9
  siskin run shakespeare.siskin --prompt 'ROMEO:' --stop 'JULIET:' --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The packed .siskin.
    file: PathBuf,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Threads for the matrix products; any number gives the same bits.
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
    /// The kernels; all give the same bits.
    #[arg(long, value_enum, default_value_t = KernelChoice::Auto)]
    kernels: KernelChoice,
}

pub(crate) fn run(_args: &Args, _console: &Console) -> Result<(), Failure> {
    Err(Failure::failed("run", anyhow::anyhow!("it is not wired yet")))
}

/// Which kernels to run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KernelChoice {
    /// The fastest that this CPU has.
    Auto,
    /// Plain Rust, for any CPU.
    Generic,
    /// For x86-64 with AVX2.
    Avx2,
}
