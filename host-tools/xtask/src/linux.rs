//! `cargo xtask linux`: the runtime on Linux for Arm, as on a single-board computer, in QEMU's user mode.

use anyhow::{Result, ensure};

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

/// Runs the conformance cases and a mapped model there; fails at the first difference.
pub fn run() -> Result<()> {
    for linux in &LINUXES {
        let Linux { triple, linker, packages, emulator, cpus } = linux;
        packages::ensure(emulator, &["qemu-user"], || packages::find(emulator).is_some())?;
        packages::ensure(linker, packages, || packages::find(linker).is_some())?;
        ensure!(
            toolchain::has_or_adds(triple),
            "there is no standard library for {triple}: run `rustup target add {triple}`"
        );
        for cpu in *cpus {
            repo::announce(&format!("{triple} on {cpu}"));
            let variable = |name: &str| format!("CARGO_TARGET_{}_{name}", triple.to_uppercase().replace('-', "_"));
            let mut test =
                repo::cargo(["test", "--release", "--tests", "--package", "siskin-conformance", "--target", triple]);
            test.arg("--target-dir").arg(repo::root().join("target/linux"));
            test.env(variable("LINKER"), linker).env(variable("RUNNER"), format!("timeout 300 {emulator} -cpu {cpu}"));
            // QEMU's user mode hangs in the threads of some dynamic C libraries.
            repo::run(test.env(variable("RUSTFLAGS"), "-Ctarget-feature=+crt-static"))?;
        }
    }
    Ok(())
}
