//! What is particular to a kind of core: how it starts, where that is ours, and what it knows of a fault. What they share: the marks that
//! instruction counts go by, the painted stack, and how the program ends when it crashes.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "arm")]
mod cortex_m;
#[cfg(target_arch = "arm")]
mod cortex_m_memory;
#[cfg(any(generates, feature = "gemv", feature = "greedy"))]
mod count;
mod crash;
#[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
mod riscv;
#[cfg(not(target_has_atomic = "8"))]
mod sections;
mod stack;

#[cfg(rounds_to_zero)]
pub use cortex_m::round_to_zero;
#[cfg(any(generates, feature = "gemv", feature = "greedy"))]
pub use count::{count_start, count_stop};
pub use stack::used_bytes as stack_used_bytes;
