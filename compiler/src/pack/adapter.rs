//! Adapters in the bytes that devices use: for one packed model, in its layout (runtime/FORMAT.md).

use siskin_runtime::adapter::{
    Adapter as PackedAdapter, AdapterError, HEAD_BYTES, MAGIC, NAME_BYTES_MAX, PAIR_BYTES, PairEntry, VERSION,
    rank_max, weights_crc,
};
use siskin_runtime::format::{Role, SECTION_ALIGN, SectionKind, TensorId, checksum};
use siskin_runtime::tensor::MatrixQ8;
use siskin_runtime::{FormatError, PackedModel, Parts, WeightFormat, WeightLayout};

use super::file::{TensorBytes, row_major};
use super::sections::with_sections;
use super::{AlignedBytes, PackError};
use crate::artifact::{Adapter, LowRankPair, Problem, Projection, Weight};
use crate::quant::quantize_matrix;

/// Why an adapter cannot be packed for a model.
#[derive(Debug, thiserror::Error)]
pub enum AdapterPackError {
    /// The name is empty or too long.
    #[error("an adapter's name has 1 to {NAME_BYTES_MAX} bytes and no line ends, so {name:?} cannot be one")]
    Name {
        /// The name.
        name: String,
    },
    /// Two adapters of one name.
    #[error("there are two adapters {name:?}")]
    SameName {
        /// The name.
        name: String,
    },
    /// The model is no Llama.
    #[error("adapters are read for models of the Llama family, and this is none")]
    OtherFamily,
    /// A matrix does not suit the model.
    #[error("the adapter is for another model: {0}")]
    Unsuited(Problem),
    /// The rank is too high for a layer so narrow.
    #[error(
        "the adapter has rank {rank} beside an input of {inputs} elements, where at most {rank_max} can be applied: merge it into its \
         model before compiling"
    )]
    Rank {
        /// The adapter's.
        rank: usize,
        /// Width of the input.
        inputs: usize,
        /// The highest possible.
        rank_max: usize,
    },
    /// The runtime would not take it.
    #[error("{0}")]
    Refused(#[from] AdapterError),
    /// The adapter is beyond 32-bit offsets.
    #[error("the adapter would take more than 4 GiB")]
    TooLarge,
    /// The model cannot be read.
    #[error("{0}")]
    Model(FormatError),
    /// The file does not hold it.
    #[error("{0}")]
    File(#[from] PackError),
}

/// Quantises `adapter` for `model`, under `name`: the bytes of a file of its own, or of a section.
///
/// # Errors
/// [`AdapterPackError`]: it is for another model, or one that cannot be adapted.
pub fn pack_adapter(name: &str, adapter: &Adapter, model: &PackedModel<'_>) -> Result<AlignedBytes, AdapterPackError> {
    if *model.config().parts() != Parts::LLAMA {
        return Err(AdapterPackError::OtherFamily);
    }
    adapter.validate(model.config()).map_err(AdapterPackError::Unsuited)?;
    let mut file = AdapterFile::new(name, model.header().layout)?;
    let mut pairs: Vec<(PairEntry, &LowRankPair)> = Vec::new();
    for pair in &adapter.pairs {
        pairs.push((entry_of(pair, model)?, pair));
    }
    pairs.sort_by_key(|(entry, _)| (entry.tensor_idx, entry.first_row));
    for (entry, pair) in pairs {
        let base = model.adaptable(entry.tensor_idx as usize).ok_or(AdapterPackError::OtherFamily)?;
        file.add_pair(entry, [&pair.a, &pair.b].map(|weight| quantized(weight, base.format(), file.layout)));
    }
    if let Some(prompt) = &adapter.prompt {
        let rows = quantized(prompt, model.embedding().format(), file.layout);
        file.prompt = Some((prompt.shape[0], rows));
    }
    file.write(model)
}

/// The same adapter for the same model in another layout: `from` are the adapter's own weights, `to` the model laid out anew.
///
/// # Errors
/// [`AdapterPackError`] where `to` is no model for it after all.
pub fn relayout_adapter(
    adapter: &PackedAdapter<'_>,
    from: &PackedModel<'_>,
    to: &PackedModel<'_>,
) -> Result<AlignedBytes, AdapterPackError> {
    let mut file = AdapterFile::new(adapter.name(), to.header().layout)?;
    let laid_out = |matrix: &MatrixQ8<'_>| TensorBytes::matrix(&row_major(matrix), to.header().layout);
    let mut seen = None;
    for tensor_idx in adapter.entries().map(|entry| entry.tensor_idx) {
        // All pairs of a tensor come at once.
        if seen.replace(tensor_idx) == Some(tensor_idx) {
            continue;
        }
        let base = from.adaptable(tensor_idx as usize).ok_or(AdapterPackError::OtherFamily)?;
        for pair in adapter.pairs_of(tensor_idx as usize, &base) {
            let (rows, rank) = (pair.b.rows() as u32, pair.a.rows() as u32);
            let entry =
                PairEntry { tensor_idx, first_row: pair.first_row as u32, rows, rank, a_offset: 0, b_offset: 0 };
            file.add_pair(entry, [laid_out(&pair.a), laid_out(&pair.b)]);
        }
    }
    file.prompt = adapter.prompt().map(|prompt| (prompt.rows(), laid_out(&prompt)));
    file.write(to)
}

/// The file of `model` with these adapters, in place of any that it had.
///
/// # Errors
/// [`AdapterPackError`]: two have the same name, one is for another model, or there are more than the format holds.
pub fn with_adapters(model: &PackedModel<'_>, adapters: &[AlignedBytes]) -> Result<AlignedBytes, AdapterPackError> {
    let mut names: Vec<&str> = Vec::new();
    for bytes in adapters {
        let name = PackedAdapter::parse(bytes, model)?.name();
        if names.contains(&name) {
            return Err(AdapterPackError::SameName { name: name.to_owned() });
        }
        names.push(name);
    }
    let sections: Vec<&[u8]> = adapters.iter().map(|bytes| &**bytes).collect();
    Ok(with_sections(model, SectionKind::Adapter, &sections)?)
}

/// Where a pair adds to the model's products; its matrices have no place yet.
fn entry_of(pair: &LowRankPair, model: &PackedModel<'_>) -> Result<PairEntry, AdapterPackError> {
    let config = model.config();
    let (role, first_row) = match pair.projection {
        Projection::Q => (Role::Qkv, 0),
        Projection::K => (Role::Qkv, config.q_dim()),
        Projection::V => (Role::Qkv, config.q_dim() + config.kv_dim()),
        Projection::O => (Role::AttentionOutput, 0),
        Projection::Gate => (Role::GateUp, 0),
        Projection::Up => (Role::GateUp, config.hidden_dim),
        Projection::Down => (Role::Down, 0),
    };
    let place = |(id, _): (TensorId, _)| id.role == role && id.layer_idx == pair.layer_idx;
    let tensor_idx = model.raw_tensors().position(place).ok_or(AdapterPackError::OtherFamily)?;
    let base = model.adaptable(tensor_idx).ok_or(AdapterPackError::OtherFamily)?;
    let (rank, inputs) = (pair.a.shape[0], base.cols());
    let rank_max = rank_max(base.format(), inputs);
    if rank > rank_max {
        return Err(AdapterPackError::Rank { rank, inputs, rank_max });
    }
    let (first_row, rows, rank) = (first_row as u32, pair.b.shape[0] as u32, rank as u32);
    Ok(PairEntry { tensor_idx: tensor_idx as u32, first_row, rows, rank, a_offset: 0, b_offset: 0 })
}

fn quantized(weight: &Weight, format: WeightFormat, layout: WeightLayout) -> TensorBytes {
    TensorBytes::matrix(&quantize_matrix(&weight.data, weight.shape[0], weight.shape[1], format), layout)
}

/// An adapter's bytes in the making.
struct AdapterFile {
    name: String,
    layout: WeightLayout,
    /// A, then B.
    pairs: Vec<(PairEntry, [TensorBytes; 2])>,
    prompt: Option<(usize, TensorBytes)>,
}

impl AdapterFile {
    fn new(name: &str, layout: WeightLayout) -> Result<Self, AdapterPackError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(['\0', '\n', '\r']) {
            return Err(AdapterPackError::Name { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), layout, pairs: Vec::new(), prompt: None })
    }

    fn add_pair(&mut self, entry: PairEntry, matrices: [TensorBytes; 2]) {
        self.pairs.push((entry, matrices));
    }

    fn write(self, model: &PackedModel<'_>) -> Result<AlignedBytes, AdapterPackError> {
        let n_pairs = self.pairs.len();
        let mut bytes = vec![0; HEAD_BYTES + n_pairs * PAIR_BYTES];
        for (idx, (mut entry, [a, b])) in self.pairs.into_iter().enumerate() {
            entry.a_offset = append(&mut bytes, &a)?;
            entry.b_offset = append(&mut bytes, &b)?;
            bytes[HEAD_BYTES + idx * PAIR_BYTES..][..PAIR_BYTES].copy_from_slice(&entry.encode());
        }
        let (n_virtual, prompt_offset) = match &self.prompt {
            Some((n_virtual, rows)) => (*n_virtual as u32, append(&mut bytes, rows)?),
            None => (0, 0),
        };
        let n_bytes = u32::try_from(bytes.len()).map_err(|_| AdapterPackError::TooLarge)?;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC);
        let words = [weights_crc(model), self.layout as u32, n_pairs as u32, n_virtual];
        put(4, &VERSION.to_le_bytes());
        put(8, &n_bytes.to_le_bytes());
        words.iter().enumerate().for_each(|(i, word)| put(16 + 4 * i, &word.to_le_bytes()));
        put(32, self.name.as_bytes());
        put(64, &prompt_offset.to_le_bytes());
        let crc = checksum(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        let bytes = AlignedBytes::copy_of(&bytes);
        PackedAdapter::parse(&bytes, model)?;
        Ok(bytes)
    }
}

/// Puts a matrix behind what is there, its values and its scales at multiples of 16; gives the first byte of the values.
fn append(bytes: &mut Vec<u8>, matrix: &TensorBytes) -> Result<u32, AdapterPackError> {
    let align = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(SECTION_ALIGN), 0);
    align(bytes);
    let offset = u32::try_from(bytes.len()).map_err(|_| AdapterPackError::TooLarge)?;
    bytes.extend_from_slice(&matrix.data);
    align(bytes);
    bytes.extend_from_slice(&matrix.scales);
    Ok(offset)
}
