//! The Arm virt machine with a Cortex-A76: NEON with dot products.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 16384, prompt_tokens: 4096);
