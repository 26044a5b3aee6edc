//! STM32VLDISCOVERY: an STM32F100, with 8 KB of RAM the tightest of all.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use siskin_firmware::{Memory, linked, run};
use siskin_runtime::{Aligned, TokenId};

#[entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; linked::ARENA_BYTES]> = Aligned([0; linked::ARENA_BYTES]);
    static mut REQUEST: [u8; 256] = [0; 256];
    static mut PROMPT: [TokenId; 32] = [0; 32];
    run(env!("CARGO_PKG_NAME"), Memory { arena: &mut ARENA.0, request: REQUEST, prompt: PROMPT })
}
