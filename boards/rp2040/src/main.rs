//! RP2040, as on the Raspberry Pi Pico: two Cortex-M0+, of which one works; built only.
#![no_std]
#![no_main]

/// What the boot ROM copies and runs first: it sets up the flash chip of a Pico, so that code and model are read where they lie.
#[unsafe(link_section = ".boot2")]
#[used]
static BOOT: [u8; 256] = rp2040_boot2::BOOT_LOADER_W25Q080;

siskin_firmware::main!(request_bytes: 4096, prompt_tokens: 1024);
