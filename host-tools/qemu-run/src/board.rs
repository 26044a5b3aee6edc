//! What the runner needs of a board: the emulator part of its `board.toml`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// A board that can be emulated.
#[derive(Debug, Deserialize)]
pub(crate) struct Board {
    /// Its name, which is its folder's.
    pub(crate) name: String,
    /// How it is emulated.
    pub(crate) emulator: Emulator,
}

/// The emulator and its machine.
#[derive(Debug, Deserialize)]
pub(crate) struct Emulator {
    /// The program.
    pub(crate) program: String,
    /// Its name for the board.
    pub(crate) machine: String,
    /// Its name for the core, where the machine has a choice.
    pub(crate) cpu: Option<String>,
    /// What else it is to be told.
    #[serde(default)]
    pub(crate) args: Vec<String>,
}

impl Board {
    /// Reads `boards_dir/name/board.toml`.
    pub(crate) fn load(boards_dir: &Path, name: &str) -> Result<Self> {
        let path = boards_dir.join(name).join("board.toml");
        if !path.is_file() {
            bail!("there is no board {name} in {}; name it with --board", boards_dir.display());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("failed to read {}", path.display()))
    }
}

/// The folder given, or boards/ in or above the current folder.
pub(crate) fn find_boards_dir(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let current = env::current_dir().context("failed to find the current folder")?;
    let found = current.ancestors().map(|above| above.join("boards")).find(|boards| boards.is_dir());
    found.context("there is no boards/ in or above the current folder; name it with --boards-dir")
}
