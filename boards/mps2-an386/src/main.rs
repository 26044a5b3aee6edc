//! Arm MPS2 AN386: a Cortex-M4F with room for models of a few million parameters.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 16384, prompt_tokens: 4096);
