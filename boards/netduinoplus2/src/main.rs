//! Netduino Plus 2: an STM32F405, the size of chip that the small models are made for.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 2048, prompt_tokens: 512);
