//! Arm MPS3 AN547: a Cortex-M55 with MVE, in the secure state, as it starts.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 16384, prompt_tokens: 4096);
