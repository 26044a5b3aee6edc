//! Matrices that are stored without their zero blocks: which blocks there are, and the narrower matrices that are left.
//!
//! A block is [`BAND_ROWS`] rows by [`BLOCK_COLS`] columns, whatever the layout. What is left of a band of rows is a matrix of its own, with
//! the stored blocks side by side, so that every kernel can read it.

use core::ops::Range;

use super::{GROUP_SIZE, MatrixQ8, Scales, WeightFormat};
use crate::layout::WeightLayout;

/// Rows of a block: a multiple of those that any layout stores together.
pub const BAND_ROWS: usize = 16;
/// Columns of a block: those that share a scale in grouped formats.
pub const BLOCK_COLS: usize = GROUP_SIZE;

/// Words of a band's entry in the index: how many blocks come before it, then a bit for each of its blocks.
const fn band_words(cols: usize) -> usize {
    1 + cols.div_ceil(BLOCK_COLS).div_ceil(u32::BITS as usize)
}

/// Words of the index of a `(rows, cols)` matrix.
pub const fn index_words(rows: usize, cols: usize) -> usize {
    rows.div_ceil(BAND_ROWS) * band_words(cols)
}

/// Bytes of a stored block's values.
pub const fn block_bytes(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Int8 | WeightFormat::Int8G32 => BAND_ROWS * BLOCK_COLS,
        WeightFormat::Int4G32 => BAND_ROWS * BLOCK_COLS / 2,
    }
}

/// Bytes of the scales of a `(rows, cols)` matrix of which `n_blocks` are stored, padding included.
pub const fn sparse_scales_bytes(format: WeightFormat, layout: WeightLayout, rows: usize, n_blocks: usize) -> usize {
    let n_scales = if format.is_grouped() { n_blocks * BAND_ROWS } else { rows.next_multiple_of(layout.row_block()) };
    n_scales * format.scale_bytes()
}

/// What is stored of [`BAND_ROWS`] rows, fewer at the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Band<'m> {
    /// A bit for each block.
    mask: &'m [u32],
    n_blocks: usize,
    /// Of the columns that are stored, side by side.
    pub matrix: MatrixQ8<'m>,
}

impl Band<'_> {
    /// Blocks that are stored.
    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Stored blocks that lie side by side, as ranges of blocks.
    #[inline(always)]
    pub fn runs(&self) -> Runs<'_> {
        let (rest, later) = self.mask.split_first().map_or((0, self.mask), |(&first, later)| (first, later));
        Runs { rest, first: 0, later }
    }

    /// Where a block lies among those that are stored; `None` where it is not.
    fn place(&self, block: usize) -> Option<usize> {
        let (word_idx, bit) = (block / u32::BITS as usize, block as u32 % u32::BITS);
        let word = *self.mask.get(word_idx)?;
        let before: u32 = self.mask.iter().take(word_idx).map(|word| word.count_ones()).sum();
        (word >> bit & 1 == 1).then(|| (before + (word & ((1 << bit) - 1)).count_ones()) as usize)
    }
}

/// Ranges of stored blocks; none reaches from one word of the mask to the next.
pub(crate) struct Runs<'m> {
    /// What is left of a word.
    rest: u32,
    /// The block of the word's lowest bit.
    first: usize,
    later: &'m [u32],
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        while self.rest == 0 {
            let (&word, later) = self.later.split_first()?;
            (self.rest, self.later) = (word, later);
            self.first += u32::BITS as usize;
        }
        let start = self.rest.trailing_zeros();
        // What is shifted in from above is 0, so this is at most the word's end.
        let end = start + (!(self.rest >> start)).trailing_zeros();
        self.rest = if end >= u32::BITS { 0 } else { self.rest >> end << end };
        Some(self.first + start as usize..self.first + end as usize)
    }
}

impl<'m> MatrixQ8<'m> {
    /// A view of a matrix of which some blocks are stored, in the order of rows, then columns; the others are zero. The index says which.
    ///
    /// `None` where the index is not one of this shape, or a slice is not exactly as long as it asks.
    pub fn sparse(
        (rows, cols): (usize, usize),
        layout: WeightLayout,
        format: WeightFormat,
        data: &'m [u8],
        scales: Scales<'m>,
        index: &'m [u32],
    ) -> Option<Self> {
        Self::sparse_of_checked((rows, cols), layout, format, data, scales, index).filter(Self::is_index_sound)
    }

    /// The same where [`MatrixQ8::is_index_sound`] was seen before.
    pub(crate) fn sparse_of_checked(
        (rows, cols): (usize, usize),
        layout: WeightLayout,
        format: WeightFormat,
        data: &'m [u8],
        scales: Scales<'m>,
        index: &'m [u32],
    ) -> Option<Self> {
        let n_blocks = data.len() / block_bytes(format);
        let n_scales = match scales {
            Scales::PerRow(scales) if !format.is_grouped() => scales.len(),
            Scales::PerGroup(scales) if format.is_grouped() => scales.len(),
            _ => return None,
        };
        let fits = n_scales * format.scale_bytes() == sparse_scales_bytes(format, layout, rows, n_blocks);
        let fits = fits && data.len() == n_blocks * block_bytes(format);
        let fits = fits && !index.is_empty() && index.len() == index_words(rows, cols);
        fits.then_some(Self { rows, cols, layout, format, data, scales, index })
    }

    /// Whether the index names as many blocks as are stored, all of them inside the matrix. True without an index.
    pub(crate) fn is_index_sound(&self) -> bool {
        if !self.is_sparse() {
            return true;
        }
        let mut n_blocks = 0u64;
        let last_bits = self.cols.div_ceil(BLOCK_COLS) % u32::BITS as usize;
        for entry in self.index.chunks(band_words(self.cols)) {
            let Some((&first, mask)) = entry.split_first() else { return false };
            let is_outside = mask.last().is_none_or(|&last| last_bits != 0 && last >> last_bits != 0);
            if u64::from(first) != n_blocks || is_outside {
                return false;
            }
            n_blocks += mask.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        }
        n_blocks * block_bytes(self.format) as u64 == self.data.len() as u64
    }

    /// Whether only some blocks are stored.
    #[inline(always)]
    pub fn is_sparse(&self) -> bool {
        #[cfg(feature = "linked-model")]
        if !crate::linked::HAS_SPARSE {
            return false;
        }
        !self.index.is_empty()
    }

    /// How many blocks are stored, of how many.
    pub fn n_blocks(&self) -> (usize, usize) {
        let n_all = self.rows.div_ceil(BAND_ROWS) * self.cols.div_ceil(BLOCK_COLS);
        if self.is_sparse() { (self.data.len() / block_bytes(self.format), n_all) } else { (n_all, n_all) }
    }

    /// What is stored of a band; `None` beyond the last, and of a matrix that has all its blocks.
    pub(crate) fn band(&self, band_idx: usize) -> Option<Band<'m>> {
        let (format, layout) = (self.format(), self.layout());
        let words = band_words(self.cols);
        let (&first, mask) = self.index.get(band_idx * words..)?.get(..words)?.split_first()?;
        let (first, n_blocks) = (first as usize, mask.iter().map(|word| word.count_ones() as usize).sum());
        let rows = BAND_ROWS.min(self.rows.checked_sub(band_idx * BAND_ROWS)?);
        let mut band = Band { mask, n_blocks, matrix: Self::EMPTY };
        let n_all = self.cols.div_ceil(BLOCK_COLS);
        // The last block may be narrower.
        let narrower = if band.place(n_all.saturating_sub(1)).is_some() { n_all * BLOCK_COLS - self.cols } else { 0 };
        let cols = n_blocks * BLOCK_COLS - narrower;
        let n_scales = rows.next_multiple_of(layout.row_block());
        let data = self.data.get(first * block_bytes(format)..)?.get(..format.data_bytes(layout, rows, cols))?;
        let scales = match self.scales() {
            Scales::PerRow(scales) => Scales::PerRow(scales.get(band_idx * BAND_ROWS..)?.get(..n_scales)?),
            Scales::PerGroup(scales) => Scales::PerGroup(scales.get(first * BAND_ROWS..)?.get(..n_scales * n_blocks)?),
        };
        band.matrix = Self { rows, cols, layout, format, data, scales, index: &[] };
        Some(band)
    }

    /// [`MatrixQ8::value`] where only some blocks are stored.
    pub(super) fn sparse_value(&self, row: usize, col: usize) -> i8 {
        let place = |band: Band<'_>| {
            let block = band.place(col / BLOCK_COLS)?;
            Some(band.matrix.stored_value(row % BAND_ROWS, block * BLOCK_COLS + col % BLOCK_COLS))
        };
        self.band(row / BAND_ROWS).and_then(place).unwrap_or(0)
    }

    /// [`MatrixQ8::scale`] of a group where only some blocks are stored.
    pub(super) fn sparse_scale(&self, row: usize, group: usize) -> f32 {
        let place = |band: Band<'_>| Some(band.matrix.stored_scale(row % BAND_ROWS, band.place(group)?));
        self.band(row / BAND_ROWS).and_then(place).unwrap_or(0.0)
    }

    /// [`MatrixQ8::dequantize_row`] where only some blocks are stored.
    pub(super) fn dequantize_sparse_row(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        let Some(band) = self.band(row / BAND_ROWS) else { return };
        let (matrix, row) = (&band.matrix, row % BAND_ROWS);
        let mut stored = 0;
        for run in band.runs() {
            for out in out.chunks_mut(BLOCK_COLS).take(run.end).skip(run.start) {
                let scale = matrix.stored_scale(row, if self.format().is_grouped() { stored / BLOCK_COLS } else { 0 });
                for (i, out) in out.iter_mut().enumerate() {
                    *out = f32::from(matrix.stored_value(row, stored + i)) * scale;
                }
                stored += BLOCK_COLS;
            }
        }
    }
}
