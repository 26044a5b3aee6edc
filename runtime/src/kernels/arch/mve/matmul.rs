//! Matrix products: an instruction adds sixteen products of bytes, or eight of halfwords, to a general register.
//!
//! Four rows of [`WeightLayout::Rows4`](crate::layout::WeightLayout::Rows4) are computed at a time, with one pointer for all: sixteen
//! columns of activations are loaded once for the four. Up to 64 columns stay in registers for all rows.
//!
//! Outputs are scaled as vectors of four. A scale times the activations' scale below the normal numbers would be flushed to zero: the
//! least magnitude of these products tells. Where it is normal, so are the outputs, since the other factor is an integer.

use core::slice;

use super::vector_asm;
use crate::cut::{Cut, copy};
use crate::kernels::generic;
use crate::math;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Rows and columns of a tile of the layout.
pub const ROWS: usize = 4;
const COLUMNS: usize = 16;

/// Sums of numbers that are multiples of the last place of `2^-102` are zero or normal, whatever cancels.
pub const LEAST_TO_ADD: f32 = f32::from_bits((127 - 102) << 23);

/// See [`crate::kernels::Kernels::matmul_rows`].
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let columns = w.cols().next_multiple_of(COLUMNS);
    let data = w.data().get(first_row * columns..).unwrap_or(&[]);
    let values = x.values(0);
    let are_words = (data.as_ptr().addr() | values.as_ptr().addr()).is_multiple_of(4);
    // A token's memory has two bytes for each column, so what lies behind a row's last column belongs to it, but for short rows.
    let has_room = columns != 0 && size_of_val(values) >= columns;
    let is_exact = are_words
        && has_room
        && first_row.is_multiple_of(ROWS)
        && match w.scales() {
            Scales::PerRow(scales) => {
                let scales = scales.get(first_row..).unwrap_or(&[]);
                match x.n_tokens() {
                    1 => per_row(out, data, scales, values, columns, x.scales(0)),
                    _ => per_row_of_many(out, data, scales, x, columns),
                }
            }
            Scales::PerGroup(scales) => {
                per_group(out, data, scales.get(first_row * x.scales(0).len()..).unwrap_or(&[]), x, columns)
            }
        };
    if !is_exact {
        generic::matmul_rows(out, first_row, w, x);
    }
}

/// [`per_row`] for each of several tokens.
#[inline(never)]
fn per_row_of_many(out: &mut [f32], data: &[u8], scales: &[f32], x: &ActivationsQ8<'_>, columns: usize) -> bool {
    let n_rows = out.len() / x.n_tokens().max(1);
    let mut tokens = out.chunks_exact_mut(n_rows.max(1)).enumerate();
    tokens.all(|(token_idx, out)| per_row(out, data, scales, x.values(token_idx), columns, x.scales(token_idx)))
}

/// One token's outputs, `(rows,)`, with a scale a row; whether nothing was flushed that counts.
#[inline(never)]
fn per_row(out: &mut [f32], data: &[u8], scales: &[f32], x: &[i16], columns: usize, x_scale: &[f32]) -> bool {
    let (out, rest) = out.as_chunks_mut::<ROWS>();
    let x_scale = x_scale.first().copied().unwrap_or(0.0);
    whole_rows(out, data, scales, x, columns, x_scale)
        && (rest.is_empty() || last_rows(rest, ROWS * out.len(), data, scales, x, columns, x_scale))
}

/// The rows behind the last whole block, computed as one.
#[cold]
fn last_rows(
    rest: &mut [f32],
    first_row: usize,
    data: &[u8],
    scales: &[f32],
    x: &[i16],
    columns: usize,
    x_scale: f32,
) -> bool {
    let mut last = [0.0; ROWS];
    let (data, scales) = (data.cut(first_row * columns..), scales.cut(first_row..));
    let is_exact = whole_rows(slice::from_mut(&mut last), data, scales, x, columns, x_scale);
    copy(rest, last.cut(..rest.len()));
    is_exact
}

/// The rows of whole blocks.
#[inline(always)]
fn whole_rows(out: &mut [[f32; ROWS]], data: &[u8], scales: &[f32], x: &[i16], columns: usize, x_scale: f32) -> bool {
    if out.is_empty() {
        return true;
    }
    require!(size_of_val(x) >= columns && data.len() >= out.len() * ROWS * columns && scales.len() >= out.len() * ROWS);
    // SAFETY: the assertion gives the lengths that they ask for; the caller has looked at the alignment, and that there are whole tiles.
    let least = unsafe {
        if columns == 4 * COLUMNS {
            blocks_of_64(out, data.as_ptr(), scales.as_ptr(), x.as_ptr().cast(), x_scale)
        } else {
            blocks(out, data.as_ptr(), scales.as_ptr(), x.as_ptr().cast(), columns, x_scale)
        }
    };
    least >= f32::MIN_POSITIVE || are_flush_free(scales, x_scale)
}

/// Whether vectors give the product of each scale and `x_scale`.
#[cold]
fn are_flush_free(scales: &[f32], x_scale: f32) -> bool {
    scales.iter().all(|&scale| is_flush_free(scale, x_scale, f32::MIN_POSITIVE))
}

/// Whether vectors give the product of two scales, one of which may be 0, and it is above `least` otherwise.
///
/// Above, for what rounds up to the least normal number is flushed.
#[cold]
pub fn is_flush_free(scale: f32, x_scale: f32, least: f32) -> bool {
    let is_zero = scale == 0.0 || x_scale == 0.0;
    is_zero || scale.is_normal() && x_scale.is_normal() && (scale * x_scale).abs() > least
}

/// Scales the four sums in r0, r2, r4 and r8 to `out` at r9, with the scales at r5; needs the registers that `$x_scale` and `$least` name.
macro_rules! scale_rows {
    ($x_scale:literal, $least:literal) => {
        concat!(
            "vmov q0[2], q0[0], r0, r4\n vmov q0[3], q0[1], r2, r8\n vldrw.u32 q1, [r5], #16\n vcvt.f32.s32 q0, q0\n",
            "vmul.f32 q1, q1, ",
            $x_scale,
            "\n vminnma.f32 ",
            $least,
            ", q1\n vmul.f32 q0, q0, q1\n vstrw.32 q0, [r9], #16\n",
        )
    };
}

/// Four rows of a tile, which starts at `$at` from r1, times the activations in `$x`; `$first` is the first row's load and may move r1.
macro_rules! add_tile {
    ($first:literal, $second:literal, $third:literal, $fourth:literal, $add:literal, $x:literal) => {
        concat!(
            "vldrw.u32 q0, [r1",
            $first,
            "\n ",
            $add,
            " r0, q0, ",
            $x,
            "\n",
            "vldrw.u32 q1, [r1, #",
            $second,
            "]\n ",
            $add,
            " r2, q1, ",
            $x,
            "\n",
            "vldrw.u32 q0, [r1, #",
            $third,
            "]\n ",
            $add,
            " r4, q0, ",
            $x,
            "\n",
            "vldrw.u32 q1, [r1, #",
            $fourth,
            "]\n ",
            $add,
            " r8, q1, ",
            $x,
            "\n",
        )
    };
}

/// Writes the scaled outputs of blocks of four rows with 64 columns to `out`; gives the least magnitude of a scale times `x_scale`.
///
/// # Safety
/// `out` is not empty. `data` and `x` start at whole words; `data` is valid for reads of `out.len() * 256` bytes, `x` of 64, and `scales`
/// of `out.len() * 4` floats.
#[inline(always)]
unsafe fn blocks_of_64(
    out: &mut [[f32; ROWS]],
    data: *const u8,
    scales: *const f32,
    x: *const i8,
    x_scale: f32,
) -> f32 {
    let mut least = f32::INFINITY.to_bits();
    // SAFETY: it reads what the caller vouches for, and writes `out`.
    unsafe {
        vector_asm!(
            "vldrw.u32 q4, [r3]\n vldrw.u32 q5, [r3, #16]\n vldrw.u32 q6, [r3, #32]\n vldrw.u32 q7, [r3, #48]",
            "vdup.32 q3, r12",
            "dls lr, lr",
            "2:",
            add_tile!("], #256", "-240", "-224", "-208", "vmladav.s8", "q4"),
            add_tile!(", #-192]", "-176", "-160", "-144", "vmladava.s8", "q5"),
            add_tile!(", #-128]", "-112", "-96", "-80", "vmladava.s8", "q6"),
            add_tile!(", #-64]", "-48", "-32", "-16", "vmladava.s8", "q7"),
            scale_rows!("r10", "q3"),
            "le lr, 2b",
            "vminnmav.f32 r12, q3",
            inout("r1") data => _,
            in("r3") x,
            inout("r5") scales => _,
            inout("r9") out.as_mut_ptr() => _,
            in("r10") x_scale.to_bits(),
            inout("r12") least,
            inout("lr") out.len() => _,
            out("r0") _, out("r2") _, out("r4") _, out("r8") _,
        );
    }
    f32::from_bits(least)
}

/// The same for any number of columns.
///
/// # Safety
/// As for [`blocks_of_64`], with `columns`, whole sixteens and not none, in place of 64.
#[inline(always)]
unsafe fn blocks(
    out: &mut [[f32; ROWS]],
    data: *const u8,
    scales: *const f32,
    x: *const i8,
    columns: usize,
    x_scale: f32,
) -> f32 {
    let range = out.as_mut_ptr_range();
    let tiles = columns / COLUMNS;
    let least: u32;
    // SAFETY: it reads what the caller vouches for, writes `out`, and restores the stack.
    unsafe {
        vector_asm!(
            "vdup.32 q6, r2\n vdup.32 q7, r4",
            // Where the tiles behind the last whole four are entered, 36 bytes of code each.
            "adr.w r0, 4f\n movs r2, #36\n mls r0, lr, r2, r0\n adds r0, #1\n push {{r0, r2}}",
            "1: mov r3, r10\n clrm {{r0, r2, r4, r8}}\n wls lr, r12, 3f",
            "2:\n .rept 4\n vldrw.u32 q2, [r3], #16",
            add_tile!("], #64", "-48", "-32", "-16", "vmladava.s8", "q2"),
            ".endr\n le lr, 2b",
            "3: ldr pc, [sp]",
            ".p2align 2",
            ".rept 3\n vldrw.u32 q2, [r3], #16",
            add_tile!("], #64", "-48", "-32", "-16", "vmladava.s8", "q2"),
            ".endr\n 4:",
            scale_rows!("q7", "q6"),
            "cmp r9, r11\n bne 1b",
            "pop {{r0, r2}}\n mov r0, #0x7f800000\n vminnmav.f32 r0, q6",
            out("r0") least,
            inout("r1") data => _,
            inout("r2") f32::INFINITY.to_bits() => _,
            out("r3") _,
            inout("r4") x_scale.to_bits() => _,
            inout("r5") scales => _,
            out("r8") _,
            inout("r9") range.start => _,
            in("r10") x,
            in("r11") range.end,
            in("r12") tiles / 4,
            inout("lr") tiles % 4 => _,
        );
    }
    f32::from_bits(least)
}

/// The outputs with a scale a group; whether nothing was flushed that counts.
#[inline(never)]
fn per_group(out: &mut [f32], data: &[u8], scales: &[u16], x: &ActivationsQ8<'_>, columns: usize) -> bool {
    let n_rows = out.len() / x.n_tokens().max(1);
    (0..x.n_tokens()).all(|token_idx| {
        let (out, x_scales) = (&mut out[token_idx * n_rows..][..n_rows], x.scales(token_idx));
        let (values, last) = x.values(token_idx)[..x.cols()].as_chunks::<GROUP_SIZE>();
        let x = Groups { whole: values, last, scales: x_scales };
        let (whole, rest) = out.as_chunks_mut::<ROWS>();
        let mut least = group_blocks(whole, data, scales, &x, columns);
        if !rest.is_empty() {
            let (mut last, first_row) = ([[0.0; ROWS]], ROWS * whole.len());
            let (data, scales) = (&data[first_row * columns..], &scales[first_row * x_scales.len()..]);
            least = least.min(group_blocks(&mut last, data, scales, &x, columns));
            rest.copy_from_slice(&last[0][..rest.len()]);
        }
        least >= LEAST_TO_ADD
            || scales.chunks_exact(ROWS).zip(x_scales.iter().cycle()).all(|(scales, &x_scale)| {
                scales.iter().all(|&scale| is_flush_free(math::bf16_to_f32(scale), x_scale, LEAST_TO_ADD))
            })
    })
}

/// One token's activations in groups.
struct Groups<'a> {
    whole: &'a [[i16; GROUP_SIZE]],
    /// The shorter last group, if there is one.
    last: &'a [i16],
    /// A scale a group.
    scales: &'a [f32],
}

/// The outputs of whole blocks for one token: first all whole groups, then the last. Gives the least magnitude of a scale times its `x_scale`.
fn group_blocks(out: &mut [[f32; ROWS]], data: &[u8], scales: &[u16], x: &Groups<'_>, columns: usize) -> f32 {
    if out.is_empty() {
        return f32::INFINITY;
    }
    let (n_whole, groups) = (x.whole.len(), x.whole.len() + usize::from(!x.last.is_empty()));
    let [whole_bytes, block_bytes] = [ROWS * n_whole * GROUP_SIZE, ROWS * columns];
    require!(columns >= n_whole * GROUP_SIZE + x.last.len() && x.scales.len() >= groups);
    require!(data.len() >= out.len() * block_bytes && scales.len() >= out.len() * ROWS * groups);
    fill(out, -0.0);
    let mut least = f32::INFINITY;
    if n_whole != 0 {
        let skipped = [block_bytes - whole_bytes, size_of::<u16>() * ROWS * (groups - n_whole)];
        // SAFETY: the assertions give the lengths that it asks for; the caller has looked at the alignment.
        least = unsafe { add_groups::<2>(out, (data.as_ptr(), scales.as_ptr()), skipped, x.whole, x.scales.as_ptr()) };
    }
    if !x.last.is_empty() {
        let skipped = [whole_bytes, size_of::<u16>() * ROWS * n_whole];
        let starts = (data[whole_bytes..].as_ptr(), scales[ROWS * n_whole..].as_ptr());
        let mut last = [[0; GROUP_SIZE]];
        last[0][..x.last.len()].copy_from_slice(x.last);
        let add = if x.last.len() > COLUMNS { add_groups::<2> } else { add_groups::<1> };
        // SAFETY: likewise; of a last group of at most 16 columns there is one tile.
        least = least.min(unsafe { add(out, starts, skipped, &last, &x.scales[n_whole]) });
    }
    least
}

/// Fills `out` with `value`.
pub fn fill(out: &mut [[f32; ROWS]], value: f32) {
    // SAFETY: it writes `out`.
    unsafe {
        vector_asm!(
            "vdup.32 q0, r1\n wls lr, lr, 3f",
            "2: vstrw.32 q0, [r0], #16\n le lr, 2b\n 3:",
            inout("r0") out.as_mut_ptr() => _,
            in("r1") value.to_bits(),
            inout("lr") out.len() => _,
        );
    }
}

/// Adds the scaled products of `x`, summed group after group, to `out`; gives the least magnitude of a scale times its `x_scale`.
///
/// Of each group `TILES` tiles of weights are read: the rest of a row may have one. A block of four rows starts so many bytes behind the
/// end of the one before as `skipped` says, of the weights and of the scales.
///
/// # Safety
/// `out` and `x` are not empty. Weights, for whole blocks as described, scales, four a group, and as many `x_scales` as groups are valid for
/// reads. `x` starts at a whole word.
#[inline(never)]
unsafe fn add_groups<const TILES: usize>(
    out: &mut [[f32; ROWS]],
    (data, scales): (*const u8, *const u16),
    skipped: [usize; 2],
    x: &[[i16; GROUP_SIZE]],
    x_scales: *const f32,
) -> f32 {
    let range = out.as_mut_ptr_range();
    let least: u32;
    // SAFETY: it reads what the caller vouches for, writes `out`, and restores the stack.
    unsafe {
        vector_asm!(
            // On the stack: +0 x, +4 its scales, +8 the end of out, +12 and +16 what is skipped.
            "push {{r0, r2, r4, r8, r12}}\n vdup.32 q6, r3",
            "1: ldrd r3, r9, [sp]\n vldrw.u32 q5, [r11]\n dls lr, r10",
            "2: clrm {{r0, r2, r4, r8}}",
            ".rept {tiles}\n vldrh.u16 q3, [r3], #16\n vldrh.u16 q4, [r3], #16",
            "vldrb.s16 q0, [r1], #64\n vmladava.s16 r0, q0, q3\n vldrb.s16 q1, [r1, #-56]\n vmladava.s16 r0, q1, q4",
            "vldrb.s16 q0, [r1, #-48]\n vmladava.s16 r2, q0, q3\n vldrb.s16 q1, [r1, #-40]\n vmladava.s16 r2, q1, q4",
            "vldrb.s16 q0, [r1, #-32]\n vmladava.s16 r4, q0, q3\n vldrb.s16 q1, [r1, #-24]\n vmladava.s16 r4, q1, q4",
            "vldrb.s16 q0, [r1, #-16]\n vmladava.s16 r8, q0, q3\n vldrb.s16 q1, [r1, #-8]\n vmladava.s16 r8, q1, q4",
            ".endr",
            "vmov q0[2], q0[0], r0, r4\n vmov q0[3], q0[1], r2, r8\n vcvt.f32.s32 q0, q0",
            // A bfloat16 is the upper half of a float.
            "vldrh.u32 q1, [r5], #8\n vshl.i32 q1, q1, #16\n ldr r12, [r9], #4",
            "vmul.f32 q1, q1, r12\n vminnma.f32 q6, q1\n vmul.f32 q0, q0, q1\n vadd.f32 q5, q5, q0",
            "le lr, 2b",
            "vstrw.32 q5, [r11], #16\n ldrd r0, r2, [sp, #12]\n adds r1, r1, r0\n adds r5, r5, r2",
            "ldr r12, [sp, #8]\n cmp r11, r12\n bne 1b",
            "add sp, #20\n mov r0, #0x7f800000\n vminnmav.f32 r0, q6",
            tiles = const TILES,
            inout("r0") x.as_ptr() => least,
            inout("r1") data => _,
            inout("r2") x_scales => _,
            inout("r3") f32::INFINITY.to_bits() => _,
            inout("r4") range.end => _,
            inout("r5") scales => _,
            inout("r8") skipped[0] => _,
            out("r9") _,
            in("r10") x.len(),
            inout("r11") range.start => _,
            inout("r12") skipped[1] => _,
            out("lr") _,
        );
    }
    f32::from_bits(least)
}
