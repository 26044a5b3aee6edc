//! The `no_std`, heap-free runtime of Siskin.
#![no_std]
#![deny(unsafe_code)]

pub mod config;
pub mod kernels;
pub mod math;
pub mod sampler;
pub mod tensor;

pub use config::{ConfigError, ModelConfig};

/// An index into a model's vocabulary.
pub type TokenId = u32;
