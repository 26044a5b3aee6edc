//! The programs that train side by side: built, or found, or why not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::contestant::Program;
use crate::{packages, repo};

/// Names a Python that has PyTorch, if it should not be one made for the purpose.
const PYTHON_VARIABLE: &str = "SISKIN_PYTHON";

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// PyTorch, eager and compiled, each with its own attention and with attention written out.
    Torch,
    /// candle on its CPU back end.
    Candle,
    /// burn on its Flex back end.
    Burn,
    /// llm.c, which trains GPT-2 only.
    Llmc,
}

impl Peer {
    /// Its programs, ready to start.
    ///
    /// # Errors
    /// What is missing, and how to have it.
    pub fn programs(self, llmc_dir: Option<&Path>) -> Result<Vec<Program>> {
        match self {
            Self::Torch => torch(),
            Self::Candle => Ok(vec![crate_program("candle", "candle-core")?]),
            Self::Burn => Ok(vec![crate_program("burn", "burn")?]),
            Self::Llmc => {
                let dir =
                    llmc_dir.context("give the folder of its sources, the one with train_gpt2.c, as --llmc DIR")?;
                Ok(vec![llmc(dir)?])
            }
        }
    }
}

/// Our own program, from the workspace: built as users get it, for any processor of the kind.
pub fn siskin() -> Result<PathBuf> {
    let target_dir = repo::root().join("target/peers/siskin");
    let mut build = repo::cargo(["build", "--release", "--package", "bench-siskin", "--target-dir"]);
    repo::run(build.arg(&target_dir))?;
    Ok(target_dir.join("release/bench-siskin"))
}

/// Builds a crate of benches/ for exactly this processor, which is to the advantage of those who don't look at run time.
pub fn build_crate(folder: &str) -> Result<PathBuf> {
    let target_dir = repo::root().join("target/peers").join(folder);
    let mut build = repo::cargo(["build", "--release", "--locked", "--manifest-path"]);
    build.arg(repo::root().join("benches").join(folder).join("Cargo.toml")).arg("--target-dir").arg(&target_dir);
    repo::run(build.env("RUSTFLAGS", "-C target-cpu=native"))?;
    Ok(target_dir.join("release").join(format!("bench-{folder}")))
}

/// The version that a crate of benches/ has locked a package at.
pub fn locked_version(folder: &str, package: &str) -> Result<String> {
    let path = repo::root().join("benches").join(folder).join("Cargo.lock");
    let lock: toml::Table = fs::read_to_string(&path)?.parse()?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("a lock file has packages")?;
    let found = packages.iter().find(|entry| entry.get("name").and_then(toml::Value::as_str) == Some(package));
    let version = found.and_then(|entry| entry.get("version")?.as_str());
    Ok(version.with_context(|| format!("{} has no {package}", path.display()))?.to_owned())
}

fn crate_program(folder: &str, package: &str) -> Result<Program> {
    let name = format!("{folder} {}", locked_version(folder, package)?);
    Ok(Program { name, command: vec![build_crate(folder)?, "llama".into()], options: Vec::new() })
}

fn torch() -> Result<Vec<Program>> {
    let python = match std::env::var_os(PYTHON_VARIABLE) {
        Some(python) => PathBuf::from(python),
        None => python_for_torch().with_context(|| {
            format!("set {PYTHON_VARIABLE} to a Python that has PyTorch, or mend this and try again")
        })?,
    };
    let mut ask = Command::new(&python);
    let version = repo::output(ask.args(["-c", "import torch; print(torch.__version__)"]))?;
    let script = repo::root().join("benches/torch/train.py");
    let variants = [
        ("eager", "fused", "eager, its own attention"),
        ("eager", "plain", "eager, attention written out"),
        ("compile", "fused", "compiled, its own attention"),
        ("compile", "plain", "compiled, attention written out"),
    ];
    let program = |(mode, attention, what): (&'static str, &'static str, &str)| Program {
        name: format!("PyTorch {}, {what}", version.trim()),
        command: vec![python.clone(), script.clone(), "llama".into()],
        options: vec![mode, attention],
    };
    Ok(variants.map(program).into())
}

/// A virtual environment with what benches/torch/requirements.txt pins: some gigabytes.
fn python_for_torch() -> Result<PathBuf> {
    python_with("bench-python", "torch", &repo::root().join("benches/torch/requirements.txt"))
}

/// The Python of a virtual environment in the cache that has `module`, made from `requirements` where it is missing.
pub fn python_with(folder: &str, module: &str, requirements: &Path) -> Result<PathBuf> {
    let folder = repo::cache().join(folder);
    let python = folder.join("bin/python");
    if has_module(&python, module) {
        return Ok(python);
    }
    repo::announce(&format!("making a Python with {module} in {}", folder.display()));
    let has_venv = || packages::find("python3").is_some_and(|python| has_module(&python, "ensurepip"));
    packages::ensure("python3 with venv", &["python3", "python3-venv"], has_venv)?;
    repo::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    repo::run(Command::new(&python).args(["-m", "pip", "install", "--requirement"]).arg(requirements))?;
    ensure!(has_module(&python, module), "{module} was installed but does not load");
    Ok(python)
}

fn has_module(python: &Path, module: &str) -> bool {
    let import = Command::new(python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    import.is_ok_and(|status| status.success())
}

/// Compiles llm.c's own source as its Makefile does, with our loop around it.
fn llmc(dir: &Path) -> Result<Program> {
    let source = dir.join("train_gpt2.c");
    let text = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let Some(compiler) = ["clang", "gcc", "cc"].into_iter().find(|compiler| packages::find(compiler).is_some()) else {
        bail!("a C compiler with OpenMP is missing: on Debian, apt-get install gcc");
    };
    let binary = repo::root().join("target/peers/bench-llmc");
    fs::create_dir_all(repo::root().join("target/peers"))?;
    let mut compile = Command::new(compiler);
    compile.args(["-Ofast", "-march=native", "-fopenmp", "-DOMP", "-DTESTING", "-w", "-I"]).arg(dir);
    compile.arg(repo::root().join("benches/llmc/train.c")).arg("-o").arg(&binary).arg("-lm");
    repo::run(&mut compile)?;
    let hash: String = Sha256::digest(&text).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("llm.c (train_gpt2.c {hash}…, {compiler} -Ofast)");
    Ok(Program { name, command: vec![binary, "gpt2".into()], options: Vec::new() })
}
