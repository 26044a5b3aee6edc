//! The host-side compiler of Siskin.

pub mod artifact;
pub mod eval;
pub mod pack;
pub mod plan;
pub mod quant;
pub mod reference;
pub mod threads;
pub mod tokenizer;
