//! Finding the boards: the repository's boards/ folder, from wherever the program is called.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::failure::Failure;

/// The name that stands for this machine, which has no folder.
pub(crate) const HOST: &str = "host";

/// Where boards are looked for.
#[derive(clap::Args)]
pub(crate) struct BoardsDirArgs {
    /// The folder that holds the boards [default: boards/ above the current folder, or above this program].
    #[arg(long, global = true, value_name = "DIR", display_order = 899)]
    boards_dir: Option<PathBuf>,
}

impl BoardsDirArgs {
    /// The folder that holds a folder for each board.
    pub(crate) fn find(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.boards_dir {
            return match dir.is_dir() {
                true => Ok(dir.clone()),
                false => Err(not_found(&format!("there is no folder {}", dir.display()))),
            };
        }
        let starts = [env::current_dir().ok(), env::current_exe().ok()];
        let found = starts.iter().flatten().find_map(|start| boards_above(start));
        found.ok_or_else(|| not_found("there is no boards/ above the current folder nor above this program"))
    }

    /// The folder of the board `name`.
    pub(crate) fn find_board(&self, name: &str) -> Result<PathBuf, Failure> {
        let boards_dir = self.find()?;
        let is_plain_name = Path::new(name).file_name().is_some_and(|file_name| file_name == name);
        let dir = boards_dir.join(name);
        if is_plain_name && is_board(&dir) {
            return Ok(dir);
        }
        let known = board_names(&boards_dir).join(", ");
        let cause = anyhow!("there is no such board in {}; there are: {known}, {HOST}", boards_dir.display());
        Err(Failure::invalid_input(format!("find the board {name}"), cause))
    }
}

/// The names of the boards in `boards_dir`, sorted.
pub(crate) fn board_names(boards_dir: &Path) -> Vec<String> {
    let entries = boards_dir.read_dir().into_iter().flatten().flatten();
    let boards = entries.filter(|entry| is_board(&entry.path()));
    let mut names: Vec<String> = boards.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn is_board(dir: &Path) -> bool {
    dir.join("board.toml").is_file()
}

fn boards_above(start: &Path) -> Option<PathBuf> {
    let candidates = start.ancestors().map(|above| above.join("boards"));
    candidates.into_iter().find(|boards| boards.is_dir() && !board_names(boards).is_empty())
}

fn not_found(why: &str) -> Failure {
    Failure::invalid_input("find the boards", anyhow!("{why}; name it with --boards-dir DIR"))
}

/// The board that a model is meant for.
#[derive(clap::Args)]
pub(crate) struct BoardArgs {
    /// A folder of boards/, or `host` for this machine.
    #[arg(long, value_name = "BOARD")]
    pub(crate) board: String,
    #[command(flatten)]
    pub(crate) dir: BoardsDirArgs,
}
