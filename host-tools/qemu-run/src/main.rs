//! Runs an ELF on an emulated board: with a time-out, a transcript of all it said, and the guest's own exit code.
//!
//! It works as cargo's `runner`. Exit codes: the guest's, where it ended by itself; 124 where the time ran out; 125 where the
//! emulator could not be started or died.

mod board;
mod emulator;
mod profile;
mod run_dir;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use board::Board;
use emulator::{Counting, Emulation, End};
use run_dir::RunDir;

const TIMED_OUT: u8 = 124;
const EMULATOR_FAILED: u8 = 125;

const AFTER_HELP: &str = "\
The run folder holds transcript.txt (all that the guest and the emulator said),
command.txt, with --icount counts.txt (instructions of each marked region), and with
--profile profile.txt (the same by function).

Examples:
  qemu-run target/thumbv7em-none-eabihf/release/netduinoplus2
  qemu-run --board mps2-an386 --request request.bin --icount target/release/libicount.so firmware.elf";

/// Run an ELF on an emulated board.
#[derive(Parser)]
#[command(name = "qemu-run", after_help = AFTER_HELP)]
struct Args {
    /// The firmware.
    elf: PathBuf,
    /// The board's name [default: the ELF's].
    #[arg(long)]
    board: Option<String>,
    /// The folder of boards [default: boards/ in or above the current folder, or the current folder's own].
    #[arg(long, value_name = "DIR")]
    boards_dir: Option<PathBuf>,
    /// Seconds after which the emulator is stopped.
    #[arg(long, value_name = "S", default_value_t = 300)]
    timeout: u64,
    /// Where to keep the transcript [default: a new folder in runs/ beside boards/].
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The request, which the guest reads as siskin-request.bin. Given again, further ones: siskin-request-1.bin and so on.
    #[arg(long, value_name = "FILE")]
    request: Vec<PathBuf>,
    /// The icount plugin: count the instructions of each marked region.
    #[arg(long, value_name = "PLUGIN")]
    icount: Option<PathBuf>,
    /// Hand over these standard streams as the board's serial line, in this program's place: until it is ended.
    #[arg(long, conflicts_with_all = ["timeout", "run_dir", "request", "icount"])]
    serial: bool,
    /// With --icount, also find the deepest store on the stack; slow.
    #[arg(long, requires = "icount")]
    watch_stack: bool,
    /// With --icount, also write profile.txt: the instructions of the marked regions by function.
    #[arg(long, requires = "icount")]
    profile: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("qemu-run: {error:#}");
            EMULATOR_FAILED.into()
        }
    }
}

fn run(args: &Args) -> Result<u8> {
    ensure!(args.elf.is_file(), "there is no firmware {}", args.elf.display());
    let boards_dir = board::find_boards_dir(args.boards_dir.as_deref())?;
    let board = Board::load(&boards_dir, &board_name(args)?)?;
    if args.serial {
        let mut command = emulator::serial(&board, &args.elf)?;
        return Err(command.exec()).context("failed to start the emulator");
    }
    let run_dir = RunDir::create(args.run_dir.as_deref(), &boards_dir, &board.name)?;
    run_dir.add_requests(&args.request)?;
    let counting = args.icount.as_deref().map(|plugin| Counting {
        plugin,
        watches_stack: args.watch_stack,
        profiles: args.profile,
    });
    let command = emulator::command(&board, &args.elf, &run_dir, counting)?;
    run_dir.write_command(&command)?;
    let limit = Duration::from_secs(args.timeout);
    let Emulation { end, n_lines } = emulator::run(command, &run_dir, limit)?;
    if args.profile {
        profile::by_function(&args.elf, &run_dir.addresses_path(), &run_dir.profile_path())?;
    }
    Ok(report(&end, n_lines, limit, run_dir.path()))
}

fn board_name(args: &Args) -> Result<String> {
    if let Some(name) = &args.board {
        return Ok(name.clone());
    }
    let stem = args.elf.file_stem().context("the firmware has no file name; name the board with --board")?;
    Ok(stem.to_string_lossy().into_owned())
}

/// Tells a hang from a crash from a failure, and gives the exit code.
fn report(end: &End, n_lines: usize, limit: Duration, run_dir: &Path) -> u8 {
    let transcript = run_dir.display();
    match *end {
        End::Exited(0) => 0,
        End::Exited(code) => {
            eprintln!("qemu-run: the firmware ended with exit code {code}; see {transcript}");
            code
        }
        End::TimedOut => {
            let seconds = limit.as_secs();
            eprintln!(
                "qemu-run: stopped after {seconds} s, {n_lines} lines in: a hang, or too little time (--timeout); see {transcript}"
            );
            TIMED_OUT
        }
        End::Killed(signal) => {
            eprintln!(
                "qemu-run: the emulator died of signal {signal}: the processor locked up, or QEMU is at fault; see {transcript}"
            );
            EMULATOR_FAILED
        }
    }
}
