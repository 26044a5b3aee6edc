//! The application that every board runs: it continues a prompt with the model that is linked into its flash.
//!
//! A board's own crate holds its memory map and a `main` that hands [`run`] the memory to work in. What to do comes from the
//! host in one file ([`request`]); what comes of it goes back as records, one a line (boards/README.md lists them). There is
//! no heap, no `core::fmt`, and no interrupt.
#![no_std]

mod cortex_m;
mod failure;
mod generation;
mod host;
mod record;
pub mod request;

/// The model and the size of its arena, as the build script found them.
pub mod linked {
    use siskin_runtime::Aligned;

    include!(concat!(env!("OUT_DIR"), "/model.rs"));
}

use siskin_runtime::TokenId;
use siskin_runtime::format::checksum;

use failure::Failure;
use host::Console;
use record::Record;

/// The memory that a board lends to the application.
pub struct Memory {
    /// Where the session works: [`linked::ARENA_BYTES`] at a multiple of 16.
    pub arena: &'static mut [u8],
    /// Holds the request, so it bounds the prompt's text.
    pub request: &'static mut [u8],
    /// Holds the prompt's tokens.
    pub prompt: &'static mut [TokenId],
}

/// Does what the host asks for, then ends the emulation: with 0, or with 1 after an `error` record.
pub fn run(board: &str, memory: Memory) -> ! {
    let mut console = Console::open();
    Record::new(&mut console, "board ").text(board).send();
    let model = &linked::MODEL.0;
    Record::new(&mut console, "model").number(model.len() as u64).hex(checksum(model).into(), 8).send();
    let outcome = generation::respond(&mut console, memory);
    Record::new(&mut console, "stack").number(cortex_m::stack_used_bytes() as u64).send();
    match outcome {
        Ok(()) => host::exit(0),
        Err(failure) => {
            send_failure(&mut console, &failure);
            host::exit(1)
        }
    }
}

fn send_failure(console: &mut Console, failure: &Failure) {
    let mut record = Record::new(console, "error ").text(failure.text);
    for (name, figure) in failure.figures.iter().flatten() {
        record = record.text(" ").text(name).number(*figure);
    }
    record.send();
}

/// The little-endian number in four bytes.
fn u32_le(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}
