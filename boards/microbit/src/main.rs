//! BBC micro:bit: an nRF51822, the smallest core that there is, with 16 KB of RAM.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 512, prompt_tokens: 64);
