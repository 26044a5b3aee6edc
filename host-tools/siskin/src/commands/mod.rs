//! One file a command: its flags, its call into the libraries, its reply.

pub(crate) mod adapter;
pub(crate) mod board;
pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod device;
pub(crate) mod eval;
pub(crate) mod inspect;
mod lr_range;
pub(crate) mod merge;
pub(crate) mod plan;
pub(crate) mod run;
mod tasks;
pub(crate) mod tokenize;
pub(crate) mod train;

use crate::command_line::Command;
use crate::console::Console;
use crate::failure::Failure;

/// Runs the command that was given.
pub(crate) fn run(command: Command, console: &Console) -> Result<(), Failure> {
    match command {
        Command::Train(args) => train::run(&args, console),
        Command::Compile(args) => compile::run(&args, console),
        Command::Adapter(args) => adapter::run(&args, console),
        Command::Merge(args) => merge::run(&args, console),
        Command::Plan(args) => plan::run(&args, console),
        Command::Run(args) => run::run(&args, console),
        Command::Eval(args) => eval::run(&args, console),
        Command::Inspect(args) => inspect::run(&args, console),
        Command::Tokenize(args) => tokenize::run(&args, console),
        Command::Board(args) => board::run(&args, console),
        Command::Device(args) => device::run(&args, console),
        Command::Data(args) => data::run(&args, console),
        Command::Completions(args) => completions::run(&args, console),
    }
}
