//! How a product is cut into pieces that stay in the caches.

use super::pack::{pack_panel, pack_strips};
use super::tile::{Out, Panel, Strip, TILE_VECTORS, tile_of};
use super::{MatRef, Write};
use crate::tensor::simd::{Vector, WideKernel};
use std::ops::Range;

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
/// Fewest rows of A for which packing a row-major B pays.
const PACK_B_FROM: usize = 1024;

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
        let n_blocks = inner.div_ceil(INNER_MAX);
        let depth_max = inner.div_ceil(n_blocks.max(1));
        let panel_cols = TILE_VECTORS * V::WIDTH;
        let group_cols = (GROUP_NUMBERS / depth_max.max(1) / panel_cols).max(1) * panel_cols;
        let group_len = group_cols.min(cols.next_multiple_of(V::WIDTH)) * depth_max;
        let packs_a = cols >= if a.col_stride == 1 { PACK_ROWS_FROM } else { PACK_COLS_FROM }
            || a.row_stride.max(a.col_stride) >= FAR;
        let packs_b = b.col_stride != 1 || a.rows >= PACK_B_FROM;
        let strips_len = if packs_a { ROW_BLOCK.min(a.rows) * depth_max + V::WIDTH } else { 0 };
        if packed.len() < group_len + strips_len + CACHE_LINE {
            packed.resize(group_len + strips_len + CACHE_LINE, 0.0);
        }
        // Vectors of a panel that straddle cache lines would be read at half the speed.
        let start = packed.as_ptr().align_offset(size_of::<[f32; CACHE_LINE]>()).min(CACHE_LINE);
        let (panels, strips) = packed[start..].split_at_mut(group_len);
        for block in 0..n_blocks {
            let depth = block * inner / n_blocks..(block + 1) * inner / n_blocks;
            let add = block > 0 || write == Write::Add;
            for first in (0..cols).step_by(group_cols) {
                let group = first..(first + group_cols).min(cols);
                let panels = Panels { packed: panels, b, depth: depth.clone(), group: group.clone(), packs_b };
                let panels = panels.pack::<V>();
                for row in (0..a.rows).step_by(ROW_BLOCK) {
                    let rows = row..(row + ROW_BLOCK).min(a.rows);
                    let to = &mut c[rows.start * cols..rows.end * cols];
                    let strips = packs_a.then_some(&mut *strips);
                    row_block::<V>(a, rows, strips, &panels, Destination { to, cols, add });
                }
            }
        }
    }
}

/// Columns of B, packed panel by panel or where they are.
struct Panels<'a> {
    packed: &'a mut [f32],
    b: MatRef<'a>,
    depth: Range<usize>,
    group: Range<usize>,
    packs_b: bool,
}

impl Panels<'_> {
    /// Packs what is not read in place: a last panel of less than whole vectors always.
    #[inline(always)]
    fn pack<V: Vector>(self) -> Self {
        for panel in self.cols::<V>() {
            if self.is_packed::<V>(&panel) {
                let start = (panel.start - self.group.start) * self.depth.len();
                let len = panel.len().next_multiple_of(V::WIDTH) * self.depth.len();
                pack_panel::<V>(self.b, self.depth.clone(), panel, &mut self.packed[start..start + len]);
            }
        }
        self
    }

    /// The columns of each panel.
    #[inline(always)]
    fn cols<V: Vector>(&self) -> impl Iterator<Item = Range<usize>> + use<V> {
        let group = self.group.clone();
        group.clone().step_by(TILE_VECTORS * V::WIDTH).map(move |col| col..(col + TILE_VECTORS * V::WIDTH).min(group.end))
    }

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
    panels: &Panels<'_>,
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
                        Strip { start: packed.add(of_block.start * depth.len()), row: 1, col: of_block.len() }
                    }
                    None => Strip {
                        start: in_place.add(of_block.start * a.row_stride),
                        row: a.row_stride,
                        col: a.col_stride,
                    },
                };
                let start = to.as_mut_ptr().add(of_block.start * cols + panel.start);
                let out = Out { start, stride: cols, rows: of_block.len(), cols: panel.len(), add };
                tile_of::<V>(depth.len(), a, b, out);
            }
        }
    }
}
