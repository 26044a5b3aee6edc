//! Backends for particular cores: the only place where `unsafe` is allowed.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
pub mod avx2;
