//! A model behind a serial line: what is asked and answered ([`Request`], [`Event`]), and the frames that carry it.
//!
//! A frame is a version, a message in postcard's encoding, and a CRC-32 of both, little-endian; all of it in COBS, so that the byte 0
//! occurs nowhere but behind it. Whatever noise comes in between, the next 0 ends it, and the checksum tells. A sender may put a 0
//! before a frame as well: frames of nothing are passed over.
//!
//! ```text
//! host                               device
//! Hello                      ->
//!                            <-      Hello { board, ... }
//! Generate { prompt, ... }   ->
//!                            <-      Prompt, then for each token Token and Text, then End
//! Stop                       ->      ends the text under way, after the token that it is at
//! ```
//! What the device cannot do it says in an [`Event::Error`], and serves the next request.

mod frame;
mod message;

pub use frame::{FrameError, MessageTooLong, Receiver, VERSION, send};
pub use message::{EndReason, Event, Generate, Request, STOPS_MAX, Settings};
