//! The folder that keeps what a run was given and what it said; the emulator works in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

/// What the names begin with under which the guest looks for its requests.
const REQUEST: &str = "siskin-request";

/// A folder that exists.
pub(crate) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// The folder given, or a new one in `runs/` beside the boards.
    pub(crate) fn create(given: Option<&Path>, boards_dir: &Path, board: &str) -> Result<Self> {
        let path = match given {
            Some(given) => given.to_owned(),
            None => {
                let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                boards_dir.with_file_name("runs").join(format!("{board}-{seconds}-{}", process::id()))
            }
        };
        fs::create_dir_all(&path).with_context(|| format!("failed to create the run folder {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("failed to find {}", path.display()))?;
        Ok(Self { path })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the requests where the guest finds them, and takes away further ones of an earlier run.
    pub(crate) fn add_requests(&self, requests: &[PathBuf]) -> Result<()> {
        for (idx, request) in requests.iter().enumerate() {
            let target = self.request_path(idx);
            if request.canonicalize().is_ok_and(|request| request == target) {
                continue;
            }
            fs::copy(request, target).with_context(|| format!("failed to copy the request {}", request.display()))?;
        }
        let left_over = (requests.len().max(1)..).map(|idx| self.request_path(idx)).take_while(|path| path.exists());
        for path in left_over {
            fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
        }
        Ok(())
    }

    fn request_path(&self, idx: usize) -> PathBuf {
        let number = if idx == 0 { String::new() } else { format!("-{idx}") };
        self.path.join(format!("{REQUEST}{number}.bin"))
    }

    /// Notes the command line, so that the run can be repeated by hand.
    pub(crate) fn write_command(&self, command: &Command) -> Result<()> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let path = self.path.join("command.txt");
        fs::write(&path, line.join(" ") + "\n").with_context(|| format!("failed to write {}", path.display()))
    }

    /// Opens the transcript, empty.
    pub(crate) fn transcript(&self) -> Result<File> {
        let path = self.path.join("transcript.txt");
        File::create(&path).with_context(|| format!("failed to create {}", path.display()))
    }

    /// Where the plugin writes.
    pub(crate) fn counts_path(&self) -> PathBuf {
        self.path.join("counts.txt")
    }

    /// Where the plugin writes how often each instruction was executed.
    pub(crate) fn addresses_path(&self) -> PathBuf {
        self.path.join("addresses.txt")
    }

    /// Where that goes by function.
    pub(crate) fn profile_path(&self) -> PathBuf {
        self.path.join("profile.txt")
    }
}
