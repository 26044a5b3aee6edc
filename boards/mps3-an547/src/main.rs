//! Arm MPS3 AN547: a Cortex-M55 with MVE, in the secure state, as it starts.
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
