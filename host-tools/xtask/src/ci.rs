//! `cargo xtask ci`: what must hold before a change lands.

use anyhow::Result;

use crate::{firmware, repo, sizes, test};

/// Formatting, lints and documentation, the firmware's budgets, then every test.
pub fn run() -> Result<()> {
    repo::announce("checking formatting and lints");
    repo::run(&mut repo::cargo(["fmt", "--all", "--check"]))?;
    repo::run(&mut repo::cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    repo::run(repo::cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    firmware::lint(&repo::release_siskin()?)?;
    sizes::run(&sizes::Args::default())?;
    test::run()
}
