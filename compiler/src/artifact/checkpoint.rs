//! A model in memory: `f32` weights under Hugging Face's Llama names, and what belongs to them.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_runtime::{ModelConfig, TokenId};

use super::gguf::GgufVocab;
use super::{Problem, RopeScaling, names};

/// A dense row-major `f32` array.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Extents, slowest first: `[out, in]` for a matrix, `[dim]` for a gain.
    pub shape: Vec<usize>,
    /// As many numbers as the extents' product.
    pub data: Vec<f32>,
}

/// Weights by their Hugging Face name.
pub type NamedWeights = BTreeMap<String, Weight>;

/// Where a model's tokenizer comes from, as its files hold it; the tokenizer part turns it into tables.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum TokenizerSource {
    /// None was given.
    #[default]
    None,
    /// The bytes of a Hugging Face `tokenizer.json`.
    HuggingFace(Vec<u8>),
    /// The arrays of a GGUF.
    Gguf(Box<GgufVocab>),
    /// The bytes of a SentencePiece `.model`.
    SentencePiece(Vec<u8>),
    /// The bytes of a llama2.c `tokenizer.bin`.
    Llama2c(Vec<u8>),
}

/// How the model's authors sample from it; `None` where they said nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Whether to sample rather than take the likeliest token.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// Tokens kept by rank.
    pub top_k: Option<u32>,
    /// Probability mass kept.
    pub top_p: Option<f32>,
    /// Least probability kept, as a share of the largest.
    pub min_p: Option<f32>,
    /// Penalty on tokens already there.
    pub repetition_penalty: Option<f32>,
}

/// A whole model: what importers and the trainer make, and what evaluation, quantisation and packing take.
///
/// RoPE is in the half-split form (`rotate_half`): element `i` of a head turns with element `i + head_dim / 2`.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The shape.
    pub config: ModelConfig,
    /// Stretching of the rotary frequencies.
    pub rope: RopeScaling,
    /// The weights that [`names::expected_shapes`] lists, no others.
    pub tensors: NamedWeights,
    /// The tokenizer's source.
    pub tokenizer: TokenizerSource,
    /// Jinja source of the chat template.
    pub chat_template: Option<String>,
    /// Token that a text begins with.
    pub bos_id: Option<TokenId>,
    /// Tokens that end a generation.
    pub eos_ids: Vec<TokenId>,
    /// Sampling defaults.
    pub generation: GenerationDefaults,
}

/// One block's weights, row-major; matrices are `[out, in]`.
#[derive(Clone, Copy, Debug)]
pub struct LayerWeights<'a> {
    /// Gain of the norm before attention, `[dim]`.
    pub attention_norm: &'a [f32],
    /// Query projection, `[n_heads * head_dim, dim]`.
    pub q_proj: &'a [f32],
    /// Key projection, `[n_kv_heads * head_dim, dim]`.
    pub k_proj: &'a [f32],
    /// Value projection, `[n_kv_heads * head_dim, dim]`.
    pub v_proj: &'a [f32],
    /// Attention's output projection, `[dim, n_heads * head_dim]`.
    pub o_proj: &'a [f32],
    /// Gain of the norm before the feed-forward block, `[dim]`.
    pub mlp_norm: &'a [f32],
    /// Gate projection, through SiLU, `[hidden_dim, dim]`.
    pub gate_proj: &'a [f32],
    /// Up projection, `[hidden_dim, dim]`.
    pub up_proj: &'a [f32],
    /// Down projection, `[dim, hidden_dim]`.
    pub down_proj: &'a [f32],
}

impl Checkpoint {
    /// A model with no tokenizer, no special tokens and plain rotary frequencies.
    ///
    /// # Errors
    /// What [`Checkpoint::validate`] finds.
    pub fn new(config: ModelConfig, tensors: NamedWeights) -> Result<Self, Problem> {
        let checkpoint = Self {
            config,
            rope: RopeScaling::None,
            tensors,
            tokenizer: TokenizerSource::None,
            chat_template: None,
            bos_id: None,
            eos_ids: Vec::new(),
            generation: GenerationDefaults::default(),
        };
        checkpoint.validate()?;
        Ok(checkpoint)
    }

    /// A model of random weights, the same for the same seed: for tests, and for measuring what a shape costs.
    ///
    /// Matrices are uniform with a standard deviation of `1 / sqrt(columns)`, gains uniform in 0.5 to 1.5.
    ///
    /// # Errors
    /// [`Problem::Config`] if `config` does not validate.
    pub fn random(config: ModelConfig, seed: u64) -> Result<Self, Problem> {
        config.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0;
        let mut tensors = NamedWeights::new();
        for (name, shape) in names::expected_shapes(&config) {
            let data = match shape[..] {
                [rows, columns] => {
                    let limit = (3.0 / columns as f32).sqrt();
                    (0..rows * columns).map(|_| limit * uniform()).collect()
                }
                _ => (0..shape[0]).map(|_| 1.0 + 0.5 * uniform()).collect(),
            };
            tensors.insert(name, Weight { shape, data });
        }
        Self::new(config, tensors)
    }

    /// Checks the configuration, that every weight is there with its shape and finite, and that token ids are in range.
    ///
    /// Loaders return only checkpoints that pass; the accessors below rely on it.
    pub fn validate(&self) -> Result<(), Problem> {
        self.config.validate()?;
        self.validate_rope()?;
        let expected = names::expected_shapes(&self.config);
        for (name, shape) in &expected {
            let weight = self.tensors.get(name).ok_or_else(|| Problem::MissingTensor { name: name.clone() })?;
            if weight.shape != *shape || weight.data.len() != shape.iter().product::<usize>() {
                let (name, expected, found) = (name.clone(), shape.clone(), weight.shape.clone());
                return Err(Problem::WrongShape { name, expected, found });
            }
            if let Some(element_idx) = weight.data.iter().position(|value| !value.is_finite()) {
                return Err(Problem::NotFinite { name: name.clone(), element_idx });
            }
        }
        if let Some(name) = self.tensors.keys().find(|name| !expected.contains_key(*name)) {
            return Err(Problem::UnexpectedTensor { name: name.clone() });
        }
        let vocab_size = self.config.vocab_size;
        match self.bos_id.iter().chain(&self.eos_ids).find(|&&id| id as usize >= vocab_size) {
            Some(id) => Err(Problem::bad_field("bos or eos token id", format!("is {id}, outside {vocab_size} tokens"))),
            None => Ok(()),
        }
    }

    fn validate_rope(&self) -> Result<(), Problem> {
        let positive = |field: &str, value: f32| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(Problem::bad_field(field, format!("is {value}, but must be positive and finite"))),
        };
        match &self.rope {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("rope scaling factor", *factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_len } => {
                positive("rope scaling factor", *factor)?;
                positive("low_freq_factor", *low_freq_factor)?;
                positive("high_freq_factor", *high_freq_factor)?;
                if *original_context_len == 0 || high_freq_factor <= low_freq_factor {
                    return Err(Problem::bad_field("high_freq_factor", "must exceed low_freq_factor"));
                }
                Ok(())
            }
            RopeScaling::Divisors(divisors) => {
                if divisors.len() != self.config.head_dim / 2 {
                    let reason = format!("has {} entries, not head_dim / 2", divisors.len());
                    return Err(Problem::bad_field("rope_freqs", reason));
                }
                divisors.iter().try_for_each(|&divisor| positive("rope_freqs", divisor))
            }
        }
    }

    /// The weight called `name`, row-major.
    ///
    /// # Panics
    /// If there is none: a caller's bug in a validated checkpoint.
    pub fn weight(&self, name: &str) -> &[f32] {
        match self.tensors.get(name) {
            Some(weight) => &weight.data,
            None => panic!("validated checkpoint has no `{name}`"),
        }
    }

    /// Embedding, `[vocab_size, dim]`.
    pub fn embedding(&self) -> &[f32] {
        self.weight(names::EMBEDDING)
    }

    /// Output head, `[vocab_size, dim]`: the embedding where they are tied.
    pub fn output_head(&self) -> &[f32] {
        self.weight(if self.config.tied_head { names::EMBEDDING } else { names::OUTPUT_HEAD })
    }

    /// Gain of the last norm, `[dim]`.
    pub fn final_norm(&self) -> &[f32] {
        self.weight(names::FINAL_NORM)
    }

    /// Weights of block `layer_idx`.
    ///
    /// # Panics
    /// If `layer_idx >= n_layers`.
    pub fn layer(&self, layer_idx: usize) -> LayerWeights<'_> {
        let weight = |part| self.weight(&names::layer(layer_idx, part));
        LayerWeights {
            attention_norm: weight(names::ATTENTION_NORM),
            q_proj: weight(names::Q_PROJ),
            k_proj: weight(names::K_PROJ),
            v_proj: weight(names::V_PROJ),
            o_proj: weight(names::O_PROJ),
            mlp_norm: weight(names::MLP_NORM),
            gate_proj: weight(names::GATE_PROJ),
            up_proj: weight(names::UP_PROJ),
            down_proj: weight(names::DOWN_PROJ),
        }
    }
}
