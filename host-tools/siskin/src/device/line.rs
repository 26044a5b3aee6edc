//! The line itself: bytes out, and bytes in, which a thread waits for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// A serial line.
pub(crate) struct Line {
    output: Box<dyn Write>,
    input: Receiver<u8>,
    /// The emulator at its end, which ends with it.
    emulator: Option<Child>,
}

impl Line {
    /// Opens a port, at `baud` where it is a real one.
    pub(crate) fn open(port: &Path, baud: u32) -> anyhow::Result<Self> {
        let doing = || format!("failed to open {}", port.display());
        let output = OpenOptions::new().read(true).write(true).open(port).with_context(doing)?;
        set_raw(&output, baud).with_context(doing)?;
        let input = follow(output.try_clone().with_context(doing)?);
        Ok(Self { output: Box::new(output), input, emulator: None })
    }

    /// The line of a board whose emulator has its standard streams for it.
    pub(crate) fn of_emulator(mut emulator: Child) -> anyhow::Result<Self> {
        let output = emulator.stdin.take().context("the emulator's input is piped")?;
        let input = follow(emulator.stdout.take().context("the emulator's output is piped")?);
        Ok(Self { output: Box::new(output), input, emulator: Some(emulator) })
    }

    /// Sends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)?;
        self.output.flush()
    }

    /// The next byte, which is waited for as long as `patience` lasts.
    pub(crate) fn read(&mut self, patience: Duration) -> anyhow::Result<u8> {
        match self.input.recv_timeout(patience) {
            Ok(byte) => Ok(byte),
            Err(RecvTimeoutError::Timeout) => bail!("the device said nothing for {} seconds", patience.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("the line is closed: the device or its emulator is gone"),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(emulator) = &mut self.emulator {
            // It may have ended by itself.
            let _ = emulator.kill();
            let _ = emulator.wait();
        }
    }
}

/// Passes on what can be read, from a thread that ends with the stream.
fn follow(mut stream: impl Read + Send + 'static) -> Receiver<u8> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = [0; 256];
        while let Ok(n_read @ 1..) = stream.read(&mut bytes) {
            if bytes[..n_read].iter().any(|&byte| sender.send(byte).is_err()) {
                break;
            }
        }
    });
    receiver
}

/// Bytes as they are, eight bits each, no echo, at `baud`. A file or a pipe is left as it is.
#[cfg(unix)]
fn set_raw(port: &File, baud: u32) -> io::Result<()> {
    use rustix::termios::{ControlModes, OptionalActions, isatty, tcgetattr, tcsetattr};

    if !isatty(port) {
        return Ok(());
    }
    let mut settings = tcgetattr(port)?;
    settings.make_raw();
    settings.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    let refused =
        |_| io::Error::other(format!("the port cannot have {baud} baud: give another --baud, as the firmware's"));
    settings.set_speed(baud).map_err(refused)?;
    Ok(tcsetattr(port, OptionalActions::Now, &settings)?)
}

/// The system's own settings of the port stay.
#[cfg(not(unix))]
fn set_raw(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}
