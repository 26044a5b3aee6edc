//! Where things are, and how commands are run and shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context as _, Result, bail};

/// The repository's root.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        manifest_dir.ancestors().nth(2).unwrap_or(manifest_dir).to_owned()
    });
    &ROOT
}

/// The folder of downloads, which git ignores.
pub fn cache() -> PathBuf {
    root().join(".cache")
}

/// Says what comes next.
pub fn announce(what: &str) {
    eprintln!("\n=== {what}");
}

/// A cargo command in the root of the repository, by the same cargo that runs this.
pub fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// An exit code to pass on, after the program that gave it has said why.
#[derive(Debug)]
pub struct ExitWith(pub u8);

impl fmt::Display for ExitWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for ExitWith {}

/// Shows a command and runs it to its end.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", show(command));
    run_quietly(command)
}

/// Runs a command to its end; it is shown only if it fails.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs a command quietly and gives its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        if word.contains([' ', '\n']) { format!("{word:?}") } else { word.into_owned() }
    };
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// Builds `siskin` in release and gives its path.
pub fn release_siskin() -> Result<PathBuf> {
    run(&mut cargo(["build", "--release", "--package", "siskin"]))?;
    Ok(target_dir().join("release/siskin"))
}

/// The path of the `siskin` that a build of the workspace leaves, in the profile of the tests.
pub fn debug_siskin() -> PathBuf {
    target_dir().join("debug/siskin")
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
