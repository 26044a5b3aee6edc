//! Matrix products of int4: a multiplication serves two columns.
//!
//! A word of [`WeightLayout::Rows16`](crate::layout::WeightLayout::Rows16) has eight columns of a row, half a byte each, `w + 8`. Shifted and
//! masked it is two columns, 16 bits apart; times their activations, the other way round 16 bits apart, the sum of both products lies in the
//! upper half, above one cross product. A group's sums of both fit 16 bits, so that what lies below is taken off at the end.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::matmul::ROWS;
use crate::kernels::soft_float::grouped::{GroupScale, add_sums};
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Columns of a word.
const COLUMNS: usize = 8;
/// Words of a group.
const GROUP_WORDS: usize = GROUP_SIZE / COLUMNS;
/// Rows that are summed side by side.
const ROWS_AT_ONCE: usize = ROWS / 2;

/// The activations of a group, which may be a shorter last one.
struct Group {
    /// Factors of a word's four pairs of columns.
    pairs: [[u32; 4]; GROUP_WORDS],
    n_words: usize,
    /// What the eights of its weights add, negative.
    offset: i32,
}

impl Group {
    /// From at most a group's activations.
    fn new(x: &[i16]) -> Self {
        let mut whole = [0; GROUP_SIZE];
        whole.iter_mut().zip(x).for_each(|(whole, x)| *whole = *x);
        let pair = |first: i16, second: i16| (i32::from(first) << 16).wrapping_add(second.into()) as u32;
        let pairs = whole.as_chunks::<COLUMNS>().0.iter().map(|&[a, b, c, d, e, f, g, h]| {
            // A byte has a column of the first four below one of the others.
            [pair(a, c), pair(b, d), pair(e, g), pair(f, h)]
        });
        let mut group = Self { pairs: [[0; 4]; GROUP_WORDS], n_words: x.len().div_ceil(COLUMNS), offset: 0 };
        group.pairs.iter_mut().zip(pairs).for_each(|(to, pairs)| *to = pairs);
        group.offset = -8 * x.iter().map(|&x| i32::from(x)).sum::<i32>();
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
    let (n_words, n_groups) = (w.cols().div_ceil(COLUMNS), w.cols().div_ceil(GROUP_SIZE));
    let words = words.get(first_block * n_words * ROWS..).unwrap_or_default();
    let scales = scales.get(first_block * n_groups * ROWS..).unwrap_or_default();
    for (token_idx, out) in out.chunks_mut(n_rows.max(1)).enumerate() {
        let groups = x.values(token_idx).chunks(GROUP_SIZE).zip(x.scales(token_idx));
        for (group_idx, (x, &x_scale)) in groups.enumerate() {
            let (group, x_scale) = (Group::new(x), GroupScale::new(x_scale));
            let blocks = words.chunks_exact((n_words * ROWS).max(1)).zip(scales.chunks_exact((n_groups * ROWS).max(1)));
            for (out, (words, scales)) in out.chunks_mut(ROWS).zip(blocks) {
                let words = words.get(group_idx * GROUP_WORDS * ROWS..).unwrap_or_default();
                let scales = scales.get(group_idx * ROWS..).unwrap_or_default();
                for (half_idx, out) in out.chunks_mut(ROWS_AT_ONCE).enumerate() {
                    let words = words.get(half_idx * ROWS_AT_ONCE..).unwrap_or_default();
                    let scales = scales.get(half_idx * ROWS_AT_ONCE..).unwrap_or_default();
                    add_sums(out, &dots(words, &group), scales, x_scale, group_idx == 0);
                }
            }
        }
    }
}

/// Eight columns of one row, in the word at `$at`, times their activations, added to `$sum`.
macro_rules! row {
    ($sum:literal, $at:literal) => {
        concat!(
            "lw a0, ",
            $at,
            "(t0)\n and a1, a0, t6\n mul a1, a1, t2\n add ",
            $sum,
            ", ",
            $sum,
            ", a1\n srli a1, a0, 8\n and a1, a1, t6\n mul a1, a1, t3\n add ",
            $sum,
            ", ",
            $sum,
            ", a1\n srli a1, a0, 4\n and a1, a1, t6\n mul a1, a1, t4\n add ",
            $sum,
            ", ",
            $sum,
            ", a1\n srli a0, a0, 12\n and a0, a0, t6\n mul a0, a0, t5\n add ",
            $sum,
            ", ",
            $sum,
            ", a0\n",
        )
    };
}

/// The dot products of eight rows with at most a group: of each tile the first eight. 17 instructions a row and eight columns.
#[inline(never)]
fn dots(tiles: &[u32], group: &Group) -> [i32; ROWS_AT_ONCE] {
    let n_words = group.n_words;
    require!((1..=GROUP_WORDS).contains(&n_words) && tiles.len() >= (n_words - 1) * ROWS + ROWS_AT_ONCE);
    let pairs = group.pairs.as_ptr();
    // What lies below the sums is taken off by rounding to the nearest.
    let start = (group.offset as u32) << 16 | 1 << 15;
    let mut dots = MaybeUninit::<[i32; ROWS_AT_ONCE]>::uninit();
    // SAFETY: it reads eight rows of so many tiles and as many factors, which the assertion is about, and writes all of `dots`.
    unsafe {
        asm!(
            "mv a4, a3\n mv a5, a3\n mv a6, a3\n mv a7, a3\n mv s2, a3\n mv s3, a3\n mv s4, a3",
            "2: lw t2, 0(t1)\n lw t3, 4(t1)\n lw t4, 8(t1)\n lw t5, 12(t1)",
            row!("a3", "0"),
            row!("a4", "4"),
            row!("a5", "8"),
            row!("a6", "12"),
            row!("a7", "16"),
            row!("s2", "20"),
            row!("s3", "24"),
            row!("s4", "28"),
            "addi t0, t0, 64\n addi t1, t1, 16\n bne t1, s5, 2b",
            "srai a3, a3, 16\n srai a4, a4, 16\n srai a5, a5, 16\n srai a6, a6, 16",
            "srai a7, a7, 16\n srai s2, s2, 16\n srai s3, s3, 16\n srai s4, s4, 16",
            "sw a3, 0(a2)\n sw a4, 4(a2)\n sw a5, 8(a2)\n sw a6, 12(a2)",
            "sw a7, 16(a2)\n sw s2, 20(a2)\n sw s3, 24(a2)\n sw s4, 28(a2)",
            inout("t0") tiles.as_ptr() => _,
            inout("t1") pairs => _,
            in("s5") pairs.wrapping_add(n_words),
            in("a2") dots.as_mut_ptr(),
            in("t6") 0x000f_000f,
            inout("a3") start => _,
            out("t2") _, out("t3") _, out("t4") _, out("t5") _,
            out("a0") _, out("a1") _, out("a4") _, out("a5") _, out("a6") _, out("a7") _,
            out("s2") _, out("s3") _, out("s4") _,
            options(nostack),
        );
        dots.assume_init()
    }
}
