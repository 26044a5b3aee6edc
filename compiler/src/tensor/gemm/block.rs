//! How a product is cut into pieces that stay in the caches.

use super::pack::{pack_panel, pack_strips};
use super::tile::{Out, Panel, Strip, TILE_VECTORS, tile_of};
use super::{MatRef, Write};
use crate::tensor::simd::{Vector, WideKernel};
use std::ops::{Deref, Range};

/// Inner positions multiplied before a tile goes back to memory, at most: its panel and strip share the L1 cache.
const INNER_MAX: usize = 320;
/// Rows of A in a block: packed, they fill half of a small L2 cache.
const ROW_BLOCK: usize = 192;
/// Numbers of packed B kept at a time.
const GROUP_NUMBERS: usize = 1 << 18;
/// Numbers in a line of the caches.
const CACHE_LINE: usize = 16;
/// Fewest columns of B for which packing a row-major A pays.
const PACK_ROWS_FROM: usize = 512;
/// Fewest columns of B for which packing a column-major A pays.
const PACK_COLS_FROM: usize = 256;
/// Numbers between rows or columns of A from which packing it always pays: each is on a page of its own.
const FAR: usize = 2048;
/// Fewest rows of A for which packing a row-major B pays, and numbers of B from which it always does: it is read once for each strip.
const PACK_B_FROM: usize = 1024;
const LARGE_B: usize = 1 << 16;

/// `c (+)= a b`, with memory for packed operands.
pub(super) struct Gemm<'a> {
    pub write: Write,
    pub a: MatRef<'a>,
    pub b: MatRef<'a>,
    pub c: &'a mut [f32],
    pub packed: &'a mut Vec<f32>,
}

impl WideKernel for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { write, a, b, c, packed } = self;
        let (inner, cols) = (a.cols, b.cols);
        if inner == 0 && write == Write::Set {
            c.fill(0.0);
        }
        let blocks = InnerBlocks::of(inner);
        let panel_cols = TILE_VECTORS * V::WIDTH;
        let group_cols = (GROUP_NUMBERS / blocks.depth_max() / panel_cols).max(1) * panel_cols;
        let padded_cols = group_cols.min(cols.next_multiple_of(V::WIDTH));
        // As many inner blocks of B at a time as fit: a block of C stays in the cache until all of them were added.
        let n_together = (GROUP_NUMBERS / (blocks.depth_max() * padded_cols.max(1))).clamp(1, blocks.n.max(1));
        let block_len = padded_cols * blocks.depth_max();
        let packs_a = cols >= if a.col_stride == 1 { PACK_ROWS_FROM } else { PACK_COLS_FROM }
            || a.row_stride.max(a.col_stride) >= FAR;
        let packs_b = b.col_stride != 1 || a.rows >= PACK_B_FROM || inner * cols >= LARGE_B;
        let strips_len = if packs_a { ROW_BLOCK.min(a.rows) * blocks.depth_max() + V::WIDTH } else { 0 };
        let (panels, strips) = split_aligned(packed, n_together * block_len, strips_len);
        for first_block in (0..blocks.n).step_by(n_together) {
            let together = first_block..(first_block + n_together).min(blocks.n);
            for first in (0..cols).step_by(group_cols) {
                let group = first..(first + group_cols).min(cols);
                for (block, to) in together.clone().zip(panels.chunks_exact_mut(block_len)) {
                    Panels { packed: to, b, depth: blocks.get(block), group: group.clone(), packs_b }.pack::<V>();
                }
                for row in (0..a.rows).step_by(ROW_BLOCK) {
                    let rows = row..(row + ROW_BLOCK).min(a.rows);
                    for (block, packed) in together.clone().zip(panels.chunks_exact(block_len)) {
                        let panels = Panels { packed, b, depth: blocks.get(block), group: group.clone(), packs_b };
                        let to = &mut c[rows.start * cols..rows.end * cols];
                        let add = block > 0 || write == Write::Add;
                        let strips = packs_a.then_some(&mut *strips);
                        row_block::<V>(a, rows.clone(), strips, &panels, Destination { to, cols, add });
                    }
                }
            }
        }
    }
}

/// The inner index cut into blocks of nearly equal size.
#[derive(Clone, Copy)]
struct InnerBlocks {
    inner: usize,
    n: usize,
}

impl InnerBlocks {
    #[inline(always)]
    fn of(inner: usize) -> Self {
        Self { inner, n: inner.div_ceil(INNER_MAX) }
    }

    #[inline(always)]
    fn get(self, block: usize) -> Range<usize> {
        block * self.inner / self.n..(block + 1) * self.inner / self.n
    }

    /// At least one, so that it may divide.
    #[inline(always)]
    fn depth_max(self) -> usize {
        self.inner.div_ceil(self.n.max(1)).max(1)
    }
}

/// Two buffers of these lengths, the first on a cache line: vectors that straddle two would be read at half the speed.
#[inline(always)]
fn split_aligned(memory: &mut Vec<f32>, panels: usize, strips: usize) -> (&mut [f32], &mut [f32]) {
    if memory.len() < panels + strips + CACHE_LINE {
        memory.resize(panels + strips + CACHE_LINE, 0.0);
    }
    let start = memory.as_ptr().align_offset(size_of::<[f32; CACHE_LINE]>()).min(CACHE_LINE);
    memory[start..].split_at_mut(panels)
}

/// Columns of B, packed panel by panel or where they are.
struct Panels<'a, P> {
    packed: P,
    b: MatRef<'a>,
    depth: Range<usize>,
    group: Range<usize>,
    packs_b: bool,
}

impl Panels<'_, &mut [f32]> {
    /// Packs what is not read in place.
    #[inline(always)]
    fn pack<V: Vector>(self) {
        for panel in self.cols::<V>() {
            if self.is_packed::<V>(&panel) {
                let start = (panel.start - self.group.start) * self.depth.len();
                let len = panel.len().next_multiple_of(V::WIDTH) * self.depth.len();
                pack_panel::<V>(self.b, self.depth.clone(), panel, &mut self.packed[start..start + len]);
            }
        }
    }
}

impl<P: Deref<Target = [f32]>> Panels<'_, P> {
    /// The columns of each panel.
    #[inline(always)]
    fn cols<V: Vector>(&self) -> impl Iterator<Item = Range<usize>> + use<V, P> {
        let group = self.group.clone();
        group
            .clone()
            .step_by(TILE_VECTORS * V::WIDTH)
            .map(move |col| col..(col + TILE_VECTORS * V::WIDTH).min(group.end))
    }

    /// A last panel of less than whole vectors always is.
    #[inline(always)]
    fn is_packed<V: Vector>(&self, panel: &Range<usize>) -> bool {
        self.packs_b || !panel.len().is_multiple_of(V::WIDTH)
    }

    #[inline(always)]
    fn get<V: Vector>(&self, panel: &Range<usize>) -> Panel {
        if self.is_packed::<V>(panel) {
            let start = self.packed[(panel.start - self.group.start) * self.depth.len()..].as_ptr();
            Panel { start, row: panel.len().next_multiple_of(V::WIDTH) }
        } else {
            let start = self.b.data[self.depth.start * self.b.row_stride + panel.start..].as_ptr();
            Panel { start, row: self.b.row_stride }
        }
    }
}

/// Whole rows of C.
struct Destination<'a> {
    to: &'a mut [f32],
    cols: usize,
    add: bool,
}

/// Multiplies a block of rows of A with a group of panels.
#[inline(always)]
fn row_block<V: Vector>(
    a: MatRef<'_>,
    rows: Range<usize>,
    strips: Option<&mut [f32]>,
    panels: &Panels<'_, &[f32]>,
    destination: Destination<'_>,
) {
    let depth = panels.depth.clone();
    let n_strips = rows.len().div_ceil(V::TILE_ROWS);
    // Strips of nearly equal size: a last one of a row or two would not keep the multipliers busy.
    let n_rows = rows.len();
    let strips_of_block = (0..n_strips).map(|idx| idx * n_rows / n_strips..(idx + 1) * n_rows / n_strips);
    let packed = strips.map(|strips| {
        pack_strips::<V>(a, rows.clone(), strips_of_block.clone(), depth.clone(), strips);
        strips.as_ptr()
    });
    let in_place = a.data[rows.start * a.row_stride + depth.start * a.col_stride..].as_ptr();
    let Destination { to, cols, add } = destination;
    assert!(to.len() == rows.len() * cols && panels.group.end <= cols);
    for panel in panels.cols::<V>() {
        let b = panels.get::<V>(&panel);
        for of_block in strips_of_block.clone() {
            // SAFETY: strip and panel lie where they were packed or in A and B, and the tile inside the rows of C.
            unsafe {
                let a = match packed {
                    Some(packed) => {
                        Strip::Columns { start: packed.add(of_block.start * depth.len()), stride: of_block.len() }
                    }
                    None if a.col_stride == 1 => {
                        Strip::Rows { start: in_place.add(of_block.start * a.row_stride), stride: a.row_stride }
                    }
                    None => Strip::Columns { start: in_place.add(of_block.start), stride: a.col_stride },
                };
                let start = to.as_mut_ptr().add(of_block.start * cols + panel.start);
                let out = Out { start, stride: cols, rows: of_block.len(), cols: panel.len(), add };
                tile_of::<V>(depth.len(), a, b, out);
            }
        }
    }
}
