//! `[model]`: the shape of the model.

use crate::model::{Architecture, Family, FeedForward, Head, Kind, NormKind, NormPlace, Positions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[model]`: the parts' sizes; the family decides the rest. The vocabulary's size is the tokenizer's, the head the objective's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// The folder of a model to go on from: its weights are the first values, and all other keys of this section and of
    /// `[tokenizer]` are its own and can be left out. A relative path starts at the recipe's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// The family.
    #[serde(default, skip_serializing_if = "is_llama")]
    pub architecture: Family,
    /// Width of the residual stream, or of a recurrent state.
    pub dim: usize,
    /// Width of the feed-forward block's hidden layer; recurrent models have none.
    #[serde(default)]
    pub hidden_dim: usize,
    /// Layers; of the encoder, and of the decoder too unless `n_decoder_layers` says otherwise.
    pub n_layers: usize,
    /// Layers of the decoder of an encoder-decoder, if not as many as the encoder's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_decoder_layers: Option<usize>,
    /// Query heads; recurrent models have none.
    #[serde(default)]
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    /// Width of a head; `dim / n_heads` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Positions in a training window and in the finished model.
    pub context_len: usize,
    /// Width of the token embedding, if not `dim`; `albert` and recurrent models only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_dim: Option<usize>,
    /// Added inside the root of every norm.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f32,
    /// Base of the rotary frequencies; `llama` only.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f32,
    /// Buckets of relative distances; `t5` only.
    #[serde(default = "default_buckets", skip_serializing_if = "is_default_buckets")]
    pub relative_buckets: usize,
    /// Distance from which all share a bucket; `t5` only.
    #[serde(default = "default_max_distance", skip_serializing_if = "is_default_max_distance")]
    pub relative_max_distance: usize,
    /// Feed-forward function, if not the family's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed_forward: Option<FeedForward>,
    /// Whether the output head is the embedding matrix.
    #[serde(default = "default_true")]
    pub tied_head: bool,
}

impl ModelSection {
    /// The section that says what a model is made of; `None` if no section does.
    pub(super) fn of(a: &Architecture) -> Option<Self> {
        let (relative_buckets, relative_max_distance) = match a.positions {
            Positions::RelativeBias { n_buckets, max_distance } => (n_buckets, max_distance),
            _ => (default_buckets(), default_max_distance()),
        };
        let rope_theta = match a.positions {
            Positions::Rope { theta } => theta,
            _ => default_rope_theta(),
        };
        let n_layers = if a.family.kind() == Kind::DecoderOnly { a.n_decoder_layers } else { a.n_encoder_layers };
        let section = Self {
            init_from: None,
            architecture: a.family,
            dim: a.dim,
            hidden_dim: a.hidden_dim,
            n_layers,
            n_decoder_layers: (a.family.kind() == Kind::EncoderDecoder).then_some(a.n_decoder_layers),
            n_heads: a.n_heads,
            n_kv_heads: Some(a.n_kv_heads),
            head_dim: Some(a.head_dim),
            context_len: a.context_len,
            embedding_dim: Some(a.embedding_dim),
            norm_eps: a.norm_eps,
            rope_theta,
            relative_buckets,
            relative_max_distance,
            feed_forward: Some(a.feed_forward),
            tied_head: a.tied_head,
        };
        (section.architecture(a.vocab_size, a.head) == *a).then_some(section)
    }

    /// All parts of the model, for a vocabulary and a head.
    pub fn architecture(&self, vocab_size: usize, head: Head) -> Architecture {
        let family = self.architecture;
        let n_decoder_layers = self.n_decoder_layers.unwrap_or(self.n_layers);
        let (n_encoder_layers, n_decoder_layers) = match family.kind() {
            Kind::DecoderOnly => (0, n_decoder_layers),
            Kind::EncoderOnly => (self.n_layers, 0),
            Kind::EncoderDecoder => (self.n_layers, n_decoder_layers),
        };
        let (norm, norm_place, positions, feed_forward, biases) = self.parts();
        Architecture {
            family,
            dim: self.dim,
            embedding_dim: self.embedding_dim.unwrap_or(self.dim),
            hidden_dim: self.hidden_dim,
            n_encoder_layers,
            n_decoder_layers,
            shared_layers: family == Family::Albert,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads.unwrap_or(self.n_heads),
            head_dim: self.head_dim.unwrap_or(self.dim / self.n_heads.max(1)),
            vocab_size,
            context_len: self.context_len,
            norm,
            norm_eps: self.norm_eps,
            norm_place,
            positions,
            feed_forward: self.feed_forward.unwrap_or(feed_forward),
            biases,
            tied_head: self.tied_head,
            n_token_types: if matches!(family, Family::Bert | Family::Albert) { 2 } else { 0 },
            head,
        }
    }

    /// What the family fixes: norm, its place, positions, feed-forward function, biases.
    fn parts(&self) -> (NormKind, NormPlace, Positions, FeedForward, bool) {
        let rope = Positions::Rope { theta: self.rope_theta };
        let relative =
            Positions::RelativeBias { n_buckets: self.relative_buckets, max_distance: self.relative_max_distance };
        match self.architecture {
            Family::Llama => (NormKind::Rms, NormPlace::Pre, rope, FeedForward::SwiGlu, false),
            Family::Gpt2 => (NormKind::Layer, NormPlace::Pre, Positions::Learned, FeedForward::GeluTanh, true),
            Family::Bert => (NormKind::Layer, NormPlace::Post, Positions::Learned, FeedForward::Gelu, true),
            Family::Albert => (NormKind::Layer, NormPlace::Post, Positions::Learned, FeedForward::GeluTanh, true),
            Family::T5 => (NormKind::Rms, NormPlace::Pre, relative, FeedForward::GeGlu, false),
            Family::Transformer | Family::Gru | Family::GruSeq2seq => {
                (NormKind::Layer, NormPlace::Post, Positions::Sinusoidal, FeedForward::Relu, true)
            }
        }
    }
}

fn is_llama(family: &Family) -> bool {
    *family == Family::Llama
}
fn is_default_buckets(n: &usize) -> bool {
    *n == default_buckets()
}
fn is_default_max_distance(n: &usize) -> bool {
    *n == default_max_distance()
}
fn default_norm_eps() -> f32 {
    1e-5
}
fn default_rope_theta() -> f32 {
    10_000.0
}
fn default_buckets() -> usize {
    32
}
fn default_max_distance() -> usize {
    128
}
fn default_true() -> bool {
    true
}
