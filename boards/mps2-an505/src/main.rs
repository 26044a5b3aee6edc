//! Arm MPS2 AN505: a Cortex-M33 that stays in the secure state, as it starts.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 16384, prompt_tokens: 4096);
