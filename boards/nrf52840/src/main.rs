//! nRF52840, as on the nRF52840 DK: a Cortex-M4F, built only.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 4096, prompt_tokens: 1024);
