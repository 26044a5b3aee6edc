//! One head's numbers in the orders that the products read, with positions as lanes.
//!
//! Blocks of 16 positions are transposed: a row of memory holds one dimension of the head at all of them. So a head of any width
//! fills the vectors, masks and sums over keys cross no lanes, and positions turn by contiguous cosines. Positions are padded to
//! whole blocks and heads to eights, with zeros, so that every product is made of full tiles.

use super::products::columns;
use super::rope::RopeTable;
use crate::tensor::gemm::Write;
use crate::tensor::simd::{LANES, Lanes, Vector, load_part, store_part};

/// Positions of a block.
pub(super) const BLOCK: usize = 16;
/// One number for each position of a block; or of two positions, in turns, eight dimensions. A cache line: no vector straddles two.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Row(pub [f32; BLOCK]);
/// Pairs of positions in a block.
pub(super) const PAIRS: usize = BLOCK / 2;

/// Which columns of a matrix of heads to read or write, and what to do on the way.
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

/// Part of a row, from lane `at` on.
#[inline(always)]
pub(super) fn get<V: Vector>(row: &Row, at: usize) -> V {
    assert!(at + V::WIDTH <= BLOCK);
    // SAFETY: a whole vector lies ahead, as was just seen.
    unsafe { V::load_ptr(row.0.as_ptr().add(at)) }
}

/// Writes part of a row, from lane `at` on.
#[inline(always)]
pub(super) fn set<V: Vector>(row: &mut Row, at: usize, value: V) {
    assert!(at + V::WIDTH <= BLOCK);
    // SAFETY: as in `get`.
    unsafe { value.store_ptr(row.0.as_mut_ptr().add(at)) }
}

/// The lanes at which the vectors of a row begin.
#[inline(always)]
pub(super) fn vectors_of_row<V: Vector>() -> std::iter::StepBy<std::ops::Range<usize>> {
    (0..BLOCK).step_by(V::WIDTH)
}

/// Reads the block of positions from `first` on, a row for each dimension of the padded head, scaled and turned.
#[inline(always)]
pub(super) fn load_block<V: Vector>(data: &[f32], source: Source<'_>, first: usize, to: &mut [Row]) {
    let Source { n_rows, stride, col, head_dim, rope, scale } = source;
    for (panel, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let n_dims = (head_dim - panel * LANES).min(LANES);
        for half in (0..BLOCK).step_by(LANES) {
            let t = first + half;
            let mut rows = [V::Lanes::zero(); LANES];
            let n = n_rows.saturating_sub(t).min(LANES);
            if n > 0 {
                let data = &data[t * stride + col + panel * LANES..][..(n - 1) * stride + n_dims];
                if n == LANES && n_dims == LANES {
                    for (i, row) in rows.iter_mut().enumerate() {
                        // SAFETY: the last of the eight rows ends where `data` does.
                        *row = unsafe { V::Lanes::load_ptr(data.as_ptr().add(i * stride)) };
                    }
                } else {
                    for (row, data) in rows.iter_mut().zip(data.chunks(stride)) {
                        *row = load_part(&data[..n_dims]);
                    }
                }
            }
            for (lanes, to) in V::Lanes::transpose(rows).into_iter().zip(to.iter_mut()) {
                set(to, half, lanes);
            }
        }
    }
    turn::<V>(&mut to[..head_dim], rope, 1.0, scale, first);
}

/// Scales a block, and turns it by its positions: forth with `direction` 1, back with -1.
#[inline(always)]
fn turn<V: Vector>(block: &mut [Row], rope: Option<&RopeTable>, direction: f32, scale: f32, first: usize) {
    let factor = V::splat(scale);
    let Some(rope) = rope else {
        if scale != 1.0 {
            for row in block {
                for at in vectors_of_row::<V>() {
                    set(row, at, get::<V>(row, at).mul(factor));
                }
            }
        }
        return;
    };
    let (sin_factor, (low, high)) = (V::splat(scale * direction), block.split_at_mut(rope.half));
    for (i, (low, high)) in low.iter_mut().zip(high).enumerate() {
        let (cos, sin) = rope.block(i, first);
        for at in vectors_of_row::<V>() {
            let (cos, sin) = (get::<V>(cos, at).mul(factor), get::<V>(sin, at).mul(sin_factor));
            let (x, y) = (get::<V>(low, at), get::<V>(high, at));
            set(low, at, x.mul(cos).sub(y.mul(sin)));
            set(high, at, y.mul(cos).add(x.mul(sin)));
        }
    }
}

/// Writes a block, or adds it, to its columns of `to`; turned back and scaled first.
#[inline(always)]
pub(super) fn store_block<V: Vector>(
    block: &mut [Row],
    to: &mut [f32],
    source: Source<'_>,
    first: usize,
    write: Write,
) {
    let Source { n_rows, stride, col, head_dim, rope, scale } = source;
    turn::<V>(&mut block[..head_dim], rope, -1.0, scale, first);
    for (panel, block) in block.as_chunks::<LANES>().0.iter().enumerate() {
        let n_dims = (head_dim - panel * LANES).min(LANES);
        for half in (0..BLOCK).step_by(LANES) {
            let t = first + half;
            let lanes = columns::<V::Lanes>(block, half);
            let n = n_rows.saturating_sub(t).min(LANES);
            for (i, lanes) in V::Lanes::transpose(lanes).into_iter().enumerate().take(n) {
                let to = &mut to[(t + i) * stride + col + panel * LANES..][..n_dims];
                let lanes = if write == Write::Add { load_part::<V::Lanes>(to).add(lanes) } else { lanes };
                store_part(lanes, to);
            }
        }
    }
}

/// Rearranges a block, so that a row holds two positions in turns: `(width / 8, 8 pairs)` rows of eight dimensions.
#[inline(always)]
pub(super) fn pair_block(block: &[Row], to: &mut [Row]) {
    for (block, to) in block.as_chunks::<LANES>().0.iter().zip(to.as_chunks_mut::<PAIRS>().0) {
        for (pair, to) in to.iter_mut().enumerate() {
            for (dim, to) in to.0.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *to = block[dim].0.as_chunks::<2>().0[pair];
            }
        }
    }
}

/// Adds up the two numbers of each dimension in sums over pairs, for a block of positions.
///
/// `sums` holds, for each eight dimensions, `padded` positions; `to` gets a row for each dimension.
#[inline(always)]
pub(super) fn fold_pairs(sums: &[Row], padded: usize, first: usize, to: &mut [Row]) {
    for (sums, to) in sums.chunks_exact(padded).zip(to.as_chunks_mut::<LANES>().0) {
        for (t, sums) in sums[first..first + BLOCK].iter().enumerate() {
            for (dim, [even, odd]) in sums.0.as_chunks::<2>().0.iter().enumerate() {
                to[dim].0[t] = even + odd;
            }
        }
    }
}

/// Keys or values of one head.
#[derive(Default)]
pub(super) struct Head {
    /// `(padded / 16, width)` rows of 16 positions: what scores of wide heads are made of.
    pub blocks: Vec<Row>,
    /// `(padded, width)`, a position's dimensions side by side: what is mixed, and what scores of narrow heads are made of.
    pub rows: Vec<f32>,
    /// Dimensions with their padding.
    pub width: usize,
}

impl Head {
    /// Reads one head of `data`, which `source` must not scale, to make scores with it, to mix it, or both.
    #[inline(always)]
    pub fn pack<V: Vector>(&mut self, data: &[f32], source: Source<'_>, for_scores: bool, for_mixing: bool) {
        debug_assert_eq!(source.scale, 1.0, "keys and values are copied as they are");
        let (n_rows, padded) = (source.n_rows, source.n_rows.next_multiple_of(BLOCK));
        self.width = source.head_dim.next_multiple_of(LANES);
        let width = self.width;
        self.rows.resize(padded * width, 0.0);
        let (as_blocks, as_rows) = (for_scores && !self.is_narrow(), for_mixing || self.is_narrow());
        if as_blocks || (as_rows && source.rope.is_some()) {
            self.blocks.resize(padded / BLOCK * width, Row::default());
            let blocks = self.blocks.chunks_exact_mut(width).zip(self.rows.chunks_exact_mut(width * BLOCK));
            for (at, (block, rows)) in blocks.enumerate() {
                load_block::<V>(data, source, at * BLOCK, block);
                if as_rows {
                    rows_of_block::<V>(block, rows);
                }
            }
        } else {
            let from = data.chunks(source.stride).map(|row| &row[source.col..][..source.head_dim]);
            for (to, from) in self.rows.chunks_exact_mut(width).zip(from) {
                to[..source.head_dim].copy_from_slice(from);
                to[source.head_dim..].fill(0.0);
            }
            self.rows[n_rows * width..].fill(0.0);
        }
    }

    /// Whether scores are made of rows.
    #[inline(always)]
    pub fn is_narrow(&self) -> bool {
        self.width == LANES
    }
}

/// Transposes a block: a position's dimensions side by side.
#[inline(always)]
fn rows_of_block<V: Vector>(block: &[Row], to: &mut [f32]) {
    let width = block.len();
    for (panel, block) in block.as_chunks::<LANES>().0.iter().enumerate() {
        for half in (0..BLOCK).step_by(LANES) {
            let lanes = columns::<V::Lanes>(block, half);
            for (lanes, to) in V::Lanes::transpose(lanes).into_iter().zip(to[half * width..].chunks_exact_mut(width)) {
                store_part(lanes, &mut to[panel * LANES..][..LANES]);
            }
        }
    }
}
