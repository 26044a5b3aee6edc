//! `cargo xtask emulate`: firmware in its board's emulator, with instruction counts.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::board::{Board, Emulator, boards_dir};
use crate::repo::ExitWith;
use crate::toolchain::Toolchain;
use crate::{packages, repo};

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// A folder of boards/.
    #[arg(long)]
    board: String,
    /// The firmware.
    #[arg(long)]
    elf: PathBuf,
    /// The request that the firmware reads (boards/README.md); given again, further ones.
    #[arg(long, value_name = "FILE")]
    request: Vec<PathBuf>,
    /// Where transcript.txt and counts.txt go [default: a new folder in runs/].
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Seconds after which the emulator is stopped.
    #[arg(long, value_name = "S", default_value_t = 600)]
    timeout: u64,
    /// Hand over these standard streams as the board's serial line; nothing is kept or counted.
    #[arg(long, conflicts_with_all = ["request", "run_dir", "watch_stack", "profile"])]
    serial: bool,
    /// Also find the deepest store on the stack; slow.
    #[arg(long)]
    watch_stack: bool,
    /// Also write profile.txt: the instructions of the marked regions by function; slower.
    #[arg(long)]
    profile: bool,
    /// Keep what the firmware says out of the terminal; transcript.txt has it.
    #[arg(long)]
    quiet: bool,
}

impl Args {
    /// Runs `elf` on `board`, with a request where there is one, into `run_dir`, for at most ten minutes and without a word.
    pub fn new(board: &str, elf: &Path, request: Option<&Path>, run_dir: &Path) -> Self {
        let (request, run_dir) = (request.map(Path::to_owned).into_iter().collect(), Some(run_dir.to_owned()));
        let (board, elf) = (board.to_owned(), elf.to_owned());
        Self {
            board,
            elf,
            request,
            run_dir,
            timeout: 600,
            serial: false,
            watch_stack: false,
            profile: false,
            quiet: true,
        }
    }

    /// Also writes profile.txt.
    pub fn with_profile(self) -> Self {
        Self { profile: true, ..self }
    }
}

/// Runs it; the guest's exit code becomes ours.
pub fn run(args: &Args) -> Result<()> {
    run_with(&Tools::ready(&Board::load(&args.board)?)?, args)
}

/// The same with programs that are ready.
pub fn run_with(tools: &Tools, args: &Args) -> Result<()> {
    let mut command = Command::new(&tools.qemu_run);
    if args.serial {
        command.args(["--serial", "--board", &args.board, "--boards-dir"]).arg(boards_dir()).arg(&args.elf);
        // In this program's place, so that who started it ends the emulator by ending it.
        return Err(command.exec()).with_context(|| format!("failed to start {}", tools.qemu_run.display()));
    }
    command.args(["--board", &args.board, "--timeout", &args.timeout.to_string(), "--boards-dir"]).arg(boards_dir());
    command.arg("--icount").arg(&tools.icount);
    for request in &args.request {
        command.arg("--request").arg(request);
    }
    if let Some(run_dir) = &args.run_dir {
        command.arg("--run-dir").arg(run_dir);
    }
    for (flag, is_wanted) in [("--watch-stack", args.watch_stack), ("--profile", args.profile)] {
        if is_wanted {
            command.arg(flag);
        }
    }
    if args.quiet {
        command.stdout(Stdio::null());
    }
    let status =
        command.arg(&args.elf).status().with_context(|| format!("failed to start {}", tools.qemu_run.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(ExitWith(u8::try_from(code).unwrap_or(1)).into()),
        None => Err(ExitWith(1).into()),
    }
}

/// Makes everything ready that building and running firmware needs, for every board.
pub fn set_up() -> Result<()> {
    for board in Board::all()? {
        Toolchain::find(&board.target.triple)?;
        if board.emulator.is_some() {
            Tools::ready(&board)?;
        }
    }
    Ok(())
}

/// The programs that run firmware.
pub struct Tools {
    qemu_run: PathBuf,
    icount: PathBuf,
}

impl Tools {
    /// Installs the board's emulator and builds our own tools, where either is missing.
    pub fn ready(board: &Board) -> Result<Self> {
        let Some(Emulator { program }) = &board.emulator else {
            bail!("{} is built only: no emulator has it (boards/README.md says how to flash it)", board.name)
        };
        let package = match program.as_str() {
            "qemu-system-arm" | "qemu-system-aarch64" => "qemu-system-arm",
            _ => "qemu-system-misc",
        };
        packages::ensure(program, &[package], || packages::find(program).is_some())?;
        let target_dir = repo::root().join("target/tools");
        let mut build = repo::cargo(["build", "--quiet"]);
        build.args(["--release", "--package", "qemu-run", "--package", "icount", "--target-dir"]);
        repo::run_quietly(build.arg(&target_dir))?;
        let release = target_dir.join("release");
        Ok(Self { qemu_run: release.join("qemu-run"), icount: plugin(&release) })
    }
}

fn plugin(release: &Path) -> PathBuf {
    release.join(format!("{}icount{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
}
