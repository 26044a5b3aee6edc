//! From a checkpoint to the packed file that devices run (runtime/FORMAT.md).

mod adapter;
mod blocks;
mod file;
mod formats;
mod memory;
mod prefix;
mod sections;
mod trained;

pub use adapter::{AdapterPackError, pack_adapter, relayout_adapter, with_adapters};
pub use blocks::dropped_blocks;
pub use file::relayout;
pub use formats::FormatException;
pub use memory::{AlignedBytes, PackedFile, PackedFileError};
pub use prefix::{PrefixError, with_prefix};
pub use sections::{with_beams, with_kv, with_section};
pub use trained::{pack_trained, packed_trained_config};

use rayon::prelude::*;
use siskin_runtime::format::{Role, SectionKind, TensorId, tensor_order};
use siskin_runtime::{ConfigError, KvFormat, ModelConfig, WeightFormat, WeightLayout};

use crate::artifact::{Checkpoint, LayerWeights};
use crate::quant::{QuantizedMatrix, quantize_matrix};
use file::{FileParts, Tensor};

/// How to pack.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// How weights are quantised.
    pub format: WeightFormat,
    /// Matrices that are not quantised so.
    pub exceptions: Vec<FormatException>,
    /// The order of the weights' bytes: the board's.
    pub layout: WeightLayout,
    /// Positions of the context; `None` keeps the checkpoint's.
    pub context_len: Option<usize>,
    /// Tokens that share a pass over the weights in prefill.
    pub prefill_batch: usize,
    /// Whether blocks of weights that are all zero are stored like any other.
    pub keep_zero_blocks: bool,
    /// Sections to carry along as they are: tokenizer, chat template, provenance.
    pub sections: Vec<(SectionKind, Vec<u8>)>,
}

/// Why a checkpoint cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The context asked for is not one that the model has.
    #[error("the context must be between 1 and the model's own {model_len} positions, not {asked}")]
    Context {
        /// What was asked for.
        asked: usize,
        /// What the model was trained with.
        model_len: usize,
    },
    /// The prefill batch is out of range.
    #[error("the prefill batch must be between 1 and {max}, not {asked}")]
    PrefillBatch {
        /// What was asked for.
        asked: usize,
        /// The format's limit.
        max: usize,
    },
    /// The weights do not fit 32-bit offsets.
    #[error("the packed weights would take {bytes} bytes; the format holds up to 4 GiB")]
    TooLarge {
        /// Bytes of the weights section.
        bytes: u64,
    },
    /// More beams than a search can have.
    #[error("a beam search may have up to {most} beams, not {asked}")]
    Beams {
        /// What was asked for.
        asked: usize,
        /// The runtime's limit.
        most: usize,
    },
    /// The file has too many sections.
    #[error("the file would have more than {most} sections")]
    Sections {
        /// The format's limit.
        most: usize,
    },
    /// The arena's size overflows.
    #[error("the arena of this model would not fit any address space; use a shorter context")]
    ArenaTooLarge,
    /// An exception from the format that is about nothing.
    #[error("the model has no matrix that {exception} is for; it has layers and {names}")]
    IdleException {
        /// The exception.
        exception: String,
        /// What its matrices are for.
        names: String,
    },
    /// The runtime has no such model.
    #[error("devices do not run {what}")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// The model's shape is outside the runtime's limits.
    #[error("the model's shape is out of bounds: {0}")]
    Config(#[from] ConfigError),
}

/// The shape that packing with these options gives.
pub fn packed_config(checkpoint: &Checkpoint, context_len: Option<usize>) -> Result<ModelConfig, PackError> {
    let context_len = packed_context(checkpoint.config.context_len, context_len)?;
    Ok(ModelConfig { context_len, ..checkpoint.config })
}

/// The context asked for, if the model has as many positions.
fn packed_context(model_len: usize, context_len: Option<usize>) -> Result<usize, PackError> {
    let asked = context_len.unwrap_or(model_len);
    if asked == 0 || asked > model_len {
        return Err(PackError::Context { asked, model_len });
    }
    Ok(asked)
}

impl PackOptions {
    /// The format of a matrix.
    fn format_of(&self, tensor: TensorId) -> WeightFormat {
        FormatException::format_of(&self.exceptions, self.format, tensor)
    }

    /// The bytes of a matrix.
    fn matrix_bytes(&self, matrix: &QuantizedMatrix) -> file::TensorBytes {
        match self.keep_zero_blocks {
            true => file::TensorBytes::matrix(matrix, self.layout),
            false => file::TensorBytes::smallest(matrix, self.layout),
        }
    }

    fn check_exceptions(&self, tensors: &[TensorId]) -> Result<(), PackError> {
        let idle = |(exception, names)| PackError::IdleException { exception, names };
        FormatException::check(&self.exceptions, tensors).map_err(idle)
    }
}

/// Quantises and packs. The same inputs give the same bytes, on any number of threads.
///
/// # Errors
/// [`PackError`] where the options do not suit the model or the format.
pub fn pack(checkpoint: &Checkpoint, options: &PackOptions) -> Result<AlignedBytes, PackError> {
    let config = packed_config(checkpoint, options.context_len)?;
    let order: Vec<_> = tensor_order(&config).collect();
    options.check_exceptions(&order)?;
    let tensors: Vec<Tensor> = order
        .par_iter()
        .map(|&id| Tensor {
            id,
            bytes: match id.role.is_norm() {
                true => file::TensorBytes::floats(norm(checkpoint, id.role, id.layer_idx)),
                false => options.matrix_bytes(&quantized(checkpoint, &config, id, options.format_of(id))),
            },
        })
        .collect();
    let mut sections = vec![(SectionKind::Rope as u32, rope_section(checkpoint, &config))];
    sections.extend(options.sections.iter().map(|(kind, bytes)| (*kind as u32, bytes.clone())));
    let parts = FileParts {
        config,
        kv: KvFormat::default(),
        layout: options.layout,
        prefill_batch: options.prefill_batch,
        n_beams: 0,
        tensors,
        sections,
    };
    parts.write()
}

fn norm(checkpoint: &Checkpoint, role: Role, layer_idx: usize) -> &[f32] {
    match role {
        Role::AttentionNorm => checkpoint.layer(layer_idx).attention_norm,
        Role::FeedForwardNorm => checkpoint.layer(layer_idx).mlp_norm,
        _ => checkpoint.final_norm(),
    }
}

/// The matrix of a role; projections of the same input lie one below the other.
fn quantized(checkpoint: &Checkpoint, config: &ModelConfig, id: TensorId, format: WeightFormat) -> QuantizedMatrix {
    let (rows, cols) = id.shape(config);
    let layer = |parts: fn(LayerWeights<'_>) -> Vec<f32>| parts(checkpoint.layer(id.layer_idx));
    let stacked = match id.role {
        Role::Embedding => return quantize_matrix(checkpoint.embedding(), rows, cols, format),
        Role::Head => return quantize_matrix(checkpoint.output_head(), rows, cols, format),
        Role::Qkv => layer(|l| [l.q_proj, l.k_proj, l.v_proj].concat()),
        Role::AttentionOutput => layer(|l| l.o_proj.to_vec()),
        Role::GateUp => layer(|l| [l.gate_proj, l.up_proj].concat()),
        Role::Down => layer(|l| l.down_proj.to_vec()),
        _ => unreachable!("a Llama has no other matrix"),
    };
    quantize_matrix(&stacked, rows, cols, format)
}

/// Of each position the cosines, then the sines.
fn rope_section(checkpoint: &Checkpoint, config: &ModelConfig) -> Vec<u8> {
    let tables = checkpoint.rope.tables(config);
    let half = config.head_dim / 2;
    let positions = tables.cos.chunks(half).zip(tables.sin.chunks(half));
    positions.flat_map(|(cos, sin)| cos.iter().chain(sin)).flat_map(|x| x.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests;
