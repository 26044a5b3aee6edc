//! RP2350, as on the Raspberry Pi Pico 2: two Cortex-M33, of which one works; built only.
#![no_std]
#![no_main]

/// What the boot ROM looks for in the first 4 KB: a block whose one item says that this is a program for Arm in the secure state.
#[unsafe(link_section = ".start_block")]
#[used]
static START_BLOCK: [u32; 5] = [0xffff_ded3, 0x1021_0142, 0x0000_01ff, 0, 0xab12_3579];

siskin_firmware::main!(request_bytes: 4096, prompt_tokens: 1024);
