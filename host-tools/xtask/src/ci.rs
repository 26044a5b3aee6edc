//! `cargo xtask ci`: what must hold before a change lands.

use anyhow::Result;

use crate::{repo, test};

/// Formatting, lints and documentation, then every test.
pub fn run() -> Result<()> {
    repo::announce("checking formatting and lints");
    repo::run(&mut repo::cargo(["fmt", "--all", "--check"]))?;
    repo::run(&mut repo::cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    repo::run(repo::cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    test::run()
}
