//! `cargo xtask linux`: the runtime on Linux for Arm, and on AArch64 the command, as on a single-board computer, in QEMU's user mode.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{packages, repo, toolchain};

/// A kind of Linux on Arm.
struct Linux {
    triple: &'static str,
    /// What links for it, and what that needs.
    linker: &'static str,
    packages: [&'static str; 2],
    emulator: &'static str,
    /// QEMU's names for cores that have different kernels.
    cpus: &'static [&'static str],
    /// Whether `siskin` is run there too, not the runtime alone.
    runs_command: bool,
}

const LINUXES: [Linux; 2] = [
    Linux {
        triple: "aarch64-unknown-linux-gnu",
        linker: "aarch64-linux-gnu-gcc",
        packages: ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        emulator: "qemu-aarch64",
        // With dot products, and without.
        cpus: &["max", "cortex-a53"],
        runs_command: true,
    },
    Linux {
        triple: "armv7-unknown-linux-gnueabihf",
        linker: "arm-linux-gnueabihf-gcc",
        packages: ["gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"],
        emulator: "qemu-arm",
        cpus: &["cortex-a15"],
        runs_command: false,
    },
];

/// Runs there the conformance cases and a mapped model, then `siskin` itself, which must print what it does here. Fails at the first
/// difference.
pub fn run() -> Result<()> {
    let here = generate(&mut Command::new(repo::release_siskin()?))?;
    for linux in &LINUXES {
        let Linux { triple, linker, packages, emulator, cpus, .. } = linux;
        packages::ensure(emulator, &["qemu-user"], || packages::find(emulator).is_some())?;
        packages::ensure(linker, packages, || packages::find(linker).is_some())?;
        ensure!(
            toolchain::has_or_adds(triple),
            "there is no standard library for {triple}: run `rustup target add {triple}`"
        );
        for cpu in *cpus {
            repo::announce(&format!("the kernels: {triple} on {cpu}"));
            let mut test = linux.cargo(["test", "--release", "--tests", "--package", "siskin-conformance"]);
            repo::run(test.env(linux.variable("RUNNER"), format!("timeout 300 {emulator} -cpu {cpu}")))?;
        }
        if !linux.runs_command {
            continue;
        }
        repo::announce(&format!("the command: {triple}"));
        repo::run(&mut linux.cargo(["build", "--release", "--package", "siskin"]))?;
        let siskin = target_dir().join(triple).join("release/siskin");
        for cpu in *cpus {
            let there = generate(Command::new("timeout").arg("600").arg(emulator).args(["-cpu", cpu]).arg(&siskin))?;
            ensure!(there == here, "siskin run gives on {triple} ({cpu})\n{there:#?}\nand here\n{here:#?}");
        }
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
    fn cargo<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut cargo = repo::cargo(args);
        cargo.args(["--target", self.triple, "--target-dir"]).arg(target_dir());
        cargo.env(self.variable("LINKER"), self.linker);
        // QEMU's user mode hangs in the threads of some dynamic C libraries.
        cargo.env(self.variable("RUSTFLAGS"), "-Ctarget-feature=+crt-static");
        cargo
    }
}

/// What `siskin run` says of a text.
#[derive(Debug, PartialEq, Deserialize)]
struct Generated {
    tokens: Vec<u32>,
    logits_hash: String,
}

/// The golden model's texts, on one thread and on several, from the file as a user has it: the most probable, and drawn ones.
fn generate(siskin: &mut Command) -> Result<Vec<Generated>> {
    const RANDOM: [&str; 8] = ["--temperature", "0.9", "--top-k", "40", "--top-p", "0.95", "--seed", "20260412"];
    let model = repo::root().join("tests/golden/shakespeare-260k.siskin");
    let (program, first) =
        (siskin.get_program().to_owned(), siskin.get_args().map(Into::into).collect::<Vec<OsString>>());
    let mut generated = Vec::new();
    for (sampling, threads) in [(&["--greedy"] as &[&str], "1"), (&["--greedy"], "3"), (&RANDOM, "1"), (&RANDOM, "3")] {
        let mut run = Command::new(&program);
        run.args(&first).arg("run").arg(&model).args(["--prompt", "ROMEO:", "--max-new-tokens", "48"]);
        run.args(["--threads", threads, "--format", "json", "--quiet"]).args(sampling);
        generated.push(serde_json::from_str(&repo::output(&mut run)?).context("siskin run printed no such reply")?);
    }
    Ok(generated)
}
