//! The host-side compiler of Siskin.

pub mod artifact;
pub mod pack;
pub mod plan;
pub mod quant;
pub mod threads;
