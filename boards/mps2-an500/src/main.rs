//! Arm MPS2 AN500: a Cortex-M7, which issues two instructions at a time where the M4 issues one.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 16384, prompt_tokens: 4096);
