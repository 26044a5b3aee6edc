//! Matrix products in every layout and format, at every length that a loop could get wrong.

use siskin_runtime::kernels::matmul_f32_q8_q8;
use siskin_runtime::math::{bf16_at_least, bf16_to_f32};
use siskin_runtime::tensor::{ActivationsQ8, MatrixQ8, Scales, activation_stride};
use siskin_runtime::{Aligned, Kernels, Serial, WeightFormat, WeightLayout};

use crate::Mismatch;
use crate::attention::{CACHED_MAX, POSITIONS_MAX};
use crate::random::{Fill, Random};

/// Most columns of a case, more than two of the pieces that a backend may cut a row into where there is room for it.
const COLS_MAX: usize = if cfg!(feature = "small") { 80 } else { 1032 };
/// Most weights of a case, padding included.
const WEIGHTS_MAX: usize = 16 * COLS_MAX;
/// Most rows of a case, padding included.
const ROWS_MAX: usize = 32;
/// Most tokens of a case.
pub(crate) const TOKENS_MAX: usize = 3;

/// What the cases work in: too much for a small stack, so the caller has it in a `static`.
pub struct Memory {
    pub(crate) weights: Aligned<[u8; WEIGHTS_MAX + 4]>,
    pub(crate) row_scales: [f32; ROWS_MAX],
    pub(crate) group_scales: Aligned<[u16; ROWS_MAX * COLS_MAX.div_ceil(32) + 1]>,
    pub(crate) values: Aligned<[i16; TOKENS_MAX * COLS_MAX + 2]>,
    pub(crate) value_scales: [f32; TOKENS_MAX * COLS_MAX.div_ceil(32)],
    pub(crate) out: [f32; TOKENS_MAX * ROWS_MAX],
    pub(crate) kv: Aligned<[i8; CACHED_MAX]>,
    pub(crate) scales: [u16; POSITIONS_MAX],
    pub(crate) scores: [[i32; POSITIONS_MAX]; 2],
}

impl Memory {
    /// All zeros.
    #[expect(clippy::new_without_default, reason = "a const is wanted for a `static`, and nothing else")]
    pub const fn new() -> Self {
        Self {
            weights: Aligned([0; WEIGHTS_MAX + 4]),
            row_scales: [0.0; ROWS_MAX],
            group_scales: Aligned([0; ROWS_MAX * COLS_MAX.div_ceil(32) + 1]),
            values: Aligned([0; TOKENS_MAX * COLS_MAX + 2]),
            value_scales: [0.0; TOKENS_MAX * COLS_MAX.div_ceil(32)],
            out: [0.0; TOKENS_MAX * ROWS_MAX],
            kv: Aligned([0; CACHED_MAX]),
            scales: [0; POSITIONS_MAX],
            scores: [[0; POSITIONS_MAX]; 2],
        }
    }
}

/// One product.
#[derive(Clone, Copy)]
struct Case {
    rows: usize,
    cols: usize,
    n_tokens: usize,
    fill: Fill,
    /// What lies half a word behind a multiple of 16: weights, activations, groups' scales.
    misaligned: [bool; 3],
    /// Whether products of scales are zeros, subnormal numbers and their neighbours.
    is_tiny: bool,
}

impl Case {
    fn new(rows: usize, cols: usize, n_tokens: usize, fill: Fill) -> Self {
        Self { rows, cols, n_tokens, fill, misaligned: [false; 3], is_tiny: false }
    }
}

pub(crate) fn check(kernels: Kernels, memory: &mut Memory) -> Result<usize, Mismatch> {
    let by_rows = (1..=20).map(|rows| (rows, 40));
    let by_cols = (1..=140).chain([172, 192, 256, 260, 508, 511, 512]).map(|cols| (6, cols));
    let long = [513, 516, 520, 1024, 1028, 1032].into_iter().map(|cols| (5, cols));
    let mut n_cases = 0;
    let shapes = by_rows.chain(by_cols).chain(long).filter(|&(_, cols)| cols <= COLS_MAX);
    for (idx, (rows, cols)) in shapes.enumerate() {
        for fill in Fill::ALL {
            let n_tokens = 1 + idx % TOKENS_MAX;
            n_cases += check_case(kernels, memory, Case::new(rows, cols, n_tokens, fill))?;
        }
    }
    for bits in 1..8 {
        let misaligned = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
        n_cases += check_case(kernels, memory, Case { misaligned, ..Case::new(6, 40, 2, Fill::Random) })?;
    }
    for cols in [64, 72, 100].into_iter().filter(|&cols| cols <= COLS_MAX) {
        n_cases += check_case(kernels, memory, Case { is_tiny: true, ..Case::new(9, cols, 2, Fill::Random) })?;
    }
    Ok(n_cases)
}

/// All formats and layouts of a case.
fn check_case(kernels: Kernels, memory: &mut Memory, case: Case) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    for format in WeightFormat::ALL {
        for layout in WeightLayout::ALL {
            n_cases += 1;
            check_one(kernels, memory, case, format, layout).map_err(|row| Mismatch {
                kernel: match format {
                    WeightFormat::Int8 => "matmul int8",
                    WeightFormat::Int8G32 => "matmul int8-g32",
                    WeightFormat::Int4G32 => "matmul int4-g32",
                },
                case: [("layout", layout as usize), ("rows", case.rows), ("cols", case.cols), ("row", row)],
            })?;
        }
    }
    Ok(n_cases)
}

/// `Err` holds the row that differs.
fn check_one(
    kernels: Kernels,
    memory: &mut Memory,
    case: Case,
    format: WeightFormat,
    layout: WeightLayout,
) -> Result<(), usize> {
    let Case { rows, cols, n_tokens, fill, misaligned, is_tiny } = case;
    let [skip_weights, skip_values, skip_scales] = misaligned.map(usize::from);
    let mut random = Random::new((rows * 1031 + cols) as u32);
    let padded_rows = rows.next_multiple_of(layout.row_block());
    let groups = format.groups(cols);
    let weights = &mut memory.weights.0[2 * skip_weights..][..format.data_bytes(layout, rows, cols)];
    weights.fill(format.zero_byte(layout));
    for row in 0..rows {
        for col in 0..cols {
            let int8 = random.value(fill);
            // Extremes stay extremes: 127 is -8, and -127 is 7.
            let value = if format == WeightFormat::Int4G32 { !(int8 >> 4) } else { int8 };
            format.set(layout, weights, cols, row, col, value);
        }
    }
    let row_scales = &mut memory.row_scales[..padded_rows];
    let factor = if is_tiny { f32::from_bits((127 - 55) << 23) } else { 1.0 };
    row_scales.iter_mut().for_each(|scale| *scale = factor * random.scale());
    let group_scales = &mut memory.group_scales.0[skip_scales..][..padded_rows * cols.div_ceil(32)];
    // Those of int4 have either sign.
    let sign = if format == WeightFormat::Int4G32 { 0x8000 } else { 0 };
    for scale in &mut *group_scales {
        *scale = bf16_at_least(factor * random.scale()) | random.bits() as u16 & sign;
    }
    if is_tiny {
        (row_scales[0], group_scales[0]) = (0.0, 0);
    }
    let scales = match format {
        WeightFormat::Int8 => Scales::PerRow(row_scales),
        WeightFormat::Int8G32 | WeightFormat::Int4G32 => Scales::PerGroup(group_scales),
    };
    let stride = activation_stride(cols);
    let values = &mut memory.values.0[skip_values..][..n_tokens * stride];
    let lanes = kernels.lanes(format);
    for values in values.chunks_exact_mut(stride) {
        values.fill(0);
        for col in 0..cols {
            let int8 = i16::from(random.value(fill));
            // Those that meet int8 in groups have 12 bits: up to 2047.
            let value = if format == WeightFormat::Int8G32 { 16 * int8 + 15 * int8.signum() } else { int8 };
            lanes.set(values, col, value);
        }
    }
    let value_scales = &mut memory.value_scales[..n_tokens * groups];
    value_scales.iter_mut().for_each(|scale| *scale = factor * random.scale());
    let w = MatrixQ8::new(rows, cols, layout, format, weights, scales).ok_or(rows)?;
    let x = ActivationsQ8::new(n_tokens, cols, format, lanes, values, value_scales).ok_or(rows)?;
    let out = &mut memory.out[..n_tokens * rows];
    out.fill(f32::NAN);
    matmul_f32_q8_q8(kernels, &Serial, out, &w, &x);
    for (idx, out) in out.iter().enumerate() {
        if out.to_bits() != product(&w, &x, idx / rows, idx % rows).to_bits() {
            return Err(idx % rows);
        }
    }
    Ok(())
}

/// One output by the definition: exact sums over a scale's columns, then f32, group after group.
fn product(w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>, token_idx: usize, row: usize) -> f32 {
    let mut sum = -0.0f32;
    let size = w.format().group_size(w.cols());
    for (group, x_scale) in x.scales(token_idx).iter().enumerate() {
        let cols = group * size..((group + 1) * size).min(w.cols());
        let dot: i64 = cols.map(|col| i64::from(w.value(row, col)) * i64::from(x.value(token_idx, col))).sum();
        let block = w.layout().row_block();
        let w_scale = match w.scales() {
            Scales::PerRow(scales) => scales[row],
            Scales::PerGroup(scales) => {
                let groups = w.format().groups(w.cols());
                bf16_to_f32(scales[(row / block * groups + group) * block + row % block])
            }
        };
        sum += dot as f32 * (w_scale * x_scale);
    }
    sum
}
