//! What is particular to a kind of core: how faults and panics are reported, how deep the stack went, and the marks that instruction
//! counts go by.
//!
//! Each has `count_start` and `count_stop`, no-ops that the emulator's plugin looks for, and `stack_used_bytes`.
#![cfg_attr(
    feature = "conformance",
    allow(dead_code, unused_imports, reason = "the conformance cases are not counted")
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "arm")]
mod cortex_m;
#[cfg(target_arch = "arm")]
mod cortex_m_memory;
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
mod riscv;

#[cfg(target_arch = "aarch64")]
pub use aarch64::{count_start, count_stop, stack_used_bytes};
#[cfg(target_arch = "arm")]
pub use cortex_m::{count_start, count_stop, stack_used_bytes};
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
pub use riscv::{count_start, count_stop, stack_used_bytes};
