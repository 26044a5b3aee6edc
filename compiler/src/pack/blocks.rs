//! Blocks of weights that are all zero, as pruning leaves them: they are not stored where that saves enough.

use siskin_runtime::tensor::{BAND_ROWS, BLOCK_COLS, block_bytes, index_words};
use siskin_runtime::{PackedModel, WeightLayout};

use super::file::{StoredBlocks, TensorBytes};
use crate::quant::{QuantizedMatrix, QuantizedScales};

/// How many blocks of a model's matrices are not stored, of how many there are in those matrices; both 0 where all are stored.
pub fn dropped_blocks(model: &PackedModel<'_>) -> (usize, usize) {
    let matrices = model.raw_tensors().filter_map(|(_, data)| match data {
        siskin_runtime::format::TensorData::Matrix(w) if w.is_sparse() => Some(w.n_blocks()),
        _ => None,
    });
    matrices.fold((0, 0), |(n_dropped, n_all), (stored, all)| (n_dropped + all - stored, n_all + all))
}

impl TensorBytes {
    /// The bytes of a matrix, without its zero blocks where that saves at least an eighth of its values: a product with fewer bands of less
    /// has little to win. What is decided does not depend on the layout.
    pub fn smallest(matrix: &QuantizedMatrix, layout: WeightLayout) -> Self {
        let n_bits = if matrix.format == siskin_runtime::WeightFormat::Int4G32 { 4 } else { 8 };
        let present = present_blocks(matrix);
        let n_blocks = present.iter().flatten().filter(|&&is_present| is_present).count();
        let sparse_bytes = n_blocks * block_bytes(matrix.format) + index_words(matrix.rows, matrix.cols) * 4;
        let whole_bytes = matrix.rows * matrix.cols * n_bits / 8;
        match sparse_bytes * 8 <= whole_bytes * 7 {
            true => Self::without_zero_blocks(matrix, layout, &present),
            false => Self::matrix(matrix, layout),
        }
    }

    /// What is left of each band, as a matrix of its own, one after the other.
    fn without_zero_blocks(matrix: &QuantizedMatrix, layout: WeightLayout, present: &[Vec<bool>]) -> Self {
        let format = matrix.format;
        let (mut data, mut scales, mut index, mut n_blocks) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (band_idx, present) in present.iter().enumerate() {
            index.push(n_blocks as u32);
            let word =
                |blocks: &[bool]| blocks.iter().rev().fold(0, |word, &is_present| word << 1 | u32::from(is_present));
            index.extend(present.chunks(u32::BITS as usize).map(word));
            let band = Self::matrix(&band_of(matrix, band_idx, present), layout);
            n_blocks += present.iter().filter(|&&is_present| is_present).count();
            data.extend(band.data);
            data.resize(n_blocks * block_bytes(format), format.zero_byte(layout));
            if format.is_grouped() {
                scales.extend(band.scales);
                scales.resize(n_blocks * BAND_ROWS * format.scale_bytes(), 0);
            }
        }
        if let QuantizedScales::PerRow(per_row) = &matrix.scales {
            scales = Self::row_scales(per_row, layout);
        }
        let index = index.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        Self { data, scales, format: Some(format), blocks: Some(StoredBlocks { index, n_blocks: n_blocks as u32 }) }
    }
}

/// Of each band whether each of its blocks has a value, or a scale, that is not zero.
fn present_blocks(matrix: &QuantizedMatrix) -> Vec<Vec<bool>> {
    let n_blocks = matrix.cols.div_ceil(BLOCK_COLS);
    let mut present = vec![vec![false; n_blocks]; matrix.rows.div_ceil(BAND_ROWS)];
    for (row, values) in matrix.values.chunks(matrix.cols).enumerate() {
        for (block, values) in values.chunks(BLOCK_COLS).enumerate() {
            let has_scale = match &matrix.scales {
                QuantizedScales::PerRow(_) => false,
                QuantizedScales::PerGroup(scales) => scales[row * n_blocks + block] != 0,
            };
            present[row / BAND_ROWS][block] |= has_scale || values.iter().any(|&value| value != 0);
        }
    }
    present
}

/// The columns of a band's blocks that are present, side by side.
fn band_of(matrix: &QuantizedMatrix, band_idx: usize, present: &[bool]) -> QuantizedMatrix {
    let rows = band_idx * BAND_ROWS..matrix.rows.min((band_idx + 1) * BAND_ROWS);
    let is_present = |block: usize| present[block];
    let row_values = |row: usize| {
        let values = &matrix.values[row * matrix.cols..][..matrix.cols];
        values.iter().enumerate().filter(move |(col, _)| is_present(col / BLOCK_COLS)).map(|(_, &value)| value)
    };
    let scales = match &matrix.scales {
        QuantizedScales::PerRow(scales) => QuantizedScales::PerRow(scales[rows.clone()].to_vec()),
        QuantizedScales::PerGroup(scales) => {
            let row_scales = |row: usize| {
                let scales = &scales[row * present.len()..][..present.len()];
                scales.iter().enumerate().filter(move |&(block, _)| is_present(block)).map(|(_, &scale)| scale)
            };
            QuantizedScales::PerGroup(rows.clone().flat_map(row_scales).collect())
        }
    };
    let values: Vec<i8> = rows.clone().flat_map(row_values).collect();
    QuantizedMatrix { rows: rows.len(), cols: values.len() / rows.len(), format: matrix.format, values, scales }
}

#[cfg(test)]
mod tests {
    use siskin_runtime::format::{SectionKind, TensorData};
    use siskin_runtime::{FormatError, Kernels, ModelConfig, WeightFormat};

    use super::*;
    use crate::artifact::{Checkpoint, NamedWeights, Weight, names};
    use crate::pack::tests::{config, logits, mend, options, random_checkpoint, run_mutants};
    use crate::pack::{AlignedBytes, PackOptions, pack, relayout};

    /// A random model of which three in five blocks of every matrix are zero.
    fn pruned(config: ModelConfig) -> Checkpoint {
        let whole = random_checkpoint(config, 5);
        let weights: NamedWeights = names::expected_shapes(&config)
            .into_iter()
            .map(|(name, shape)| {
                let mut data = whole.weight(&name).to_vec();
                if let &[_, cols] = &shape[..] {
                    for (i, weight) in data.iter_mut().enumerate() {
                        let (band, block) = (i / cols / BAND_ROWS, i % cols / BLOCK_COLS);
                        *weight *= if (band * 7 + block * 3) % 5 < 3 { 0.0 } else { 1.0 };
                    }
                }
                (name, Weight { shape, data })
            })
            .collect();
        Checkpoint::new(config, weights).expect("the shapes are as they were")
    }

    /// Wide enough for several blocks a band, of which the last may be narrower.
    fn wide(tied_head: bool) -> ModelConfig {
        ModelConfig { dim: 96, hidden_dim: 172, head_dim: 16, ..config(tied_head) }
    }

    #[test]
    fn zero_blocks_are_left_out_and_nothing_else_changes() {
        let tokens: Vec<u32> = (0..24).map(|i| i * 7 % 61).collect();
        for (tied, format) in [true, false].into_iter().flat_map(|tied| WeightFormat::ALL.map(|format| (tied, format)))
        {
            let checkpoint = pruned(wide(tied));
            let keep_zero_blocks = PackOptions { keep_zero_blocks: true, ..options(format, WeightLayout::RowMajor, 1) };
            let whole = pack(&checkpoint, &keep_zero_blocks).unwrap();
            let want = logits(&whole, Kernels::generic(), &tokens);
            assert_eq!(dropped_blocks(&PackedModel::parse(&whole).unwrap()), (0, 0));
            let first = pack(&checkpoint, &options(format, WeightLayout::RowMajor, 1)).unwrap();
            for layout in WeightLayout::ALL {
                for prefill_batch in [1, 7] {
                    let file = pack(&checkpoint, &options(format, layout, prefill_batch)).unwrap();
                    let (n_dropped, n_all) = dropped_blocks(&PackedModel::parse(&file).unwrap());
                    assert!(n_dropped * 2 > n_all && n_all > 50, "{n_dropped} of {n_all}");
                    assert!(file.len() * 10 < whole.len() * 8, "{} of {} bytes", file.len(), whole.len());
                    for kernels in Kernels::available() {
                        let got = logits(&file, kernels, &tokens);
                        assert!(got == want, "{format:?} {layout:?} batch {prefill_batch} {}", kernels.name());
                    }
                    let moved = relayout(&PackedModel::parse(&first).unwrap(), layout, prefill_batch).unwrap();
                    assert!(*moved == *file, "relayout to {layout:?} differs from packing for it");
                }
            }
        }
    }

    #[test]
    fn a_matrix_with_few_zero_blocks_is_stored_whole() {
        let checkpoint = random_checkpoint(wide(false), 5);
        let file = pack(&checkpoint, &options(WeightFormat::Int8, WeightLayout::Rows16, 1)).unwrap();
        let model = PackedModel::parse(&file).unwrap();
        assert!(model.raw_tensors().all(|(_, data)| !matches!(data, TensorData::Matrix(w) if w.is_sparse())));
    }

    #[test]
    fn mutated_files_without_zero_blocks_neither_parse_nor_run_into_a_panic() {
        let small = ModelConfig { n_layers: 1, vocab_size: 33, context_len: 5, ..wide(true) };
        let checkpoint = pruned(small);
        let files: Vec<AlignedBytes> = WeightFormat::ALL
            .into_iter()
            .flat_map(|format| WeightLayout::ALL.map(|layout| pack(&checkpoint, &options(format, layout, 2)).unwrap()))
            .collect();
        assert!(run_mutants(&files, 11, 3000) > 200);
        // Each bit of an index, past the checksum.
        let model = PackedModel::parse(&files[0]).unwrap();
        let weights = model.raw_sections().find(|(entry, _)| entry.kind == SectionKind::Weights as u32).unwrap().0;
        let entry = model.tensors().next().filter(|entry| entry.is_sparse()).expect("zero blocks were left out");
        let n_words = index_words(entry.rows as usize, entry.cols as usize);
        for bit in 0..32 * n_words {
            let mut bytes = files[0].clone();
            bytes[weights.offset as usize + entry.index_offset as usize + bit / 8] ^= 1 << (bit % 8);
            mend(&mut bytes);
            let error = PackedModel::parse(&bytes).unwrap_err();
            assert_eq!(error, FormatError::BadTensor { tensor_idx: 0 }, "bit {bit}");
        }
    }
}
