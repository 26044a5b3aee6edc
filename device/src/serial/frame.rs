//! Frames: messages between zeros, with a checksum.

use core::fmt;

use serde::{Deserialize, Serialize};
use siskin_runtime::format::checksum;

/// The version of frames and messages.
pub const VERSION: u8 = 1;
/// Bytes of the checksum.
const CRC_BYTES: usize = 4;
/// The longest run of bytes without a zero that one length says.
const RUN_MAX: usize = 254;

/// Why a frame was not understood. The next one is looked at afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// It was changed on its way, or is none.
    Damaged,
    /// It is longer than the receiver's buffer.
    TooLong {
        /// Bytes of the longest, as they go over the line.
        bytes_max: usize,
    },
    /// It comes from another version.
    Version {
        /// The version found.
        found: u8,
    },
    /// It holds no message of this version.
    Unknown,
}

impl FrameError {
    /// In words, without figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "a damaged frame: send it again",
            Self::TooLong { .. } => "the frame is too long for this device: shorten the prompt",
            Self::Version { .. } => "the frame has another version of the protocol",
            Self::Unknown => "the frame holds no message of this version",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::TooLong { bytes_max } => write!(f, " ({bytes_max} bytes at most)"),
            Self::Version { found } => write!(f, " ({found}, not {VERSION})"),
            Self::Damaged | Self::Unknown => Ok(()),
        }
    }
}

impl core::error::Error for FrameError {}

/// The message does not fit into the sender's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTooLong;

/// Gives `write` the bytes of a frame around `message`, which is put together in `buffer`.
///
/// # Errors
/// [`MessageTooLong`]; nothing was written.
pub fn send(message: &impl Serialize, buffer: &mut [u8], mut write: impl FnMut(u8)) -> Result<(), MessageTooLong> {
    let (first, rest) = buffer.split_first_mut().ok_or(MessageTooLong)?;
    *first = VERSION;
    let end = 1 + postcard::to_slice(message, rest).map_err(|_| MessageTooLong)?.len();
    let crc = checksum(&buffer[..end]);
    *buffer.get_mut(end..).and_then(<[u8]>::first_chunk_mut::<CRC_BYTES>).ok_or(MessageTooLong)? = crc.to_le_bytes();
    // Each run of bytes is preceded by its length plus 1, and stands for a zero behind it unless it has the greatest length.
    let mut rest = &buffer[..end + CRC_BYTES];
    loop {
        let most = rest.len().min(RUN_MAX);
        let run = rest[..most].iter().position(|&byte| byte == 0).unwrap_or(most);
        write(run as u8 + 1);
        rest[..run].iter().for_each(|&byte| write(byte));
        if run == rest.len() {
            break;
        }
        rest = &rest[run + usize::from(run < RUN_MAX)..];
    }
    write(0);
    Ok(())
}

/// Gathers the bytes of a frame in the caller's memory.
pub struct Receiver<'b> {
    buffer: &'b mut [u8],
    /// More than the buffer holds where the frame is too long.
    len: usize,
}

impl<'b> Receiver<'b> {
    /// Nothing gathered yet.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Bytes of the longest frame.
    pub fn bytes_max(&self) -> usize {
        self.buffer.len()
    }

    /// Takes a byte from the line; true where it ends a frame, which [`Receiver::message`] reads before the next byte comes.
    pub fn push(&mut self, byte: u8) -> bool {
        if byte == 0 {
            return self.len > 0;
        }
        if let Some(place) = self.buffer.get_mut(self.len) {
            *place = byte;
        }
        self.len = self.len.saturating_add(1);
        false
    }

    /// The message of the frame that has ended, and an empty receiver.
    ///
    /// # Errors
    /// [`FrameError`]
    pub fn message<'m, M: Deserialize<'m>>(&'m mut self) -> Result<M, FrameError> {
        let (len, bytes_max) = (core::mem::take(&mut self.len), self.buffer.len());
        let frame = self.buffer.get_mut(..len).ok_or(FrameError::TooLong { bytes_max })?;
        let n_bytes = decode(frame).ok_or(FrameError::Damaged)?;
        let (content, crc) = frame[..n_bytes].split_last_chunk::<CRC_BYTES>().ok_or(FrameError::Damaged)?;
        if checksum(content) != u32::from_le_bytes(*crc) {
            return Err(FrameError::Damaged);
        }
        match content {
            [VERSION, message @ ..] => match postcard::take_from_bytes(message) {
                Ok((message, [])) => Ok(message),
                _ => Err(FrameError::Unknown),
            },
            [found, ..] => Err(FrameError::Version { found: *found }),
            [] => Err(FrameError::Damaged),
        }
    }
}

/// Takes COBS off a frame without its zero, in place; gives the bytes that are left, or `None` where a length leads outside.
fn decode(frame: &mut [u8]) -> Option<usize> {
    let (mut from, mut to) = (0, 0);
    while let Some(&code) = frame.get(from) {
        let run = usize::from(code).checked_sub(1)?;
        if from + run >= frame.len() {
            return None;
        }
        frame.copy_within(from + 1..=from + run, to);
        from += run + 1;
        to += run;
        if run < RUN_MAX && from < frame.len() {
            frame[to] = 0;
            to += 1;
        }
    }
    Some(to)
}
