//! Raspberry Pi 3B without an operating system: one Cortex-A53, NEON without dot products.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 16384, prompt_tokens: 4096);
