//! The shape of a model: what every part of Siskin agrees on before a weight is read.

use core::fmt;

use crate::parts::{Head, Kind, Parts, Positions};

/// The shape of a model.
///
/// Counts are in elements, never bytes. The runtime's limits are those of [`ModelConfig::validate`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward block's hidden layer.
    pub hidden_dim: usize,
    /// Layers: of the decoder, where there is one.
    pub n_layers: usize,
    /// Query heads; like all counts of heads, and the hidden layer's width, 0 in recurrent models.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads` (grouped-query attention).
    pub n_kv_heads: usize,
    /// Width of a head. `n_heads * head_dim` need not equal `dim`.
    pub head_dim: usize,
    /// Rows of the embedding and of the output head.
    pub vocab_size: usize,
    /// Positions that the tables of positions and the KV cache hold.
    pub context_len: usize,
    /// Added inside the root of every norm.
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
    /// What the model is made of, as a file says it; [`ModelConfig::parts`] is what is run.
    #[cfg(feature = "families")]
    pub parts: Parts,
}

impl ModelConfig {
    /// Largest value any count may take: keeps every product below `2^48` bytes, so size arithmetic in `u64` cannot overflow.
    pub const COUNT_MAX: usize = 1 << 20;
    /// Longest context the attention kernel's counters hold.
    pub const CONTEXT_MAX: usize = 1 << 16;
    /// Longest weight row: keeps an `i32` dot product of int8 values exact (`2^17 * 127 * 128 < 2^31`).
    pub const COLUMNS_MAX: usize = 1 << 17;
    /// Widest head: bounds the attention kernel's `i32` scores (`256 * 128 * 16383 < 2^31`).
    pub const HEAD_DIM_MAX: usize = 256;

    /// Width of all query heads together: rows of the query projection.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads together: rows of the key projection.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// What the model is made of. Without the feature `families`, known when this is compiled: what other models need is left out.
    #[cfg(feature = "families")]
    #[inline(always)]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What the model is made of: without the feature `families`, that of a Llama, so that what other models need is left out.
    #[cfg(not(feature = "families"))]
    #[inline(always)]
    pub const fn parts(&self) -> &Parts {
        &Parts::LLAMA
    }

    /// Width of the token embedding.
    pub fn embedding_dim(&self) -> usize {
        if self.parts().embedding_dim == 0 { self.dim } else { self.parts().embedding_dim }
    }

    /// Rows of the product before a feed-forward block's function.
    pub fn up_dim(&self) -> usize {
        if self.parts().feed_forward.is_gated() { 2 * self.hidden_dim } else { self.hidden_dim }
    }

    /// What one prediction is made of: the vocabulary, or labels; 0 without a head.
    pub fn n_outputs(&self) -> usize {
        match self.parts().head {
            Head::Language | Head::MaskedLanguage => self.vocab_size,
            Head::Classifier | Head::TokenClassifier => self.parts().n_labels,
            Head::None => 0,
        }
    }

    /// Inputs of the output matrix.
    pub fn head_inputs(&self) -> usize {
        if self.parts().head == Head::MaskedLanguage { self.embedding_dim() } else { self.dim }
    }

    /// Most elements that go into a product.
    pub fn widest_in(&self) -> usize {
        self.dim.max(self.q_dim()).max(self.hidden_dim).max(self.embedding_dim())
    }

    /// Most elements that come out of a product, the output matrix's aside.
    pub fn widest_out(&self) -> usize {
        let blocks = match self.parts().kind {
            _ if self.parts().is_recurrent => 3 * self.dim,
            Kind::Encoder => self.q_dim().max(2 * self.kv_dim()),
            Kind::Decoder | Kind::EncoderDecoder => self.q_dim() + 2 * self.kv_dim(),
        };
        self.dim.max(blocks).max(self.up_dim()).max(self.embedding_dim())
    }

    /// Stored numbers, norms included; a tied head counts once, and so do layers that are shared.
    pub fn n_params(&self) -> u64 {
        crate::format::tensor_order(self).map(|tensor| tensor.shape(self)).map(|(r, c)| r as u64 * c as u64).sum()
    }

    /// Checks every limit that the runtime relies on.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let in_range = |field, value: usize, max: usize| {
            if value == 0 || value > max {
                return Err(ConfigError::OutOfRange { field, value, max });
            }
            Ok(())
        };
        in_range("dim", self.dim, 1 << 16)?;
        in_range("n_layers", self.n_layers, 1 << 10)?;
        in_range("vocab_size", self.vocab_size, Self::COUNT_MAX)?;
        in_range("context_len", self.context_len, Self::CONTEXT_MAX)?;
        self.parts().validate(self)?;
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(ConfigError::BadNormEps);
        }
        if self.parts().is_recurrent {
            let is_recurrent = [self.hidden_dim, self.n_heads, self.n_kv_heads, self.head_dim] == [0; 4];
            let what = "heads or a hidden layer beside recurrent layers";
            return if is_recurrent { Ok(()) } else { Err(ConfigError::Unsuited { what }) };
        }
        in_range("hidden_dim", self.hidden_dim, Self::COLUMNS_MAX)?;
        in_range("n_heads", self.n_heads, 1 << 10)?;
        in_range("n_kv_heads", self.n_kv_heads, 1 << 10)?;
        in_range("head_dim", self.head_dim, Self::HEAD_DIM_MAX)?;
        in_range("n_heads * head_dim", self.q_dim(), Self::COLUMNS_MAX)?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(ConfigError::HeadsNotGrouped { n_heads: self.n_heads, n_kv_heads: self.n_kv_heads });
        }
        if self.parts().positions != Positions::Rope {
            return Ok(());
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::OddHeadDim { head_dim: self.head_dim });
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(ConfigError::BadRopeTheta);
        }
        Ok(())
    }
}

/// What is said of models that need the feature `families`, by a runtime without it.
#[cfg(not(feature = "families"))]
pub(crate) const NO_FAMILIES: &str = "other parts than a Llama's in this firmware: build it again around the model";

/// Why a [`ModelConfig`] cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A count is zero or above its limit.
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// What it holds.
        value: usize,
        /// The most it may hold.
        max: usize,
    },
    /// `n_kv_heads` does not divide `n_heads`.
    HeadsNotGrouped {
        /// Query heads.
        n_heads: usize,
        /// Key and value heads.
        n_kv_heads: usize,
    },
    /// Rotary embedding turns pairs, so a head's width must be even.
    OddHeadDim {
        /// The width.
        head_dim: usize,
    },
    /// `norm_eps` is negative, infinite or not a number.
    BadNormEps,
    /// `rope_theta` is not a positive finite number.
    BadRopeTheta,
    /// Parts that do not go together.
    Unsuited {
        /// What the model cannot have.
        what: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfRange { field, value, max } => {
                write!(f, "{field} is {value}, but must be between 1 and {max}")
            }
            Self::HeadsNotGrouped { n_heads, n_kv_heads } => {
                write!(f, "{n_kv_heads} key heads do not divide {n_heads} query heads")
            }
            Self::OddHeadDim { head_dim } => {
                write!(f, "head_dim is {head_dim}, but rotary embedding needs an even width")
            }
            Self::BadNormEps => f.write_str("norm_eps must be a finite number of at least 0"),
            Self::BadRopeTheta => f.write_str("rope_theta must be a positive finite number"),
            Self::Unsuited { what } => write!(f, "this kind of model cannot have {what}"),
        }
    }
}

impl core::error::Error for ConfigError {}
