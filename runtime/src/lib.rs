//! The `no_std`, heap-free runtime of Siskin: runs a packed int8 transformer in memory that the caller owns.
//!
//! From the bottom up:
//!
//! - [`math`] fixes the bits of the few functions that are not plain arithmetic; [`config`] is the shape of a model, [`parts`] what
//!   it is made of.
//! - [`format`] is the packed file: [`PackedModel::parse`] checks everything once, after which nothing can fail.
//! - [`layout`] is the order of a matrix's bytes; [`tensor`] views int8 matrices where they lie; [`plan`] says where every byte of the [`arena`] goes.
//! - [`kernels`] do the work: plain loops that define each result, and one backend per kind of core.
//! - [`tokenizer`] turns text into tokens and back.
//! - [`grammar`] keeps generated text inside a grammar.
//! - `adapter` (a feature) applies what was trained beside a model, beside its products.
//! - [`session`] holds the KV cache and steps through tokens; [`sampler`] chooses the next one; [`generate`] is the loop.
//! - [`beam`] searches for the best text instead, several at a time.
//! - [`encoder`] runs models that say something about a whole text.
//! - `linked`, with the feature `linked-model`: a firmware's one model, of which the compiler knows everything but the weights.
//!
//! The runtime never allocates, prints, reads a clock or keeps global state. The same packed model and tokens give the same
//! logits, bit for bit, on every target (NUMERICS.md). `unsafe` is confined to `kernels/arch`.
#![no_std]
#![deny(unsafe_code)]

/// What a caller owes, mostly shapes that it has from a checked model. On a host a panic, as of `assert!`. On a device, where nobody
/// would read a panic's text, the function is over at once, with nothing to show: zeros, or an empty slice.
#[cfg(not(target_os = "none"))]
macro_rules! require {
    ($condition:expr $(,)?) => {
        assert!($condition)
    };
}
#[cfg(target_os = "none")]
macro_rules! require {
    ($condition:expr $(,)?) => {
        if !$condition {
            return Default::default();
        }
    };
}

#[cfg(feature = "adapters")]
pub mod adapter;
pub mod arena;
mod attention;
pub mod beam;
pub mod config;
mod cut;
mod decoder;
pub mod encoder;
pub mod format;
pub mod generate;
pub mod grammar;
mod head;
pub mod kernels;
mod known;
pub mod kv_cache;
mod lanes;
pub mod layout;
#[cfg(feature = "linked-model")]
pub mod linked;
pub mod math;
pub mod parts;
pub mod plan;
mod recurrent;
pub mod sampler;
pub mod session;
pub mod snapshot;
mod sparse;
pub mod speculative;
pub mod tensor;
pub mod tokenizer;

pub use arena::{Aligned, ArenaError};
pub use beam::{BeamOptions, BeamSearch, EarlyStopping};
pub use config::{ConfigError, ModelConfig};
pub use encoder::Encoder;
pub use format::{FormatError, PackedModel};
pub use generate::{End, Generation, Limits, LogitsHash, Window};
pub use kernels::{Join, Kernels, Serial};
pub use kv_cache::KvFormat;
pub use layout::WeightLayout;
pub use parts::Parts;
pub use plan::MemoryPlan;
pub use sampler::{Sampler, Sampling, SamplingError, StopMatcher};
pub use session::{Session, StepError};
pub use snapshot::{Snapshot, SnapshotError};
pub use speculative::Draft;
pub use tensor::WeightFormat;
pub use tokenizer::{Tokenizer, TokenizerError};

/// An index into a model's vocabulary.
pub type TokenId = u32;
