//! The only way in and out: semihosting calls to the debugger or the emulator.

use core::ffi::CStr;

use semihosting::fs::File;
use semihosting::io::{self, Read as _, Write as _};
use semihosting::process;

/// Why a file of the host could not be read.
pub enum ReadError {
    /// It could not be opened.
    Missing,
    /// Reading it failed half-way.
    Broken,
    /// It is longer than the buffer.
    TooLong,
}

/// Reads the host's file `name` into the front of `buffer`; returns its length in bytes.
pub fn read_file(name: &CStr, buffer: &mut [u8]) -> Result<usize, ReadError> {
    let mut file = File::open(name).map_err(|_| ReadError::Missing)?;
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]).map_err(|_| ReadError::Broken)? {
            0 => return Ok(len),
            n_read => len += n_read,
        }
    }
    let is_longer = file.read(&mut [0]).map_err(|_| ReadError::Broken)? > 0;
    if is_longer { Err(ReadError::TooLong) } else { Ok(len) }
}

/// Where records go: the emulator's standard output.
pub struct Console(Option<io::Stdout>);

impl Console {
    /// Opens it. Without a host that listens, everything written is lost.
    pub fn open() -> Self {
        Self(io::stdout().ok())
    }

    /// Writes all of `bytes`. There is nobody to tell of a failure.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(stdout) = &mut self.0 {
            let _ = stdout.write_all(bytes);
        }
    }
}

/// Ends the emulation; 0 is success.
pub fn exit(code: u8) -> ! {
    process::exit(code.into())
}
