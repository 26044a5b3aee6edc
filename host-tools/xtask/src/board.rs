//! The boards, as their `board.toml` describes them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::bench::InstructionBudget;
use crate::repo;

/// One board.
#[derive(Clone, Debug, Deserialize)]
pub struct Board {
    /// Its name: its folder's and its package's.
    pub name: String,
    /// What to compile for.
    pub target: Target,
    /// How it is emulated; a part that no emulator has is built only.
    pub emulator: Option<Emulator>,
    /// What the firmware may take.
    pub firmware: Budget,
    /// What it is measured with.
    #[serde(default)]
    pub measured: Measured,
    /// Limits of what else is counted in its image.
    pub image: Option<ImageBudget>,
    /// What it may execute.
    pub instructions: Option<InstructionBudget>,
    /// The board that its instructions are predicted like, where it has no costs of its own.
    pub costs: Option<CostsOf>,
}

/// A board with the same core.
#[derive(Clone, Debug, Deserialize)]
pub struct CostsOf {
    /// Its name.
    pub like: String,
}

/// What an image may hold.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ImageBudget {
    /// Flash without the model and start-up of the firmware that generates.
    pub engine_bytes: u64,
    /// The same of the greedy build.
    pub greedy_bytes: u64,
}

/// What a board is measured with.
#[derive(Clone, Debug, Deserialize)]
pub struct Measured {
    /// The shape of the model: one of those in `random_model.rs`.
    pub model: String,
}

impl Default for Measured {
    fn default() -> Self {
        Self { model: "stories260K".to_owned() }
    }
}

/// What to compile for.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// The compiler's name for the architecture.
    pub triple: String,
    /// The compiler's name for the core.
    pub cpu: String,
    /// The order of bytes in which the core's kernels read weights.
    pub layout: String,
}

/// The program that stands in for the board.
#[derive(Clone, Debug, Deserialize)]
pub struct Emulator {
    /// The program.
    pub program: String,
}

/// What the firmware takes without the model and its arena, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Budget {
    /// Code and constants in flash.
    pub code_bytes: u64,
    /// Statics in RAM.
    pub static_ram_bytes: u64,
    /// The stack.
    pub stack_bytes: u64,
}

impl Board {
    /// Reads the board `name`.
    ///
    /// # Errors
    /// There is none of that name, or its description is wrong.
    pub fn load(name: &str) -> Result<Self> {
        let path = Self::path(name);
        if !path.is_file() {
            let names: Vec<String> = Self::all()?.into_iter().map(|board| board.name).collect();
            bail!("there is no board {name}; there are {}", names.join(", "));
        }
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("failed to read {}", path.display()))
    }

    /// Every board that is emulated, by name.
    pub fn emulated() -> Result<Vec<Self>> {
        Ok(Self::all()?.into_iter().filter(|board| board.emulator.is_some()).collect())
    }

    /// The path of the board's description.
    pub fn path(name: &str) -> PathBuf {
        boards_dir().join(name).join("board.toml")
    }

    /// Every board, by name.
    pub fn all() -> Result<Vec<Self>> {
        let dir = boards_dir();
        let entries = dir.read_dir().with_context(|| format!("failed to list {}", dir.display()))?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
        names.retain(|name| Self::path(name).is_file());
        names.sort();
        names.iter().map(|name| Self::load(name)).collect()
    }
}

/// The folder of the boards' workspace.
pub fn boards_dir() -> PathBuf {
    repo::root().join("boards")
}
