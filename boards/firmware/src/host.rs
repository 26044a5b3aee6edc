//! The only way in and out: semihosting calls to the debugger or the emulator.

use core::ffi::CStr;

use semihosting::process;
use semihosting::sys::arm_compat::OpenMode;
use semihosting::sys::arm_compat::syscall::{OperationNumber, ParamRegR, syscall_readonly};
#[cfg(any(generates, feature = "greedy"))]
use semihosting::sys::arm_compat::syscall::{ParamRegW, syscall};

/// Why a file of the host could not be read.
#[cfg(any(generates, feature = "greedy"))]
pub enum ReadError {
    /// It could not be opened.
    Missing,
    /// Reading it failed half-way.
    Broken,
    /// It is longer than the buffer.
    TooLong,
}

/// Reads the host's file `name`, which ends in a 0, into the front of `buffer`; returns its length in bytes.
#[cfg(any(generates, feature = "greedy"))]
pub fn read_file(name: &[u8], buffer: &mut [u8]) -> Result<usize, ReadError> {
    const FAILED: usize = usize::MAX;
    let name = CStr::from_bytes_until_nul(name).map_err(|_| ReadError::Missing)?;
    let handle = open(name, OpenMode::RDONLY);
    if handle == FAILED {
        return Err(ReadError::Missing);
    }
    let only_handle = [ParamRegR::usize(handle)];
    // SAFETY: SYS_FLEN reads a handle and changes no memory.
    let len = unsafe { syscall_readonly(OperationNumber::SYS_FLEN, ParamRegR::block(&only_handle)) }.usize();
    let read = match buffer.get_mut(..len) {
        Some(room) => {
            let mut block = [ParamRegW::usize(handle), ParamRegW::buf(room), ParamRegW::usize(len)];
            // SAFETY: SYS_READ reads a handle, a place and its length, and changes only what lies there.
            let n_missing = unsafe { syscall(OperationNumber::SYS_READ, ParamRegW::block(&mut block)) }.usize();
            if n_missing == 0 { Ok(len) } else { Err(ReadError::Broken) }
        }
        None if len == FAILED => Err(ReadError::Broken),
        None => Err(ReadError::TooLong),
    };
    // SAFETY: SYS_CLOSE reads a handle and changes no memory.
    unsafe { syscall_readonly(OperationNumber::SYS_CLOSE, ParamRegR::block(&only_handle)) };
    read
}

/// A handle of the host's file `name`; all ones where it cannot be opened.
fn open(name: &CStr, mode: OpenMode) -> usize {
    let block = [ParamRegR::c_str(name), ParamRegR::usize(mode as usize), ParamRegR::c_str_len(name)];
    // SAFETY: SYS_OPEN reads a path, a mode and the path's length, and changes no memory.
    unsafe { syscall_readonly(OperationNumber::SYS_OPEN, ParamRegR::block(&block)) }.usize()
}

/// Where records go: the emulator's standard output.
///
/// The calls are bare, without the library's conversion of errors: that can panic, and the panic handler reports through here.
pub struct Console {
    handle: usize,
    /// What is gathered before it is handed over: a call to the host costs far more than a copy.
    gathered: [u8; 120],
    n_gathered: usize,
}

impl Console {
    /// Opens it. Without a host that listens, everything written is lost.
    pub fn open() -> Self {
        Self { handle: open(c":tt", OpenMode::WRONLY_TRUNC), gathered: [0; 120], n_gathered: 0 }
    }

    // Nothing here may panic: the panic handler reports through it.

    /// Writes one byte, at the latest when [`Console::flush`] is called.
    pub fn push(&mut self, byte: u8) {
        if self.n_gathered >= self.gathered.len() {
            self.flush();
        }
        if let Some(slot) = self.gathered.get_mut(self.n_gathered) {
            *slot = byte;
            self.n_gathered += 1;
        }
    }

    /// Hands over what was gathered. There is nobody to tell of a failure.
    pub fn flush(&mut self) {
        let bytes = self.gathered.get(..self.n_gathered).unwrap_or_default();
        let block = [ParamRegR::usize(self.handle), ParamRegR::buf(bytes), ParamRegR::usize(bytes.len())];
        // SAFETY: SYS_WRITE reads a handle, the bytes and their number, and changes no memory.
        unsafe { syscall_readonly(OperationNumber::SYS_WRITE, ParamRegR::block(&block)) };
        self.n_gathered = 0;
    }
}

/// Ends the emulation; 0 is success.
pub fn exit(code: u8) -> ! {
    process::exit(code.into())
}
