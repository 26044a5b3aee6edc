//! `cargo xtask test`: fetches what the tests want, then runs them all.

use anyhow::Result;

use crate::{bench, data, emulate, linux, oracles, repo};

/// Runs every test, and checks that no board takes more instructions than it may.
pub fn run() -> Result<()> {
    data::run()?;
    oracles::run()?;
    repo::announce("getting the compiler and the emulator of every board");
    emulate::set_up()?;
    repo::announce("building the programs that the end-to-end tests drive");
    repo::run(&mut repo::cargo(["build", "--workspace"]))?;
    repo::announce("counting instructions against the boards' budgets");
    bench::check_instructions()?;
    linux::run(&linux::Args::default())?;
    repo::announce("running the tests");
    repo::run(&mut repo::cargo(["test", "--workspace"]))
}
