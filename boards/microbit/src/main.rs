//! BBC micro:bit: an nRF51822, the smallest core that there is, with 16 KB of RAM.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use siskin_firmware::{Memory, linked, run};
use siskin_runtime::{Aligned, TokenId};

#[entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; linked::ARENA_BYTES]> = Aligned([0; linked::ARENA_BYTES]);
    static mut REQUEST: [u8; 512] = [0; 512];
    static mut PROMPT: [TokenId; 64] = [0; 64];
    run(env!("CARGO_PKG_NAME"), Memory { arena: &mut ARENA.0, request: REQUEST, prompt: PROMPT })
}
