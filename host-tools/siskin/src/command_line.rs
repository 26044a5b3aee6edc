//! The grammar of the command line: which commands there are. Each command's own flags are beside its code.

use clap::{Parser, Subcommand};

use crate::commands::{
    adapter, board, compile, completions, data, device, eval, inspect, merge, plan, run, tokenize, train,
};
use crate::console::Console;

const AFTER_HELP: &str = "\
BOARD is a folder of boards/, or `host` for this machine. MODEL is a checkpoint
folder, a Hugging Face folder, a .gguf, or a llama2.c .bin (with --tokenizer).
FILE is a packed .siskin.

Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 the input is
invalid; 4 it does not fit; 5 interrupted, can be resumed.

Examples:
  siskin train recipes/shakespeare-260k.toml --out runs/shakespeare
  siskin compile runs/shakespeare --board netduinoplus2 -o shakespeare.siskin
  siskin run shakespeare.siskin --prompt 'ROMEO:' --temperature 0.8 --seed 7
  siskin board run netduinoplus2 shakespeare.siskin --prompt 'ROMEO:' --greedy";

/// From a text file to a language model in firmware: train, compress, prove it fits, run.
#[derive(Parser)]
#[command(name = "siskin", version, after_help = AFTER_HELP, max_term_width = 120)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) console: Console,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train a model as a recipe says.
    Train(train::Args),
    /// Quantise a model and pack it for a board, or say by how much it does not fit.
    Compile(compile::Args),
    /// Pack an adapter (LoRA, soft prompt) for a packed model into a file of its own.
    Adapter(adapter::Args),
    /// Put an adapter (LoRA, DoRA, IA3) into the weights of its model.
    Merge(merge::Args),
    /// Say what flash, RAM and stack a model needs on a board, and whether it fits.
    Plan(plan::Args),
    /// Continue a prompt with a packed model.
    Run(run::Args),
    /// Measure bits per byte and perplexity on a text.
    Eval(eval::Args),
    /// Show what is in a packed file.
    Inspect(inspect::Args),
    /// Show the tokens of a text.
    Tokenize(tokenize::Args),
    /// Show what a recipe's data is to the model, or write tasks.
    Data(data::Args),
    /// List the boards, build firmware for one, or run it emulated.
    Board(board::Args),
    /// Ask a device at the other end of a serial line.
    Device(device::Args),
    /// Print the completion script for a shell.
    Completions(completions::Args),
}
