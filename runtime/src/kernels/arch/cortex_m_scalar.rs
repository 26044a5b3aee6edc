//! Cortex-M0 and M3: one product at a time, and no FPU.
//!
//! Rows are summed side by side, so that an activation is loaded once for several products: eight on the M3, whose `mla` adds a product to
//! any register, four on the M0.

mod int4;

#[cfg(feature = "cortex-m3")]
use core::arch::asm;
use core::slice;

use crate::kernels::backend::Backend;
use crate::kernels::generic;
use crate::kernels::soft_float::{self, OutputScale};
use crate::layout::WeightLayout;
use crate::math;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows of a block of the layout.
const ROWS: usize = 8;
/// Two columns of a block: of each row two bytes.
type Tile = [u8; 2 * ROWS];
/// Two activations.
type Pair = [i16; 2];

/// The loops of this file.
#[derive(Clone, Copy, Debug)]
pub struct CortexMScalar;

impl Backend for CortexMScalar {
    const NAME: &'static str = "cortex-m-scalar";
    const LAYOUT: WeightLayout = WeightLayout::Rows8;

    fn matmul_rows(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        let n_rows = out.len() / x.n_tokens().max(1);
        if n_rows == 0 || !first_row.is_multiple_of(ROWS) {
            return generic::matmul_rows(out, first_row, w, x);
        }
        let n_tiles = w.cols().div_ceil(2);
        let tiles = w.data().as_chunks().0.get(first_row / ROWS * n_tiles..).unwrap_or(&[]);
        for (token_idx, out) in out.chunks_mut(n_rows).enumerate() {
            let pairs = x.values(token_idx).as_chunks().0;
            let Some(pairs) = pairs.get(..n_tiles) else { continue };
            let x_scales = x.scales(token_idx);
            match w.scales() {
                Scales::PerRow(scales) => {
                    let scales = scales.get(first_row..).unwrap_or(&[]);
                    let x_scale = OutputScale::new(x_scales.first().copied().unwrap_or(0.0));
                    per_row(out, tiles, scales, pairs, x_scale);
                }
                Scales::PerGroup(scales) => {
                    let scales = scales.get(first_row * x_scales.len()..).unwrap_or(&[]);
                    per_group(out, tiles, scales.as_chunks().0, pairs, x_scales);
                }
            }
        }
    }

    fn matmul_rows_int4(self, out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
        int4::matmul_rows(out, first_row, w, x);
    }

    soft_float::float_kernels!(soft_float::quantize_to);
}

/// One token's `out`, `(rows,)`, with a scale a row.
fn per_row(out: &mut [f32], tiles: &[Tile], scales: &[f32], pairs: &[Pair], x_scale: OutputScale) {
    let blocks = tiles.chunks_exact(pairs.len().max(1)).zip(scales.chunks_exact(ROWS));
    for (out, (tiles, scales)) in out.chunks_mut(ROWS).zip(blocks) {
        for ((out, dot), scale) in out.iter_mut().zip(dots(tiles, pairs)).zip(scales) {
            *out = x_scale.apply(dot, *scale);
        }
    }
}

/// The same with a scale a group.
fn per_group(out: &mut [f32], tiles: &[Tile], scales: &[[u16; ROWS]], pairs: &[Pair], x_scales: &[f32]) {
    let blocks = tiles.chunks_exact(pairs.len().max(1)).zip(scales.chunks_exact(x_scales.len().max(1)));
    for (out, (tiles, scales)) in out.chunks_mut(ROWS).zip(blocks) {
        let groups = tiles.chunks(GROUP_SIZE / 2).zip(pairs.chunks(GROUP_SIZE / 2));
        for (group_idx, ((tiles, pairs), (scales, x_scale))) in groups.zip(scales.iter().zip(x_scales)).enumerate() {
            let x_scale = OutputScale::new(*x_scale);
            for ((out, dot), &scale) in out.iter_mut().zip(dots(tiles, pairs)).zip(scales) {
                let scaled = x_scale.apply(dot, math::bf16_to_f32(scale));
                if group_idx == 0 {
                    *out = scaled;
                } else {
                    soft_float::add_to(slice::from_mut(out), &[scaled]);
                }
            }
        }
    }
}

/// The dot products of a block's rows with as many columns as there are of both; exact in 32 bits.
///
/// All eight sums lie in registers, which no compiler finds: two products of a row take four instructions, and what a tile takes besides,
/// to load its activations and to go on, five.
#[cfg(feature = "cortex-m3")]
fn dots(tiles: &[Tile], pairs: &[Pair]) -> [i32; ROWS] {
    let n_tiles = tiles.len().min(pairs.len());
    let mut sums = [0i32; ROWS];
    if n_tiles == 0 {
        return sums;
    }
    let [a, b, c, d, e, f, g, h] = &mut sums;
    // SAFETY: reads `n_tiles` tiles, 16 bytes each, and as many pairs, which both slices have; r6 is given back. Loads of bytes and
    // halfwords need no more alignment than the types have.
    unsafe {
        asm!(
            "push {{r6}}",
            "2:",
            "ldrsh lr, [r1], #4",
            "ldrsb r6, [r0]\n mla r3, r6, lr, r3",
            "ldrsb r6, [r0, #2]\n mla r4, r6, lr, r4",
            "ldrsb r6, [r0, #4]\n mla r5, r6, lr, r5",
            "ldrsb r6, [r0, #6]\n mla r8, r6, lr, r8",
            "ldrsb r6, [r0, #8]\n mla r9, r6, lr, r9",
            "ldrsb r6, [r0, #10]\n mla r10, r6, lr, r10",
            "ldrsb r6, [r0, #12]\n mla r11, r6, lr, r11",
            "ldrsb r6, [r0, #14]\n mla r12, r6, lr, r12",
            "ldrsh lr, [r1, #-2]",
            "ldrsb r6, [r0, #1]\n mla r3, r6, lr, r3",
            "ldrsb r6, [r0, #3]\n mla r4, r6, lr, r4",
            "ldrsb r6, [r0, #5]\n mla r5, r6, lr, r5",
            "ldrsb r6, [r0, #7]\n mla r8, r6, lr, r8",
            "ldrsb r6, [r0, #9]\n mla r9, r6, lr, r9",
            "ldrsb r6, [r0, #11]\n mla r10, r6, lr, r10",
            "ldrsb r6, [r0, #13]\n mla r11, r6, lr, r11",
            "ldrsb r6, [r0, #15]\n mla r12, r6, lr, r12",
            "adds r0, #16",
            "cmp r1, r2",
            "bne 2b",
            "pop {{r6}}",
            inout("r0") tiles.as_ptr() => _,
            inout("r1") pairs.as_ptr() => _,
            in("r2") pairs.as_ptr().wrapping_add(n_tiles),
            inout("r3") *a, inout("r4") *b, inout("r5") *c, inout("r8") *d,
            inout("r9") *e, inout("r10") *f, inout("r11") *g, inout("r12") *h,
            out("lr") _,
            options(readonly),
        );
    }
    sums
}

/// The dot products of a block's rows with as many columns as there are of both; exact in 32 bits.
#[cfg(not(feature = "cortex-m3"))]
#[inline(never)]
fn dots(tiles: &[Tile], pairs: &[Pair]) -> [i32; ROWS] {
    let [a, b, c, d] = four_dots::<0>(tiles, pairs);
    let [e, f, g, h] = four_dots::<{ ROWS / 2 }>(tiles, pairs);
    [a, b, c, d, e, f, g, h]
}

/// Those of the four rows from `FIRST`: more sums at a time do not fit the registers. Written out, or the sums would lie in memory.
#[cfg(not(feature = "cortex-m3"))]
#[inline(always)]
fn four_dots<const FIRST: usize>(tiles: &[Tile], pairs: &[Pair]) -> [i32; 4] {
    let [mut a, mut b, mut c, mut d] = [0i32; 4];
    for (tile, &pair) in tiles.iter().zip(pairs) {
        a = add_products(a, tile, FIRST, pair);
        b = add_products(b, tile, FIRST + 1, pair);
        c = add_products(c, tile, FIRST + 2, pair);
        d = add_products(d, tile, FIRST + 3, pair);
    }
    [a, b, c, d]
}

#[cfg(not(feature = "cortex-m3"))]
#[inline(always)]
fn add_products(sum: i32, tile: &Tile, row: usize, [x, y]: Pair) -> i32 {
    let (w, v) = (i32::from(tile[2 * row] as i8), i32::from(tile[2 * row + 1] as i8));
    sum.wrapping_add(w * i32::from(x)).wrapping_add(v * i32::from(y))
}
