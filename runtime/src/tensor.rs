//! Views of int8 and int4 matrices and of activations: shapes are checked when a view is made, kernels then take views.

mod blocks;

pub(crate) use blocks::Band;
pub use blocks::{BAND_ROWS, BLOCK_COLS, block_bytes, index_words, sparse_scales_bytes};

use crate::cut::Cut;
use crate::kernels::Kernels;
use crate::layout::WeightLayout;
use crate::math;

/// Columns that share a scale in the grouped format.
pub const GROUP_SIZE: usize = 32;

/// How weights and the activations they meet are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WeightFormat {
    /// int8 with an f32 scale a row; int8 activations with a scale a token.
    Int8 = 0,
    /// int8 with a bfloat16 scale per 32 columns; activations of 12 bits with a scale per 32 elements.
    Int8G32 = 1,
    /// int4 with a bfloat16 scale per 32 columns; int8 activations with a scale per 32 elements.
    Int4G32 = 2,
}

impl WeightFormat {
    /// Every format, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Int8, Self::Int8G32, Self::Int4G32];

    /// The format with this code in a packed file.
    pub const fn from_code(code: u32) -> Option<Self> {
        let mut rest = Self::ALL.as_slice();
        while let [format, others @ ..] = rest {
            if *format as u32 == code {
                return Some(*format);
            }
            rest = others;
        }
        None
    }

    /// The same, of which the compiler sees that it is one of the linked model's.
    #[inline(always)]
    fn known(self) -> Self {
        // Format by format, so that the compiler sees which are left.
        #[cfg(feature = "linked-model")]
        match self {
            Self::Int8 if crate::linked::has_format(Self::Int8) => {}
            Self::Int8G32 if crate::linked::has_format(Self::Int8G32) => {}
            Self::Int4G32 if crate::linked::has_format(Self::Int4G32) => {}
            _ => return crate::linked::FORMAT,
        }
        self
    }

    /// Whether weights have 4 bits.
    #[inline(always)]
    pub(crate) fn is_int4(self) -> bool {
        self.known() == Self::Int4G32
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int8G32 => "int8-g32",
            Self::Int4G32 => "int4-g32",
        }
    }

    /// The least and the greatest value of a weight.
    pub const fn weight_limits(self) -> (i8, i8) {
        match self {
            Self::Int8 | Self::Int8G32 => (-127, 127),
            Self::Int4G32 => (-8, 7),
        }
    }

    /// The largest magnitude of a quantised activation: as many bits as sums over a scale's columns leave.
    ///
    /// Where a scale covers a whole row, that is int8. Over 32 columns 12 bits fit `i32`, even where a lane holds two weights
    /// (`32 * (256 * 127 + 127) * 2047 < 2^31`), and cost nothing, since activations meet weights in 16-bit lanes anyway. With int4 weights
    /// int8 activations leave sums of 16 bits (`32 * 8 * 127 < 2^15`), so that one multiplication can serve two rows.
    pub const fn activation_limit(self) -> f32 {
        match self {
            Self::Int8 | Self::Int4G32 => INT8_LIMIT,
            Self::Int8G32 => 2047.0,
        }
    }

    /// Whether a scale covers [`GROUP_SIZE`] columns, not a row.
    pub const fn is_grouped(self) -> bool {
        !matches!(self, Self::Int8)
    }

    /// Scales of a row (or of a token's activations) of `cols` elements.
    pub const fn groups(self, cols: usize) -> usize {
        if self.is_grouped() { cols.div_ceil(GROUP_SIZE) } else { 1 }
    }

    /// Elements that share a scale in a row of `cols`.
    pub const fn group_size(self, cols: usize) -> usize {
        if self.is_grouped() { GROUP_SIZE } else { cols }
    }

    /// Bytes of one weight scale.
    pub const fn scale_bytes(self) -> usize {
        if self.is_grouped() { 2 } else { 4 }
    }

    /// Bytes of the scales of a `(rows, cols)` matrix in `layout`, padding included.
    pub const fn scales_bytes(self, layout: WeightLayout, rows: usize, cols: usize) -> usize {
        rows.next_multiple_of(layout.row_block()) * self.groups(cols) * self.scale_bytes()
    }

    /// Bytes of the values of a `(rows, cols)` matrix in `layout`, padding included.
    pub const fn data_bytes(self, layout: WeightLayout, rows: usize, cols: usize) -> usize {
        match self {
            Self::Int8 | Self::Int8G32 => layout.data_bytes(rows, cols),
            Self::Int4G32 => layout.nibbles_bytes(rows, cols),
        }
    }

    /// What a byte is where all values are zero, as in padding.
    pub const fn zero_byte(self, layout: WeightLayout) -> u8 {
        match self {
            Self::Int8 | Self::Int8G32 => 0,
            Self::Int4G32 => layout.zero_nibbles(),
        }
    }

    /// Writes the value at `(row, col)` of a `(_, cols)` matrix into its place in `data`; it is within [`WeightFormat::weight_limits`].
    ///
    /// # Panics
    /// If the place lies outside `data` and debug assertions are on.
    pub fn set(self, layout: WeightLayout, data: &mut [u8], cols: usize, row: usize, col: usize, value: i8) {
        match self {
            Self::Int8 | Self::Int8G32 => layout.set(data, cols, row, col, value),
            Self::Int4G32 => layout.set_nibble(data, cols, row, col, value),
        }
    }
}

/// Scales of a matrix: of each block of rows the scales of the first group, then of the second, and so on.
#[derive(Clone, Copy, Debug)]
pub enum Scales<'m> {
    /// A scale a row.
    PerRow(&'m [f32]),
    /// A bfloat16 a group of 32 columns.
    PerGroup(&'m [u16]),
}

impl Scales<'_> {
    /// The same, of which the compiler sees that it is of the linked model's formats.
    #[inline(always)]
    fn known(self) -> Self {
        #[cfg(feature = "linked-model")]
        match self {
            Self::PerRow(_) if !crate::linked::has_format(WeightFormat::Int8) => return Self::PerGroup(&[]),
            Self::PerGroup(_) if !crate::linked::has_groups() => return Self::PerRow(&[]),
            _ => {}
        }
        self
    }
}

/// A `(rows, cols)` matrix of int8 or int4 in place, in flash or in a mapped file.
#[derive(Clone, Copy, Debug)]
pub struct MatrixQ8<'m> {
    rows: usize,
    cols: usize,
    layout: WeightLayout,
    format: WeightFormat,
    data: &'m [u8],
    scales: Scales<'m>,
    /// Which blocks are stored; empty where all are.
    index: &'m [u32],
}

impl<'m> MatrixQ8<'m> {
    /// The matrix without a row.
    pub(crate) const EMPTY: Self = Self {
        rows: 0,
        cols: 0,
        layout: WeightLayout::RowMajor,
        format: WeightFormat::Int8,
        data: &[],
        scales: Scales::PerRow(&[]),
        index: &[],
    };

    /// A view of a matrix, or `None` where the slices are not exactly as long as the shape asks, or the scales are not the format's.
    pub fn new(
        rows: usize,
        cols: usize,
        layout: WeightLayout,
        format: WeightFormat,
        data: &'m [u8],
        scales: Scales<'m>,
    ) -> Option<Self> {
        let n_scales = rows.next_multiple_of(layout.row_block()) * format.groups(cols);
        let fits = match scales {
            Scales::PerRow(scales) => !format.is_grouped() && scales.len() == n_scales,
            Scales::PerGroup(scales) => format.is_grouped() && scales.len() == n_scales,
        };
        let fits = fits && data.len() == format.data_bytes(layout, rows, cols);
        fits.then_some(Self { rows, cols, layout, format, data, scales, index: &[] })
    }

    /// Output elements.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input elements.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The order of the bytes.
    #[inline]
    pub fn layout(&self) -> WeightLayout {
        self.layout.known()
    }

    /// How the values are quantised.
    #[inline]
    pub fn format(&self) -> WeightFormat {
        self.format.known()
    }

    /// The bytes of the values that are stored, padding included.
    pub fn data(&self) -> &'m [u8] {
        self.data
    }

    /// The scales that are stored, padding included.
    #[inline]
    pub fn scales(&self) -> Scales<'m> {
        self.scales.known()
    }

    /// The value at `(row, col)`.
    #[inline]
    pub fn value(&self, row: usize, col: usize) -> i8 {
        if self.is_sparse() { self.sparse_value(row, col) } else { self.stored_value(row, col) }
    }

    /// The value at `(row, col)` of what is stored.
    #[inline]
    fn stored_value(&self, row: usize, col: usize) -> i8 {
        match self.format.is_int4() {
            false => self.layout().get(self.data, self.cols, row, col),
            true => self.layout().get_nibble(self.data, self.cols, row, col),
        }
    }

    /// The scale of `row` in `group`.
    #[inline]
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        match self.scales() {
            Scales::PerGroup(_) if self.is_sparse() => self.sparse_scale(row, group),
            _ => self.stored_scale(row, group),
        }
    }

    /// The scale of `row` in `group` of what is stored.
    #[inline]
    fn stored_scale(&self, row: usize, group: usize) -> f32 {
        match self.scales() {
            Scales::PerRow(scales) => scales.get(row).copied().unwrap_or(0.0),
            Scales::PerGroup(scales) => {
                let block = self.layout().row_block();
                let at = (row / block * self.format.groups(self.cols) + group) * block + row % block;
                scales.get(at).map_or(0.0, |&bits| math::bf16_to_f32(bits))
            }
        }
    }

    /// Writes `value * scale` of each element of `row` to `out`, `(cols,)`: an embedding look-up.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        if self.is_sparse() {
            return self.dequantize_sparse_row(row, out);
        }
        if self.format.is_int4() {
            for (col, out) in out.iter_mut().enumerate() {
                *out = f32::from(self.stored_value(row, col)) * self.stored_scale(row, col / GROUP_SIZE);
            }
            return;
        }
        let group_size = self.format().group_size(self.cols);
        for (group, out) in out.chunks_mut(group_size.max(1)).enumerate() {
            let scale = self.stored_scale(row, group);
            let run = self.layout().run().min(group_size.max(1));
            for (run_idx, out) in out.chunks_mut(run).enumerate() {
                let col = group * group_size + run_idx * run;
                let bytes = self.layout().row_bytes(self.data, self.cols, row, col, out.len());
                for (i, out) in out.iter_mut().enumerate() {
                    let value = match bytes {
                        Some(bytes) => bytes.get(i).map_or(0, |&byte| byte as i8),
                        None => self.stored_value(row, col + i),
                    };
                    *out = f32::from(value) * scale;
                }
            }
        }
    }
}

/// How wide quantised activations lie in memory: as a backend's multiplications want them. The numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// int16.
    Bits16,
    /// int8, in the first half of a token's memory; not for [`WeightFormat::Int8G32`].
    Bits8,
    /// `64 * high + low`: all high bytes in the first half of a token's memory, all low ones in the second; for [`WeightFormat::Int8G32`].
    TwoBytes,
}

impl Lanes {
    /// Puts one value into a token's memory, `(stride,)`.
    ///
    /// # Panics
    /// If `col` is not below the stride.
    pub fn set(self, memory: &mut [i16], col: usize, value: i16) {
        let stride = memory.len();
        match self {
            Self::Bits16 => memory[col] = value,
            Self::Bits8 => bytemuck::cast_slice_mut::<i16, i8>(memory)[..stride][col] = value as i8,
            Self::TwoBytes => {
                let (high, low) = bytemuck::cast_slice_mut::<i16, i8>(memory).split_at_mut(stride);
                (high[col], low[col]) = two_bytes(value);
            }
        }
    }
}

/// `(high, low)` with `value = 64 * high + low`, for 12 bits: the nearest multiple of 64, and what is left.
#[inline(always)]
fn two_bytes(value: i16) -> (i8, i8) {
    let high = (value + 32) >> 6;
    (high as i8, (value - 64 * high) as i8)
}

/// Quantised activations of `n_tokens` tokens, `(n_tokens, stride)`.
#[derive(Clone, Copy, Debug)]
pub struct ActivationsQ8<'a> {
    lanes: Lanes,
    n_tokens: usize,
    cols: usize,
    stride: usize,
    groups: usize,
    values: &'a [i16],
    scales: &'a [f32],
}

/// Elements a token takes in an activation buffer: columns beyond `cols` are zero.
pub const fn activation_stride(cols: usize) -> usize {
    cols.next_multiple_of(4)
}

impl<'a> ActivationsQ8<'a> {
    /// Those of no token.
    pub(crate) const NONE: Self =
        Self { lanes: Lanes::Bits16, n_tokens: 0, cols: 0, stride: 0, groups: 0, values: &[], scales: &[] };

    /// A view of `n_tokens` tokens of `cols` elements quantised by [`quantize`] for weights of `format`, in `lanes`.
    ///
    /// `None` where a slice is shorter than `(n_tokens, activation_stride(cols))` values or `(n_tokens, groups)` scales.
    pub fn new(
        n_tokens: usize,
        cols: usize,
        format: WeightFormat,
        lanes: Lanes,
        values: &'a [i16],
        scales: &'a [f32],
    ) -> Option<Self> {
        let (stride, groups) = (activation_stride(cols), format.groups(cols));
        let (values, scales) = (values.get(..n_tokens * stride)?, scales.get(..n_tokens * groups)?);
        Some(Self { lanes, n_tokens, cols, stride, groups, values, scales })
    }

    /// Tokens in the batch.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Elements of a token.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How wide the values lie.
    pub fn lanes(&self) -> Lanes {
        self.lanes
    }

    /// The memory of a token: its values, `(stride,)`, zero beyond `cols`, where lanes have 16 bits.
    #[inline]
    pub fn values(&self, token_idx: usize) -> &'a [i16] {
        self.values.get(token_idx * self.stride..(token_idx + 1) * self.stride).unwrap_or(&[])
    }

    /// The values of a token, `(stride,)`, zero beyond `cols`, where lanes have 8 bits.
    #[inline]
    pub fn bytes(&self, token_idx: usize) -> &'a [i8] {
        bytemuck::cast_slice(self.values(token_idx)).get(..self.stride).unwrap_or(&[])
    }

    /// The memory of all tokens, `(n_tokens, stride)`.
    #[inline]
    pub fn all_values(&self) -> &'a [i16] {
        self.values
    }

    /// The scales of all tokens, `(n_tokens, groups)`.
    #[inline]
    pub fn all_scales(&self) -> &'a [f32] {
        self.scales
    }

    /// The high and the low bytes of a token, `(stride,)` each, zero beyond `cols`, where lanes are two bytes.
    #[inline]
    pub fn byte_pairs(&self, token_idx: usize) -> (&'a [i8], &'a [i8]) {
        let bytes: &[i8] = bytemuck::cast_slice(self.values(token_idx));
        bytes.split_at(bytes.len() / 2)
    }

    /// One value of a token; 0 outside.
    #[inline]
    pub fn value(&self, token_idx: usize, col: usize) -> i16 {
        match self.lanes {
            Lanes::Bits16 => self.values(token_idx).get(col).copied().unwrap_or(0),
            Lanes::Bits8 => self.bytes(token_idx).get(col).map_or(0, |&value| value.into()),
            Lanes::TwoBytes => {
                let (high, low) = self.byte_pairs(token_idx);
                let byte = |bytes: &[i8]| bytes.get(col).map_or(0, |&byte| i16::from(byte));
                64 * byte(high) + byte(low)
            }
        }
    }

    /// The scales of a token, `(groups,)`.
    #[inline]
    pub fn scales(&self, token_idx: usize) -> &'a [f32] {
        self.scales.get(token_idx * self.groups..(token_idx + 1) * self.groups).unwrap_or(&[])
    }

    /// One token.
    pub(crate) fn token(&self, token_idx: usize) -> Self {
        Self { n_tokens: 1, values: self.values(token_idx), scales: self.scales(token_idx), ..*self }
    }

    /// The first `n` tokens and the rest.
    pub fn split_at(&self, n: usize) -> (Self, Self) {
        let n = n.min(self.n_tokens);
        let (values, rest_values) = self.values.split_at(n * self.stride);
        let (scales, rest_scales) = self.scales.split_at(n * self.groups);
        (
            Self { n_tokens: n, values, scales, ..*self },
            Self { n_tokens: self.n_tokens - n, values: rest_values, scales: rest_scales, ..*self },
        )
    }
}

/// Quantises one token's activations `x`, `(cols,)`, into its memory, `(stride,)`, in the lanes that `kernels` want, and `scales`, `(groups,)`.
///
/// A group's scale is its largest magnitude over [`WeightFormat::activation_limit`]; values round half to even. A group that is
/// zero, not finite, or below `2^-100` becomes zeros with scale 0.
pub fn quantize(kernels: Kernels, format: WeightFormat, x: &[f32], memory: &mut [i16], scales: &mut [f32]) {
    let n = x.len().min(memory.len());
    let (x, stride) = (x.cut(..n), memory.len());
    match (format, kernels.lanes(format), scales) {
        (WeightFormat::Int8, Lanes::Bits8, [scale, ..]) => {
            let (values, padding) = bytemuck::cast_slice_mut(memory).cut_mut(..stride).parts_mut(n);
            *scale = kernels.quantize_to_int8(x, values);
            // A call to fill nothing costs as much as a row.
            if !padding.is_empty() {
                padding.fill(0);
            }
        }
        (WeightFormat::Int8, Lanes::Bits16, [scale, ..]) => {
            let (values, padding) = memory.parts_mut(n);
            *scale = kernels.quantize_to(format.activation_limit(), x, values);
            padding.fill(0);
        }
        (_, Lanes::Bits8, scales) => {
            let (values, padding) = bytemuck::cast_slice_mut(memory)[..stride].split_at_mut(n);
            for ((x, values), scale) in x.chunks(GROUP_SIZE).zip(values.chunks_mut(GROUP_SIZE)).zip(scales) {
                *scale = kernels.quantize_to_int8(x, values);
            }
            padding.fill(0);
        }
        (_, Lanes::TwoBytes, scales) => {
            let (high, low) = bytemuck::cast_slice_mut::<i16, i8>(memory).parts_mut(stride);
            let halves = high.cut_mut(..n).chunks_mut(GROUP_SIZE).zip(low.cut_mut(..n).chunks_mut(GROUP_SIZE));
            for ((x, (high, low)), scale) in x.chunks(GROUP_SIZE).zip(halves).zip(scales) {
                let mut values = [0; GROUP_SIZE];
                *scale = kernels.quantize_to(format.activation_limit(), x, values.cut_mut(..x.len()));
                for ((high, low), value) in high.iter_mut().zip(low).zip(values) {
                    (*high, *low) = two_bytes(value);
                }
            }
            high.cut_mut(n..).fill(0);
            low.cut_mut(n..).fill(0);
        }
        (_, _, scales) => {
            let (values, padding) = memory.parts_mut(n);
            let groups = x.chunks(GROUP_SIZE).zip(values.chunks_mut(GROUP_SIZE));
            for ((x, values), scale) in groups.zip(scales) {
                *scale = kernels.quantize_to(format.activation_limit(), x, values);
            }
            padding.fill(0);
        }
    }
}

/// The int8 scale of `x` and what to multiply by to quantise; `(0, 0)` where `x` has no usable magnitude.
#[inline]
pub fn scale_of(x: &[f32]) -> (f32, f32) {
    scale_to(INT8_LIMIT, magnitude_bits(x))
}

/// The largest int8.
pub(crate) const INT8_LIMIT: f32 = 127.0;

/// The largest value of a query. Lanes are 16 bits wide wherever it meets int8 keys, so the extra bits cost nothing.
pub(crate) const QUERY_LIMIT: f32 = 16383.0;

/// The scale that makes `limit` of the largest magnitude, and what to multiply by to quantise; `(0, 0)` where the magnitude
/// is below `2^-100`, infinite or not a number.
#[inline]
pub(crate) fn scale_to(limit: f32, magnitude_bits: u32) -> (f32, f32) {
    if !has_scale(magnitude_bits) {
        return (0.0, 0.0);
    }
    let largest = f32::from_bits(magnitude_bits);
    (largest * (1.0 / limit), limit / largest)
}

/// Whether numbers of which the largest has these bits can be quantised.
#[inline]
pub(crate) fn has_scale(magnitude_bits: u32) -> bool {
    /// `2^-100`: below it the inverse could overflow.
    const LEAST: u32 = (127 - 100) << 23;
    const INFINITE: u32 = 0x7f80_0000;
    (LEAST..INFINITE).contains(&magnitude_bits)
}

/// The bits of the largest magnitude in `x`: those of floats order as integers, which have no NaN.
#[inline]
pub(crate) fn magnitude_bits(x: &[f32]) -> u32 {
    x.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn quantising_keeps_values_within_half_a_step() {
        let x: Vec<f32> = (0..70).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        for format in WeightFormat::ALL {
            let mut values = vec![7; activation_stride(x.len())];
            let mut scales = vec![0.0; format.groups(x.len())];
            quantize(Kernels::generic(), format, &x, &mut values, &mut scales);
            for (i, &x) in x.iter().enumerate() {
                let scale = scales[i / format.group_size(70)];
                assert!((f32::from(values[i]) * scale - x).abs() <= scale * 0.5001);
                assert!(f32::from(values[i].abs()) <= format.activation_limit());
            }
            assert_eq!(&values[70..], &[0, 0]);
        }
    }

    #[test]
    fn values_without_a_magnitude_become_zero() {
        for bad in [0.0, 1e-40, f32::NAN, f32::INFINITY, -f32::INFINITY] {
            let mut values = [1; 4];
            let mut scales = [1.0];
            quantize(Kernels::generic(), WeightFormat::Int8, &[bad, 0.0, -bad, 1e-38], &mut values, &mut scales);
            assert_eq!((values, scales), ([0; 4], [0.0]), "{bad}");
        }
    }
}
