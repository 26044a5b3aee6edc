//! A model of any architecture in memory: what training writes and goes on from.

use super::{NamedWeights, TokenizerSource};
use crate::model::Architecture;
use siskin_runtime::TokenId;

/// Tokens with a meaning of their own; `None` where a model has no such token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a text.
    pub bos: Option<TokenId>,
    /// Ends a text.
    pub eos: Option<TokenId>,
    /// Stands for nothing.
    pub pad: Option<TokenId>,
    /// What a decoder reads first, in an encoder-decoder.
    pub decoder_start: Option<TokenId>,
}

/// A model of any architecture. [`Checkpoint`](super::Checkpoint) is one that the runtime can run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedModel {
    /// What it is made of.
    pub architecture: Architecture,
    /// Weights by the names of the model's parameter layout.
    pub tensors: NamedWeights,
    /// The tokenizer's source.
    pub tokenizer: TokenizerSource,
    /// Special tokens.
    pub specials: SpecialIds,
    /// A classifier's labels, by number; empty for other models.
    pub labels: Vec<String>,
}
