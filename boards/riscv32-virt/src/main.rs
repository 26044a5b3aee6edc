//! The RISC-V virt machine as an ESP32-C3: a core without FPU and vectors.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 2048, prompt_tokens: 512);
