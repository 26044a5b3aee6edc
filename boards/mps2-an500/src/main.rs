//! Arm MPS2 AN500: a Cortex-M7, which issues two instructions at a time where the M4 issues one.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use siskin_firmware::{Memory, linked, run};
use siskin_runtime::{Aligned, TokenId};

#[entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; linked::ARENA_BYTES]> = Aligned([0; linked::ARENA_BYTES]);
    static mut REQUEST: [u8; 16384] = [0; 16384];
    static mut PROMPT: [TokenId; 4096] = [0; 4096];
    run(env!("CARGO_PKG_NAME"), Memory { arena: &mut ARENA.0, request: REQUEST, prompt: PROMPT })
}
