//! The application that every board runs: it continues a prompt with the model that is linked into its flash, or says what an encoder
//! finds in it. Features put another in its place: `conformance` tries every kernel, `gemv` has products of fixed shapes counted, `greedy` is
//! the smallest, `serial` talks over a serial line in place of a debugger, and `selftest` is what a device may try before it trusts its model.
//!
//! A board's own crate holds its memory map and a `main` that hands [`run`] the memory to work in. What to do comes from the
//! host in one file ([`request`]); what comes of it goes back as records, one a line (boards/README.md lists them). There is
//! no heap, no `core::fmt`, and no interrupt.
#![no_std]

#[cfg(generates)]
mod adapting;
mod arch;
#[cfg(generates)]
mod beams;
#[cfg(feature = "conformance")]
mod conformance;
#[cfg(generates)]
mod encoding;
mod failure;
#[cfg(feature = "gemv")]
mod gemv;
#[cfg(generates)]
mod generation;
#[cfg(feature = "greedy")]
mod greedy;
#[cfg_attr(feature = "serial", path = "line.rs")]
mod host;
mod record;
#[cfg(generates)]
pub mod request;
#[cfg(feature = "selftest")]
mod selftest;
#[cfg(feature = "serial")]
mod serial;
#[cfg(feature = "serial")]
mod uart;

#[cfg(feature = "conformance")]
use conformance as application;
#[cfg(feature = "gemv")]
use gemv as application;
#[cfg(generates)]
use generation as application;
#[cfg(feature = "greedy")]
use greedy as application;
#[cfg(feature = "selftest")]
use selftest as application;
#[cfg(feature = "serial")]
use serial as application;

/// The model and the size of its arena, as the build script found them.
#[cfg(has_model)]
pub mod linked {
    use siskin_device::Shape;
    use siskin_runtime::{Kernels, PackedModel};

    use crate::failure::Failure;

    include!(concat!(env!("OUT_DIR"), "/model.rs"));

    /// What the flash holds in the model's place. Where another model may be put there, the compiler must not look.
    #[cfg(not(feature = "serial"))]
    pub(crate) fn model() -> &'static [u8] {
        if HAS_ROOM { core::hint::black_box(&MODEL.0) } else { &MODEL.0 }
    }

    /// Tokens that a prompt's memory holds, at most `most`: those of two contexts, so that one that is too long is told as such. Encoders cut
    /// long texts themselves, and where there is room for another model its context may be longer.
    pub const fn prompt_tokens(most: usize) -> usize {
        let needed = 2 * SHAPE.context_len;
        if SHAPE.is_encoder || HAS_ROOM || most < needed { most } else { needed }
    }

    /// Bytes of a request, at most `most`: 8 a position of the context, and what a prompt without text takes.
    pub const fn request_bytes(most: usize) -> usize {
        let needed = 1024 + 8 * SHAPE.context_len;
        let needed = if needed < 2048 { 2048 } else { needed };
        if SHAPE.is_encoder || HAS_ROOM || most < needed { most } else { needed }
    }

    /// Refuses weights that `kernels` would read slowly.
    pub(crate) fn check_layout(model: &PackedModel<'_>, kernels: Kernels) -> Result<(), Failure> {
        let (found, wanted) = (model.header().layout, kernels.preferred_layout());
        if found == wanted {
            return Ok(());
        }
        const WRONG: Failure =
            Failure::new("the weights lie in another order than this core's kernels read: compile for this board");
        Err(WRONG.with("found", found as u64).with("wanted", wanted as u64))
    }
}

/// What an application that needs no model has in its place.
#[cfg(not(has_model))]
pub mod linked {
    /// No arena.
    pub const ARENA_BYTES: usize = 0;
    /// No adapter.
    pub const ADAPTER_BYTES: usize = 0;

    /// No model, so as many as there may be.
    pub const fn prompt_tokens(most: usize) -> usize {
        most
    }

    /// Likewise.
    pub const fn request_bytes(most: usize) -> usize {
        most
    }
}

use siskin_runtime::TokenId;

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
    /// Holds an adapter that the host has sent: [`linked::ADAPTER_BYTES`] at a multiple of 16.
    pub adapter: &'static mut [u8],
}

/// Defines `main`, which the start-up code calls once: it lends the application the board's memory, after it has called what comes `first`,
/// where there is such.
#[macro_export]
macro_rules! main {
    (request_bytes: $request_bytes:expr, prompt_tokens: $prompt_tokens:expr $(, first: $first:path)?) => {
        /// Lends the application the board's memory.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> ! {
            use siskin_firmware::{Memory, linked};
            use siskin_runtime::{Aligned, TokenId};

            $($first();)?

            static mut ARENA: Aligned<[u8; linked::ARENA_BYTES]> = Aligned([0; linked::ARENA_BYTES]);
            const REQUEST_BYTES: usize = linked::request_bytes($request_bytes);
            const PROMPT_TOKENS: usize = linked::prompt_tokens($prompt_tokens);
            static mut REQUEST: [u8; REQUEST_BYTES] = [0; REQUEST_BYTES];
            static mut PROMPT: [TokenId; PROMPT_TOKENS] = [0; PROMPT_TOKENS];
            static mut ADAPTER: Aligned<[u8; linked::ADAPTER_BYTES]> = Aligned([0; linked::ADAPTER_BYTES]);
            // SAFETY: the statics are named here only, and this runs once on the only core.
            let (arena, adapter, request, prompt) = unsafe {
                (&mut *(&raw mut ARENA), &mut *(&raw mut ADAPTER), &mut *(&raw mut REQUEST), &mut *(&raw mut PROMPT))
            };
            let memory = Memory { arena: &mut arena.0, request, prompt, adapter: &mut adapter.0 };
            siskin_firmware::run(env!("CARGO_PKG_NAME"), memory)
        }
    };
}

/// Does what the host asks for, then ends the emulation: with 0, or with 1 where there was an `error` record.
pub fn run(board: &str, memory: Memory) -> ! {
    let mut console = Console::open();
    Record::new(&mut console, "board ").text(board).send();
    let is_well = application::serve(&mut console, board, memory);
    Record::new(&mut console, "stack").number(arch::stack_used_bytes() as u64).send();
    host::exit(if is_well { 0 } else { 1 })
}

/// The little-endian number in four bytes.
#[cfg(any(generates, feature = "greedy"))]
fn u32_le(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}
