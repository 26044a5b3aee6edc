//! The output head where few tokens may come next: only their rows are multiplied.
//!
//! Those that are wanted have a logit above minus infinity before; all others keep theirs. So what comes out does not depend on how many rows a
//! kernel computes at a time.

use crate::arena::Buffers;
use crate::cut::Cut;
use crate::decoder::{Decoder, lanes};
use crate::kernels::{Join, Kernels};
use crate::lanes::Lanes;
use crate::tensor::{ActivationsQ8, BAND_ROWS, MatrixQ8};

/// Most rows that are computed before they are looked through.
const ROWS_AT_ONCE: usize = if cfg!(feature = "std") { 512 } else { 16 };
/// Fewest multiply-accumulates of the whole matrix worth waking a thread for.
const SPLIT_MACS_MIN: u64 = 1 << 18;

impl<J: Join + Sync> Decoder<'_, J> {
    /// [`Decoder::predict`] for the tokens whose logits are above minus infinity.
    pub fn predict_open(&self, buffers: &mut Buffers<'_>, row_idx: usize) {
        let Some(output) = self.stage_head(buffers, row_idx) else { return };
        let staged = self.staged(&output, buffers.activations, buffers.activation_scales);
        let lanes = lanes!(self, buffers);
        open_rows(self.kernels, &self.join, lanes, buffers.logits, 0, &output.weight, &staged.view(1));
        if cfg!(feature = "families") && !output.bias.is_empty() {
            self.kernels.add(buffers.logits, output.bias);
        }
    }
}

/// `logits[r] = sum_c w[r, c] * x[c]` for the rows from `first_row` whose logits are above minus infinity.
fn open_rows(
    kernels: Kernels,
    join: &(impl Join + Sync),
    mut lanes: Lanes<'_>,
    logits: &mut [f32],
    first_row: usize,
    w: &MatrixQ8<'_>,
    x: &ActivationsQ8<'_>,
) {
    // The first is known on a device, which then has no function that calls itself, so that its stack has a bound.
    if join.n_threads() > 1
        && logits.len() as u64 * w.cols() as u64 >= SPLIT_MACS_MIN
        && let Some(([left, right], n_left)) = lanes.shares(logits.len(), ROWS_AT_ONCE)
    {
        let (left_logits, right_logits) = logits.split_at_mut(n_left);
        return join.join(
            || open_rows(kernels, join, left, left_logits, first_row, w, x),
            || open_rows(kernels, join, right, right_logits, first_row + n_left, w, x),
        );
    }
    // What is stored together is computed together.
    let step = if w.is_sparse() { BAND_ROWS } else { w.layout().row_block() };
    let mut rows = [0.0; ROWS_AT_ONCE];
    let mut at = 0;
    while at < logits.len() {
        let n_open = n_open(logits.cut(at..logits.len().min(at + ROWS_AT_ONCE)), step);
        let logits = logits.cut_mut(at..at + n_open);
        let rows = rows.cut_mut(..n_open);
        if w.is_sparse() {
            kernels.matmul_rows_sparse(rows, first_row + at, w, x, lanes.lane.row);
        } else if n_open > 0 {
            kernels.matmul_rows(rows, first_row + at, w, x);
        }
        for (logit, row) in logits.iter_mut().zip(rows) {
            if *logit > f32::NEG_INFINITY {
                *logit = *row;
            }
        }
        at += n_open.max(step);
    }
}

/// How many logits, from the first on, lie in steps that all have one above minus infinity.
fn n_open(logits: &[f32], step: usize) -> usize {
    let is_closed = |logits: &[f32]| logits.iter().all(|&logit| logit == f32::NEG_INFINITY);
    let n_steps = logits.chunks(step).take_while(|logits| !is_closed(logits)).count();
    (n_steps * step).min(logits.len())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::attention::Scratch;
    use crate::kernels::matmul_f32_q8_q8;
    use crate::kv_cache::Unpacked;
    use crate::lanes::Lane;
    use crate::tensor::{Scales, WeightFormat, activation_stride};

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
    fn rows_that_are_wanted_are_those_of_the_whole_product_and_others_stay() {
        let (rows, cols, format) = (3003, 96, WeightFormat::Int8);
        for kernels in Kernels::available() {
            let layout = kernels.preferred_layout();
            let mut data = vec![0; format.data_bytes(layout, rows, cols)];
            for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
                format.set(layout, &mut data, cols, row, col, ((row * 31 + col * 17) % 255) as u8 as i8 | 1);
            }
            let scales = vec![0.5; rows.next_multiple_of(layout.row_block())];
            let w =
                MatrixQ8::new(rows, cols, layout, format, &data, Scales::PerRow(&scales)).expect("sizes of the shape");
            let lanes_of_x = kernels.lanes(format);
            let mut values = vec![0; activation_stride(cols)];
            (0..cols).for_each(|col| lanes_of_x.set(&mut values, col, (col % 11) as i16 - 5));
            let x = ActivationsQ8::new(1, cols, format, lanes_of_x, &values, &[0.25]).expect("sizes of the shape");
            let mut whole = vec![0.0; rows];
            matmul_f32_q8_q8(kernels, &TwoPieces, &mut whole, &w, &x);
            for (is_open, n_threads) in [
                (&(|_| false) as &dyn Fn(usize) -> bool, 1),
                (&|_| true, 2),
                (&|row| row % 97 == 3, 1),
                (&|row| row % 97 == 3, 2),
                (&|row| row % 1000 < 600 || row == 3002, 2),
            ] {
                let open = |row: usize, logit: f32| if is_open(row) { logit } else { f32::NEG_INFINITY };
                let mut logits: Vec<f32> = (0..rows).map(|row| open(row, 0.0)).collect();
                let (mut row, mut spare) = (vec![0.0; cols], vec![0u128; 1000]);
                let scratch = Scratch { query: &mut [], scores: &mut [], value_sums: &mut [] };
                let unpacked = [(); 2].map(|()| Unpacked { elements: &mut [], scales: &mut [] });
                let lane = Lane { row: &mut row, unpacked, scratch };
                let lanes = Lanes { n_threads, lane, spare: bytemuck::cast_slice_mut(&mut spare) };
                open_rows(kernels, &TwoPieces, lanes, &mut logits, 0, &w, &x);
                let want: Vec<f32> = (0..rows).map(|row| open(row, whole[row])).collect();
                assert!(logits == want, "{} with {n_threads} threads", kernels.name());
            }
        }
    }
}
