//! Every backend against the generic loops, at every length that a loop could get wrong.

extern crate std;

use std::vec;
use std::vec::Vec;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::math;
use crate::tensor::{
    BAND_ROWS, BLOCK_COLS, GROUP_SIZE, Scales, WeightFormat, activation_stride, block_bytes, quantize,
};

/// A matrix with its bytes, in any layout.
struct Owned {
    rows: usize,
    cols: usize,
    layout: WeightLayout,
    data: Vec<u8>,
    per_row: Vec<f32>,
    per_group: Vec<u16>,
    format: WeightFormat,
}

impl Owned {
    fn random(rng: &mut ChaCha8Rng, format: WeightFormat, layout: WeightLayout, rows: usize, cols: usize) -> Self {
        let mut data = vec![format.zero_byte(layout); format.data_bytes(layout, rows, cols)];
        let (least, greatest) = format.weight_limits();
        for row in 0..rows {
            for col in 0..cols {
                format.set(layout, &mut data, cols, row, col, rng.random_range(least..=greatest));
            }
        }
        let padded = rows.next_multiple_of(layout.row_block());
        let per_row = (0..padded).map(|_| rng.random_range(0.001..0.1f32)).collect();
        let n = padded * cols.div_ceil(GROUP_SIZE);
        // Those of int4 have either sign.
        let sign = if format == WeightFormat::Int4G32 { 0x8000 } else { 0 };
        let scale =
            |rng: &mut ChaCha8Rng| math::bf16_at_least(rng.random_range(0.001..0.1f32)) | rng.random::<u16>() & sign;
        let per_group = (0..n).map(|_| scale(rng)).collect();
        Self { rows, cols, layout, data, per_row, per_group, format }
    }

    fn view(&self) -> MatrixQ8<'_> {
        let scales = match self.format {
            WeightFormat::Int8 => Scales::PerRow(&self.per_row),
            WeightFormat::Int8G32 | WeightFormat::Int4G32 => Scales::PerGroup(&self.per_group),
        };
        MatrixQ8::new(self.rows, self.cols, self.layout, self.format, &self.data, scales)
            .expect("sizes follow from the shape")
    }
}

/// The definition in f64-free, layout-free form: integer dot products per group, then f32 in order.
fn naive(w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) -> Vec<f32> {
    let group_size = w.format().group_size(w.cols());
    let mut out = vec![];
    for t in 0..x.n_tokens() {
        for row in 0..w.rows() {
            let mut sum = -0.0f32;
            for group in 0..w.format().groups(w.cols()) {
                let cols = group * group_size..((group + 1) * group_size).min(w.cols());
                let dot: i64 = cols.map(|c| i64::from(w.value(row, c)) * i64::from(x.value(t, c))).sum();
                sum += dot as f32 * (w.scale(row, group) * x.scales(t)[group]);
            }
            out.push(sum);
        }
    }
    out
}

/// Tokens of `cols` elements as a backend wants them: their memory and scales.
fn quantized(kernels: Kernels, format: WeightFormat, cols: usize, numbers: &[f32]) -> (Vec<i16>, Vec<f32>) {
    let (stride, groups) = (activation_stride(cols), format.groups(cols));
    let n_tokens = numbers.len() / cols;
    let (mut values, mut scales) = (vec![7; n_tokens * stride], vec![0.0; n_tokens * groups]);
    let tokens = values.chunks_mut(stride).zip(scales.chunks_mut(groups));
    for (x, (values, scales)) in numbers.chunks(cols).zip(tokens) {
        quantize(kernels, format, x, values, scales);
    }
    (values, scales)
}

/// A view of what [`quantized`] gave.
fn activations<'a>(
    kernels: Kernels,
    format: WeightFormat,
    cols: usize,
    values: &'a [i16],
    scales: &'a [f32],
) -> ActivationsQ8<'a> {
    let n_tokens = values.len() / activation_stride(cols);
    ActivationsQ8::new(n_tokens, cols, format, kernels.lanes(format), values, scales).unwrap()
}

/// Splits like two threads, one half after the other.
struct TwoPieces;

impl Join for TwoPieces {
    fn n_threads(&self) -> usize {
        2
    }

    fn join(&self, a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
        b();
        a();
    }
}

#[test]
fn every_backend_and_layout_gives_the_naive_bits() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let shapes = (1..=20).map(|n| (n, 40)).chain((1..=70).map(|n| (9, n))).chain([(172, 64), (64, 172), (1030, 260)]);
    for (rows, cols) in shapes {
        for format in WeightFormat::ALL {
            for layout in WeightLayout::ALL {
                let owned = Owned::random(&mut rng, format, layout, rows, cols);
                let w = owned.view();
                for n_tokens in [1, 2, 5] {
                    let numbers: Vec<f32> = (0..n_tokens * cols).map(|_| rng.random_range(-2.0..2.0)).collect();
                    let (values, scales) = quantized(Kernels::generic(), format, cols, &numbers);
                    let want = naive(&w, &activations(Kernels::generic(), format, cols, &values, &scales));
                    for kernels in Kernels::available() {
                        let (values, scales) = quantized(kernels, format, cols, &numbers);
                        let x = activations(kernels, format, cols, &values, &scales);
                        let mut out = vec![f32::NAN; want.len()];
                        matmul_f32_q8_q8(kernels, &Serial, &mut out, &w, &x);
                        assert_eq!(out, want, "{} {layout:?} {format:?} {rows}x{cols}", kernels.name());
                        out.fill(f32::NAN);
                        matmul_f32_q8_q8(kernels, &TwoPieces, &mut out, &w, &x);
                        assert_eq!(out, want, "two pieces: {} {layout:?} {format:?} {rows}x{cols}", kernels.name());
                    }
                }
            }
        }
    }
}

/// What is stored of a matrix without its zero blocks, in any layout.
struct OwnedSparse {
    data: Vec<u8>,
    per_group: Vec<u16>,
    index: Vec<u32>,
}

impl OwnedSparse {
    /// Takes some blocks out of `owned`, which becomes zero there.
    fn thinned(rng: &mut ChaCha8Rng, owned: &mut Owned) -> Self {
        let Owned { rows, cols, layout, format, .. } = *owned;
        let mut sparse = Self { data: vec![], per_group: vec![], index: vec![] };
        let n_cols = cols.div_ceil(BLOCK_COLS);
        for first_row in (0..rows).step_by(BAND_ROWS) {
            let n_rows = BAND_ROWS.min(rows - first_row);
            // Some bands have all blocks, some have none.
            let share = [0.0, 0.5, 0.5, 1.0][rng.random_range(0..4)];
            let present: Vec<bool> = (0..n_cols).map(|_| rng.random_range(0.0..1.0) < share).collect();
            sparse.index.push((sparse.data.len() / block_bytes(format)) as u32);
            let mut words = vec![0u32; n_cols.div_ceil(32)];
            let columns: Vec<usize> = (0..cols).filter(|col| present[col / BLOCK_COLS]).collect();
            let mut band = vec![format.zero_byte(layout); format.data_bytes(layout, n_rows, columns.len())];
            for row in 0..n_rows {
                for (to, &col) in columns.iter().enumerate() {
                    format.set(layout, &mut band, columns.len(), row, to, owned.view().value(first_row + row, col));
                }
                for col in (0..cols).filter(|col| !present[col / BLOCK_COLS]) {
                    format.set(layout, &mut owned.data, cols, first_row + row, col, 0);
                }
            }
            let stored: Vec<usize> = (0..n_cols).filter(|&block| present[block]).collect();
            stored.iter().for_each(|block| words[block / 32] |= 1 << (block % 32));
            sparse.index.extend(words);
            sparse.data.extend(band);
            let n_blocks = *sparse.index.iter().rev().nth(n_cols.div_ceil(32)).unwrap() as usize + stored.len();
            sparse.data.resize(n_blocks * block_bytes(format), format.zero_byte(layout));
            sparse.take_scales(owned, first_row..first_row + n_rows, &present, n_blocks);
        }
        sparse
    }

    /// The scales of a band's blocks; they become 0 in `owned` where a block is not stored.
    fn take_scales(&mut self, owned: &mut Owned, rows: core::ops::Range<usize>, present: &[bool], n_blocks: usize) {
        let block = owned.layout.row_block();
        for first in rows.step_by(block) {
            for (group, &is_present) in present.iter().enumerate() {
                let at = (first / block * present.len() + group) * block;
                let scales = &mut owned.per_group[at..at + block];
                if is_present {
                    self.per_group.extend(&*scales);
                } else {
                    scales.fill(0);
                }
            }
        }
        self.per_group.resize(n_blocks * BAND_ROWS, 0);
    }

    fn view<'s>(&'s self, owned: &'s Owned) -> MatrixQ8<'s> {
        let scales = match owned.format {
            WeightFormat::Int8 => Scales::PerRow(&owned.per_row),
            WeightFormat::Int8G32 | WeightFormat::Int4G32 => Scales::PerGroup(&self.per_group),
        };
        let shape = (owned.rows, owned.cols);
        MatrixQ8::sparse(shape, owned.layout, owned.format, &self.data, scales, &self.index).expect("a sound index")
    }
}

#[test]
fn without_zero_blocks_every_backend_and_layout_gives_the_bits_of_the_whole_matrix() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let shapes = [(1, 33), (16, 64), (40, 64), (64, 172), (17, 100), (50, 1100), (33, 31)];
    for (rows, cols) in shapes {
        for format in WeightFormat::ALL {
            for layout in WeightLayout::ALL {
                let mut owned = Owned::random(&mut rng, format, layout, rows, cols);
                let stored = OwnedSparse::thinned(&mut rng, &mut owned);
                let (whole, sparse) = (owned.view(), stored.view(&owned));
                let mut rows_of = [vec![1.0; cols], vec![2.0; cols]];
                for row in 0..rows {
                    whole.dequantize_row(row, &mut rows_of[0]);
                    sparse.dequantize_row(row, &mut rows_of[1]);
                    assert_eq!(rows_of[0], rows_of[1], "{layout:?} {format:?} {rows}x{cols}");
                }
                for n_tokens in [1, 2, 7] {
                    let numbers: Vec<f32> = (0..n_tokens * cols).map(|_| rng.random_range(-2.0..2.0)).collect();
                    for kernels in Kernels::available() {
                        let (values, scales) = quantized(kernels, format, cols, &numbers);
                        let x = activations(kernels, format, cols, &values, &scales);
                        let want: Vec<u32> = naive(&whole, &x).into_iter().map(f32::to_bits).collect();
                        let mut out = vec![f32::NAN; want.len()];
                        let case = std::format!("{} {layout:?} {format:?} {rows}x{cols}", kernels.name());
                        let mut check = |product: &mut dyn FnMut(&mut [f32])| {
                            out.fill(f32::NAN);
                            product(&mut out);
                            let got: Vec<u32> = out.iter().map(|out| out.to_bits()).collect();
                            assert_eq!(got, want, "{case}");
                        };
                        let mut room = vec![f32::NAN; cols];
                        check(&mut |out| kernels.matmul_rows_sparse(out, 0, &sparse, &x, &mut room));
                        // By the definition, which knows of no blocks.
                        check(&mut |out| matmul_f32_q8_q8(kernels, &Serial, out, &sparse, &x));
                    }
                }
            }
        }
    }
}

#[test]
fn an_index_that_is_not_of_its_matrix_is_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut owned = Owned::random(&mut rng, WeightFormat::Int8, WeightLayout::RowMajor, 48, 100);
    let stored = OwnedSparse::thinned(&mut rng, &mut owned);
    let scales = Scales::PerRow(&owned.per_row);
    let is_sound = |index: &[u32], data: &[u8], shape| {
        MatrixQ8::sparse(shape, WeightLayout::RowMajor, WeightFormat::Int8, data, scales, index).is_some()
    };
    assert!(is_sound(&stored.index, &stored.data, (48, 100)));
    assert!(!is_sound(&stored.index, &stored.data[block_bytes(WeightFormat::Int8)..], (48, 100)));
    assert!(!is_sound(&stored.index[2..], &stored.data, (48, 100)));
    assert!(!is_sound(&stored.index, &stored.data, (48, 64)));
    for bit in 0..32 * stored.index.len() {
        let mut index = stored.index.clone();
        index[bit / 32] ^= 1 << (bit % 32);
        assert!(!is_sound(&index, &stored.data, (48, 100)), "bit {bit}");
    }
}

#[test]
fn attention_kernels_agree_at_every_length_and_extreme() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for head_dim in [2, 4, 6, 8, 16, 20, 32, 48, 64, 128, 256] {
        for n in (0..20).chain([33, 512]) {
            for extreme in [false, true] {
                let q: Vec<i16> =
                    (0..head_dim).map(|_| if extreme { -16_383 } else { rng.random_range(-16_383..=16_383) }).collect();
                let kv: Vec<i8> =
                    (0..n * head_dim).map(|_| if extreme { 127 } else { rng.random_range(-127..=127) }).collect();
                let weights: Vec<i32> =
                    (0..n).map(|_| if extreme { 32_639 } else { rng.random_range(0..=32_639) }).collect();
                let want_dots: Vec<i32> = kv
                    .chunks(head_dim)
                    .map(|k| k.iter().zip(&q).map(|(&k, &q)| i32::from(k) * i32::from(q)).sum())
                    .collect();
                let want_sums: Vec<i64> = (0..head_dim)
                    .map(|d| (0..n).map(|i| i64::from(weights[i]) * i64::from(kv[i * head_dim + d])).sum())
                    .collect();
                for kernels in Kernels::available() {
                    let mut dots = vec![7; n];
                    kernels.score_dots(&q, &kv, &mut dots);
                    assert_eq!(dots, want_dots, "{} head_dim {head_dim} n {n}", kernels.name());
                    let mut sums = vec![7; head_dim];
                    kernels.weighted_values(&weights, &kv, &mut sums);
                    let sums: Vec<i64> = sums.into_iter().map(i64::from).collect();
                    assert_eq!(sums, want_sums, "{} head_dim {head_dim} n {n}", kernels.name());
                }
            }
        }
    }
}
