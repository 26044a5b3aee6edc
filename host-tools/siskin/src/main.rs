//! `siskin`: the command line over the compiler and the runtime.
//!
//! This crate alone knows clap, stdout and exit codes. A command parses its arguments, calls the libraries, and gives one
//! reply; [`console`] prints it as text or as JSON, [`failure`] says what went wrong and with which exit code.

mod adapter;
mod beams;
mod boards;
mod command_line;
mod commands;
mod console;
mod device;
mod draft;
mod encoding;
mod failure;
mod firmware;
mod generation;
mod golden;
mod grammar;
mod input;
mod interrupt;
mod packing;
mod text;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let command_line = command_line::CommandLine::parse();
    let outcome = commands::run(command_line.command, &command_line.console);
    command_line.console.finish(outcome)
}
