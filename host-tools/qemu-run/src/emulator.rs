//! Starting the emulator, following what it says, and stopping it when the time is over.

use std::fs;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use object::{Object as _, ObjectSymbol as _};

use crate::board::Board;
use crate::run_dir::RunDir;

/// How often the emulator is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// How a run ended.
pub(crate) enum End {
    /// The guest ended itself with this code.
    Exited(u8),
    /// The emulator was stopped because the time was over.
    TimedOut,
    /// The emulator was ended by a signal.
    Killed(i32),
}

/// What is known of a run.
pub(crate) struct Emulation {
    /// How it ended.
    pub(crate) end: End,
    /// Lines that the guest said.
    pub(crate) n_lines: usize,
}

/// What the plugin is to count besides the instructions of marked regions.
#[derive(Clone, Copy)]
pub(crate) struct Counting<'a> {
    /// The plugin.
    pub(crate) plugin: &'a Path,
    /// The deepest store on the stack.
    pub(crate) watches_stack: bool,
    /// How often each instruction is executed.
    pub(crate) profiles: bool,
}

/// The emulator's command line. It works in the run folder, so all paths are absolute.
pub(crate) fn command(board: &Board, elf: &Path, run_dir: &RunDir, counting: Option<Counting<'_>>) -> Result<Command> {
    let mut command = machine(board, "none");
    command.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(absolute(elf)?);
    if let Some(Counting { plugin, watches_stack, profiles }) = counting {
        let plugin = absolute(plugin)?;
        let mut arguments = format!("{},out={}", plugin.display(), run_dir.counts_path().display());
        if profiles {
            arguments += &format!(",profile={}", run_dir.addresses_path().display());
        }
        if watches_stack {
            let [low, high, main] = stack_addresses(elf)?;
            arguments += &format!(",stack_low={low:#x},stack_high={high:#x},main={main:#x}");
        }
        command.arg("-plugin").arg(arguments);
    }
    command.current_dir(run_dir.path());
    Ok(command)
}

/// The command line that has the standard streams for the board's serial line. There is no debugger, so nothing else is said.
pub(crate) fn serial(board: &Board, elf: &Path) -> Result<Command> {
    let mut command = machine(board, "stdio");
    command.arg("-kernel").arg(absolute(elf)?);
    Ok(command)
}

/// The emulator, told which machine it is and what its serial line is.
fn machine(board: &Board, serial: &str) -> Command {
    let mut command = Command::new(&board.emulator.program);
    command.args(["-M", &board.emulator.machine, "-display", "none", "-monitor", "none", "-serial", serial]);
    if let Some(cpu) = &board.emulator.cpu {
        command.args(["-cpu", cpu]);
    }
    command.args(&board.emulator.args);
    command
}

fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    path.canonicalize().with_context(|| format!("failed to find {}", path.display()))
}

/// The stack's bounds and the first instruction of `main`, as the linker placed them.
fn stack_addresses(elf: &Path) -> Result<[u64; 3]> {
    let bytes = fs::read(elf).with_context(|| format!("failed to read {}", elf.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is not an ELF", elf.display()))?;
    let address = |name: &str| {
        let symbol = file.symbol_by_name(name).map(|symbol| symbol.address());
        symbol.with_context(|| format!("{} has no symbol {name}", elf.display()))
    };
    // Bit 0 of a Thumb function's address marks the instruction set.
    Ok([address("_stack_end")?, address("_stack_start")?, address("main")? & !1])
}

/// Runs to the end or to the limit. What the guest says is passed on line by line, and kept.
pub(crate) fn run(mut command: Command, run_dir: &RunDir, limit: Duration) -> Result<Emulation> {
    let transcript = Arc::new(Mutex::new(run_dir.transcript()?));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let package = if program.contains("riscv") { "qemu-system-misc" } else { "qemu-system-arm" };
            anyhow!("{program} is not installed: apt-get install {package}")
        }
        _ => anyhow!("failed to start {program}: {error}"),
    })?;
    let stdout = follow(child.stdout.take(), &transcript, |line| io::stdout().lock().write_all(line));
    let stderr = follow(child.stderr.take(), &transcript, |line| io::stderr().lock().write_all(line));
    let status = wait(&mut child, limit)?;
    let n_lines = stdout.join().unwrap_or(0);
    stderr.join().unwrap_or(0);
    Ok(Emulation { end: end(status), n_lines })
}

/// Passes a stream's lines to `pass_on` and the transcript, in a thread of its own; gives their number.
fn follow(
    stream: Option<impl Read + Send + 'static>,
    transcript: &Arc<Mutex<File>>,
    pass_on: impl Fn(&[u8]) -> io::Result<()> + Send + 'static,
) -> thread::JoinHandle<usize> {
    let transcript = Arc::clone(transcript);
    thread::spawn(move || {
        let Some(stream) = stream else { return 0 };
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        let mut n_lines = 0;
        while lines.read_until(b'\n', &mut line).is_ok_and(|n_read| n_read > 0) {
            // A reader that has gone must not end the run: the transcript still gets everything.
            let _ = pass_on(&line);
            let _ = transcript.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
            line.clear();
            n_lines += 1;
        }
        n_lines
    })
}

/// The status, or `None` where the time was over and the emulator had to be killed.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("failed to wait for the emulator")? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit {
            child.kill().context("failed to stop the emulator")?;
            child.wait().context("failed to wait for the emulator")?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn end(status: Option<ExitStatus>) -> End {
    let Some(status) = status else { return End::TimedOut };
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => End::Killed(signal.unwrap_or(0)),
    }
}
