//! Adapters: what was trained beside a model, and is applied beside its products without touching a weight of it.
//!
//! A low-rank pair (LoRA) adds `B . (A . x)` to the product `W . x` of a tensor, or to some of its rows: A is `(rank, in)`, B
//! `(rows, rank)`, with the factor of the training folded into B. Both are quantised as the weights are and go through the same kernels,
//! so all targets give the same bits (NUMERICS.md). A soft prompt is rows that go through the model before a prompt's tokens.
//!
//! Adapters lie in the packed model, or come later by themselves ([`Adapter::parse`]). Applying one takes no memory of its own: a token's
//! inner vector lies where vectors lie before they are quantised, which bounds the rank ([`rank_max`]).

mod section;
mod switch;

pub use section::{
    ADAPTABLE, Adapter, AdapterError, Adapters, HEAD_BYTES, MAGIC, NAME_BYTES_MAX, PAIR_BYTES, PairEntry, VERSION,
    rank_max, weights_crc,
};
pub use switch::UnknownAdapter;

use crate::arena::Buffers;
use crate::cut::Cut;
use crate::decoder::Decoder;
use crate::format::{Linear, PackedModel};
use crate::kernels::Join;
use crate::tensor::{ActivationsQ8, MatrixQ8, activation_stride, quantize};

/// Two matrices that add `b . (a . x)` to some rows of a product.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'m> {
    /// The first of those rows; there are as many as `b` has.
    pub first_row: usize,
    /// `(rank, in)`.
    pub a: MatrixQ8<'m>,
    /// `(rows, rank)`.
    pub b: MatrixQ8<'m>,
}

/// Rows of B that are multiplied at a time: whole blocks of every layout.
const ROWS_AT_ONCE: usize = 64;

impl<'m> PackedModel<'m> {
    /// The adapters in the file.
    pub fn adapters(&self) -> Adapters<'m> {
        Adapters::of(self)
    }
}

impl<J: Join + Sync> Decoder<'_, J> {
    /// Adds what the adapter has for `w` to `product`, `(n_tokens, rows)`, for the tokens whose activations are staged.
    pub(crate) fn adapt(&self, buffers: &mut Buffers<'_>, w: &Linear<'_>, n_tokens: usize) {
        let Some(adapter) = &self.adapter else { return };
        let (base, format) = (&w.weight, w.weight.format());
        let (values, scales) = (&*buffers.activations, &*buffers.activation_scales);
        let lanes = self.kernels.lanes(format);
        let (cols, stride, groups) = (base.cols(), activation_stride(base.cols()), format.groups(base.cols()));
        for pair in adapter.pairs_of(w.tensor_idx, base) {
            for (i, product) in buffers.product.chunks_mut(base.rows().max(1)).take(n_tokens).enumerate() {
                let (values, scales) = (values.cut(i * stride..), scales.cut(i * groups..));
                // The product's activations were staged.
                let x = ActivationsQ8::new(1, cols, format, lanes, values, scales).unwrap_or(ActivationsQ8::NONE);
                let rows = product.cut_mut(pair.first_row..pair.first_row + pair.b.rows());
                self.add_pair(rows, &pair, &x, buffers.row);
            }
        }
    }

    /// `out += b . (a . x)` of one token; `scratch` holds the inner vector.
    fn add_pair(&self, out: &mut [f32], pair: &Pair<'_>, x: &ActivationsQ8<'_>, scratch: &mut [f32]) {
        let (rank, format) = (pair.b.cols(), pair.b.format());
        let (values, scratch) = scratch.parts_mut(activation_stride(rank) / 2);
        let (scales, scratch) = scratch.parts_mut(format.groups(rank));
        let (values, inner) = (bytemuck::cast_slice_mut::<f32, i16>(values), scratch.cut_mut(..rank));
        self.kernels.matmul_rows(inner, 0, &pair.a, x);
        quantize(self.kernels, format, inner, values, scales);
        let inner = ActivationsQ8::new(1, rank, format, self.kernels.lanes(format), values, scales);
        let (inner, mut update) = (inner.unwrap_or(ActivationsQ8::NONE), [0.0; ROWS_AT_ONCE]);
        for (i, out) in out.chunks_mut(ROWS_AT_ONCE).enumerate() {
            let update = update.cut_mut(..out.len());
            self.kernels.matmul_rows(update, i * ROWS_AT_ONCE, &pair.b, &inner);
            self.kernels.add(out, update);
        }
    }

    /// Writes `n_rows` rows of the adapter's soft prompt, from `first_row` on, to the first rows of the residual stream.
    pub(crate) fn embed_prompt(&self, buffers: &mut Buffers<'_>, first_row: usize, n_rows: usize) {
        let Some(prompt) = self.adapter.as_ref().and_then(Adapter::prompt) else { return };
        for (i, residual) in buffers.residual.chunks_mut(prompt.cols().max(1)).take(n_rows).enumerate() {
            prompt.dequantize_row(first_row + i, residual);
        }
    }
}
