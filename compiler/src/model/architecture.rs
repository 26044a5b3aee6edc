//! What a model is made of: every architecture described by its parts, so that a new family is a list of parts and names.

use serde::{Deserialize, Serialize};
use siskin_runtime::{ModelConfig, Parts};

/// A published architecture whose parameter names and conventions a model follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Decoder-only: RMSNorm first, rotary positions, SwiGLU, no biases (Touvron et al. 2023).
    #[default]
    Llama,
    /// Decoder-only: LayerNorm first, learned positions, GELU (Radford et al. 2019).
    Gpt2,
    /// Encoder-only: LayerNorm last, learned positions, GELU (Devlin et al. 2018); MiniLM is one.
    Bert,
    /// BERT whose layers share their parameters and whose embedding is narrower than the model (Lan et al. 2019).
    Albert,
    /// Encoder-decoder: RMSNorm first, relative position bias, no biases (Raffel et al. 2019).
    T5,
    /// The first encoder-decoder: LayerNorm last, sinusoidal positions, ReLU (Vaswani et al. 2017), under Marian's names.
    Transformer,
    /// Recurrent language model (Cho et al. 2014): the baseline with a state of constant size.
    Gru,
    /// Recurrent encoder-decoder without attention: the source passes through one state.
    GruSeq2seq,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Llama, Self::Gpt2, Self::Bert, Self::Albert, Self::T5, Self::Transformer, Self::Gru, Self::GruSeq2seq];

    /// Its name in recipes and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Gpt2 => "gpt2",
            Self::Bert => "bert",
            Self::Albert => "albert",
            Self::T5 => "t5",
            Self::Transformer => "transformer",
            Self::Gru => "gru",
            Self::GruSeq2seq => "gru_seq2seq",
        }
    }

    /// What it reads and writes.
    pub fn kind(self) -> Kind {
        match self {
            Self::Llama | Self::Gpt2 | Self::Gru => Kind::DecoderOnly,
            Self::Bert | Self::Albert => Kind::EncoderOnly,
            Self::T5 | Self::Transformer | Self::GruSeq2seq => Kind::EncoderDecoder,
        }
    }

    /// Whether it is a recurrent network rather than a transformer.
    pub fn is_recurrent(self) -> bool {
        matches!(self, Self::Gru | Self::GruSeq2seq)
    }
}

/// What a model reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Continues its input.
    DecoderOnly,
    /// Says something about each position of its input.
    EncoderOnly,
    /// Reads one sequence and writes another.
    EncoderDecoder,
}

/// How a vector is brought to unit size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Divided by its root mean square; a gain.
    Rms,
    /// Freed of its mean and divided by its deviation; a gain and a bias.
    Layer,
}

/// Where the norm of a residual branch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlace {
    /// On the branch's input; one more at the end of the stack.
    Pre,
    /// On the sum of the stream and the branch.
    Post,
}

/// How a model knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Queries and keys turned by their position.
    Rope {
        /// Base of the frequencies.
        theta: f32,
    },
    /// A trained vector a position.
    Learned,
    /// Fixed sines (first half of the columns) and cosines (second half).
    Sinusoidal,
    /// A trained score a head for each bucket of distances between key and query; self-attention only.
    RelativeBias {
        /// Buckets.
        n_buckets: usize,
        /// Distance from which all share the last bucket.
        max_distance: usize,
    },
}

/// Function between the two products of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForward {
    /// `silu(gate) * up`.
    SwiGlu,
    /// `gelu_tanh(gate) * up`.
    GeGlu,
    /// `gelu(up)` by the error function.
    Gelu,
    /// `gelu(up)` by its tanh approximation.
    GeluTanh,
    /// `max(up, 0)`.
    Relu,
    /// `silu(up)`.
    Silu,
}

impl FeedForward {
    /// Whether there are two products before the last one.
    pub fn is_gated(self) -> bool {
        matches!(self, Self::SwiGlu | Self::GeGlu)
    }
}

/// What stands on top of the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// The vocabulary, at each position: causal and sequence-to-sequence models.
    Language,
    /// The vocabulary through one more layer, at the masked positions of an encoder.
    MaskedLanguage,
    /// One of some labels for the whole input.
    Classifier {
        /// Labels.
        n_labels: usize,
    },
    /// One of some labels for each position.
    TokenClassifier {
        /// Labels.
        n_labels: usize,
    },
    /// None: hidden states are what is wanted.
    None,
}

/// A model's parts. Counts are in elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Whose names and conventions.
    pub family: Family,
    /// Width of the residual stream, or of a recurrent state.
    pub dim: usize,
    /// Width of the token embedding; `dim` but in ALBERT.
    pub embedding_dim: usize,
    /// Width of the feed-forward block's hidden layer; unused by recurrent models.
    pub hidden_dim: usize,
    /// Layers of the encoder; 0 where there is none.
    pub n_encoder_layers: usize,
    /// Layers of the decoder; 0 where there is none.
    pub n_decoder_layers: usize,
    /// Whether all layers of a stack are one and the same.
    pub shared_layers: bool,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding and of the output head.
    pub vocab_size: usize,
    /// Most positions of a sequence.
    pub context_len: usize,
    /// Kind of all norms.
    pub norm: NormKind,
    /// Added inside the root of every norm.
    pub norm_eps: f32,
    /// Where norms stand.
    pub norm_place: NormPlace,
    /// Positions.
    pub positions: Positions,
    /// Feed-forward blocks.
    pub feed_forward: FeedForward,
    /// Whether products have biases.
    pub biases: bool,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
    /// Rows of the token type embedding; 0 for none.
    pub n_token_types: usize,
    /// What stands on top.
    pub head: Head,
}

/// Why an [`Architecture`] cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// A count is zero or absurdly large.
    #[error("{field} is {value}, but must be between 1 and {max}")]
    OutOfRange {
        /// Which count.
        field: &'static str,
        /// What it is.
        value: usize,
        /// The most it may be.
        max: usize,
    },
    /// Key heads do not divide query heads.
    #[error("{n_kv_heads} key heads do not divide {n_heads} query heads")]
    HeadsNotGrouped {
        /// Query heads.
        n_heads: usize,
        /// Key and value heads.
        n_kv_heads: usize,
    },
    /// Rotary positions turn pairs.
    #[error("head_dim is {head_dim}, but rotary positions turn pairs: make it even")]
    OddHeadDim {
        /// Width of a head.
        head_dim: usize,
    },
    /// A number that must be positive and finite is not.
    #[error("{field} must be {limits}")]
    BadNumber {
        /// Which.
        field: &'static str,
        /// What it must be.
        limits: &'static str,
    },
    /// Two parts that do not go together.
    #[error("a model of the family {family} cannot have {what}")]
    Unsuited {
        /// The family.
        family: &'static str,
        /// The other part.
        what: &'static str,
    },
}

impl Architecture {
    /// A Llama of the runtime's shape.
    pub fn llama(config: &ModelConfig) -> Self {
        Self {
            family: Family::Llama,
            dim: config.dim,
            embedding_dim: config.dim,
            hidden_dim: config.hidden_dim,
            n_encoder_layers: 0,
            n_decoder_layers: config.n_layers,
            shared_layers: false,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            vocab_size: config.vocab_size,
            context_len: config.context_len,
            norm: NormKind::Rms,
            norm_eps: config.norm_eps,
            norm_place: NormPlace::Pre,
            positions: Positions::Rope { theta: config.rope_theta },
            feed_forward: FeedForward::SwiGlu,
            biases: false,
            tied_head: config.tied_head,
            n_token_types: 0,
            head: Head::Language,
        }
    }

    /// The shape as the runtime knows it; `None` where the runtime has no such model.
    pub fn runtime_config(&self) -> Option<ModelConfig> {
        let Positions::Rope { theta: rope_theta } = self.positions else { return None };
        let config = ModelConfig {
            dim: self.dim,
            hidden_dim: self.hidden_dim,
            n_layers: self.n_decoder_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            vocab_size: self.vocab_size,
            context_len: self.context_len,
            norm_eps: self.norm_eps,
            rope_theta,
            tied_head: self.tied_head,
            parts: Parts::LLAMA,
        };
        (*self == Self::llama(&config)).then_some(config)
    }

    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Checks that the parts are there and go together.
    ///
    /// # Errors
    /// [`ArchitectureError`], the first that is found.
    pub fn validate(&self) -> Result<(), ArchitectureError> {
        let kind = self.family.kind();
        let in_range = |field, value: usize, max: usize| match (1..=max).contains(&value) {
            true => Ok(()),
            false => Err(ArchitectureError::OutOfRange { field, value, max }),
        };
        in_range("dim", self.dim, 1 << 16)?;
        in_range("embedding_dim", self.embedding_dim, 1 << 16)?;
        in_range("vocab_size", self.vocab_size, ModelConfig::COUNT_MAX)?;
        in_range("context_len", self.context_len, ModelConfig::CONTEXT_MAX)?;
        if kind != Kind::EncoderOnly {
            in_range("n_layers of the decoder", self.n_decoder_layers, 1 << 10)?;
        }
        if kind != Kind::DecoderOnly {
            in_range("n_layers of the encoder", self.n_encoder_layers, 1 << 10)?;
        }
        if let Head::Classifier { n_labels } | Head::TokenClassifier { n_labels } = self.head {
            in_range("number of labels", n_labels, 1 << 16)?;
        }
        self.validate_head(kind)?;
        if self.family.is_recurrent() {
            return Ok(());
        }
        in_range("hidden_dim", self.hidden_dim, ModelConfig::COLUMNS_MAX)?;
        in_range("n_heads", self.n_heads, 1 << 10)?;
        in_range("n_kv_heads", self.n_kv_heads, 1 << 10)?;
        in_range("head_dim", self.head_dim, 1 << 10)?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let Self { n_heads, n_kv_heads, .. } = *self;
            return Err(ArchitectureError::HeadsNotGrouped { n_heads, n_kv_heads });
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(ArchitectureError::BadNumber { field: "norm_eps", limits: "at least 0 and finite" });
        }
        self.validate_positions()
    }

    fn validate_head(&self, kind: Kind) -> Result<(), ArchitectureError> {
        let unsuited = |what| Err(ArchitectureError::Unsuited { family: self.family.name(), what });
        match (self.head, kind) {
            (Head::MaskedLanguage, Kind::DecoderOnly | Kind::EncoderDecoder) => {
                unsuited("a masked-language head: take bert or albert")
            }
            (Head::Language, Kind::EncoderOnly) => unsuited("a causal head: take llama, gpt2 or gru"),
            (Head::Classifier { .. } | Head::TokenClassifier { .. }, Kind::EncoderDecoder) => {
                unsuited("a classification head: take an encoder or a decoder alone")
            }
            (Head::Classifier { .. } | Head::TokenClassifier { .. }, _) if self.family.is_recurrent() => {
                unsuited("a classification head: take a transformer")
            }
            _ => Ok(()),
        }
    }

    fn validate_positions(&self) -> Result<(), ArchitectureError> {
        match self.positions {
            Positions::Rope { .. } if !self.head_dim.is_multiple_of(2) => {
                Err(ArchitectureError::OddHeadDim { head_dim: self.head_dim })
            }
            Positions::Rope { theta } if !(theta.is_finite() && theta > 0.0) => {
                Err(ArchitectureError::BadNumber { field: "rope_theta", limits: "above 0 and finite" })
            }
            // A bidirectional table halves its buckets for the two signs, and half of those are exact distances.
            Positions::RelativeBias { n_buckets, max_distance }
                if n_buckets < 4 || !n_buckets.is_multiple_of(4) || max_distance <= n_buckets / 2 =>
            {
                Err(ArchitectureError::BadNumber {
                    field: "relative_buckets",
                    limits: "a multiple of 4, and relative_max_distance above half of it",
                })
            }
            _ => Ok(()),
        }
    }
}
