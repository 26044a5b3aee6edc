//! Everything that a person or CI does with this repository, one command each: `cargo xtask --help`.

mod bench;
mod board;
mod c_library;
mod ci;
mod corpus;
mod data;
mod demo;
mod emulate;
mod evaluate;
mod exact_match_figure;
mod example;
mod firmware;
mod image;
mod letters;
mod linux;
mod oracles;
mod packages;
mod random_model;
mod repo;
mod sizes;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Project automation. Each command finds or installs what it needs, and says what it does.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Train a small model for about two minutes, pack it, and let an emulated Cortex-M4 tell a story.
    Demo,
    /// Run every test: host, end to end, and firmware on the emulated boards.
    Test,
    /// What CI checks: formatting, lints, then every test.
    Ci,
    /// Fetch texts and models into .cache/, by version and checksum.
    Data,
    /// Run the Python packages that the metrics are compared with, at pinned versions, into .cache/.
    Oracles,
    /// Train recipes in full and measure them; shakespeare-260k, about five minutes on 2 idle cores, in f32 and int8.
    Evaluate(evaluate::Args),
    /// Measure how fast things are, and record it: instructions on the boards, training, matrix products.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Measure each board's firmware against the budgets in its board.toml.
    Sizes(sizes::Args),
    /// Run the kernels on emulated Linux for Arm, AArch64 with dot products and without and ARMv7, and build siskin for it.
    Linux(linux::Args),
    /// Build a board's firmware around a packed model.
    Firmware(firmware::Args),
    /// Build the library for C.
    CLibrary(c_library::Args),
    /// Build an example of firmware around the device library.
    Example(example::Args),
    /// Run firmware in its board's emulator, counting instructions.
    Emulate(emulate::Args),
}

fn main() -> ExitCode {
    let Err(error) = run(Args::parse().task) else { return ExitCode::SUCCESS };
    if let Some(code) = error.downcast_ref::<repo::ExitWith>() {
        return ExitCode::from(code.0);
    }
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo => demo::run(),
        Task::Test => test::run(),
        Task::Ci => ci::run(),
        Task::Data => data::run(),
        Task::Oracles => oracles::run(),
        Task::Evaluate(args) => evaluate::run(&args),
        Task::Bench(what) => bench::run(&what),
        Task::Sizes(args) => sizes::run(&args),
        Task::Linux(args) => linux::run(&args),
        Task::Firmware(args) => firmware::run(&args),
        Task::CLibrary(args) => c_library::run(&args),
        Task::Example(args) => example::run(&args),
        Task::Emulate(args) => emulate::run(&args),
    }
}
