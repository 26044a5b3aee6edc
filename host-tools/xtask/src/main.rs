//! Everything that a person or CI does with this repository, one command each: `cargo xtask --help`.

mod ci;
mod corpus;
mod data;
mod demo;
mod evaluate;
mod packages;
mod repo;
mod test;

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
    /// Train the full recipe and measure it in f32 and int8. Takes about half an hour.
    Evaluate,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Demo => demo::run(),
        Task::Test => test::run(),
        Task::Ci => ci::run(),
        Task::Data => data::run(),
        Task::Evaluate => evaluate::run(),
    }
}
