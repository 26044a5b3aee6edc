//! `cargo xtask test`: fetches what the tests want, then runs them all.

use anyhow::Result;

use crate::{data, emulate, repo};

/// Runs every test.
pub fn run() -> Result<()> {
    data::run()?;
    repo::announce("getting the compiler and the emulator of every board");
    emulate::set_up()?;
    repo::announce("building the programs that the end-to-end tests drive");
    repo::run(&mut repo::cargo(["build", "--workspace"]))?;
    repo::announce("running the tests");
    repo::run(&mut repo::cargo(["test", "--workspace"]))
}
