//! The forward pass of recurrent models: gated recurrent units, in PyTorch's form.
//!
//! The inputs' share of the gates is a product for a whole batch; the states' share, and so the model, goes token by token.

use crate::TokenId;
use crate::arena::Buffers;
use crate::cut::{Cut, copy, copy_part};
use crate::decoder::{Decoder, lanes};
use crate::kernels::Join;

impl<J: Join + Sync> Decoder<'_, J> {
    /// Runs `tokens`, at most a batch, through all layers of the encoder or the decoder. Leaves the last layer's states in the residual
    /// stream, and each layer's last state in `state`, in the beam's place.
    pub fn forward_recurrent(&self, buffers: &mut Buffers<'_>, is_encoder: bool, beam: usize, tokens: &[TokenId]) {
        let config = self.model.config();
        let (dim, n_tokens) = (config.dim, tokens.len());
        let embedding = self.model.embedding();
        let states = buffers.state.cut_mut(beam * config.n_layers * dim..).chunks_mut(dim);
        for (layer_idx, state) in states.take(config.n_layers).enumerate() {
            let gates = self.model.gates(is_encoder, layer_idx);
            let mut staged = self.staged(&gates.input, buffers.activations, buffers.activation_scales);
            for (i, &token) in tokens.iter().enumerate() {
                if layer_idx > 0 {
                    staged.put(i, buffers.residual.cut(i * dim..(i + 1) * dim));
                    continue;
                }
                let x = buffers.row.cut_mut(..embedding.cols());
                embedding.dequantize_row(token as usize, x);
                staged.put(i, x);
            }
            let (inputs, recurrent) = buffers.product.cut_mut(..(n_tokens + 1) * 3 * dim).parts_mut(n_tokens * 3 * dim);
            self.linear(lanes!(self, buffers), inputs, &gates.input, &staged.view(n_tokens));
            let mut staged = self.staged(&gates.state, buffers.activations, buffers.activation_scales);
            for (inputs, x) in inputs.chunks(3 * dim).zip(buffers.residual.chunks_mut(dim)) {
                staged.put(0, state);
                self.linear(lanes!(self, buffers), recurrent, &gates.state, &staged.view(1));
                self.kernels.recur(state, inputs, recurrent);
                copy(x, state);
            }
        }
    }

    /// Sets the states to those that a text starts from: an encoder's, or zero.
    pub fn reset_states(&self, buffers: &mut Buffers<'_>) {
        let config = self.model.config();
        let n = config.n_layers * config.dim;
        let (current, others) = buffers.state.parts_mut(n);
        match config.parts().has_source() {
            true => copy(current, others.cut(others.len().saturating_sub(n)..)),
            false => current.fill(0.0),
        }
    }

    /// Reads a source from zero states, and keeps the states that it leaves for the decoder to start from.
    pub fn read_recurrent_source(&self, buffers: &mut Buffers<'_>, batch: usize, tokens: &[TokenId]) {
        buffers.state.fill(0.0);
        for tokens in tokens.chunks(batch.max(1)) {
            self.forward_recurrent(buffers, true, 0, tokens);
        }
        let (n, len) = (self.model.config().n_layers * self.model.config().dim, buffers.state.len());
        copy_part(buffers.state, 0, len.saturating_sub(n), n);
    }
}
