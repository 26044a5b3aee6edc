//! Backends for particular cores: the only place where `unsafe` is allowed.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
#[cfg(all(target_arch = "arm", target_os = "linux", feature = "std"))]
pub mod armv7;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
pub mod avx2;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
pub mod avx512;
#[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
pub mod cortex_m_dsp;
#[cfg(all(target_arch = "arm", feature = "cortex-m-scalar"))]
pub mod cortex_m_scalar;
#[cfg(all(target_arch = "arm", feature = "cortex-m-mve"))]
pub mod mve;
#[cfg(all(target_arch = "riscv32", feature = "riscv-scalar"))]
pub mod riscv;
#[cfg(all(any(target_arch = "riscv32", target_arch = "riscv64"), feature = "riscv-v"))]
pub mod riscv_v;
