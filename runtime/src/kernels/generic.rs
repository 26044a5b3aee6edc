//! The executable form of NUMERICS.md: plain loops, any weight layout. Every backend must give these bits.

use crate::math;
use crate::tensor::{ActivationsQ8, MatrixQ8};

/// Positions whose weighted values are summed in `i32` before they are carried to f32: `512 * 32639 * 127 < 2^31`.
pub const VALUE_BLOCK: usize = 512;

/// See [`super::Kernels::matmul_rows`].
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    if n_rows == 0 {
        return;
    }
    for (token_idx, out) in out.chunks_mut(n_rows).enumerate() {
        let (values, scales) = (x.values(token_idx), x.scales(token_idx));
        for (i, out) in out.iter_mut().enumerate() {
            *out = dot(w, first_row + i, values, scales);
        }
    }
}

/// One output element: each group's dot product is exact in `i32`, then scaled and summed in f32, group after group.
fn dot(w: &MatrixQ8<'_>, row: usize, values: &[i16], scales: &[f32]) -> f32 {
    let group_size = w.format().group_size(w.cols());
    let mut sum = 0.0;
    for (group, &x_scale) in scales.iter().enumerate() {
        let first = group * group_size;
        let last = (first + group_size).min(w.cols());
        let mut acc = 0i32;
        for (col, &x) in (first..last).zip(values.get(first..last).unwrap_or(&[])) {
            acc = acc.wrapping_add(i32::from(w.value(row, col)) * i32::from(x));
        }
        sum += acc as f32 * (w.scale(row, group) * x_scale);
    }
    sum
}

/// See [`super::Kernels::score_dots`].
pub fn score_dots(q: &[i16], k: &[i8], dots: &mut [i32]) {
    for (dot, k) in dots.iter_mut().zip(k.chunks_exact(q.len().max(1))) {
        *dot = q.iter().zip(k).map(|(&q, &k)| i32::from(q) * i32::from(k)).sum();
    }
}

/// See [`super::Kernels::weighted_values`].
#[inline(always)]
pub fn weighted_values(weights: &[i32], v: &[i8], sums: &mut [i32]) {
    sums.fill(0);
    for (&weight, v) in weights.iter().zip(v.chunks_exact(sums.len().max(1))) {
        for (sum, &v) in sums.iter_mut().zip(v) {
            *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(v)));
        }
    }
}

/// Scales `x`, `(dim,)`, by the inverse of its root mean square, then by `gain`, `(dim,)`, into `out`.
///
/// `eps` sits inside the root, as Llama-family checkpoints were trained. Squares are summed in 8 interleaved lanes.
pub fn rmsnorm(out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let mut lanes = [0.0f32; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x * x;
    }
    let inverse = math::inv_sqrt(fold_lanes(lanes) / x.len() as f32 + eps);
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = x * inverse * gain;
    }
}

/// Sums 8 lanes in the one order that is also a vector's: halves, then quarters, then pairs.
fn fold_lanes(l: [f32; 8]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// Turns each pair `(x[i], x[i + half])` of a head, `(head_dim,)`, by the angle whose cosine and sine are
/// `cos_sin[i]` and `cos_sin[half + i]`: rotary embedding in the half-split form.
pub fn rotate(x: &mut [f32], cos_sin: &[f32]) {
    let half = x.len() / 2;
    let (low, high) = x.split_at_mut(half);
    let (cos, sin) = cos_sin.split_at(half.min(cos_sin.len()));
    for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
        let (x, y) = (*a, *b);
        *a = x * cos - y * sin;
        *b = y * cos + x * sin;
    }
}

/// `out[i] = silu(gate[i]) * up[i]`.
pub fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = math::silu(gate) * up;
    }
}
