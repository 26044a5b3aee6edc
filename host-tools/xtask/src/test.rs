//! `cargo xtask test`: fetches what the tests want, then runs them all.

use anyhow::Result;

use crate::{data, repo};

/// Runs every test.
pub fn run() -> Result<()> {
    data::run()?;
    repo::announce("building the programs that the end-to-end tests drive");
    repo::run(&mut repo::cargo(["build", "--workspace"]))?;
    repo::announce("running the tests");
    repo::run(&mut repo::cargo(["test", "--workspace"]))
}
