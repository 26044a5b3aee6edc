//! STM32H743, as on the NUCLEO-H743ZI: a Cortex-M7, built only.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 4096, prompt_tokens: 1024);
