//! What the planner knows of a board: its memory, what its instructions were counted to be, and how fast its part runs them.

use std::path::Path;

use serde::Deserialize;
use siskin_runtime::{Kernels, WeightLayout};

use super::cost::Costs;
use super::speed::Speed;

/// A board, or the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// Name of its folder.
    pub name: String,
    /// The weight layout that its core reads fastest.
    pub layout: WeightLayout,
    /// Bytes of flash; `None` is as much as the host has.
    pub flash_bytes: Option<u64>,
    /// Bytes of RAM.
    pub ram_bytes: Option<u64>,
    /// What the firmware takes without a model.
    pub firmware: FirmwareBudget,
    /// What its instructions are predicted by, and the board that was counted: itself, or one with the same core.
    pub costs: Option<(String, Costs)>,
    /// What they are turned into time by.
    pub speed: Option<Speed>,
}

/// What a board's firmware takes besides the model and its arena, as `cargo xtask sizes` measures and enforces it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareBudget {
    /// Code and constants in flash.
    pub code_bytes: u64,
    /// Statics in RAM.
    pub static_ram_bytes: u64,
    /// The deepest stack.
    pub stack_bytes: u64,
}

/// Why a board cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Its file cannot be read.
    #[error("cannot read `{path}`: {error}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// Its file is not what a board's file must be.
    #[error("`{path}`: {error}")]
    Toml {
        /// The file.
        path: String,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// Its layout does not exist.
    #[error("`{path}`: there is no weight layout `{layout}`; use one of row-major, row-pairs, rows8")]
    Layout {
        /// The file.
        path: String,
        /// What it names.
        layout: String,
    },
}

/// The parts of `board.toml` that matter here; the rest is for the tools that build and run firmware.
#[derive(Deserialize)]
struct BoardToml {
    target: Target,
    memory: Memory,
    firmware: FirmwareBudget,
    costs: Option<CostsOf>,
    speed: Option<Speed>,
}

/// Where a board has its costs from that has none of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CostsOf {
    /// A board with the same core.
    like: String,
}

#[derive(Deserialize)]
struct Target {
    layout: String,
}

#[derive(Deserialize)]
struct Memory {
    flash_bytes: u64,
    ram_bytes: u64,
}

impl Board {
    /// This machine: its fastest layout, no limits, and no firmware.
    pub fn host() -> Self {
        Self {
            name: "host".to_owned(),
            layout: Kernels::detect().preferred_layout(),
            flash_bytes: None,
            ram_bytes: None,
            firmware: FirmwareBudget::default(),
            costs: None,
            speed: None,
        }
    }

    /// Reads the `board.toml` in `dir`.
    ///
    /// # Errors
    /// [`BoardError`], with the path.
    pub fn load(dir: &Path) -> Result<Self, BoardError> {
        let file = dir.join("board.toml");
        let path = file.display().to_string();
        let text = std::fs::read_to_string(&file).map_err(|error| BoardError::Io { path: path.clone(), error })?;
        let parsed: BoardToml =
            toml::from_str(&text).map_err(|error| BoardError::Toml { path: path.clone(), error: Box::new(error) })?;
        let named = |layout: &WeightLayout| layout.name() == parsed.target.layout;
        let layout = WeightLayout::ALL.into_iter().find(named);
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let counted_on = parsed.costs.map_or(name.clone(), |costs| costs.like);
        let costs = Costs::load(&dir.with_file_name(&counted_on))?;
        Ok(Self {
            name,
            layout: layout.ok_or(BoardError::Layout { path, layout: parsed.target.layout })?,
            flash_bytes: Some(parsed.memory.flash_bytes),
            ram_bytes: Some(parsed.memory.ram_bytes),
            firmware: parsed.firmware,
            costs: costs.map(|costs| (counted_on, costs)),
            speed: parsed.speed,
        })
    }
}
