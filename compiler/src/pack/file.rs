//! The bytes of a packed file: places, padding and checksums.

use siskin_runtime::format::{
    ENTRY_BYTES, HEADER_BYTES, Header, PREFILL_BATCH_MAX, SECTION_ALIGN, SPARSE, SectionEntry, SectionKind, TensorData,
    TensorEntry, TensorId, checksum,
};
use siskin_runtime::tensor::{MatrixQ8, Scales};
use siskin_runtime::{KvFormat, ModelConfig, PackedModel, WeightFormat, WeightLayout};

use super::adapter::{AdapterPackError, relayout_adapter, with_adapters};
use super::{AlignedBytes, PackError};
use crate::quant::{QuantizedMatrix, QuantizedScales};

/// A tensor's place in the canonical order, and its bytes.
pub(super) struct Tensor {
    pub id: TensorId,
    pub bytes: TensorBytes,
}

/// The bytes of a tensor in its layout; vectors have no scales and no format.
pub(super) struct TensorBytes {
    pub data: Vec<u8>,
    pub scales: Vec<u8>,
    pub(super) format: Option<WeightFormat>,
    /// Where zero blocks are not stored.
    pub(super) blocks: Option<StoredBlocks>,
}

/// Which blocks of a matrix are stored.
pub(super) struct StoredBlocks {
    /// The bytes of its index.
    pub index: Vec<u8>,
    pub n_blocks: u32,
}

impl TensorBytes {
    pub fn floats(numbers: &[f32]) -> Self {
        Self::vector(numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    pub fn integers(numbers: &[i32]) -> Self {
        Self::vector(numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn vector(data: Vec<u8>) -> Self {
        Self { data, scales: Vec::new(), format: None, blocks: None }
    }

    /// The scales of rows, padded to whole blocks of the layout.
    pub fn row_scales(scales: &[f32], layout: WeightLayout) -> Vec<u8> {
        let padded = scales.len().next_multiple_of(layout.row_block());
        (0..padded).flat_map(|row| scales.get(row).copied().unwrap_or(0.0).to_le_bytes()).collect()
    }

    /// All blocks of a matrix.
    pub fn matrix(matrix: &QuantizedMatrix, layout: WeightLayout) -> Self {
        let &QuantizedMatrix { rows, cols, format, .. } = matrix;
        let mut data = vec![format.zero_byte(layout); format.data_bytes(layout, rows, cols)];
        for (row, values) in matrix.values.chunks(cols).enumerate() {
            for (col, &value) in values.iter().enumerate() {
                format.set(layout, &mut data, cols, row, col, value);
            }
        }
        let scales = match &matrix.scales {
            QuantizedScales::PerRow(scales) => Self::row_scales(scales, layout),
            QuantizedScales::PerGroup(scales) => {
                let n_groups = format.groups(cols);
                block_scales(layout, rows, n_groups, |row, group| scales[row * n_groups + group])
            }
        };
        Self { data, scales, format: Some(format), blocks: None }
    }
}

/// Of each block of rows the scales of the first group, then of the second, and so on.
fn block_scales(layout: WeightLayout, rows: usize, n_groups: usize, scale: impl Fn(usize, usize) -> u16) -> Vec<u8> {
    let block = layout.row_block();
    let mut bytes = Vec::with_capacity(rows.next_multiple_of(block) * n_groups * 2);
    for first_row in (0..rows).step_by(block) {
        for group in 0..n_groups {
            for row in first_row..first_row + block {
                let bits = if row < rows { scale(row, group) } else { 0 };
                bytes.extend(bits.to_le_bytes());
            }
        }
    }
    bytes
}

/// What a file is made of.
pub(super) struct FileParts {
    pub config: ModelConfig,
    pub kv: KvFormat,
    pub layout: WeightLayout,
    pub prefill_batch: usize,
    pub n_beams: u32,
    /// In canonical order.
    pub tensors: Vec<Tensor>,
    /// Every section but the tensors and the weights, by the code of its kind.
    pub sections: Vec<(u32, Vec<u8>)>,
}

impl FileParts {
    /// Lays everything out and computes the checksums.
    pub fn write(self) -> Result<AlignedBytes, PackError> {
        if self.prefill_batch == 0 || self.prefill_batch > PREFILL_BATCH_MAX {
            return Err(PackError::PrefillBatch { asked: self.prefill_batch, max: PREFILL_BATCH_MAX });
        }
        // Other formats are named in the tensor table, by codes below this.
        let formats = self.tensors.iter().filter_map(|tensor| tensor.bytes.format);
        let format = formats.max_by_key(|&format| format as u32).unwrap_or(WeightFormat::Int8);
        let (table, weights) = place_tensors(&self.config, format, &self.tensors)?;
        let mut sections = vec![(SectionKind::Tensors as u32, table), (SectionKind::Weights as u32, weights)];
        sections.extend(self.sections);

        let table_bytes = HEADER_BYTES + sections.len() * ENTRY_BYTES;
        let mut file = vec![0; table_bytes];
        for (i, (kind, bytes)) in sections.iter().enumerate() {
            file.resize(file.len().next_multiple_of(SECTION_ALIGN), 0);
            let entry = SectionEntry {
                kind: *kind,
                crc: checksum(bytes),
                offset: file.len() as u64,
                bytes: bytes.len() as u64,
            };
            file.extend_from_slice(bytes);
            file[HEADER_BYTES + i * ENTRY_BYTES..][..ENTRY_BYTES].copy_from_slice(&entry.encode());
        }
        let mut header = Header {
            file_bytes: file.len() as u64,
            n_sections: sections.len() as u32,
            layout: self.layout,
            format,
            kv: self.kv,
            config: self.config,
            prefill_batch: self.prefill_batch as u32,
            n_beams: self.n_beams,
            arena_bytes: 0,
        };
        header.arena_bytes = header.memory_plan().ok_or(PackError::ArenaTooLarge)?.arena_bytes as u64;
        file[..HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(AlignedBytes::copy_of(&file))
    }
}

/// The tensor table, of a file whose header says `format`, and the weights section.
fn place_tensors(
    config: &ModelConfig,
    format: WeightFormat,
    tensors: &[Tensor],
) -> Result<(Vec<u8>, Vec<u8>), PackError> {
    let aligned = |n: usize| n.next_multiple_of(SECTION_ALIGN);
    let index_bytes = |bytes: &TensorBytes| bytes.blocks.as_ref().map_or(0, |blocks| blocks.index.len());
    let sizes = |bytes: &TensorBytes| [bytes.data.len(), bytes.scales.len(), index_bytes(bytes)];
    let total: usize = tensors.iter().flat_map(|t| sizes(&t.bytes)).map(aligned).sum();
    if u32::try_from(total).is_err() {
        return Err(PackError::TooLarge { bytes: total as u64 });
    }
    let mut table = Vec::with_capacity(tensors.len() * ENTRY_BYTES);
    let mut weights = Vec::with_capacity(total);
    let mut place = |bytes: &[u8]| {
        let offset = weights.len() as u32;
        weights.extend_from_slice(bytes);
        weights.resize(aligned(weights.len()), 0);
        offset
    };
    for tensor in tensors {
        let (rows, cols) = tensor.id.shape(config);
        let data_offset = place(&tensor.bytes.data);
        let scales_offset = if tensor.bytes.scales.is_empty() { 0 } else { place(&tensor.bytes.scales) };
        let own_format = tensor.bytes.format.filter(|&own| own != format).map_or(0, |own| own as u32 + 1);
        let (sparse, index_offset, n_blocks) = match &tensor.bytes.blocks {
            Some(blocks) => (SPARSE, place(&blocks.index), blocks.n_blocks),
            None => (0, 0, 0),
        };
        let entry = TensorEntry {
            role: tensor.id.code(),
            layer_idx: tensor.id.layer_idx as u16,
            rows: rows as u32,
            cols: cols as u32,
            data_offset,
            scales_offset,
            own_format: own_format + sparse,
            index_offset,
            n_blocks,
        };
        table.extend(entry.encode());
    }
    Ok((table, weights))
}

/// The same model for another board: the weights' bytes in another order, the prefill batch as asked, all else as it was.
///
/// # Errors
/// [`AdapterPackError`] where the prefill batch is out of range or padding would not fit the format.
pub fn relayout(
    model: &PackedModel<'_>,
    layout: WeightLayout,
    prefill_batch: usize,
) -> Result<AlignedBytes, AdapterPackError> {
    let bytes = relayout_without_adapters(model, layout, prefill_batch)?;
    let adapters = model.adapters();
    if adapters.iter().next().is_none() {
        return Ok(bytes);
    }
    let to = PackedModel::parse(&bytes).map_err(AdapterPackError::Model)?;
    let adapters: Result<Vec<_>, _> = adapters.iter().map(|adapter| relayout_adapter(&adapter, model, &to)).collect();
    with_adapters(&to, &adapters?)
}

fn relayout_without_adapters(
    model: &PackedModel<'_>,
    layout: WeightLayout,
    prefill_batch: usize,
) -> Result<AlignedBytes, PackError> {
    let tensors = model.raw_tensors().map(|(id, data)| Tensor {
        id,
        bytes: match data {
            TensorData::Matrix(w) if w.is_sparse() => TensorBytes::smallest(&row_major(&w), layout),
            TensorData::Matrix(w) => TensorBytes::matrix(&row_major(&w), layout),
            TensorData::Floats(numbers) => TensorBytes::floats(numbers),
            TensorData::Integers(numbers) => TensorBytes::integers(numbers),
        },
    });
    let rewritten = [SectionKind::Tensors, SectionKind::Weights, SectionKind::Adapter].map(|kind| kind as u32);
    let kept = |kind: u32| !rewritten.contains(&kind);
    let sections = model.raw_sections().filter(|(entry, _)| kept(entry.kind));
    let parts = FileParts {
        config: *model.config(),
        kv: model.header().kv,
        layout,
        prefill_batch,
        n_beams: model.header().n_beams,
        tensors: tensors.collect(),
        sections: sections.map(|(entry, bytes)| (entry.kind, bytes.to_vec())).collect(),
    };
    parts.write()
}

pub(super) fn row_major(w: &MatrixQ8<'_>) -> QuantizedMatrix {
    let (rows, cols) = (w.rows(), w.cols());
    let values = (0..rows).flat_map(|row| (0..cols).map(move |col| w.value(row, col))).collect();
    let scales = match w.scales() {
        Scales::PerRow(scales) => QuantizedScales::PerRow(scales[..rows].to_vec()),
        Scales::PerGroup(_) => {
            let n_groups = w.format().groups(cols);
            let bits = |row, group| (w.scale(row, group).to_bits() >> 16) as u16;
            QuantizedScales::PerGroup((0..rows).flat_map(|r| (0..n_groups).map(move |g| bits(r, g))).collect())
        }
    };
    QuantizedMatrix { rows, cols, format: w.format(), values, scales }
}
