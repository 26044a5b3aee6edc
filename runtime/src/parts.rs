//! What a model is made of: every architecture described by its parts, so that one forward pass runs them all.

use crate::TokenId;
use crate::config::{ConfigError, ModelConfig};

/// A list of codes that a packed file may hold, and their meanings.
macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl $name {
            /// Every value, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value with this code in a packed file.
            pub const fn from_code(code: u8) -> Option<Self> {
                let mut rest = Self::ALL;
                while let [value, others @ ..] = rest {
                    if *value as u8 == code {
                        return Some(*value);
                    }
                    rest = others;
                }
                None
            }
        }
    };
}

coded! {
    /// What a model reads and writes.
    Kind {
        /// Continues its input.
        Decoder = 0,
        /// Says something about its input, or about each position of it.
        Encoder = 1,
        /// Reads one sequence and writes another.
        EncoderDecoder = 2,
    }
}

coded! {
    /// How a vector is brought to unit size.
    NormKind {
        /// Divided by its root mean square; a gain.
        Rms = 0,
        /// Freed of its mean and divided by its deviation; a gain and a bias.
        Layer = 1,
    }
}

coded! {
    /// Where the norm of a residual branch stands.
    NormPlace {
        /// On the branch's input; one more at the end of a stack.
        Pre = 0,
        /// On the sum of the stream and the branch.
        Post = 1,
    }
}

coded! {
    /// How a model knows where a token stands.
    Positions {
        /// Queries and keys turned by their position; decoders only.
        Rope = 0,
        /// A vector a position, added to the embedding: learned or sinusoidal.
        Table = 1,
        /// A score a head and distance, added in self-attention.
        RelativeBias = 2,
        /// Not at all, as in recurrent models, which need no telling.
        None = 3,
    }
}

coded! {
    /// The function between the two products of a feed-forward block.
    FeedForward {
        /// `silu(gate) * up`.
        SwiGlu = 0,
        /// `gelu_tanh(gate) * up`.
        GeGlu = 1,
        /// `gelu(up)` by the error function.
        Gelu = 2,
        /// `gelu(up)` by its tanh approximation.
        GeluTanh = 3,
        /// `max(up, 0)`.
        Relu = 4,
        /// `silu(up)`.
        Silu = 5,
    }
}

impl FeedForward {
    /// Whether there are two products before the last one.
    pub fn is_gated(self) -> bool {
        matches!(self, Self::SwiGlu | Self::GeGlu)
    }
}

coded! {
    /// What stands on top of the last layer.
    Head {
        /// The vocabulary, after each position.
        Language = 0,
        /// The vocabulary, through one more layer, for a position of an encoder.
        MaskedLanguage = 1,
        /// Labels for the whole input, through one more layer with `tanh`, from an encoder's first position.
        Classifier = 2,
        /// Labels for each position.
        TokenClassifier = 3,
        /// None: hidden states are what is wanted.
        None = 4,
    }
}

/// A model's parts besides its counts. [`Parts::LLAMA`] are those of a file that says nothing about them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// What it reads and writes.
    pub kind: Kind,
    /// Whether layers are gated recurrent units rather than attention and feed-forward blocks.
    pub is_recurrent: bool,
    /// Kind of all norms.
    pub norm: NormKind,
    /// Where norms stand.
    pub norm_place: NormPlace,
    /// Positions.
    pub positions: Positions,
    /// Feed-forward blocks.
    pub feed_forward: FeedForward,
    /// What stands on top.
    pub head: Head,
    /// Labels of a classifier; 0 for other heads.
    pub n_labels: usize,
    /// Whether products have biases.
    pub biases: bool,
    /// Whether all layers of a stack are one and the same, stored once.
    pub shared_layers: bool,
    /// Whether the sum of the embeddings is normed.
    pub embedding_norm: bool,
    /// Whether a product takes the embedding to the model's width.
    pub embedding_projection: bool,
    /// Whether scores are divided by the root of a head's width.
    pub scaled_attention: bool,
    /// Width of the embedding; 0 is the model's own.
    pub embedding_dim: usize,
    /// What token embeddings are multiplied by.
    pub embedding_scale: f32,
    /// Layers of the encoder, where there is a decoder too; 0 in other models.
    pub n_encoder_layers: usize,
    /// What a decoder reads first, where there is an encoder.
    pub start_token: Option<TokenId>,
    /// Stands for a token that is to be filled in.
    pub mask_token: Option<TokenId>,
}

impl Parts {
    /// A decoder of the Llama family: RMSNorm first, rotary positions, SwiGLU, no biases.
    pub const LLAMA: Self = Self {
        kind: Kind::Decoder,
        is_recurrent: false,
        norm: NormKind::Rms,
        norm_place: NormPlace::Pre,
        positions: Positions::Rope,
        feed_forward: FeedForward::SwiGlu,
        head: Head::Language,
        n_labels: 0,
        biases: false,
        shared_layers: false,
        embedding_norm: false,
        embedding_projection: false,
        scaled_attention: true,
        embedding_dim: 0,
        embedding_scale: 1.0,
        n_encoder_layers: 0,
        start_token: None,
        mask_token: None,
    };

    /// Whether a norm ends each stack.
    pub const fn has_final_norm(&self) -> bool {
        matches!(self.norm_place, NormPlace::Pre) && !self.is_recurrent
    }

    /// Whether there is an encoder whose output a decoder attends to, or starts from.
    pub const fn has_source(&self) -> bool {
        matches!(self.kind, Kind::EncoderDecoder)
    }

    /// Whether the decoder has blocks that attend to an encoder's output.
    pub const fn has_cross_attention(&self) -> bool {
        self.has_source() && !self.is_recurrent
    }

    /// Checks that the parts go together and with `config`'s counts.
    pub(crate) fn validate(&self, config: &ModelConfig) -> Result<(), ConfigError> {
        let suited = |is_suited: bool, what: &'static str| match is_suited {
            true => Ok(()),
            false => Err(ConfigError::Unsuited { what }),
        };
        let is_encoder = self.kind == Kind::Encoder;
        let has_labels = matches!(self.head, Head::Classifier | Head::TokenClassifier);
        suited((self.head == Head::Language) != is_encoder, "a language head, or none, on what it reads")?;
        suited(!(is_encoder && self.is_recurrent), "recurrent layers in an encoder alone")?;
        suited(!self.is_recurrent || self.positions == Positions::None, "positions beside recurrent layers")?;
        suited(self.positions != Positions::Rope || self.kind == Kind::Decoder, "rotary positions in an encoder")?;
        suited((self.n_encoder_layers > 0) == self.has_source(), "that many encoder layers")?;
        suited(self.n_encoder_layers <= 1 << 10, "that many encoder layers")?;
        suited(has_labels == (self.n_labels > 0) && self.n_labels <= 1 << 16, "that many labels")?;
        suited(config.embedding_dim() <= 1 << 16, "an embedding of that width")?;
        suited(self.embedding_scale.is_finite() && self.embedding_scale > 0.0, "that scale of the embedding")?;
        let is_wide = config.embedding_dim() == config.dim;
        suited(is_wide || self.embedding_projection || self.is_recurrent, "an embedding of another width")?;
        suited(!self.embedding_projection || is_encoder, "an embedding projection beside a decoder")?;
        suited(!(self.is_recurrent && config.tied_head && !is_wide), "a tied head on an embedding of another width")?;
        let depths_agree = !(self.is_recurrent && self.has_source()) || self.n_encoder_layers == config.n_layers;
        suited(depths_agree, "a recurrent encoder of another depth than its decoder")?;
        suited(self.has_source() == self.start_token.is_some(), "that token to start from")?;
        let known = |token: Option<TokenId>| token.is_none_or(|token| (token as usize) < config.vocab_size);
        suited(known(self.start_token) && known(self.mask_token), "a special token outside its vocabulary")
    }
}
