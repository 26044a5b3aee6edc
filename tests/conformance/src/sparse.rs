//! Products with matrices that are stored without their zero blocks, against the whole matrix by the definition.

use siskin_runtime::math::bf16_to_f32;
use siskin_runtime::tensor::{
    ActivationsQ8, BAND_ROWS, BLOCK_COLS, MatrixQ8, Scales, activation_stride, block_bytes, index_words,
};
use siskin_runtime::{Kernels, WeightFormat, WeightLayout};

use crate::Mismatch;
use crate::attention::CACHED_MAX;
use crate::matmul::{Memory, TOKENS_MAX};

/// Most bands of a case, and words of its index, two a band.
const BANDS_MAX: usize = 2;

/// Rows, columns, and of each band the blocks that are stored.
const CASES: [(usize, usize, [u32; BANDS_MAX]); 9] = [
    (16, 64, [0b01, 0]),
    (16, 64, [0b10, 0]),
    (7, 70, [0b101, 0]),
    (20, 70, [0b100, 0b010]),
    (20, 64, [0, 0b11]),
    (20, 64, [0b11, 0]),
    (17, 44, [0b10, 0b01]),
    (32, 300, [0b10_0110_1001, 0b01_1110_0111]),
    (5, 1020, [0x8f01_7ff3, 0]),
];

/// One product.
#[derive(Clone, Copy)]
struct Case {
    rows: usize,
    cols: usize,
    stored: [u32; BANDS_MAX],
    format: WeightFormat,
    layout: WeightLayout,
}

impl Case {
    fn is_stored(&self, row: usize, block: usize) -> bool {
        block < 32 && self.stored[row / BAND_ROWS] >> block & 1 == 1
    }

    /// Of the whole matrix.
    fn weight(&self, row: usize, col: usize) -> i8 {
        let int8 = ((row * 89 + col * 55 + row * col) % 255) as i16 - 127;
        let value = if self.format == WeightFormat::Int4G32 { int8 >> 4 } else { int8 };
        if self.is_stored(row, col / BLOCK_COLS) { value as i8 } else { 0 }
    }

    fn row_scale(&self, row: usize) -> f32 {
        (1 + row) as f32 * 0.003
    }

    /// The bits of a group's scale; int4 has both signs.
    fn group_scale(&self, row: usize, group: usize) -> u16 {
        let sign = if self.format == WeightFormat::Int4G32 { (row as u16 & 1) << 15 } else { 0 };
        if self.is_stored(row, group) { sign | (0x3c00 + ((row * 7 + group * 3) % 64) as u16) } else { 0 }
    }

    fn activation(&self, token_idx: usize, col: usize) -> i16 {
        let int8 = ((token_idx * 101 + col * 37) % 255) as i16 - 127;
        if self.format == WeightFormat::Int8G32 { 16 * int8 + 15 * int8.signum() } else { int8 }
    }

    fn activation_scale(&self, token_idx: usize, group: usize) -> f32 {
        (3 + token_idx + group) as f32 * 0.01
    }

    /// One output by the definition.
    fn product(&self, token_idx: usize, row: usize) -> f32 {
        let size = self.format.group_size(self.cols);
        let mut sum = -0.0f32;
        for group in 0..self.format.groups(self.cols) {
            let cols = group * size..((group + 1) * size).min(self.cols);
            let dot = cols.map(|col| i32::from(self.weight(row, col)) * i32::from(self.activation(token_idx, col)));
            let scale = match self.format {
                WeightFormat::Int8 => self.row_scale(row),
                WeightFormat::Int8G32 | WeightFormat::Int4G32 => bf16_to_f32(self.group_scale(row, group)),
            };
            sum += dot.sum::<i32>() as f32 * (scale * self.activation_scale(token_idx, group));
        }
        sum
    }
}

pub(crate) fn check(kernels: Kernels, memory: &mut Memory) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    for (idx, (rows, cols, stored)) in CASES.into_iter().enumerate() {
        for format in WeightFormat::ALL {
            for layout in WeightLayout::ALL {
                let n_blocks: u32 = stored.iter().map(|mask| mask.count_ones()).sum();
                if cols > CACHED_MAX / size_of::<f32>()
                    || n_blocks as usize * block_bytes(format) > memory.weights.0.len()
                {
                    continue;
                }
                n_cases += 1;
                let case = Case { rows, cols, stored, format, layout };
                check_one(kernels, memory, &case, 1 + idx % TOKENS_MAX).map_err(|row| Mismatch {
                    kernel: "matmul without zero blocks",
                    case: [("layout", layout as usize), ("rows", rows), ("cols", cols), ("row", row)],
                })?;
            }
        }
    }
    Ok(n_cases)
}

/// `Err` holds the row that differs.
fn check_one(kernels: Kernels, memory: &mut Memory, case: &Case, n_tokens: usize) -> Result<(), usize> {
    let &Case { rows, cols, format, layout, .. } = case;
    let mut index = [0; 2 * BANDS_MAX];
    let mut n_blocks = 0;
    for first_row in (0..rows).step_by(BAND_ROWS) {
        let mask = case.stored[first_row / BAND_ROWS];
        let entry = &mut index[first_row / BAND_ROWS * 2..][..2];
        entry.copy_from_slice(&[n_blocks as u32, mask]);
        let n_stored = mask.count_ones() as usize;
        let data = &mut memory.weights.0[n_blocks * block_bytes(format)..][..n_stored * block_bytes(format)];
        data.fill(format.zero_byte(layout));
        let rows = first_row..rows.min(first_row + BAND_ROWS);
        let columns = || (0..cols).filter(|col| case.is_stored(first_row, col / BLOCK_COLS));
        let (n_cols, block) = (columns().count(), layout.row_block());
        let scales = &mut memory.group_scales.0[n_blocks * BAND_ROWS..][..n_stored * BAND_ROWS];
        for (i, row) in rows.enumerate() {
            for (to, col) in columns().enumerate() {
                format.set(layout, data, n_cols, i, to, case.weight(row, col));
            }
            let groups = (0..cols.div_ceil(BLOCK_COLS)).filter(|&group| case.is_stored(row, group));
            for (to, group) in groups.enumerate() {
                scales[(i / block * n_stored + to) * block + i % block] = case.group_scale(row, group);
            }
        }
        n_blocks += n_stored;
    }
    let row_scales = &mut memory.row_scales[..rows.next_multiple_of(layout.row_block())];
    row_scales.iter_mut().enumerate().for_each(|(row, scale)| *scale = case.row_scale(row));
    let scales = match format {
        WeightFormat::Int8 => Scales::PerRow(row_scales),
        WeightFormat::Int8G32 | WeightFormat::Int4G32 => {
            Scales::PerGroup(&memory.group_scales.0[..n_blocks * BAND_ROWS])
        }
    };
    let (stride, lanes, groups) = (activation_stride(cols), kernels.lanes(format), format.groups(cols));
    let values = &mut memory.values.0[..n_tokens * stride];
    values.fill(0);
    let value_scales = &mut memory.value_scales[..n_tokens * groups];
    for (token_idx, values) in values.chunks_exact_mut(stride).enumerate() {
        (0..cols).for_each(|col| lanes.set(values, col, case.activation(token_idx, col)));
        let scales = value_scales[token_idx * groups..][..groups].iter_mut();
        scales.enumerate().for_each(|(group, scale)| *scale = case.activation_scale(token_idx, group));
    }
    let (data, index) = (&memory.weights.0[..n_blocks * block_bytes(format)], &index[..index_words(rows, cols)]);
    let w = MatrixQ8::sparse((rows, cols), layout, format, data, scales, index).ok_or(rows)?;
    let x = ActivationsQ8::new(n_tokens, cols, format, lanes, values, value_scales).ok_or(rows)?;
    let out = &mut memory.out[..n_tokens * rows];
    out.fill(f32::NAN);
    // No case of a product has a cache.
    let room: &mut [f32] = bytemuck::cast_slice_mut(&mut memory.kv.0);
    kernels.matmul_rows_sparse(out, 0, &w, &x, &mut room[..cols]);
    for (idx, out) in out.iter().enumerate() {
        if out.to_bits() != case.product(idx / rows, idx % rows).to_bits() {
            return Err(idx % rows);
        }
    }
    Ok(())
}
