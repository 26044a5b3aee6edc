//! Netduino Plus 2: an STM32F405, the size of chip that the small models are made for.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use siskin_firmware::{Memory, linked, run};
use siskin_runtime::{Aligned, TokenId};

#[entry]
fn main() -> ! {
    static mut ARENA: Aligned<[u8; linked::ARENA_BYTES]> = Aligned([0; linked::ARENA_BYTES]);
    static mut REQUEST: [u8; 2048] = [0; 2048];
    static mut PROMPT: [TokenId; 512] = [0; 512];
    run(env!("CARGO_PKG_NAME"), Memory { arena: &mut ARENA.0, request: REQUEST, prompt: PROMPT })
}
