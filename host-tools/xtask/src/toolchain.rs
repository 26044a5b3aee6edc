//! The compiler for boards: an installed rustup target, one that rustup can add, or Debian's compiler and its sources.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::{packages, repo};

/// Forces the choice: `rustup` or `debian`.
const CHOICE: &str = "SISKIN_TOOLCHAIN";
const DEBIAN_PACKAGES: [&str; 4] = ["cargo-web", "rustc-web", "rust-web-src", "lld-22"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY_PACKAGE: &str = "rust-web-clippy";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library";
const DEBIAN_LINKER: &str = "ld.lld-22";

/// A way to compile for a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The host's own, which has `core` for the target.
    Rustup,
    /// Debian's, which compiles `core` from its sources.
    Debian,
}

impl Toolchain {
    /// Finds a toolchain for the target `triple`, or installs one.
    pub fn find(triple: &str) -> Result<Self> {
        match env::var(CHOICE).as_deref() {
            Ok("rustup") if has_target(triple) || add_target(triple) => return Ok(Self::Rustup),
            Ok("rustup") => bail!("{CHOICE} asks for rustup's {triple}, which is neither installed nor to be had"),
            Ok("debian") => return Self::debian(),
            Ok(other) => bail!("{CHOICE} is {other:?}, but must be rustup or debian"),
            Err(_) => {}
        }
        if has_target(triple) {
            return Ok(Self::Rustup);
        }
        // Once it is installed it stays the choice: asking rustup again each time would cost seconds.
        if !has_debian() && add_target(triple) {
            return Ok(Self::Rustup);
        }
        if packages::find("apt-get").is_some() {
            return Self::debian();
        }
        bail!("there is no compiler for {triple}: run `rustup target add {triple}`, then this again")
    }

    fn debian() -> Result<Self> {
        packages::ensure("a compiler for boards", &DEBIAN_PACKAGES, has_debian)?;
        Ok(Self::Debian)
    }

    /// Makes sure that there is a clippy beside the compiler.
    pub fn ensure_clippy(self) -> Result<()> {
        match self {
            // Rustup's comes with the host's toolchain.
            Self::Rustup => Ok(()),
            Self::Debian => packages::ensure("clippy", &[DEBIAN_CLIPPY_PACKAGE], || Path::new(DEBIAN_CLIPPY).is_file()),
        }
    }

    /// The name and version, for reports.
    pub fn version(self) -> Result<String> {
        let rustc = match self {
            Self::Rustup => host_rustc(),
            Self::Debian => DEBIAN_RUSTC.into(),
        };
        repo::output(Command::new(rustc).arg("--version")).map(|version| version.trim().to_owned())
    }

    /// `cargo` in the root, told to use this toolchain for a Linux, `triple`, whose linker the caller names.
    pub fn cargo_for_linux(self, subcommand: &str, triple: &str) -> Command {
        let mut command = self.cargo_of();
        command.args([subcommand, "--target", triple]).current_dir(repo::root());
        if self == Self::Debian {
            command.arg("-Zbuild-std=std,test,panic_unwind").env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    /// `cargo` as it is called for this toolchain.
    fn cargo_of(self) -> Command {
        match self {
            Self::Rustup => repo::cargo([]),
            Self::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                // So that cargo finds its own subcommands, and not rustup's.
                command.env("PATH", format!("/usr/bin:{}", env::var("PATH").unwrap_or_default()));
                command.env("RUSTC", DEBIAN_RUSTC);
                command
            }
        }
    }

    /// `cargo`, told to use this toolchain for `triple`; the caller adds the subcommand's own arguments after `subcommand`.
    pub fn cargo(self, subcommand: &str, triple: &str, cpu: &str) -> Command {
        let mut command = self.cargo_of();
        command.args([subcommand, "--target", triple]);
        if self == Self::Debian {
            let linker = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace(['-', '.'], "_"));
            command.arg("-Zbuild-std=core").env(linker, DEBIAN_LINKER);
        }
        // Stack sizes and short panic locations are not stable yet; no code depends on either.
        command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", rustflags(triple, cpu).join("\u{1f}"));
        command.current_dir(repo::root().join("boards"));
        command
    }
}

fn rustflags(triple: &str, cpu: &str) -> Vec<String> {
    let mut flags = vec![
        format!("-Ctarget-cpu={cpu}"),
        "-Zemit-stack-sizes".to_owned(),
        "-Zlocation-detail=none".to_owned(),
        format!("--remap-path-prefix={}/=", repo::root().display()),
    ];
    if triple.starts_with("riscv") || triple.starts_with("aarch64") {
        // A jump through a table looks like a call of anything to the analysis of the stack.
        flags.push("-Cjump-tables=no".to_owned());
    }
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    flags.extend(cargo_home.map(|home| format!("--remap-path-prefix={}/=cargo/", home.display())));
    flags
}

fn host_rustc() -> PathBuf {
    env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from)
}

fn has_debian() -> bool {
    let programs = [DEBIAN_CARGO, DEBIAN_RUSTC].iter().all(|program| Path::new(program).is_file());
    programs && Path::new(DEBIAN_SOURCES).is_dir() && packages::find(DEBIAN_LINKER).is_some()
}

fn has_target(triple: &str) -> bool {
    let sysroot = repo::output(Command::new(host_rustc()).args(["--print", "sysroot"])).unwrap_or_default();
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(triple).join("lib");
    let core = libraries.read_dir().into_iter().flatten().flatten();
    core.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore"))
}

fn add_target(triple: &str) -> bool {
    if packages::find("rustup").is_none() {
        return false;
    }
    repo::announce(&format!("adding the target {triple} to the Rust toolchain"));
    let added = repo::output(Command::new("rustup").args(["target", "add", triple])).is_ok();
    if !added {
        eprintln!("rustup cannot add {triple}; trying the distribution's compiler");
    }
    added && has_target(triple)
}
