//! How a product is cut into pieces that stay in the caches.

use super::pack::{CACHE_LINE, copied_stride, copy_block, pack_panel};
use super::tile::{Out, Panel, Strip, tile_of, tile_rows};
use super::{MatRef, Write};
use crate::tensor::simd::{Vector, WideKernel, dispatch_wide};
use std::ops::{Deref, Range};

/// Inner positions multiplied before a tile goes back to memory, at most.
const INNER_MAX: usize = 320;
/// Rows of A in a block: they fill half of a small L2 cache.
const ROW_BLOCK: usize = 192;
/// Numbers of packed B kept at a time.
const GROUP_NUMBERS: usize = 1 << 18;
/// Rows of a column-major A that are copied at a time: so close that a prefetcher follows from column to column.
const COPIED_ROWS: usize = 80;
/// Panels of B from which copying A pays if it is column-major, or each row is on a page of its own.
const COPY_FROM: usize = 16;
/// Numbers between columns of A from which they compete for a few places of the cache: copying pays for fewer panels.
const FAR_COLS: usize = 512;
/// Numbers between rows or columns of A from which each is on a page of its own.
const FAR: usize = 2048;
/// Fewest rows of A for which packing a row-major B pays, and numbers of an inner block of B from which it always does: it is read once for each strip.
const PACK_B_FROM: usize = 1024;
const LARGE_B: usize = 1 << 16;

/// `c (+)= a b`, with memory for packed operands.
pub(super) struct Gemm<'a> {
    pub write: Write,
    pub a: MatRef<'a>,
    pub b: Right<'a>,
    pub c: &'a mut [f32],
    pub packed: &'a mut Vec<f32>,
}

/// The right operand.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    Matrix(MatRef<'a>),
    Packed(PackedRight<'a>),
}

/// A right operand that was packed once for several products.
#[derive(Clone, Copy)]
pub struct PackedRight<'a> {
    panels: &'a [f32],
    inner: usize,
    cols: usize,
}

impl<'a> PackedRight<'a> {
    /// How long the memory of a packed matrix of `inner` rows and `cols` columns is.
    pub fn memory(inner: usize, cols: usize) -> usize {
        let blocks = InnerBlocks::of(inner);
        blocks.n * blocks.depth_max() * cols.next_multiple_of(CACHE_LINE)
    }

    /// Packs `b` into `memory`, which must be [`PackedRight::memory`] long and should begin on a cache line.
    ///
    /// # Panics
    /// If it has another length.
    pub fn new(b: MatRef<'_>, memory: &'a mut [f32]) -> Self {
        assert_eq!(memory.len(), Self::memory(b.rows, b.cols), "memory of a packed matrix");
        dispatch_wide(PackRight { b, to: memory });
        Self { panels: memory, inner: b.rows, cols: b.cols }
    }

    /// Rows of the matrix.
    pub fn inner(self) -> usize {
        self.inner
    }

    /// Columns of the matrix.
    pub fn cols(self) -> usize {
        self.cols
    }
}

struct PackRight<'a> {
    b: MatRef<'a>,
    to: &'a mut [f32],
}

impl WideKernel for PackRight<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { b, to } = self;
        let plan = Plan::together::<V>(b.rows, b.cols);
        for block in 0..plan.blocks.n {
            let packed = &mut to[block * plan.block_len..(block + 1) * plan.block_len];
            Panels { packed, b, depth: plan.blocks.get(block), group: 0..b.cols, packs_b: true }.pack::<V>();
        }
    }
}

/// How B is cut.
#[derive(Clone, Copy)]
struct Plan {
    blocks: InnerBlocks,
    /// Columns packed at a time.
    group_cols: usize,
    /// Inner blocks packed at a time: a block of C stays in the cache until all of them were added.
    n_together: usize,
    /// Numbers of a packed inner block.
    block_len: usize,
}

impl Plan {
    /// As much at a time as the cache holds.
    #[inline(always)]
    fn of<V: Vector>(inner: usize, cols: usize) -> Self {
        let blocks = InnerBlocks::of(inner);
        let panel_cols = V::TILE_VECTORS * V::WIDTH;
        let group_cols = (GROUP_NUMBERS / blocks.depth_max() / panel_cols).max(1) * panel_cols;
        let block_len = group_cols.min(cols.next_multiple_of(V::WIDTH)) * blocks.depth_max();
        let n_together = (GROUP_NUMBERS / block_len.max(1)).clamp(1, blocks.n.max(1));
        Self { blocks, group_cols, n_together, block_len }
    }

    /// Everything at once.
    #[inline(always)]
    fn together<V: Vector>(inner: usize, cols: usize) -> Self {
        let blocks = InnerBlocks::of(inner);
        let block_len = cols.next_multiple_of(V::WIDTH) * blocks.depth_max();
        Self { blocks, group_cols: cols.max(1), n_together: blocks.n.max(1), block_len }
    }
}

impl WideKernel for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { write, a, b, c, packed } = self;
        let (plan, b, prepacked) = match b {
            Right::Matrix(b) => (Plan::of::<V>(b.rows, b.cols), b, None),
            Right::Packed(PackedRight { panels, inner, cols }) => {
                let shape = MatRef { data: &[], rows: inner, cols, row_stride: cols, col_stride: 1 };
                (Plan::together::<V>(inner, cols), shape, Some(panels))
            }
        };
        let (inner, cols) = (a.cols, b.cols);
        if c.is_empty() {
            return;
        }
        if inner == 0 && write == Write::Set {
            c.fill(0.0);
        }
        let Plan { blocks, group_cols, n_together, block_len } = plan;
        let is_by_rows = a.col_stride == 1;
        let n_panels = cols.div_ceil(V::TILE_VECTORS * V::WIDTH);
        let copies_a = match is_by_rows {
            true => a.row_stride >= FAR && n_panels >= COPY_FROM,
            false => a.col_stride >= FAR || n_panels >= if a.col_stride < FAR_COLS { COPY_FROM } else { 2 },
        };
        let block_rows = if copies_a && !is_by_rows { COPIED_ROWS } else { ROW_BLOCK };
        let packs_b =
            prepacked.is_some() || b.col_stride != 1 || a.rows >= PACK_B_FROM || blocks.depth_max() * cols >= LARGE_B;
        let copy_len = match (copies_a, is_by_rows) {
            (false, _) => 0,
            (true, true) => block_rows * copied_stride(blocks.depth_max()),
            (true, false) => blocks.depth_max() * copied_stride(block_rows),
        };
        let panels_len = if prepacked.is_some() { 0 } else { n_together * block_len };
        let (memory, copy) = split_aligned(packed, panels_len.next_multiple_of(CACHE_LINE), copy_len);
        for first_block in (0..blocks.n).step_by(n_together) {
            let together = first_block..(first_block + n_together).min(blocks.n);
            for first in (0..cols).step_by(group_cols) {
                let group = first..(first + group_cols).min(cols);
                for (block, packed) in together.clone().zip(memory.chunks_exact_mut(block_len)) {
                    Panels { packed, b, depth: blocks.get(block), group: group.clone(), packs_b }.pack::<V>();
                }
                for row in (0..a.rows).step_by(block_rows) {
                    let rows = row..(row + block_rows).min(a.rows);
                    let panels = prepacked.unwrap_or(memory);
                    for (block, packed) in together.clone().zip(panels.chunks_exact(block_len)) {
                        let panels = Panels { packed, b, depth: blocks.get(block), group: group.clone(), packs_b };
                        let to = &mut c[rows.start * cols..rows.end * cols];
                        let add = block > 0 || write == Write::Add;
                        let a = if copies_a {
                            copy_block(a, rows.clone(), blocks.get(block), copy)
                        } else {
                            a.block(rows.clone(), blocks.get(block))
                        };
                        let is_cold = write == Write::Add && block == together.start;
                        row_block::<V>(a, &panels, Destination { to, cols, add, is_cold });
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
    /// How many vectors the columns of the group are, and how many panels.
    #[inline(always)]
    fn n_vectors_and_panels<V: Vector>(&self) -> (usize, usize) {
        let n_vectors = self.group.len().div_ceil(V::WIDTH);
        (n_vectors, n_vectors.div_ceil(V::TILE_VECTORS))
    }

    /// The columns of each panel, which are nearly equally wide: a last one of a vector would not keep the multipliers busy.
    #[inline(always)]
    fn cols<V: Vector>(&self) -> impl Iterator<Item = Range<usize>> + use<V, P> {
        let (group, (n_vectors, n_panels)) = (self.group.clone(), self.n_vectors_and_panels::<V>());
        let edge = move |idx: usize| group.end.min(group.start + idx * n_vectors / n_panels * V::WIDTH);
        (0..n_panels).map(move |idx| edge(idx)..edge(idx + 1))
    }

    /// Most rows of a tile with any of the panels.
    #[inline(always)]
    fn tile_rows<V: Vector>(&self) -> usize {
        let (n_vectors, n_panels) = self.n_vectors_and_panels::<V>();
        tile_rows::<V>(n_vectors.div_ceil(n_panels))
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
    is_cold: bool,
}

/// Multiplies a block of rows of A with a group of panels.
#[inline(always)]
fn row_block<V: Vector>(a: MatRef<'_>, panels: &Panels<'_, &[f32]>, destination: Destination<'_>) {
    let Destination { to, cols, add, is_cold } = destination;
    assert!(to.len() == a.rows * cols && panels.group.end <= cols && panels.depth.len() == a.cols);
    // Tiles of nearly equal size: a last one of a row or two would not keep the multipliers busy.
    let n_tiles = a.rows.div_ceil(panels.tile_rows::<V>());
    for panel in panels.cols::<V>() {
        let b = panels.get::<V>(&panel);
        for idx in 0..n_tiles {
            let rows = idx * a.rows / n_tiles..(idx + 1) * a.rows / n_tiles;
            let start = a.data[rows.start * a.row_stride..].as_ptr();
            let strip = match a.col_stride {
                1 => Strip::Rows { start, stride: a.row_stride },
                stride => Strip::Columns { start, stride },
            };
            // SAFETY: the rows are those of A, the panel lies where it was packed or in B, and the tile inside the rows of C.
            unsafe {
                let start = to.as_mut_ptr().add(rows.start * cols + panel.start);
                let out = Out { start, stride: cols, rows: rows.len(), cols: panel.len(), add, is_cold };
                tile_of::<V>(a.cols, strip, b, out);
            }
        }
    }
}
