//! Matrix products of int4: a multiplication serves two rows.
//!
//! A word of [`WeightLayout::Rows8`](crate::layout::WeightLayout::Rows8) has four columns of two rows, half a byte each, `w + 8`. Shifted and
//! masked it is one column of both, 16 bits apart, and their sums fit 16 bits each once the eights are taken off again.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::ROWS;
use crate::kernels::soft_float::grouped::{GroupScale, add_sums};
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Columns of a tile.
const COLUMNS: usize = 4;
/// Tiles of a group.
const GROUP_TILES: usize = GROUP_SIZE / COLUMNS;
/// Four columns of a block: of each two rows a word.
type Tile = [u32; ROWS / 2];

/// The activations of a group, which may be a shorter last one.
struct Group {
    x: [[i32; COLUMNS]; GROUP_TILES],
    n_tiles: usize,
    /// What the eights of its weights add, negative.
    offset: i32,
}

impl Group {
    /// From at most a group's activations.
    fn new(x: &[i16]) -> Self {
        let mut group = Self { x: [[0; COLUMNS]; GROUP_TILES], n_tiles: x.len().div_ceil(COLUMNS), offset: 0 };
        for (to, x) in group.x.as_flattened_mut().iter_mut().zip(x) {
            *to = i32::from(*x);
            group.offset -= 8 * *to;
        }
        group
    }
}

/// See [`crate::kernels::Kernels::matmul_rows`].
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    let (Scales::PerGroup(scales), Ok(words)) = (w.scales(), bytemuck::try_cast_slice(w.data())) else {
        // A linked model's matrices start at whole words.
        #[cfg(not(feature = "linked-model"))]
        crate::kernels::generic::matmul_rows(out, first_row, w, x);
        return;
    };
    let first_block = first_row / ROWS;
    let (n_tiles, n_groups) = (w.cols().div_ceil(COLUMNS), w.cols().div_ceil(GROUP_SIZE));
    let tiles: &[Tile] = words.as_chunks().0.get(first_block * n_tiles..).unwrap_or_default();
    let scales: &[[u16; ROWS]] = scales.as_chunks().0.get(first_block * n_groups..).unwrap_or_default();
    for (token_idx, out) in out.chunks_mut(n_rows.max(1)).enumerate() {
        let groups = x.values(token_idx).chunks(GROUP_SIZE).zip(x.scales(token_idx));
        for (group_idx, (x, &x_scale)) in groups.enumerate() {
            let (group, x_scale) = (Group::new(x), GroupScale::new(x_scale));
            let tiles = tiles.get(group_idx * GROUP_TILES..).unwrap_or_default().chunks(n_tiles.max(1));
            let scales = scales.get(group_idx..).unwrap_or_default().iter().step_by(n_groups.max(1));
            for (out, (tiles, scales)) in out.chunks_mut(ROWS).zip(tiles.zip(scales)) {
                add_sums(out, &dots(tiles, &group), scales, x_scale, group_idx == 0);
            }
        }
    }
}

/// A column of two rows, in place for both, times its activation, added to both sums.
#[cfg(feature = "cortex-m3")]
macro_rules! two_rows {
    ($sums:literal) => {
        concat!(
            "ldr r6, [r0], #4\n and r7, r9, r6\n mla ",
            $sums,
            ", r7, r10, ",
            $sums,
            "\n and r7, r9, r6, lsr #8\n mla ",
            $sums,
            ", r7, r11, ",
            $sums,
            "\n and r7, r9, r6, lsr #4\n mla ",
            $sums,
            ", r7, r12, ",
            $sums,
            "\n and r7, r9, r6, lsr #12\n mla ",
            $sums,
            ", r7, lr, ",
            $sums,
            "\n",
        )
    };
}

/// The same where a product takes a register, and sums lie in those that only additions reach.
#[cfg(not(feature = "cortex-m3"))]
macro_rules! two_rows {
    ($sums:literal) => {
        concat!(
            "ldm r0!, {{r6}}\n movs r7, r6\n ands r7, r1\n muls r7, r2, r7\n add ",
            $sums,
            ", r7\n lsrs r7, r6, #8\n ands r7, r1\n muls r7, r3, r7\n add ",
            $sums,
            ", r7\n lsrs r7, r6, #4\n ands r7, r1\n muls r7, r4, r7\n add ",
            $sums,
            ", r7\n lsrs r6, r6, #12\n ands r6, r1\n muls r6, r5, r6\n add ",
            $sums,
            ", r6\n",
        )
    };
}

/// Bits of a column of two rows.
const COLUMN: u32 = 0x000f_000f;

/// The dot products of a block's rows with at most a group: nine instructions for eight products.
#[cfg(feature = "cortex-m3")]
#[inline(never)]
fn dots(tiles: &[Tile], group: &Group) -> [i32; ROWS] {
    let n_tiles = group.n_tiles;
    require!((1..=GROUP_TILES).contains(&n_tiles) && tiles.len() >= n_tiles);
    let start = (group.offset as u32).wrapping_mul(0x0001_0001);
    let mut dots = MaybeUninit::<[i32; ROWS]>::uninit();
    // SAFETY: it reads so many tiles and their activations, which the assertion is about, and writes all of `dots`. r6, r7 and the stack are
    // restored.
    unsafe {
        asm!(
            "push {{r4, r6, r7}}",
            "mov r4, r3\n mov r5, r3\n mov r8, r3",
            "2: ldm r1!, {{r10, r11, r12, lr}}",
            two_rows!("r3"),
            two_rows!("r4"),
            two_rows!("r5"),
            two_rows!("r8"),
            "cmp r0, r2\n bne 2b",
            "pop {{r0, r6, r7}}",
            "sxth r9, r3\n sub r3, r3, r9\n asr r10, r3, #16\n sxth r11, r4\n sub r4, r4, r11\n asr r12, r4, #16",
            "stm r0!, {{r9-r12}}",
            "sxth r9, r5\n sub r5, r5, r9\n asr r10, r5, #16\n sxth r11, r8\n sub r8, r8, r11\n asr r12, r8, #16",
            "stm r0, {{r9-r12}}",
            inout("r0") tiles.as_ptr() => _,
            inout("r1") group.x.as_ptr() => _,
            in("r2") tiles.as_ptr().wrapping_add(n_tiles),
            inout("r3") start => _,
            inout("r4") dots.as_mut_ptr() => _,
            inout("r9") COLUMN => _,
            out("r5") _, out("r8") _, out("r10") _, out("r11") _, out("r12") _, out("lr") _,
        );
        dots.assume_init()
    }
}

/// The dot products of a block's rows with at most a group: seventeen instructions for eight products.
#[cfg(not(feature = "cortex-m3"))]
#[inline(never)]
fn dots(tiles: &[Tile], group: &Group) -> [i32; ROWS] {
    let n_tiles = group.n_tiles;
    require!((1..=GROUP_TILES).contains(&n_tiles) && tiles.len() >= n_tiles);
    let start = (group.offset as u32).wrapping_mul(0x0001_0001);
    let mut dots = MaybeUninit::<[i32; ROWS]>::uninit();
    // SAFETY: it reads so many tiles and their activations, which the assertion is about, and writes all of `dots`. r6, r7 and the stack are
    // restored.
    unsafe {
        asm!(
            "push {{r5, r6, r7}}",
            "mov r8, r2\n mov r9, r2\n mov r10, r2\n mov r11, r2\n mov r12, r3\n mov lr, r4",
            // A tile and its activations have as many bytes.
            "2: mov r2, r12\n add r2, r0\n ldm r2, {{r2, r3, r4, r5}}",
            two_rows!("r8"),
            two_rows!("r9"),
            two_rows!("r10"),
            two_rows!("r11"),
            "cmp r0, lr\n bne 2b",
            "pop {{r5, r6, r7}}",
            "mov r4, r8\n sxth r2, r4\n subs r3, r4, r2\n asrs r3, r3, #16\n stm r5!, {{r2, r3}}",
            "mov r4, r9\n sxth r2, r4\n subs r3, r4, r2\n asrs r3, r3, #16\n stm r5!, {{r2, r3}}",
            "mov r4, r10\n sxth r2, r4\n subs r3, r4, r2\n asrs r3, r3, #16\n stm r5!, {{r2, r3}}",
            "mov r4, r11\n sxth r2, r4\n subs r3, r4, r2\n asrs r3, r3, #16\n stm r5!, {{r2, r3}}",
            inout("r0") tiles.as_ptr() => _,
            in("r1") COLUMN,
            inout("r2") start => _,
            inout("r3") group.x.as_ptr().addr().wrapping_sub(tiles.as_ptr().addr()) => _,
            inout("r4") tiles.as_ptr().wrapping_add(n_tiles) => _,
            inout("r5") dots.as_mut_ptr() => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("lr") _,
        );
        dots.assume_init()
    }
}
