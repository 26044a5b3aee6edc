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
    let n_threads = lanes.n_threads;
    // The first is known on a device, which then has no function that calls itself, so that its stack has a bound.
    if join.n_threads() > 1
        && n_threads > 1
        && out.len() as u64 * w.cols() as u64 >= 2 * SPLIT_MACS_MIN
        && let Some([left, right]) = lanes.halves()
    {
        let left_share = |n: usize| n * left.n_threads / n_threads;
        if x.n_tokens() > 1 {
            let n_left = left_share(x.n_tokens()).max(1);
            let (left_x, right_x) = x.split_at(n_left);
            let (left_out, right_out) = out.split_at_mut(n_left * (out.len() / x.n_tokens()));
            return join.join(
                || product(kernels, join, left, left_out, first_row, w, &left_x),
                || product(kernels, join, right, right_out, first_row, w, &right_x),
            );
        }
        let n_left = left_share(out.len()).next_multiple_of(BAND_ROWS).min(out.len());
        let (left_out, right_out) = out.split_at_mut(n_left);
        return join.join(
            || product(kernels, join, left, left_out, first_row, w, x),
            || product(kernels, join, right, right_out, first_row + n_left, w, x),
        );
    }
    kernels.matmul_rows_sparse(out, first_row, w, x, lanes.lane.row);
}
