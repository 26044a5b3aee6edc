//! The RISC-V virt machine with a 64-bit core that has an FPU and vectors of 128 bits.
#![no_std]
#![no_main]

siskin_firmware::main!(request_bytes: 16384, prompt_tokens: 4096);
