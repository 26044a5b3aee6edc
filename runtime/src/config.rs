//! The shape of a model: what every part of Siskin agrees on before a weight is read.

use core::fmt;

/// The parts of a decoder-only transformer of the Llama family.
///
/// Counts are in elements, never bytes. The runtime's limits are those of [`ModelConfig::validate`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward block's hidden layer.
    pub hidden_dim: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads` (grouped-query attention).
    pub n_kv_heads: usize,
    /// Width of a head. `n_heads * head_dim` need not equal `dim`.
    pub head_dim: usize,
    /// Rows of the embedding and of the output head.
    pub vocab_size: usize,
    /// Positions that the RoPE tables and the KV cache hold.
    pub context_len: usize,
    /// Added to the mean square inside the root of every RMSNorm.
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
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

    /// Trained numbers, norms included; a tied head counts once.
    pub fn n_params(&self) -> u64 {
        let (dim, hidden) = (self.dim as u64, self.hidden_dim as u64);
        let attention = dim * (2 * self.q_dim() as u64 + 2 * self.kv_dim() as u64);
        let per_layer = attention + 3 * dim * hidden + 2 * dim;
        let embedding = self.vocab_size as u64 * dim;
        let heads = if self.tied_head { 1 } else { 2 };
        per_layer * self.n_layers as u64 + heads * embedding + dim
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
        in_range("hidden_dim", self.hidden_dim, Self::COLUMNS_MAX)?;
        in_range("n_layers", self.n_layers, 1 << 10)?;
        in_range("n_heads", self.n_heads, 1 << 10)?;
        in_range("n_kv_heads", self.n_kv_heads, 1 << 10)?;
        in_range("head_dim", self.head_dim, Self::HEAD_DIM_MAX)?;
        in_range("n_heads * head_dim", self.q_dim(), Self::COLUMNS_MAX)?;
        in_range("vocab_size", self.vocab_size, Self::COUNT_MAX)?;
        in_range("context_len", self.context_len, Self::CONTEXT_MAX)?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(ConfigError::HeadsNotGrouped { n_heads: self.n_heads, n_kv_heads: self.n_kv_heads });
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::OddHeadDim { head_dim: self.head_dim });
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(ConfigError::BadNormEps);
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(ConfigError::BadRopeTheta);
        }
        Ok(())
    }
}

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
        }
    }
}

impl core::error::Error for ConfigError {}
