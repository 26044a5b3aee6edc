//! Matrix products for the small inner sizes of small models.
//!
//! ```text
//! for each block of up to 256 inner positions            (keeps a panel inside the L1 cache)
//!   for each group of 16-column panels of B: pack it     (contiguous, tail padded with zeros)
//!     for each strip of 6 rows of A: pack it if A is column-major
//!       for each panel of the group: a 6 x 16 tile of C in 12 vector registers
//! ```
//!
//! Each element of the product is summed in the order of the inner index by fused multiply-adds, in blocks of 256: the
//! result depends on the operands alone, not on how rows and columns fall into tiles or on which lanes ran.

use super::simd::{Kernel, LANES, Lanes, dispatch};
use std::cell::RefCell;

/// Rows of a register tile.
const TILE_ROWS: usize = 6;
/// Columns of a register tile.
const TILE_COLS: usize = 2 * LANES;
/// Inner positions multiplied before the tile goes back to memory.
const INNER_BLOCK: usize = 256;
/// Numbers of packed B kept at a time when A has to be packed too.
const GROUP_NUMBERS: usize = 1 << 16;

/// What a product does with the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replace what is there.
    Set,
    /// Add to what is there.
    Add,
}

impl Write {
    /// Replaces or adds, number by number.
    pub fn store(self, to: &mut [f32], from: &[f32]) {
        match self {
            Self::Set => to.copy_from_slice(from),
            Self::Add => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
        }
    }
}

/// A borrowed matrix, `(rows, cols)`, with a stride of one along one of its two axes.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If `data` is not `rows * cols` long.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} x {cols}");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same numbers with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// Computes `c = a b` or `c += a b` with `c` row-major, `(a.rows, b.cols)`.
///
/// # Panics
/// If the shapes do not fit together.
pub fn gemm(write: Write, a: MatRef<'_>, b: MatRef<'_>, c: &mut [f32]) {
    assert_eq!(a.cols, b.rows, "inner sizes of the product");
    assert_eq!(c.len(), a.rows * b.cols, "size of the product");
    PACKED.with_borrow_mut(|packed| dispatch(Gemm { write, a, b, c, packed }));
}

thread_local! {
    /// Packed panels of B, then one packed strip of A.
    static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

struct Gemm<'a> {
    write: Write,
    a: MatRef<'a>,
    b: MatRef<'a>,
    c: &'a mut [f32],
    packed: &'a mut Vec<f32>,
}

impl Kernel for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { write, a, b, c, packed } = self;
        let (inner, cols) = (a.cols, b.cols);
        if inner == 0 && write == Write::Set {
            c.fill(0.0);
        }
        let pack_a = a.col_stride != 1;
        let block = inner.min(INNER_BLOCK);
        let n_panels = cols.div_ceil(TILE_COLS);
        let group = if pack_a { (GROUP_NUMBERS / (block.max(1) * TILE_COLS)).clamp(1, n_panels.max(1)) } else { 1 };
        let strip_start = group * block * TILE_COLS;
        packed.resize(strip_start + block * TILE_ROWS + LANES, 0.0);
        let (panels, strip) = packed.split_at_mut(strip_start);
        for start in (0..inner).step_by(INNER_BLOCK) {
            let depth = INNER_BLOCK.min(inner - start);
            let add = start > 0 || write == Write::Add;
            for first_panel in (0..n_panels).step_by(group) {
                let last_panel = (first_panel + group).min(n_panels);
                for panel in first_panel..last_panel {
                    let to = (panel - first_panel) * depth * TILE_COLS;
                    pack_b(b, start, depth, panel * TILE_COLS, &mut panels[to..to + depth * TILE_COLS]);
                }
                for row in (0..a.rows).step_by(TILE_ROWS) {
                    let rows = TILE_ROWS.min(a.rows - row);
                    let (a_start, a_row, a_col) = if pack_a {
                        pack_a_strip(a, row, rows, start, depth, strip);
                        (strip.as_ptr(), 1, TILE_ROWS)
                    } else {
                        (a.data[row * a.row_stride + start..].as_ptr(), a.row_stride, 1)
                    };
                    for panel in first_panel..last_panel {
                        let col = panel * TILE_COLS;
                        let from = (panel - first_panel) * depth * TILE_COLS;
                        let b = panels[from..from + depth * TILE_COLS].as_ptr();
                        let out =
                            Out { start: row * cols + col, rows, cols: TILE_COLS.min(cols - col), stride: cols, add };
                        // SAFETY: the strip holds `rows` rows and `depth` columns of A at these strides, the panel holds
                        // `depth` rows of `TILE_COLS`, and `out` lies inside `c` since its rows and columns do.
                        unsafe { tile_at::<V>(depth, Strip { start: a_start, row: a_row, col: a_col }, b, c, out) };
                    }
                }
            }
        }
    }
}

/// Where a strip of A starts and how far apart its rows and columns are.
#[derive(Clone, Copy)]
struct Strip {
    start: *const f32,
    row: usize,
    col: usize,
}

/// The part of C that a tile covers.
#[derive(Clone, Copy)]
struct Out {
    start: usize,
    rows: usize,
    cols: usize,
    stride: usize,
    add: bool,
}

/// Copies `depth` rows of 16 columns of B from `(row, col)` on; columns past the edge become zero.
#[inline(always)]
fn pack_b(b: MatRef<'_>, row: usize, depth: usize, col: usize, to: &mut [f32]) {
    let cols = TILE_COLS.min(b.cols - col);
    let (to, _) = to.as_chunks_mut::<TILE_COLS>();
    if b.col_stride == 1 {
        for (p, to) in to[..depth].iter_mut().enumerate() {
            let from = &b.data[(row + p) * b.row_stride + col..][..cols];
            if let Ok(from) = <&[f32; TILE_COLS]>::try_from(from) {
                *to = *from;
            } else {
                to.fill(0.0);
                to[..cols].copy_from_slice(from);
            }
        }
        return;
    }
    for j in 0..TILE_COLS {
        if j < cols {
            let from = &b.data[(col + j) * b.col_stride + row..][..depth];
            for (to, from) in to.iter_mut().zip(from) {
                to[j] = *from;
            }
        } else {
            to[..depth].iter_mut().for_each(|to| to[j] = 0.0);
        }
    }
}

/// Copies a column-major strip so that its rows are adjacent: `to[p * 6 + i] = a[row + i, start + p]`.
#[inline(always)]
fn pack_a_strip(a: MatRef<'_>, row: usize, rows: usize, start: usize, depth: usize, to: &mut [f32]) {
    for p in 0..depth {
        let at = (start + p) * a.col_stride + row;
        let to = &mut to[p * TILE_ROWS..];
        // Two numbers more than the strip has rows, in one move: the next position overwrites them.
        match (to.first_chunk_mut::<LANES>(), a.data[at..].first_chunk::<LANES>()) {
            (Some(to), Some(from)) => *to = *from,
            _ => to[..rows].copy_from_slice(&a.data[at..at + rows]),
        }
    }
}

/// Multiplies a strip by a panel and writes the part of the tile that lies inside C.
///
/// # Safety
/// As [`tile`], for `out.rows` rows, and `out` must lie inside `c`.
#[inline(always)]
unsafe fn tile_at<V: Lanes>(depth: usize, a: Strip, b: *const f32, c: &mut [f32], out: Out) {
    let (rows, cols, stride) = (out.rows, out.cols, out.stride);
    if rows == TILE_ROWS && cols == TILE_COLS {
        let to = &mut c[out.start..out.start + (TILE_ROWS - 1) * stride + TILE_COLS];
        // SAFETY: the caller's promise; the slice just taken covers the whole tile.
        return unsafe { tile::<V, TILE_ROWS, 2>(depth, a.start, a.row, a.col, b, to.as_mut_ptr(), stride, out.add) };
    }
    let mut edge = [0.0_f32; TILE_ROWS * TILE_COLS];
    let to = edge.as_mut_ptr();
    // SAFETY: the caller's promise for `rows` rows; `edge` holds a full tile.
    unsafe {
        match rows {
            1 => tile::<V, 1, 2>(depth, a.start, a.row, a.col, b, to, TILE_COLS, false),
            2 => tile::<V, 2, 2>(depth, a.start, a.row, a.col, b, to, TILE_COLS, false),
            3 => tile::<V, 3, 2>(depth, a.start, a.row, a.col, b, to, TILE_COLS, false),
            4 => tile::<V, 4, 2>(depth, a.start, a.row, a.col, b, to, TILE_COLS, false),
            5 => tile::<V, 5, 2>(depth, a.start, a.row, a.col, b, to, TILE_COLS, false),
            _ => tile::<V, TILE_ROWS, 2>(depth, a.start, a.row, a.col, b, to, TILE_COLS, false),
        }
    }
    for i in 0..rows {
        let to = &mut c[out.start + i * stride..][..cols];
        for (to, from) in to.iter_mut().zip(&edge[i * TILE_COLS..]) {
            *to = if out.add { *to + from } else { *from };
        }
    }
}

/// `c[i, j] (+)= sum_p a[i, p] b[p, j]` for `ROWS` rows and `VECTORS` vectors of columns, all sums in registers.
///
/// # Safety
/// `a` must be valid for reads at `i * a_row + p * a_col`, `b` for `depth` rows of `VECTORS` whole vectors, `c` for
/// `ROWS` rows of as many, `c_row` apart.
#[expect(clippy::too_many_arguments, reason = "three operands with their strides, passed in registers")]
#[inline(always)]
pub(super) unsafe fn tile<V: Lanes, const ROWS: usize, const VECTORS: usize>(
    depth: usize,
    a: *const f32,
    a_row: usize,
    a_col: usize,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let mut sums = [[V::zero(); VECTORS]; ROWS];
    // SAFETY: every address is one of those that the caller promised.
    unsafe {
        for p in 0..depth {
            let mut columns = [V::zero(); VECTORS];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = V::load_ptr(b.add((p * VECTORS + j) * LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let factor = V::splat(*a.add(i * a_row + p * a_col));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = factor.mul_add(column, *sum);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                let to = c.add(i * c_row + j * LANES);
                if add { V::load_ptr(to).add(sum).store_ptr(to) } else { sum.store_ptr(to) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;
    use super::*;
    use rand::RngExt;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn random(n: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn element(m: MatRef<'_>, i: usize, j: usize) -> f64 {
        f64::from(m.data[i * m.row_stride + j * m.col_stride])
    }

    fn check(rows: usize, inner: usize, cols: usize, a_flipped: bool, b_flipped: bool) {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (a, b) = (random(rows * inner, &mut rng), random(inner * cols, &mut rng));
        let a = if a_flipped { MatRef::new(&a, inner, rows).transposed() } else { MatRef::new(&a, rows, inner) };
        let b = if b_flipped { MatRef::new(&b, cols, inner).transposed() } else { MatRef::new(&b, inner, cols) };
        for write in [Write::Set, Write::Add] {
            let before = random(rows * cols, &mut rng);
            let mut got = before.clone();
            gemm(write, a, b, &mut got);
            let mut portable = before.clone();
            Gemm { write, a, b, c: &mut portable, packed: &mut Vec::new() }.run::<Portable>();
            assert_eq!(got, portable, "lanes disagree at {rows} x {inner} x {cols}");
            for i in 0..rows {
                for j in 0..cols {
                    let product: f64 = (0..inner).map(|p| element(a, i, p) * element(b, p, j)).sum();
                    let old = if write == Write::Add { f64::from(before[i * cols + j]) } else { 0.0 };
                    let error = (f64::from(got[i * cols + j]) - product - old).abs();
                    assert!(
                        error < 1e-6 * (inner as f64 + 4.0),
                        "{rows} x {inner} x {cols} at ({i}, {j}): off by {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_definition_at_every_layout_and_odd_size() {
        for (rows, inner, cols) in
            [(1, 1, 1), (6, 8, 16), (7, 3, 17), (13, 64, 31), (5, 300, 9), (64, 257, 20), (3, 0, 4)]
        {
            for (a_flipped, b_flipped) in [(false, false), (false, true), (true, false), (true, true)] {
                check(rows, inner, cols, a_flipped, b_flipped);
            }
        }
    }
}
