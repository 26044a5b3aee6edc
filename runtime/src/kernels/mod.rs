//! The kernels that do nearly all of the work, behind one dispatch.
//!
//! [`generic`] is the definition: plain loops over any [`WeightLayout`]. A backend in `arch` computes the same bits
//! faster on the layout made for it, and hands every other layout to `generic`.

mod arch;
mod backend;
pub mod generic;
#[cfg(any(test, all(feature = "soft-float", target_os = "none")))]
pub(crate) mod soft_float;

use crate::kv_cache::ScaleFormat;
use crate::layout::WeightLayout;
use crate::tensor::{ActivationsQ8, Lanes, MatrixQ8, WeightFormat};
use backend::Backend;

/// A function of one number, as [`crate::math`] defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// By the error function.
    Gelu,
    /// By its tanh approximation.
    GeluTanh,
    /// `x / (1 + e^-x)`.
    Silu,
    /// `tanh x`.
    Tanh,
}

impl Activation {
    /// Every function.
    pub const ALL: [Self; 5] = [Self::Relu, Self::Gelu, Self::GeluTanh, Self::Silu, Self::Tanh];
}

/// Bytes from which a model's weights are beyond the caches of most processors.
#[cfg(all(target_arch = "x86_64", feature = "std"))]
const FAR_BYTES: u64 = 32 << 20;

/// A choice of backend, and the proof that this machine can run it.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(Choice);

/// A core is added here, in [`dispatch`], and in [`Kernels::available`].
#[derive(Clone, Copy, Debug)]
enum Choice {
    #[cfg(not(all(feature = "sole-backend", target_os = "none")))]
    Generic(generic::Generic),
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    Avx512(arch::avx512::Avx512),
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    Avx2(arch::avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    Sdot(arch::aarch64::Sdot),
    #[cfg(target_arch = "aarch64")]
    Neon(arch::aarch64::Neon),
    #[cfg(all(target_arch = "arm", target_os = "linux", feature = "std"))]
    Neon32(arch::armv7::Neon32),
    #[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
    CortexMDsp(arch::cortex_m_dsp::CortexMDsp),
    #[cfg(all(target_arch = "arm", feature = "cortex-m-mve"))]
    Mve(arch::mve::Mve),
    #[cfg(all(target_arch = "arm", feature = "cortex-m-scalar"))]
    CortexMScalar(arch::cortex_m_scalar::CortexMScalar),
    #[cfg(all(target_arch = "riscv32", feature = "riscv-scalar"))]
    RiscvScalar(arch::riscv::RiscvScalar),
    #[cfg(all(any(target_arch = "riscv32", target_arch = "riscv64"), feature = "riscv-v"))]
    RiscvV(arch::riscv_v::RiscvV),
}

/// What an expression gives with the backend that was chosen.
macro_rules! dispatch {
    ($kernels:expr, $backend:ident => $call:expr) => {
        match $kernels.0 {
            #[cfg(not(all(feature = "sole-backend", target_os = "none")))]
            Choice::Generic($backend) => $call,
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Choice::Avx512($backend) => $call,
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Choice::Avx2($backend) => $call,
            #[cfg(target_arch = "aarch64")]
            Choice::Sdot($backend) => $call,
            #[cfg(target_arch = "aarch64")]
            Choice::Neon($backend) => $call,
            #[cfg(all(target_arch = "arm", target_os = "linux", feature = "std"))]
            Choice::Neon32($backend) => $call,
            #[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
            Choice::CortexMDsp($backend) => $call,
            #[cfg(all(target_arch = "arm", feature = "cortex-m-mve"))]
            Choice::Mve($backend) => $call,
            #[cfg(all(target_arch = "arm", feature = "cortex-m-scalar"))]
            Choice::CortexMScalar($backend) => $call,
            #[cfg(all(target_arch = "riscv32", feature = "riscv-scalar"))]
            Choice::RiscvScalar($backend) => $call,
            #[cfg(all(any(target_arch = "riscv32", target_arch = "riscv64"), feature = "riscv-v"))]
            Choice::RiscvV($backend) => $call,
        }
    };
}

mod sparse;

impl Kernels {
    /// The plain loops that define every result.
    #[cfg(not(all(feature = "sole-backend", target_os = "none")))]
    pub const fn generic() -> Self {
        Self(Choice::Generic(generic::Generic))
    }

    /// All that the running machine is known to have, the fastest first, [`Kernels::generic`] last.
    pub fn available() -> impl Iterator<Item = Self> {
        let choices = [
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            arch::avx512::Avx512::detect().map(Choice::Avx512),
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            arch::avx2::Avx2::detect().map(Choice::Avx2),
            #[cfg(target_arch = "aarch64")]
            arch::aarch64::Sdot::detect().map(Choice::Sdot),
            #[cfg(target_arch = "aarch64")]
            Some(Choice::Neon(arch::aarch64::Neon)),
            #[cfg(all(target_arch = "arm", target_os = "linux", feature = "std"))]
            arch::armv7::Neon32::detect().map(Choice::Neon32),
            #[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
            Some(Choice::CortexMDsp(arch::cortex_m_dsp::CortexMDsp::new())),
            #[cfg(all(target_arch = "arm", feature = "cortex-m-mve"))]
            Some(Choice::Mve(arch::mve::Mve::new())),
            #[cfg(all(target_arch = "arm", feature = "cortex-m-scalar"))]
            Some(Choice::CortexMScalar(arch::cortex_m_scalar::CortexMScalar)),
            #[cfg(all(target_arch = "riscv32", feature = "riscv-scalar"))]
            Some(Choice::RiscvScalar(arch::riscv::RiscvScalar::new())),
            #[cfg(all(any(target_arch = "riscv32", target_arch = "riscv64"), feature = "riscv-v"))]
            Some(Choice::RiscvV(arch::riscv_v::RiscvV::new())),
            #[cfg(not(all(feature = "sole-backend", target_os = "none")))]
            Some(Choice::Generic(generic::Generic)),
        ];
        choices.into_iter().flatten().map(Self)
    }

    /// The fastest backend that the running machine is known to have.
    pub fn detect() -> Self {
        // There is always one, which the compiler sees.
        Self::available().next().unwrap_or_else(|| unreachable!())
    }

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        fn name<B: Backend>(_: B) -> &'static str {
            B::NAME
        }
        dispatch!(self, backend => name(backend))
    }

    /// The weight layout that this backend reads fastest.
    pub fn preferred_layout(self) -> WeightLayout {
        fn layout<B: Backend>(_: B) -> WeightLayout {
            B::LAYOUT
        }
        dispatch!(self, backend => layout(backend))
    }

    /// The same kernels for a model of so many bytes: they may fetch weights in another way, and compute the same.
    #[must_use]
    #[cfg_attr(
        not(all(target_arch = "x86_64", feature = "std")),
        expect(unused_variables, reason = "no other backend tells models apart")
    )]
    pub fn for_model_of(self, n_bytes: u64) -> Self {
        match self.0 {
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Choice::Avx512(backend) if n_bytes >= FAR_BYTES => Self(Choice::Avx512(backend.for_far_weights())),
            choice => Self(choice),
        }
    }

    /// The lanes that this backend wants activations for weights of `format` in.
    pub fn lanes(self, format: WeightFormat) -> Lanes {
        dispatch!(self, backend => backend.lanes(format))
    }

    /// `out[t, r - first_row] = sum_c w[r, c] * x[t, c]` for the rows from `first_row`, `out.len() / n_tokens` of them.
    ///
    /// Rows and `first_row` come in whole row blocks, but for the matrix's last row.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub(crate) fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        require!(x.cols() == w.cols() && out.len().is_multiple_of(x.n_tokens().max(1)));
        dispatch!(self, backend => {
            // One backend quantises activations for the weights that they meet, an adapter's too.
            let is_one_kind = cfg!(all(feature = "sole-backend", target_os = "none"));
            let are_lanes = is_one_kind || x.lanes() == backend.lanes(w.format());
            let is_its_own = w.layout() == self.preferred_layout() && are_lanes && !w.is_sparse();
            match (is_its_own, w.format().is_int4()) {
                (false, _) => generic::matmul_rows(out, first_row, w, x),
                (true, false) => backend.matmul_rows(out, first_row, w, x),
                (true, true) => backend.matmul_rows_int4(out, first_row, w, x),
            }
        })
    }

    /// Whether this backend has all exact sums of a product before it scales them: [`Kernels::sum_rows`].
    pub fn has_sums(self) -> bool {
        fn has<B: Backend>(_: B) -> bool {
            B::HAS_SUMS
        }
        dispatch!(self, backend => has(backend))
    }

    /// The exact sums of one token's product with a matrix that has a scale a row, in this backend's layout, as `i32` in the places of `sums`,
    /// `(rows,)`: for measures beside kernels that go no further. Nothing where there is no such step.
    pub fn sum_rows(self, sums: &mut [f32], w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        require!(w.layout() == self.preferred_layout() && sums.len() == w.rows());
        dispatch!(self, backend => backend.sum_rows(sums, w, x))
    }

    /// Quantises `x` to `-limit..=limit` in `values`, as long; gives the scale, 0 where `x` has no usable magnitude.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub fn quantize_to(self, limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
        dispatch!(self, backend => backend.quantize_to(limit, x, values))
    }

    /// Quantises `x` to int8 in `values`, as long; gives the scale, 0 where `x` has no usable magnitude.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub fn quantize_to_int8(self, x: &[f32], values: &mut [i8]) -> f32 {
        dispatch!(self, backend => backend.quantize_to_int8(x, values))
    }

    /// `dots[i] = sum_d q[d] * k[i, d]` for keys `k`, `(dots.len(), q.len())`.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub fn score_dots(self, q: &[i16], k: &[i8], dots: &mut [i32]) {
        dispatch!(self, backend => backend.score_dots(q, k, dots))
    }

    /// Turns dot products into exponents of 2 in units of `2^-16`, in place, and gives the greatest.
    ///
    /// `score = dot * key_scale * per_unit`, for bfloat16 `key_scales`, `(scores.len(),)`, and a positive `per_unit`.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub fn score_exponents(self, scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
        dispatch!(self, backend => backend.score_exponents(scores, key_scales, per_unit))
    }

    /// Turns exponents, of which `greatest` is the greatest, into weights that have the values' scales multiplied in, in place.
    ///
    /// `weight = 2^(score - greatest) * mantissa`, at most 32,640, for the mantissas of the bfloat16 `value_scales`,
    /// `(scores.len(),)`, when their exponents are all made `greatest_exponent`. Gives the sum of the powers in units of
    /// `2^-16`. Scores are within `2^30`, as [`Kernels::score_exponents`] gives them.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub fn softmax_weights(
        self,
        scores: &mut [i32],
        greatest: i32,
        value_scales: &[u16],
        greatest_exponent: u32,
    ) -> u32 {
        dispatch!(self, backend => backend.softmax_weights(scores, greatest, value_scales, greatest_exponent))
    }

    /// The greatest of bfloat16 scales, 0 of none: those of vectors are not negative, and order as their bits do.
    pub fn greatest_scale(self, scales: &[u16]) -> u16 {
        dispatch!(self, backend => backend.greatest_scale(scales))
    }

    /// `sums[d] = sum_i weights[i] * v[i, d]` for values `v`, `(weights.len(), sums.len())`, of at most
    /// [`generic::VALUE_BLOCK`] positions.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub fn weighted_values(self, weights: &[i32], v: &[i8], sums: &mut [i32]) {
        dispatch!(self, backend => backend.weighted_values(weights, v, sums))
    }

    /// [`Kernels::softmax_weights`] and [`Kernels::weighted_values`] of at most [`generic::VALUE_BLOCK`] positions in one; what `scores`
    /// hold afterwards is not said. Gives the sum of the powers.
    ///
    /// # Panics
    /// If the shapes disagree: a caller's bug, never bad input.
    pub fn softmax_values(
        self,
        scores: &mut [i32],
        greatest: i32,
        value_scales: &[u16],
        greatest_exponent: u32,
        v: &[i8],
        sums: &mut [i32],
    ) -> u32 {
        dispatch!(self, backend => {
            backend.softmax_values(scores, greatest, value_scales, greatest_exponent, v, sums)
        })
    }

    /// Attention of all query heads that share a key head, from `q` to `out`, `(n_heads, head_dim)`, over positions with elements,
    /// `(n_positions, head_dim)`, and bfloat16 scales, `(n_positions,)`. False where this backend has no way of its own for them: then
    /// the other kernels are to be called, head by head. `scores` has at least `(n_positions,)`.
    pub fn attend_heads(
        self,
        out: &mut [f32],
        q: &[f32],
        temperature: f32,
        keys: (&[i8], &[u16]),
        values: (&[i8], &[u16]),
        scores: &mut [i32],
    ) -> bool {
        dispatch!(self, backend => backend.attend_heads(out, q, temperature, keys, values, scores))
    }

    /// `out[i] = sums[i] * factor`: exact sums, rounded to f32, in units of `1 / factor`.
    pub fn scale_integers(self, out: &mut [f32], sums: &[i32], factor: f32) {
        dispatch!(self, backend => backend.scale_integers(out, sums, factor))
    }

    /// Quantises a key or a value for the cache into `values`, as long; gives the scale as a bfloat16, which is rounded up to one of
    /// `scales` first, so that no value overflows. Where even their greatest is too small, values are cut.
    pub fn store(self, x: &[f32], values: &mut [i8], scales: ScaleFormat) -> u16 {
        dispatch!(self, backend => backend.store(x, values, scales))
    }

    /// Scales of [`ScaleFormat::Ue5m3`] as bfloat16, `unpacked` as long.
    pub fn unpack_ue5m3(self, scales: &[u8], unpacked: &mut [u16]) {
        dispatch!(self, backend => backend.unpack_ue5m3(scales, unpacked))
    }

    /// Scales `x`, `(dim,)`, by the inverse of its root mean square, then by `gain`, `(dim,)`, into `out`.
    ///
    /// `eps` sits inside the root, as Llama-family checkpoints were trained. Squares are summed in 8 interleaved lanes.
    pub fn rmsnorm(self, out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
        dispatch!(self, backend => backend.rmsnorm(out, x, gain, eps))
    }

    /// Frees `x`, `(dim,)`, of its mean, scales it by the inverse of its deviation and by `gain`, `(dim,)`, and adds `bias`, into `out`.
    ///
    /// `eps` sits inside the root. Both sums, of the elements and of their squared distances from the mean, have 8 interleaved lanes.
    pub fn layernorm(self, out: &mut [f32], x: &[f32], gain: &[f32], bias: &[f32], eps: f32) {
        dispatch!(self, backend => backend.layernorm(out, x, gain, bias, eps))
    }

    /// Replaces each element by the function's value.
    pub fn activate(self, activation: Activation, x: &mut [f32]) {
        dispatch!(self, backend => backend.activate(activation, x))
    }

    /// `x[i] *= y[i]`: a gate opens.
    pub fn multiply(self, x: &mut [f32], y: &[f32]) {
        dispatch!(self, backend => backend.multiply(x, y))
    }

    /// A step of a gated recurrent unit: `state`, `(dim,)`, from the input's and the state's shares of the reset, update and
    /// candidate gates, `(3 * dim,)` each.
    pub fn recur(self, state: &mut [f32], input: &[f32], recurrent: &[f32]) {
        dispatch!(self, backend => backend.recur(state, input, recurrent))
    }

    /// `out[i] = silu(gate[i]) * up[i]`.
    pub fn swiglu(self, out: &mut [f32], gate: &[f32], up: &[f32]) {
        dispatch!(self, backend => backend.swiglu(out, gate, up))
    }

    /// Turns each pair `(x[i], x[i + half])` of a head, `(head_dim,)`, by the angle whose cosine and sine are
    /// `cos_sin[i]` and `cos_sin[half + i]`: rotary embedding in the half-split form.
    pub fn rotate(self, x: &mut [f32], cos_sin: &[f32]) {
        dispatch!(self, backend => backend.rotate(x, cos_sin))
    }

    /// The same for heads that follow each other, `(n_heads, cos_sin.len())`.
    pub fn rotate_heads(self, x: &mut [f32], cos_sin: &[f32]) {
        dispatch!(self, backend => backend.rotate_heads(x, cos_sin))
    }

    /// The greatest of the numbers' bits as integers, the least integer of none: where one is not negative, those of the largest number, or
    /// of a NaN.
    pub fn greatest_bits(self, x: &[f32]) -> i32 {
        dispatch!(self, backend => backend.greatest_bits(x))
    }

    /// `x[i] += y[i]`: a block's output joins the residual stream.
    pub fn add(self, x: &mut [f32], y: &[f32]) {
        dispatch!(self, backend => backend.add(x, y))
    }
}

/// Runs two halves of a kernel's work, at the same time where the caller has threads.
///
/// Results do not depend on it: halves write to separate outputs.
pub trait Join {
    /// Pieces worth splitting work into.
    fn n_threads(&self) -> usize;

    /// Runs both closures to their end.
    fn join(&self, a: impl FnOnce() + Send, b: impl FnOnce() + Send);
}

/// One thread: one half after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Join for Serial {
    fn n_threads(&self) -> usize {
        1
    }

    fn join(&self, a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
        a();
        b();
    }
}

/// Computes `out[t, r] = sum_c w[r, c] * x[t, c]`, `(n_tokens, rows)`, as NUMERICS.md defines it.
///
/// Threads share the tokens of a batch, or the rows where there is one token.
///
/// # Panics
/// If the shapes disagree: a caller's bug, never bad input.
pub fn matmul_f32_q8_q8(
    kernels: Kernels,
    join: &(impl Join + Sync),
    out: &mut [f32],
    w: &MatrixQ8<'_>,
    x: &ActivationsQ8<'_>,
) {
    require!(out.len() == x.n_tokens() * w.rows());
    if join.n_threads() < 2 {
        // So that a device has no code that splits.
        kernels.matmul_rows(out, 0, w, x);
    } else if x.n_tokens() == 1 {
        split_rows(kernels, join, join.n_threads(), out, 0, w, x);
    } else {
        split_tokens(kernels, join, join.n_threads(), out, w, x);
    }
}

/// Fewest multiply-accumulates worth waking a thread for.
const SPLIT_MACS_MIN: usize = 1 << 16;

fn split_rows(
    kernels: Kernels,
    join: &(impl Join + Sync),
    n_threads: usize,
    out: &mut [f32],
    first_row: usize,
    w: &MatrixQ8<'_>,
    x: &ActivationsQ8<'_>,
) {
    if n_threads < 2 || out.len() * w.cols() < 2 * SPLIT_MACS_MIN {
        return kernels.matmul_rows(out, first_row, w, x);
    }
    let left_threads = n_threads / 2;
    let left_rows = (out.len() * left_threads / n_threads).next_multiple_of(w.layout().row_block()).min(out.len());
    let (left, right) = out.split_at_mut(left_rows);
    join.join(
        || split_rows(kernels, join, left_threads, left, first_row, w, x),
        || split_rows(kernels, join, n_threads - left_threads, right, first_row + left_rows, w, x),
    );
}

fn split_tokens(
    kernels: Kernels,
    join: &(impl Join + Sync),
    n_threads: usize,
    out: &mut [f32],
    w: &MatrixQ8<'_>,
    x: &ActivationsQ8<'_>,
) {
    if n_threads < 2 || x.n_tokens() < 2 || out.len() * w.cols() < 2 * SPLIT_MACS_MIN {
        return kernels.matmul_rows(out, 0, w, x);
    }
    let left_threads = n_threads / 2;
    let left_tokens = (x.n_tokens() * left_threads / n_threads).max(1);
    let (left, right) = out.split_at_mut(left_tokens * w.rows());
    let (left_x, right_x) = x.split_at(left_tokens);
    join.join(
        || split_tokens(kernels, join, left_threads, left, w, &left_x),
        || split_tokens(kernels, join, n_threads - left_threads, right, w, &right_x),
    );
}

#[cfg(test)]
mod tests;
