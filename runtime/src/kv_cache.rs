//! Keys and values of past positions, int8 with a bfloat16 scale per position and head.

use crate::config::ModelConfig;
use crate::cut::Cut;
use crate::kernels::Kernels;

/// One head's keys (or values) in the cache: `(context_len, head_dim)` and `(context_len,)`.
pub(crate) struct HeadMut<'a> {
    pub values: &'a mut [i8],
    pub scales: &'a mut [u16],
}

/// The part of a cache buffer that belongs to one head of one layer.
pub(crate) fn head_mut<'a>(
    config: &ModelConfig,
    values: &'a mut [i8],
    scales: &'a mut [u16],
    layer_idx: usize,
    kv_head_idx: usize,
) -> HeadMut<'a> {
    let head = layer_idx * config.n_kv_heads + kv_head_idx;
    let (len, width) = (config.context_len, config.context_len * config.head_dim);
    HeadMut {
        values: values.cut_mut(head * width..(head + 1) * width),
        scales: scales.cut_mut(head * len..(head + 1) * len),
    }
}

/// The first positions of one head's keys, or values.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// `(n_positions, head_dim)`.
    pub elements: &'a [i8],
    /// bfloat16 `(n_positions,)`.
    pub scales: &'a [u16],
}

impl<'a> Head<'a> {
    /// As kernels take them.
    pub fn parts(self) -> (&'a [i8], &'a [u16]) {
        (self.elements, self.scales)
    }
}

/// Keys, or values, of all layers.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// `(n_layers, n_kv_heads, context_len, head_dim)`.
    pub elements: &'a [i8],
    /// bfloat16 `(n_layers, n_kv_heads, context_len)`.
    pub scales: &'a [u16],
}

impl<'a> Stored<'a> {
    /// The first `n_positions` of a head; those of all layers are counted.
    pub fn head(&self, config: &ModelConfig, head_idx: usize, n_positions: usize) -> Head<'a> {
        let (first, width) = (head_idx * config.context_len, config.head_dim);
        Head {
            elements: self.elements.cut(first * width..(first + n_positions) * width),
            scales: self.scales.cut(first..first + n_positions),
        }
    }
}

impl HeadMut<'_> {
    /// Quantises `x`, `(head_dim,)`, into `position`.
    pub fn store(&mut self, kernels: Kernels, position: usize, x: &[f32]) {
        let slot = self.values.cut_mut(position * x.len()..(position + 1) * x.len());
        self.scales.cut_mut(position..position + 1).fill(kernels.store(x, slot));
    }
}
