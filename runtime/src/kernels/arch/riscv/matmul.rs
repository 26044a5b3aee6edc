//! Matrix products of sixteen rows at a time: an activation is loaded once for sixteen weights. Exact sums are left where the outputs
//! go, then scaled in place.

use crate::kernels::arch::riscv::{dots, scale};
use crate::kernels::soft_float;
use crate::layout::WeightLayout;
use crate::math;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows of a tile, which are the accumulators.
pub const ROWS: usize = WeightLayout::Rows16.row_block();
/// Columns of a tile.
pub const COLUMNS: usize = WeightLayout::Rows16.column_block();

/// See [`crate::kernels::generic::matmul_rows`]; for weights in [`WeightLayout::Rows16`] and activations of 16 bits.
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    if n_rows == 0 {
        return;
    }
    let block_bytes = ROWS * w.cols().next_multiple_of(COLUMNS);
    let first_block = first_row / ROWS;
    let data = w.data().get(first_block * block_bytes..).unwrap_or_default();
    for (token_idx, out) in out.chunks_mut(n_rows).enumerate() {
        let (values, x_scales) = (x.values(token_idx), x.scales(token_idx));
        match (w.scales(), x_scales) {
            (Scales::PerRow(scales), &[x_scale]) => {
                dot_rows(out, data, values);
                scale::scale_sums(out, scales.get(first_row..).unwrap_or_default(), x_scale);
            }
            (Scales::PerRow(_), _) => {}
            (Scales::PerGroup(scales), x_scales) => {
                let n_scales = ROWS * x_scales.len();
                let blocks = data.chunks(block_bytes).zip(scales.chunks(n_scales).skip(first_block));
                for (out, (data, scales)) in out.chunks_mut(ROWS).zip(blocks) {
                    grouped_block(out, data, values, scales, x_scales);
                }
            }
        }
    }
}

/// One block of rows whose scales come in groups: each group's sums, scaled, are added in order.
fn grouped_block(out: &mut [f32], data: &[u8], values: &[i16], scales: &[u16], x_scales: &[f32]) {
    let groups = data.chunks(ROWS * GROUP_SIZE).zip(values.chunks(GROUP_SIZE));
    let mut is_first = true;
    for ((data, values), (scales, &x_scale)) in groups.zip(scales.chunks_exact(ROWS).zip(x_scales)) {
        let mut terms = [0.0; ROWS];
        dot_rows(&mut terms, data, values);
        let mut row_scales = [0.0; ROWS];
        row_scales.iter_mut().zip(scales).for_each(|(wide, &scale)| *wide = math::bf16_to_f32(scale));
        scale::scale_sums(&mut terms, &row_scales, x_scale);
        if is_first {
            out.copy_from_slice(&terms[..out.len()]);
        } else {
            soft_float::add_to(out, &terms);
        }
        is_first = false;
    }
}

/// Leaves the dot products of the rows with the activations, as `i32`, in the places of `out`.
pub fn dot_rows(out: &mut [f32], data: &[u8], values: &[i16]) {
    let block_bytes = ROWS * values.len();
    require!(values.len().is_multiple_of(COLUMNS) && data.len() >= out.len().div_ceil(ROWS) * block_bytes);
    if values.is_empty() {
        return out.fill(0.0);
    }
    let (blocks, rest) = out.as_chunks_mut::<ROWS>();
    let (whole, last) = data.split_at(blocks.len() * block_bytes);
    if !blocks.is_empty() {
        // SAFETY: `whole` holds a block of weights for each block of outputs.
        unsafe { dots::dot_blocks(whole.as_ptr(), values, blocks) };
    }
    if (1..=ROWS / 2).contains(&rest.len()) {
        let mut dots = [0.0; ROWS / 2];
        // SAFETY: `last` holds one block of weights.
        unsafe { dots::dot_half_block(last.as_ptr(), values, &mut dots) };
        rest.copy_from_slice(&dots[..rest.len()]);
    } else if !rest.is_empty() {
        let mut dots = [[0.0; ROWS]];
        // SAFETY: `last` holds one block of weights.
        unsafe { dots::dot_blocks(last.as_ptr(), values, &mut dots) };
        rest.copy_from_slice(&dots[0][..rest.len()]);
    }
}
