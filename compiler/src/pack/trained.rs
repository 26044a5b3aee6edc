//! Packing models of every family: which of a checkpoint's weights each tensor of the packed file is made of.

use rayon::prelude::*;
use siskin_runtime::format::{Role, SectionKind, Storage, TensorId, tensor_order};
use siskin_runtime::parts::{self, Kind};
use siskin_runtime::{KvFormat, ModelConfig, Parts, TokenId};

use super::file::{FileParts, Tensor, TensorBytes};
use super::{AlignedBytes, PackError, PackOptions, packed_context};
use crate::artifact::TrainedModel;
use crate::model::architecture::{self, Architecture, Family, FeedForward, Head, NormKind, NormPlace, Positions};
use crate::model::names::{self, Global, Part, Stack};
use crate::model::transformer::sinusoids;
use crate::quant::quantize_matrix;
use crate::tensor::ops::bucket;

/// The shape that packing gives. `mask_token` stands for tokens to be filled in, where the tokenizer has such a one.
///
/// # Errors
/// [`PackError`]: a context that the model has not, parts that the runtime has not, or a shape beyond its limits.
pub fn packed_trained_config(
    model: &TrainedModel,
    context_len: Option<usize>,
    mask_token: Option<TokenId>,
) -> Result<ModelConfig, PackError> {
    let a = &model.architecture;
    let parts = parts_of(model, mask_token)?;
    let transformer = |count: usize| if a.family.is_recurrent() { 0 } else { count };
    let config = ModelConfig {
        dim: a.dim,
        hidden_dim: transformer(a.hidden_dim),
        n_layers: if parts.kind == Kind::Encoder { a.n_encoder_layers } else { a.n_decoder_layers },
        n_heads: transformer(a.n_heads),
        n_kv_heads: transformer(a.n_kv_heads),
        head_dim: transformer(a.head_dim),
        vocab_size: a.vocab_size,
        context_len: packed_context(a.context_len, context_len)?,
        norm_eps: a.norm_eps,
        rope_theta: 0.0,
        tied_head: a.tied_head && matches!(a.head, Head::Language | Head::MaskedLanguage),
        parts,
    };
    config.validate()?;
    Ok(config)
}

fn parts_of(model: &TrainedModel, mask_token: Option<TokenId>) -> Result<Parts, PackError> {
    let a = &model.architecture;
    let unsupported = |what| Err(PackError::Unsupported { what });
    let kind = match a.family.kind() {
        architecture::Kind::DecoderOnly => Kind::Decoder,
        architecture::Kind::EncoderOnly => Kind::Encoder,
        architecture::Kind::EncoderDecoder => Kind::EncoderDecoder,
    };
    let (head, n_labels) = match a.head {
        Head::Language => (parts::Head::Language, 0),
        Head::MaskedLanguage => (parts::Head::MaskedLanguage, 0),
        Head::Classifier { n_labels } => (parts::Head::Classifier, n_labels),
        Head::TokenClassifier { n_labels } => (parts::Head::TokenClassifier, n_labels),
        Head::None => (parts::Head::None, 0),
    };
    if kind != Kind::Encoder && head != parts::Head::Language {
        return unsupported("a decoder that classifies: train an encoder (bert) for it");
    }
    let is_recurrent = a.family.is_recurrent();
    let positions = match a.positions {
        _ if is_recurrent => parts::Positions::None,
        Positions::Rope { .. } => return unsupported("a Llama from here: its checkpoint is packed as such"),
        Positions::Learned | Positions::Sinusoidal => parts::Positions::Table,
        Positions::RelativeBias { .. } => parts::Positions::RelativeBias,
    };
    Ok(Parts {
        kind,
        is_recurrent,
        norm: if a.norm == NormKind::Rms { parts::NormKind::Rms } else { parts::NormKind::Layer },
        norm_place: if a.norm_place == NormPlace::Pre { parts::NormPlace::Pre } else { parts::NormPlace::Post },
        positions,
        feed_forward: match a.feed_forward {
            FeedForward::SwiGlu => parts::FeedForward::SwiGlu,
            FeedForward::GeGlu => parts::FeedForward::GeGlu,
            FeedForward::Gelu => parts::FeedForward::Gelu,
            FeedForward::GeluTanh => parts::FeedForward::GeluTanh,
            FeedForward::Relu => parts::FeedForward::Relu,
            FeedForward::Silu => parts::FeedForward::Silu,
        },
        head,
        n_labels,
        biases: a.biases,
        shared_layers: a.shared_layers,
        embedding_norm: a.n_token_types > 0,
        embedding_projection: a.family == Family::Albert,
        scaled_attention: a.family != Family::T5,
        embedding_dim: if a.embedding_dim == a.dim { 0 } else { a.embedding_dim },
        embedding_scale: if a.positions == Positions::Sinusoidal { (a.dim as f32).sqrt() } else { 1.0 },
        n_encoder_layers: if kind == Kind::EncoderDecoder { a.n_encoder_layers } else { 0 },
        start_token: match kind {
            Kind::EncoderDecoder => Some(model.specials.decoder_start.or(model.specials.bos).unwrap_or(0)),
            Kind::Decoder | Kind::Encoder => None,
        },
        mask_token,
    })
}

/// Quantises and packs a model of any family but Llama. The same inputs give the same bytes, on any number of threads.
///
/// # Errors
/// [`PackError`] where the model is none that devices run, or the options do not suit it or the format.
pub fn pack_trained(
    model: &TrainedModel,
    options: &PackOptions,
    mask_token: Option<TokenId>,
) -> Result<AlignedBytes, PackError> {
    let config = packed_trained_config(model, options.context_len, mask_token)?;
    let source = Source { model, config: &config };
    let order: Vec<_> = tensor_order(&config).collect();
    options.check_exceptions(&order)?;
    let tensors = order.par_iter().map(|&id| {
        let (rows, cols) = id.shape(&config);
        let bytes = match id.storage() {
            Storage::Matrix => {
                let matrix = quantize_matrix(&source.numbers(id), rows, cols, options.format_of(id));
                options.matrix_bytes(&matrix)
            }
            Storage::Floats => TensorBytes::floats(&source.numbers(id)),
            Storage::Integers => TensorBytes::integers(&source.relative_bias(id)),
        };
        Tensor { id, bytes }
    });
    let mut sections: Vec<_> = options.sections.iter().map(|(kind, bytes)| (*kind as u32, bytes.clone())).collect();
    // A label is a line, so names that break lines stay out.
    let are_lines = model.labels.iter().all(|label| !label.is_empty() && !label.contains(['\n', '\r']));
    if config.parts.n_labels > 0 && model.labels.len() == config.parts.n_labels && are_lines {
        sections.push((SectionKind::Labels as u32, model.labels.join("\n").into_bytes()));
    }
    let parts = FileParts {
        config,
        kv: KvFormat::default(),
        layout: options.layout,
        prefill_batch: options.prefill_batch,
        n_beams: 0,
        tensors: tensors.collect(),
        sections,
    };
    parts.write()
}

/// Where the numbers come from.
struct Source<'a> {
    model: &'a TrainedModel,
    config: &'a ModelConfig,
}

impl Source<'_> {
    fn architecture(&self) -> &Architecture {
        &self.model.architecture
    }

    fn weight(&self, name: &str) -> &[f32] {
        let weight = self.model.tensors.get(name);
        &weight.unwrap_or_else(|| panic!("a loaded model has `{name}`")).data
    }

    /// The stack that a layer belongs to, and its number there.
    fn place(&self, id: TensorId) -> (Stack, usize) {
        let n_encoder = self.architecture().n_encoder_layers;
        match id.layer_idx < n_encoder {
            true => (Stack::Encoder, id.layer_idx),
            false => (Stack::Decoder, id.layer_idx - n_encoder),
        }
    }

    /// The names of what lies in a tensor, one below the other.
    fn names(&self, id: TensorId) -> Vec<String> {
        let a = self.architecture();
        let (stack, layer_idx) = self.place(id);
        let kind = if id.is_bias { "bias" } else { "weight" };
        if a.family.is_recurrent() {
            let stack = if stack == Stack::Encoder { "encoder" } else { "decoder" };
            return vec![match id.role {
                Role::Embedding => "embedding.weight".to_owned(),
                Role::InputGates => format!("{stack}.{kind}_ih_l{layer_idx}"),
                Role::StateGates => format!("{stack}.{kind}_hh_l{layer_idx}"),
                _ => "head.weight".to_owned(),
            }];
        }
        let layer = |parts: &[Part]| -> Vec<String> {
            parts.iter().map(|&part| format!("{}.{kind}", names::layer(a, stack, layer_idx, part))).collect()
        };
        let global = |part: Global| vec![format!("{}.{kind}", names::global(a, part))];
        match id.role {
            Role::AttentionNorm => layer(&[Part::AttentionNorm]),
            Role::Qkv => layer(&[Part::Q, Part::K, Part::V]),
            Role::Query => layer(&[Part::Q]),
            Role::KeyValue => layer(&[Part::K, Part::V]),
            Role::AttentionOutput => layer(&[Part::O]),
            Role::CrossNorm => layer(&[Part::CrossNorm]),
            Role::CrossQuery => layer(&[Part::CrossQ]),
            Role::CrossKeyValue => layer(&[Part::CrossK, Part::CrossV]),
            Role::CrossOutput => layer(&[Part::CrossO]),
            Role::FeedForwardNorm => layer(&[Part::FeedForwardNorm]),
            Role::GateUp if a.feed_forward.is_gated() => layer(&[Part::Gate, Part::Up]),
            Role::GateUp => layer(&[Part::Up]),
            Role::Down => layer(&[Part::Down]),
            Role::Embedding => global(Global::Embedding),
            Role::Positions => global(Global::Positions),
            Role::EmbeddingNorm => global(Global::EmbeddingNorm),
            Role::EmbeddingProjection => global(Global::EmbeddingProjection),
            Role::RelativeBias => global(Global::RelativeBias(stack)),
            Role::FinalNorm => global(Global::FinalNorm(stack)),
            Role::HeadTransform => global(Global::HeadTransform),
            Role::HeadNorm => global(Global::HeadNorm),
            Role::Pooler => global(Global::Pooler),
            Role::Head => match a.head {
                Head::Classifier { .. } | Head::TokenClassifier { .. } => global(Global::Classifier),
                Head::MaskedLanguage if id.is_bias => {
                    vec![format!("{}.bias", names::global(a, Global::Head).trim_end_matches(".decoder"))]
                }
                _ => global(Global::Head),
            },
            Role::InputGates | Role::StateGates => unreachable!("recurrent models were named above"),
        }
    }

    /// The numbers of a matrix, row-major, or of a vector.
    fn numbers(&self, id: TensorId) -> Vec<f32> {
        let a = self.architecture();
        if id.role == Role::Positions {
            return self.positions(id);
        }
        let mut numbers: Vec<f32> = self.names(id).iter().flat_map(|name| self.weight(name)).copied().collect();
        // A tied head of T5 reads hidden states scaled down: the norm before it does that as well.
        let is_last = id.layer_idx == a.n_encoder_layers;
        if id.role == Role::FinalNorm && a.family == Family::T5 && a.tied_head && is_last {
            let scale = 1.0 / (a.dim as f32).sqrt();
            numbers.iter_mut().for_each(|gain| *gain *= scale);
        }
        numbers
    }

    /// The vectors of the packed positions, with that of the first token type, which all tokens have.
    fn positions(&self, id: TensorId) -> Vec<f32> {
        let (a, len) = (self.architecture(), self.config.context_len * self.config.embedding_dim());
        if a.positions == Positions::Sinusoidal {
            return sinusoids(self.config.context_len, a.dim);
        }
        let mut table = self.weight(&self.names(id)[0])[..len].to_vec();
        if a.n_token_types > 0 {
            let types = self.weight(&format!("{}.weight", names::global(a, Global::TokenTypes)));
            let first = &types[..self.config.embedding_dim()];
            for row in table.chunks_mut(first.len()) {
                row.iter_mut().zip(first).for_each(|(x, first)| *x += first);
            }
        }
        table
    }

    /// Of each head the scores of all distances, as exponents of 2 in units of `2^-16`.
    fn relative_bias(&self, id: TensorId) -> Vec<i32> {
        let a = self.architecture();
        let Positions::RelativeBias { n_buckets, max_distance } = a.positions else { return Vec::new() };
        let (n_heads, n_distances) = id.shape(self.config);
        let bidirectional = self.place(id).0 == Stack::Encoder;
        let table = self.weight(&self.names(id)[0]);
        let first = 1 - self.config.context_len as isize;
        let units = |score: f32| (f64::from(score) * std::f64::consts::LOG2_E * 65536.0).round() as i32;
        let of_head = |head: usize| {
            let distances = (0..n_distances as isize).map(move |i| first + i);
            distances.map(move |d| units(table[bucket(d, n_buckets, bidirectional, max_distance) * n_heads + head]))
        };
        (0..n_heads).flat_map(of_head).collect()
    }
}
