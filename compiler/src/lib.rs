//! The host-side compiler of Siskin.

pub mod artifact;
pub mod data;
pub mod eval;
pub mod grammar;
pub mod model;
pub mod objective;
pub mod pack;
pub mod peft;
pub mod plan;
pub mod quant;
pub mod recipe;
pub mod reference;
pub mod tensor;
pub mod threads;
pub mod tokenizer;
pub mod train;
