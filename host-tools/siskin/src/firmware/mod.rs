//! Firmware around a packed model: building it, measuring it, and talking with it in the emulator.
//!
//! `cargo xtask firmware` and `cargo xtask emulate` do the work on toolchains and emulators; here is what they are asked for
//! and what is read from their results.

mod a64;
mod call_graph;
mod elf;
mod records;
mod request;
mod riscv;
mod stack;
mod thumb;

pub(crate) use elf::Sizes;
pub(crate) use records::{Records, Transcript};
pub(crate) use request::{Adapter, Prompt, Request};

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, anyhow, bail};
use siskin_runtime::PackedModel;

/// A board's folder, and the repository it belongs to.
pub(crate) struct BoardTools {
    /// Its name.
    name: String,
    /// The folder that holds boards/.
    root: PathBuf,
}

impl BoardTools {
    /// The tools of the board in `board_dir`, a folder of a repository's boards/.
    pub(crate) fn new(board_dir: &Path) -> anyhow::Result<Self> {
        let board_dir = board_dir.canonicalize().context("failed to find the board's folder")?;
        let name = board_dir.file_name().context("a board's folder has a name")?.to_string_lossy().into_owned();
        let root = board_dir.ancestors().nth(2).context("a board's folder lies in the repository's boards/")?;
        if !root.join("host-tools/xtask").is_dir() {
            bail!("firmware is built from the repository's sources, and {} is no checkout of it", root.display());
        }
        Ok(Self { name, root: root.to_owned() })
    }

    /// Where the firmware goes if nobody says otherwise: a path for each board and model.
    pub(crate) fn default_elf(&self, model_path: &Path) -> PathBuf {
        let stem = model_path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.root.join("target/firmware").join(format!("{}-{stem}.elf", self.name))
    }

    /// Builds the firmware around the packed model at `model_path`, to `elf`, and measures it; with room for an adapter of `adapter_bytes`
    /// that the host sends, unless that is 0.
    pub(crate) fn build(
        &self,
        model_path: &Path,
        model: &PackedModel<'_>,
        adapter_bytes: usize,
        elf: &Path,
    ) -> anyhow::Result<Sizes> {
        let (model_path, elf) = (absolute(model_path)?, absolute(elf)?);
        let mut xtask = self.xtask("firmware");
        xtask.arg("--model").arg(&model_path).arg("--out").arg(&elf);
        if adapter_bytes > 0 {
            xtask.env("SISKIN_ADAPTER_BYTES", adapter_bytes.to_string());
        }
        let status = xtask.stdout(Stdio::null()).status().context("failed to start cargo")?;
        if !status.success() {
            bail!("the firmware does not build ({status}); what the compiler said is above");
        }
        Sizes::measure(&elf, model)
    }

    /// Builds firmware that talks over a serial line, around the packed model at `model_path`, to `elf`.
    pub(crate) fn build_serial(&self, model_path: &Path, elf: &Path) -> anyhow::Result<()> {
        let mut xtask = self.xtask("firmware");
        xtask.args(["--app", "serial", "--model"]).arg(absolute(model_path)?).arg("--out").arg(absolute(elf)?);
        let status = xtask.stdout(Stdio::null()).status().context("failed to start cargo")?;
        if !status.success() {
            bail!("the firmware does not build ({status}); what the compiler said is above");
        }
        Ok(())
    }

    /// Runs `elf` in the emulator. `on_text` gets each piece of text as it comes.
    pub(crate) fn emulate(
        &self,
        elf: &Path,
        request: &Request<'_>,
        run_dir: &Path,
        mut on_text: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Transcript> {
        let request_path = run_dir.join("siskin-request.bin");
        std::fs::write(&request_path, request.encode())
            .with_context(|| format!("failed to write {}", request_path.display()))?;
        if let Adapter::Received(bytes) = request.adapter {
            let path = run_dir.join("siskin-adapter.bin");
            std::fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))?;
        }
        let mut xtask = self.xtask("emulate");
        xtask.arg("--elf").arg(absolute(elf)?).arg("--request").arg(&request_path).arg("--run-dir").arg(run_dir);
        let mut child = xtask.stdout(Stdio::piped()).spawn().context("failed to start cargo")?;
        let stdout = child.stdout.take().context("the emulator's output is piped")?;
        let mut records = Records::default();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("failed to read what the firmware says")?;
            if let Some(text) = records.take_line(&String::from_utf8_lossy(&line)) {
                on_text(&text)?;
            }
        }
        let status = child.wait().context("failed to wait for the emulator")?;
        if let Some(failure) = records.failure() {
            return Err(anyhow!("{failure}"));
        }
        if !status.success() {
            bail!("the emulation failed ({status}); its transcript is in {}", run_dir.display());
        }
        records.finish(&run_dir.join("counts.txt"))
    }

    /// Starts `elf` in the emulator, whose standard streams are the board's serial line.
    pub(crate) fn emulate_serial(&self, elf: &Path) -> anyhow::Result<Child> {
        let mut xtask = self.xtask("emulate");
        xtask.arg("--elf").arg(absolute(elf)?).arg("--serial").stdin(Stdio::piped()).stdout(Stdio::piped());
        xtask.spawn().context("failed to start cargo")
    }

    fn xtask(&self, task: &str) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["run", "--quiet", "--package", "xtask", "--", task, "--board", &self.name]);
        command.current_dir(&self.root).stdin(Stdio::null());
        command
    }
}

/// The same path from any folder; it need not exist.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("failed to find {}", path.display()))
}
