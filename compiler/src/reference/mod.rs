//! The model in plain `f32`: what quantised models are measured against.
//!
//! One window of tokens goes through the blocks together, every product by a GEMM. Work is cut into the same tasks
//! whatever the number of threads, so the results do not depend on it.

mod attention;
mod gemm;

use rayon::prelude::*;
use siskin_runtime::TokenId;

use crate::artifact::{Checkpoint, LayerWeights, RopeTables};
use crate::eval::{EvalError, LogitsSource};
use gemm::matmul;

/// Positions that one task of attention or of the activation function works on.
const TASK_POSITIONS: usize = 64;
/// Positions whose logits are computed at once: 256 rows of 49,152 logits take 50 MB.
const LOGITS_POSITIONS: usize = 256;

/// A checkpoint ready to be run in `f32`.
pub struct ReferenceModel<'a> {
    checkpoint: &'a Checkpoint,
    rope: RopeTables,
    /// The window's final hidden states, normed, `(n_positions, dim)`.
    hidden: Vec<f32>,
    /// Logits of a run of positions that starts at a multiple of [`LOGITS_POSITIONS`].
    logits: Vec<f32>,
    /// The position that [`LogitsSource::next_logits`] gives next.
    position: usize,
}

impl<'a> ReferenceModel<'a> {
    /// Prepares `checkpoint`, which must have passed [`Checkpoint::validate`].
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        let rope = checkpoint.rope.tables(&checkpoint.config);
        Self { checkpoint, rope, hidden: Vec::new(), logits: Vec::new(), position: 0 }
    }

    /// Logits after every token of `tokens`, `(tokens.len(), vocab_size)` row-major.
    ///
    /// # Errors
    /// [`EvalError`]: a token outside the vocabulary, or more tokens than the context holds.
    pub fn logits(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>, EvalError> {
        self.start_window(tokens)?;
        let mut rows = Vec::with_capacity(tokens.len() * self.vocab_size());
        for _ in tokens {
            rows.extend_from_slice(self.next_logits()?);
        }
        Ok(rows)
    }

    /// The residual stream after the last block, `(n_positions, dim)`.
    fn forward(&self, tokens: &[TokenId]) -> Vec<f32> {
        let dim = self.checkpoint.config.dim;
        let embedding = self.checkpoint.embedding();
        let mut stream: Vec<f32> =
            tokens.iter().flat_map(|&token| &embedding[token as usize * dim..][..dim]).copied().collect();
        for layer_idx in 0..self.checkpoint.config.n_layers {
            let layer = self.checkpoint.layer(layer_idx);
            self.add_attention(&mut stream, &layer);
            self.add_mlp(&mut stream, &layer);
        }
        stream
    }

    /// `stream += o_proj(attention(norm(stream)))`.
    fn add_attention(&self, stream: &mut [f32], layer: &LayerWeights<'_>) {
        let config = &self.checkpoint.config;
        let x = rms_norm(stream, layer.attention_norm, config.norm_eps);
        let mut q = matmul(&x, layer.q_proj, config.dim);
        let mut k = matmul(&x, layer.k_proj, config.dim);
        let v = matmul(&x, layer.v_proj, config.dim);
        attention::rotate(&mut q, config.n_heads, config.head_dim, &self.rope);
        attention::rotate(&mut k, config.n_kv_heads, config.head_dim, &self.rope);
        let mixed = attention::causal_attention(config, &q, &k, &v);
        add(stream, &matmul(&mixed, layer.o_proj, config.q_dim()));
    }

    /// `stream += down_proj(silu(gate_proj(norm(stream))) * up_proj(norm(stream)))`.
    fn add_mlp(&self, stream: &mut [f32], layer: &LayerWeights<'_>) {
        let config = &self.checkpoint.config;
        let x = rms_norm(stream, layer.mlp_norm, config.norm_eps);
        let mut gate = matmul(&x, layer.gate_proj, config.dim);
        let up = matmul(&x, layer.up_proj, config.dim);
        let task_len = TASK_POSITIONS * config.hidden_dim;
        gate.par_chunks_mut(task_len).zip(up.par_chunks(task_len)).for_each(|(gate, up)| {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = *gate / (1.0 + (-*gate).exp()) * up;
            }
        });
        add(stream, &matmul(&gate, layer.down_proj, config.hidden_dim));
    }
}

impl LogitsSource for ReferenceModel<'_> {
    fn vocab_size(&self) -> usize {
        self.checkpoint.config.vocab_size
    }

    fn context_len(&self) -> usize {
        self.checkpoint.config.context_len
    }

    fn start_window(&mut self, tokens: &[TokenId]) -> Result<(), EvalError> {
        EvalError::check_window(tokens, self.vocab_size(), self.context_len())?;
        let stream = self.forward(tokens);
        self.hidden = rms_norm(&stream, self.checkpoint.final_norm(), self.checkpoint.config.norm_eps);
        self.position = 0;
        Ok(())
    }

    fn next_logits(&mut self) -> Result<&[f32], EvalError> {
        let (dim, vocab_size) = (self.checkpoint.config.dim, self.checkpoint.config.vocab_size);
        let row_idx = self.position % LOGITS_POSITIONS;
        if self.position * dim >= self.hidden.len() {
            return Err(EvalError::WindowEnded);
        }
        if row_idx == 0 {
            let rest = &self.hidden[self.position * dim..];
            let rows = &rest[..rest.len().min(LOGITS_POSITIONS * dim)];
            self.logits = matmul(rows, self.checkpoint.output_head(), dim);
        }
        self.position += 1;
        Ok(&self.logits[row_idx * vocab_size..][..vocab_size])
    }
}

/// Scales each row of `x`, `(n, gain.len())`, by the inverse of its root mean square, then by `gain`.
fn rms_norm(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for (row, out) in x.chunks_exact(gain.len()).zip(out.chunks_exact_mut(gain.len())) {
        let mean_square = row.iter().map(|value| value * value).sum::<f32>() / row.len() as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        for ((out, value), gain) in out.iter_mut().zip(row).zip(gain) {
            *out = value * scale * gain;
        }
    }
    out
}

fn add(stream: &mut [f32], update: &[f32]) {
    for (value, update) in stream.iter_mut().zip(update) {
        *value += update;
    }
}
