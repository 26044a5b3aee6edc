//! `cargo xtask oracles`: what Python packages at pinned versions say, for tests whose cases are too many for a golden
//! file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{bench, data, packages, repo};

/// sacrebleu's source distribution: its tests have the systems of WMT17.
const SACREBLEU: &str = "sacrebleu==2.6.0";
const SACREBLEU_ARCHIVE: &str = "sacrebleu-2.6.0.tar.gz";
const SACREBLEU_SHA256: &str = "91499b6cd46138d95154fff1e863c2f9be57e82f0c719d8dd718d0006cf6c566";

/// The file that tells which script and versions an oracle's files are of.
const MADE_BY: &str = "made-by";

/// Runs the oracles whose script or versions are not those of last time. Each takes a few minutes.
pub fn run() -> Result<()> {
    let oracles = repo::root().join("tests/oracles");
    let (script, requirements) = (oracles.join("metrics.py"), oracles.join("requirements-metrics.txt"));
    let target = repo::cache().join("oracles/metrics");
    let made_by = digest(&[&script, &requirements])?;
    if fs::read_to_string(target.join(MADE_BY)).is_ok_and(|before| before == made_by) {
        return Ok(());
    }
    let python = python_for_metrics()?;
    let archive = sacrebleu_archive()?;
    repo::announce("scoring texts with sacrebleu, rouge-score and scikit-learn");
    let draft = target.with_extension("draft");
    repo::run(Command::new(python).arg(script).args([&archive, &draft]))?;
    fs::write(draft.join(MADE_BY), made_by)?;
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::rename(draft, &target).with_context(|| format!("cannot write {}", target.display()))
}

/// A Python with the packages that define the metrics, made anew when a version changes.
pub fn python_for_metrics() -> Result<PathBuf> {
    let requirements = repo::root().join("tests/oracles/requirements-metrics.txt");
    let folder = format!("oracle-metrics-{}", &digest(&[&requirements])?[..8]);
    bench::python_with(&folder, "sacrebleu, rouge_score, sklearn", &requirements)
}

fn sacrebleu_archive() -> Result<PathBuf> {
    let downloads = repo::cache().join("downloads");
    let archive = downloads.join(SACREBLEU_ARCHIVE);
    if data::has_checksum(&archive, SACREBLEU_SHA256)? {
        return Ok(archive);
    }
    repo::announce("fetching sacrebleu's source distribution");
    fs::create_dir_all(&downloads)?;
    let mut pip = Command::new(packages::python_with_pip()?);
    pip.args(["-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest"]).arg(&downloads);
    repo::run(pip.arg(SACREBLEU))?;
    if !data::has_checksum(&archive, SACREBLEU_SHA256)? {
        bail!("{} is not the file it should be: its SHA-256 is not {SACREBLEU_SHA256}", archive.display());
    }
    Ok(archive)
}

/// The SHA-256 of files one after another, in hexadecimal digits.
fn digest(paths: &[&Path]) -> Result<String> {
    let mut hasher = Sha256::new();
    for path in paths {
        hasher.update(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
