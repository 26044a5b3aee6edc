//! Which tensors a model has, and in which order a file holds them: a function of the model's shape alone.

use crate::config::ModelConfig;
use crate::parts::{Head, Kind, NormKind, Positions};

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Role {
    /// `(vocab_size, embedding_dim)`, the output head too where it is tied.
    Embedding = 0,
    /// f32 `(dim,)`.
    AttentionNorm = 1,
    /// Query, key and value projections, one below the other: `(q_dim + 2 * kv_dim, dim)`; in decoders.
    Qkv = 2,
    /// `(dim, q_dim)`.
    AttentionOutput = 3,
    /// f32 `(dim,)`.
    FeedForwardNorm = 4,
    /// Gate and up projections, one below the other: `(2 * hidden_dim, dim)`; without a gate `(hidden_dim, dim)`.
    GateUp = 5,
    /// `(dim, hidden_dim)`.
    Down = 6,
    /// f32 `(dim,)`, at the end of a stack.
    FinalNorm = 7,
    /// `(vocab_size, embedding_dim)` where it is not tied, or `(n_labels, dim)`.
    Head = 8,
    /// A vector a position: `(context_len, embedding_dim)`.
    Positions = 9,
    /// f32 `(embedding_dim,)`.
    EmbeddingNorm = 10,
    /// `(dim, embedding_dim)`.
    EmbeddingProjection = 11,
    /// Query projection of an encoder: `(q_dim, dim)`.
    Query = 12,
    /// Key and value projections of an encoder, one below the other: `(2 * kv_dim, dim)`.
    KeyValue = 13,
    /// i32 `(n_heads, n_distances)` in units of `2^-16`, added to exponents of 2: of a key `d` positions before its query at
    /// `context_len - 1 - d`. An encoder has `2 * context_len - 1` distances, a decoder `context_len`.
    RelativeBias = 14,
    /// f32 `(dim,)`.
    CrossNorm = 15,
    /// Query projection of attention to an encoder's output: `(q_dim, dim)`.
    CrossQuery = 16,
    /// Its key and value projections: `(2 * kv_dim, dim)`.
    CrossKeyValue = 17,
    /// `(dim, q_dim)`.
    CrossOutput = 18,
    /// Before a masked-language head: `(embedding_dim, dim)`.
    HeadTransform = 19,
    /// f32 `(embedding_dim,)`, after it.
    HeadNorm = 20,
    /// Before an encoder's classifier: `(dim, dim)`.
    Pooler = 21,
    /// Of a recurrent layer, its input's share of the reset, update and candidate gates: `(3 * dim, dim)`, or
    /// `(3 * dim, embedding_dim)` in a stack's first layer.
    InputGates = 22,
    /// Its state's share: `(3 * dim, dim)`.
    StateGates = 23,
}

/// How a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A quantised matrix.
    Matrix,
    /// f32 numbers.
    Floats,
    /// i32 numbers.
    Integers,
}

/// Added to the code of a [`Role`]: the tensor is the bias of that role's.
pub const BIAS: u16 = 0x100;

/// One tensor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorId {
    /// What it is for.
    pub role: Role,
    /// Its layer: those of an encoder come first, then those of a decoder. What ends a stack has its first layer's, all else 0.
    pub layer_idx: usize,
    /// Whether it is the bias, f32 `(rows,)`, of the role's product or norm.
    pub is_bias: bool,
}

impl TensorId {
    /// The code in a file's tensor table.
    pub fn code(self) -> u16 {
        self.role as u16 + if self.is_bias { BIAS } else { 0 }
    }

    /// How it is stored.
    pub fn storage(self) -> Storage {
        match self.role {
            _ if self.is_bias || self.role.is_norm() => Storage::Floats,
            Role::RelativeBias => Storage::Integers,
            _ => Storage::Matrix,
        }
    }

    /// Rows and columns; a vector is a single row.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (q_dim, kv_dim, dim) = (config.q_dim(), config.kv_dim(), config.dim);
        let is_decoder = config.parts().kind != Kind::Encoder && self.layer_idx >= config.parts().n_encoder_layers;
        let (rows, cols) = match self.role {
            Role::Embedding => (config.vocab_size, config.embedding_dim()),
            Role::AttentionNorm | Role::FeedForwardNorm | Role::FinalNorm | Role::CrossNorm => (1, dim),
            Role::Qkv => (q_dim + 2 * kv_dim, dim),
            Role::AttentionOutput | Role::CrossOutput => (dim, q_dim),
            Role::GateUp => (config.up_dim(), dim),
            Role::Down => (dim, config.hidden_dim),
            Role::Head => (config.n_outputs(), config.head_inputs()),
            Role::Positions => (config.context_len, config.embedding_dim()),
            Role::EmbeddingNorm | Role::HeadNorm => (1, config.embedding_dim()),
            Role::EmbeddingProjection => (dim, config.embedding_dim()),
            Role::Query | Role::CrossQuery => (q_dim, dim),
            Role::KeyValue | Role::CrossKeyValue => (2 * kv_dim, dim),
            Role::RelativeBias if is_decoder => (config.n_heads, config.context_len),
            Role::RelativeBias => (config.n_heads, 2 * config.context_len - 1),
            Role::HeadTransform => (config.embedding_dim(), dim),
            Role::Pooler => (dim, dim),
            Role::InputGates if self.layer_idx == 0 || self.layer_idx == config.parts().n_encoder_layers => {
                (3 * dim, config.embedding_dim())
            }
            Role::InputGates | Role::StateGates => (3 * dim, dim),
        };
        if self.is_bias && !self.role.is_norm() { (1, rows) } else { (rows, cols) }
    }
}

impl Role {
    /// Whether the tensor is a norm's gain.
    pub const fn is_norm(self) -> bool {
        use Role::*;
        matches!(self, AttentionNorm | FeedForwardNorm | FinalNorm | CrossNorm | EmbeddingNorm | HeadNorm)
    }

    /// Whether models of this shape have it at all.
    const fn is_in(self, config: &ModelConfig) -> bool {
        let parts = config.parts();
        match self {
            Self::Positions => matches!(parts.positions, Positions::Table),
            Self::EmbeddingNorm => parts.embedding_norm,
            Self::EmbeddingProjection => parts.embedding_projection,
            Self::CrossNorm | Self::CrossQuery | Self::CrossKeyValue | Self::CrossOutput => parts.has_cross_attention(),
            Self::RelativeBias => matches!(parts.positions, Positions::RelativeBias),
            Self::FinalNorm => parts.has_final_norm(),
            Self::HeadTransform | Self::HeadNorm => matches!(parts.head, Head::MaskedLanguage),
            Self::Pooler => matches!(parts.head, Head::Classifier),
            Self::Head => match parts.head {
                Head::Language | Head::MaskedLanguage => !config.tied_head,
                Head::Classifier | Head::TokenClassifier => true,
                Head::None => false,
            },
            _ => true,
        }
    }

    /// Whether it has a bias in models of this shape. A tied head's bias is there without the head.
    const fn has_bias(self, config: &ModelConfig) -> bool {
        if !cfg!(feature = "families") {
            return false;
        }
        match self {
            Self::Embedding | Self::Positions | Self::RelativeBias => false,
            Self::Head => !matches!(config.parts().head, Head::Language | Head::None),
            Self::InputGates | Self::StateGates => true,
            _ if !self.is_in(config) => false,
            _ if self.is_norm() => matches!(config.parts().norm, NormKind::Layer),
            _ => config.parts().biases,
        }
    }

    /// Tensors of this role in one layer: itself and its bias.
    #[cfg(feature = "families")]
    const fn count(self, config: &ModelConfig) -> u16 {
        self.is_in(config) as u16 + self.has_bias(config) as u16
    }
}

/// Before the layers.
const FIRST: &[Role] = &[Role::Embedding, Role::Positions, Role::EmbeddingNorm, Role::EmbeddingProjection];
/// After the layers of each stack.
const STACK_END: &[Role] = &[Role::RelativeBias, Role::FinalNorm];
/// After everything else.
const LAST: &[Role] = &[Role::HeadTransform, Role::HeadNorm, Role::Pooler, Role::Head];

const DECODER_LAYER: &[Role] = &[
    Role::AttentionNorm,
    Role::Qkv,
    Role::AttentionOutput,
    Role::CrossNorm,
    Role::CrossQuery,
    Role::CrossKeyValue,
    Role::CrossOutput,
    Role::FeedForwardNorm,
    Role::GateUp,
    Role::Down,
];
const ENCODER_LAYER: &[Role] = &[
    Role::AttentionNorm,
    Role::Query,
    Role::KeyValue,
    Role::AttentionOutput,
    Role::FeedForwardNorm,
    Role::GateUp,
    Role::Down,
];
const RECURRENT_LAYER: &[Role] = &[Role::InputGates, Role::StateGates];

/// One stack of layers in the canonical order.
#[derive(Clone, Copy, Debug)]
struct StackOrder {
    layer: &'static [Role],
    /// Layers that are stored: one where all are the same.
    n_stored: usize,
    first_layer: usize,
}

impl StackOrder {
    const fn new(config: &ModelConfig, layer: &'static [Role], n_layers: usize, first_layer: usize) -> Self {
        let n_stored = if config.parts().shared_layers && n_layers > 1 { 1 } else { n_layers };
        Self { layer, n_stored, first_layer }
    }
}

/// The encoder's stack, if there is one, and the decoder's.
const fn stacks(config: &ModelConfig) -> [Option<StackOrder>; 2] {
    let parts = config.parts();
    let (decoder, encoder) =
        if parts.is_recurrent { (RECURRENT_LAYER, RECURRENT_LAYER) } else { (DECODER_LAYER, ENCODER_LAYER) };
    let n_encoder = parts.n_encoder_layers;
    match parts.kind {
        Kind::Decoder => [None, Some(StackOrder::new(config, decoder, config.n_layers, 0))],
        Kind::Encoder => [Some(StackOrder::new(config, encoder, config.n_layers, 0)), None],
        Kind::EncoderDecoder => [
            Some(StackOrder::new(config, encoder, n_encoder, 0)),
            Some(StackOrder::new(config, decoder, config.n_layers, n_encoder)),
        ],
    }
}

/// The canonical order of a model's tensors: embedding, the encoder's layers and its end, the decoder's, the head. A bias
/// follows its product or norm.
pub fn tensor_order(config: &ModelConfig) -> impl Iterator<Item = TensorId> {
    let of_stack = |stack: StackOrder| {
        let layers = (0..stack.n_stored).map(move |i| (stack.layer, stack.first_layer + i));
        layers.chain([(STACK_END, stack.first_layer)])
    };
    let stacks = stacks(config).into_iter().flatten().flat_map(of_stack);
    let lists = core::iter::once((FIRST, 0)).chain(stacks).chain([(LAST, 0)]);
    lists.flat_map(move |(roles, layer_idx)| tensors_of(config, roles, layer_idx))
}

/// The tensors of some roles in one layer.
fn tensors_of<'c>(
    config: &'c ModelConfig,
    roles: &'static [Role],
    layer_idx: usize,
) -> impl Iterator<Item = TensorId> + use<'c> {
    let both = roles.iter().flat_map(move |&role| [false, true].map(|is_bias| TensorId { role, layer_idx, is_bias }));
    both.filter(move |id| if id.is_bias { id.role.has_bias(config) } else { id.role.is_in(config) })
}

/// Where in the tensor table the parts of a model begin: at most 2^11 layers of 20 tensors, so 16 bits hold it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Of the encoder, then the decoder.
    pub stacks: [StackPlaces; 2],
    /// After the last stack.
    pub last: u16,
}

/// Where the tensors of a stack are.
#[derive(Clone, Copy, Debug)]
pub(super) struct StackPlaces {
    pub first: u16,
    /// Tensors from one layer's first to the next layer's; 0 where all layers are the same.
    pub step: u16,
    pub end: u16,
}

impl StackPlaces {
    /// Those of a stack that is not there.
    const NONE: Self = Self { first: 0, step: 0, end: 0 };
}

#[cfg(not(feature = "families"))]
impl Places {
    /// Those of a Llama, which follow from its layers alone.
    pub const fn new(config: &ModelConfig) -> Self {
        const PER_LAYER: u16 = 6;
        let end = 1 + PER_LAYER * config.n_layers as u16;
        Self { stacks: [StackPlaces::NONE, StackPlaces { first: 1, step: PER_LAYER, end }], last: end + 1 }
    }
}

#[cfg(feature = "families")]
impl Places {
    pub const fn new(config: &ModelConfig) -> Self {
        let [encoder, decoder] = stacks(config);
        let (encoder, last) = StackPlaces::new(config, encoder, count(FIRST, config));
        let (decoder, last) = StackPlaces::new(config, decoder, last);
        Self { stacks: [encoder, decoder], last }
    }
}

#[cfg(feature = "families")]
impl StackPlaces {
    /// The places of a stack whose first tensor is `first`, and the tensor after its end.
    const fn new(config: &ModelConfig, stack: Option<StackOrder>, first: u16) -> (Self, u16) {
        let Some(stack) = stack else { return (Self::NONE, first) };
        let step = count(stack.layer, config);
        let end = first + stack.n_stored as u16 * step;
        let step = if config.parts().shared_layers { 0 } else { step };
        (Self { first, step, end }, end + count(STACK_END, config))
    }
}

/// Tensors of some roles in one layer.
#[cfg(feature = "families")]
const fn count(mut roles: &[Role], config: &ModelConfig) -> u16 {
    let mut n_tensors = 0;
    while let [role, others @ ..] = roles {
        n_tensors += role.count(config);
        roles = others;
    }
    n_tensors
}
