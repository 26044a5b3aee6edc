//! Products with matrices that are stored without their zero blocks, shared between threads: each has room of its own for activations.

use crate::kernels::{Join, Kernels};
use crate::lanes::Lanes;
use crate::tensor::{ActivationsQ8, BAND_ROWS, MatrixQ8};

/// Fewest multiply-accumulates of the whole matrix worth waking a thread for.
const SPLIT_MACS_MIN: u64 = 1 << 17;

/// `out[t, r] = sum_c w[r, c] * x[t, c]` for the rows from `first_row`: whole bands of them, but for the matrix's last.
///
/// Threads share the tokens of a batch, or the bands where there is one token.
pub(crate) fn product(
    kernels: Kernels,
    join: &(impl Join + Sync),
    mut lanes: Lanes<'_>,
    out: &mut [f32],
    first_row: usize,
    w: &MatrixQ8<'_>,
    x: &ActivationsQ8<'_>,
) {
    // The first is known on a device, which then has no function that calls itself, so that its stack has a bound.
    if join.n_threads() > 1 && out.len() as u64 * w.cols() as u64 >= 2 * SPLIT_MACS_MIN {
        let n_tokens = x.n_tokens();
        let (n, step) = if n_tokens > 1 { (n_tokens, 1) } else { (out.len(), BAND_ROWS) };
        if let Some(([left, right], n_left)) = lanes.shares(n, step) {
            let (left_out, right_out) =
                out.split_at_mut(if n_tokens > 1 { n_left * (out.len() / n_tokens) } else { n_left });
            let (left_x, right_x) = if n_tokens > 1 { x.split_at(n_left) } else { (*x, *x) };
            let right_row = if n_tokens > 1 { first_row } else { first_row + n_left };
            return join.join(
                || product(kernels, join, left, left_out, first_row, w, &left_x),
                || product(kernels, join, right, right_out, right_row, w, &right_x),
            );
        }
    }
    kernels.matmul_rows_sparse(out, first_row, w, x, lanes.lane.row);
}
