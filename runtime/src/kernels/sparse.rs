//! Products with matrices that are stored without their zero blocks: what is left of a band of rows meets the activations of its columns.
//!
//! Zero blocks add nothing to exact sums, so the results are those of the whole matrix, bit for bit. In grouped formats each adds a zero in
//! f32, which only tells where all else is `-0`; one zero stands for all of them.

use super::{Choice, Kernels};
use crate::cut::{Cut, copy};
use crate::kernels::backend::Backend;
use crate::tensor::{ActivationsQ8, BAND_ROWS, BLOCK_COLS, Band, Lanes, MatrixQ8, activation_stride};

impl Kernels {
    /// `matmul_rows` of a matrix that is stored without its zero blocks; `first_row` is a band's first. `room` has `(cols,)`.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub fn matmul_rows_sparse(
        self,
        out: &mut [f32],
        first_row: usize,
        w: &MatrixQ8<'_>,
        x: &ActivationsQ8<'_>,
        room: &mut [f32],
    ) {
        require!(x.cols() == w.cols() && room.len() >= w.cols() && first_row.is_multiple_of(BAND_ROWS));
        let is_its_own = w.layout() == self.preferred_layout() && x.lanes() == self.lanes(w.format());
        if is_its_own && dispatch!(self, backend => backend.matmul_rows_sparse(out, first_row, w, x)) {
            return;
        }
        let n_rows = out.len() / x.n_tokens().max(1);
        for first in (0..n_rows).step_by(BAND_ROWS) {
            let Some(band) = w.band((first_row + first) / BAND_ROWS) else { return };
            for (token_idx, out) in out.chunks_mut(n_rows.max(1)).enumerate() {
                let out = out.cut_mut(first..n_rows.min(first + BAND_ROWS));
                self.band_product(out, &band, &x.token(token_idx), room);
            }
        }
    }

    /// One token's product with a band.
    fn band_product(self, out: &mut [f32], band: &Band<'_>, x: &ActivationsQ8<'_>, room: &mut [f32]) {
        if band.n_blocks() == 0 {
            return out.fill(0.0);
        }
        if band.matrix.cols() == x.cols() {
            return self.matmul_rows(out, 0, &band.matrix, x);
        }
        self.matmul_rows(out, 0, &band.matrix, &gather(band, x, room));
        if band.matrix.format().is_grouped() {
            out.iter_mut().for_each(|out| *out += 0.0);
        }
    }
}

/// One token's activations for the columns that a band has, side by side in `room`.
fn gather<'a>(band: &Band<'_>, x: &ActivationsQ8<'_>, room: &'a mut [f32]) -> ActivationsQ8<'a> {
    let (cols, format) = (band.matrix.cols(), band.matrix.format());
    let stride = activation_stride(cols);
    // A matrix with a block that is not stored has more than 32 columns, and one that is: what is gathered takes less than they do as f32.
    let (scales, values) = room.parts_mut(format.groups(cols));
    let values = bytemuck::cast_slice_mut::<f32, i16>(values).cut_mut(..stride);
    match x.lanes() {
        Lanes::Bits16 => gather_blocks::<BLOCK_COLS, _>(band, x.values(0), values),
        Lanes::Bits8 => gather_blocks::<BLOCK_COLS, i8>(band, x.bytes(0), bytemuck::cast_slice_mut(values)),
        Lanes::TwoBytes => {
            let (high, low) = bytemuck::cast_slice_mut::<i16, i8>(values).parts_mut(stride);
            let (all_high, all_low) = x.byte_pairs(0);
            gather_blocks::<BLOCK_COLS, _>(band, all_high, high);
            gather_blocks::<BLOCK_COLS, _>(band, all_low, low);
        }
    }
    if format.is_grouped() {
        gather_blocks::<1, _>(band, x.scales(0), scales);
    } else {
        copy(scales, x.scales(0));
    }
    ActivationsQ8::new(1, cols, format, x.lanes(), values, scales).unwrap_or(ActivationsQ8::NONE)
}

/// Copies what belongs to stored blocks, `WIDTH` elements each, the last of all perhaps fewer, to the front of `to`.
#[inline(always)]
fn gather_blocks<const WIDTH: usize, T: Copy>(band: &Band<'_>, from: &[T], to: &mut [T]) {
    for (idx, block) in band.runs().flatten().enumerate() {
        let (from, to) = (from.cut(block * WIDTH..), to.cut_mut(idx * WIDTH..));
        match (from.first_chunk::<WIDTH>(), to.first_chunk_mut::<WIDTH>()) {
            // At once, which is a few loads and stores of many words.
            (Some(from), Some(to)) => *to = *from,
            _ => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
        }
    }
}
