//! STM32VLDISCOVERY: an STM32F100, with 8 KB of RAM the tightest of all.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 256, prompt_tokens: 32);
