//! One head's numbers in the orders that the products read.
//!
//! Rows are padded to blocks of 16 and heads to whole vectors, with zeros, so that every product is made of full tiles.

use super::rope::RopeTable;
use crate::tensor::simd::{LANES, vectors};

/// Queries in a block, and keys in a packed panel.
pub(super) const BLOCK: usize = 16;

/// The numbers of one head, `(padded, width)`.
#[derive(Default)]
pub(super) struct Head {
    /// Row-major: the left operand of scores.
    pub rows: Vec<f32>,
    /// `(width / 8, padded, 8)`: the right operand of sums over positions.
    pub panels: Vec<f32>,
    /// `(padded / 16, width, 16)`: the right operand of scores.
    pub columns: Vec<f32>,
    /// Rows with their padding.
    pub padded: usize,
}

/// Which columns of a matrix of heads to read, and what to do on the way.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Rows of the sequence.
    pub n_rows: usize,
    /// Columns of the matrix.
    pub stride: usize,
    /// First column of the head.
    pub col: usize,
    /// Width of the head.
    pub head_dim: usize,
    pub rope: Option<&'a RopeTable>,
    pub scale: f32,
}

impl Source<'_> {
    /// Width of the head in whole vectors.
    pub fn width(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }
}

impl Head {
    /// Reads one head of `data` and lays it out; `columns` only where asked for.
    pub fn pack(&mut self, data: &[f32], source: Source<'_>, columns: bool) {
        let Source { n_rows, head_dim, scale, .. } = source;
        let (width, half) = (source.width(), head_dim / 2);
        let len = n_rows.next_multiple_of(BLOCK);
        self.padded = len;
        self.rows.resize(len * width, 0.0);
        self.panels.resize(len * width, 0.0);
        self.rows[n_rows * width..].fill(0.0);
        for (t, to) in self.rows.chunks_exact_mut(width).take(n_rows).enumerate() {
            let from = &data[t * source.stride + source.col..][..head_dim];
            to[head_dim..].fill(0.0);
            let to = &mut to[..head_dim];
            if let Some(rope) = source.rope {
                let (cos, sin) = (&rope.cos[t * half..][..half], &rope.sin[t * half..][..half]);
                let (low, high) = to.split_at_mut(half);
                for i in 0..half {
                    low[i] = (from[i] * cos[i] - from[half + i] * sin[i]) * scale;
                    high[i] = (from[half + i] * cos[i] + from[i] * sin[i]) * scale;
                }
            } else {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale);
            }
        }
        for (t, row) in self.rows.chunks_exact(width).enumerate() {
            for (panel, part) in vectors(row).0.iter().enumerate() {
                self.panels.as_chunks_mut::<LANES>().0[panel * len + t] = *part;
            }
        }
        if columns {
            self.columns.resize(len * width, 0.0);
            let blocks = self.columns.chunks_exact_mut(BLOCK * width).zip(self.rows.chunks_exact(BLOCK * width));
            for (to, from) in blocks {
                for (t, row) in from.chunks_exact(width).enumerate() {
                    for (i, x) in row.iter().enumerate() {
                        to[i * BLOCK + t] = *x;
                    }
                }
            }
        }
    }
}

/// Adds a head's gradient, `(width / 8, padded, 8)`, to its columns of `to`, turned back and scaled as `source` says.
pub(super) fn unpack_add(to: &mut [f32], panels: &[f32], source: Source<'_>) {
    let Source { n_rows, head_dim, scale, .. } = source;
    let (half, padded) = (head_dim / 2, n_rows.next_multiple_of(BLOCK));
    let mut row = vec![0.0; source.width()];
    for t in 0..n_rows {
        for (panel, part) in row.chunks_exact_mut(LANES).enumerate() {
            part.copy_from_slice(&panels[(panel * padded + t) * LANES..][..LANES]);
        }
        let to = &mut to[t * source.stride + source.col..][..head_dim];
        if let Some(rope) = source.rope {
            let (cos, sin) = (&rope.cos[t * half..][..half], &rope.sin[t * half..][..half]);
            for i in 0..half {
                to[i] += (row[i] * cos[i] + row[half + i] * sin[i]) * scale;
                to[half + i] += (row[half + i] * cos[i] - row[i] * sin[i]) * scale;
            }
        } else {
            to.iter_mut().zip(&row).for_each(|(to, from)| *to += from * scale);
        }
    }
}
