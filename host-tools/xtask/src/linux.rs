//! `cargo xtask linux`: the kernels, and `siskin` itself, for Linux on Arm, as on a single-board computer, in QEMU's user mode. What `siskin`
//! does there the end-to-end tests compare with the host.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::toolchain::Toolchain;
use crate::{packages, repo};

/// What to do.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Build `siskin` for this target alone, and run nothing.
    #[arg(long, value_name = "TARGET")]
    build: Option<String>,
}

/// A kind of Linux on Arm.
struct Linux {
    triple: &'static str,
    /// What links for it, and what that needs.
    linker: &'static str,
    packages: [&'static str; 2],
    emulator: &'static str,
    /// QEMU's names for cores that have different kernels.
    cpus: &'static [&'static str],
}

const LINUXES: [Linux; 2] = [
    Linux {
        triple: "aarch64-unknown-linux-gnu",
        linker: "aarch64-linux-gnu-gcc",
        packages: ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        emulator: "qemu-aarch64",
        // With dot products, and without.
        cpus: &["max", "cortex-a53"],
    },
    Linux {
        triple: "armv7-unknown-linux-gnueabihf",
        linker: "arm-linux-gnueabihf-gcc",
        packages: ["gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"],
        emulator: "qemu-arm",
        cpus: &["cortex-a15"],
    },
];

/// Runs the conformance cases there and builds `siskin`, into target/linux. Fails at the first difference.
pub fn run(args: &Args) -> Result<()> {
    let is_asked = |linux: &&Linux| args.build.as_ref().is_none_or(|triple| triple == linux.triple);
    let asked: Vec<&Linux> = LINUXES.iter().filter(is_asked).collect();
    ensure!(!asked.is_empty(), "there is no such target; there are {}", LINUXES.map(|linux| linux.triple).join(", "));
    for linux in asked {
        let Linux { triple, linker, packages, emulator, cpus } = linux;
        packages::ensure(emulator, &["qemu-user"], || packages::find(emulator).is_some())?;
        packages::ensure(linker, packages, || packages::find(linker).is_some())?;
        let toolchain = Toolchain::find(triple)?;
        for cpu in if args.build.is_none() { cpus } else { &[][..] } {
            repo::announce(&format!("the kernels: {triple} on {cpu}"));
            let mut test = linux.cargo(toolchain, "test");
            test.args(["--tests", "--package", "siskin-conformance"]);
            repo::run(test.env(linux.variable("RUNNER"), format!("timeout 300 {emulator} -cpu {cpu}")))?;
        }
        repo::announce(&format!("siskin for {triple}"));
        repo::run(linux.cargo(toolchain, "build").args(["--package", "siskin"]))?;
    }
    Ok(())
}

/// Where what runs there is built.
fn target_dir() -> PathBuf {
    repo::root().join("target/linux")
}

impl Linux {
    /// The name of a setting of cargo for this target, in the environment.
    fn variable(&self, name: &str) -> String {
        format!("CARGO_TARGET_{}_{name}", self.triple.to_uppercase().replace('-', "_"))
    }

    /// A cargo command for this target.
    fn cargo(&self, toolchain: Toolchain, subcommand: &str) -> Command {
        let mut cargo = toolchain.cargo_for_linux(subcommand, self.triple);
        cargo.args(["--profile", "cross", "--target-dir"]).arg(target_dir());
        cargo.env(self.variable("LINKER"), self.linker);
        // QEMU's user mode hangs in the threads of some dynamic C libraries.
        cargo.env(self.variable("RUSTFLAGS"), "-Ctarget-feature=+crt-static");
        cargo
    }
}
