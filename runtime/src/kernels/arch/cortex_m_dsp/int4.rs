//! Matrix products of int4.
//!
//! In [`WeightLayout::RowPairs`](crate::layout::WeightLayout::RowPairs) a word holds two columns of four rows, a nibble each, so placed that a
//! mask leaves two rows in each 16-bit lane: one product for both. Of `S0` to `S3`, the rows' exact sums, which have 16 bits:
//!
//! ```text
//! and t, mask, w          smlad p, t, x, p     p = S0 + 4096 * S1
//! and t, mask, w, ror #8  smlad q, t, x, q     q = S2 + 4096 * S3
//! and w, w, #0x0f0f0f0f   smlad r, w, x, r     r = S0 + 256 * S2
//! ```
//!
//! Eight products take six instructions. Rows 1 and 3 lie at the top of lanes and have a sign; 8 was added to rows 0 and 2, so the sums start
//! from -8 times the sum of the activations. Modulo `2^32`, `r - 256 * q` is `S0` in its lower 16 bits, and the others follow.

use core::arch::asm;

use super::matmul::{ROWS, are_words};
use crate::cut::Cut;
use crate::math;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Groups whose activations are summed up before the rows are gone through.
const GROUPS_MAX: usize = 32;

/// Bytes of a block's columns: half a byte for each of four rows.
const fn block_bytes(cols: usize) -> usize {
    cols * ROWS / 2
}

/// What a group of activations brings into each row's sums.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Group {
    /// -8 times the sum of the activations.
    offset: i32,
    scale: f32,
}

/// See [`crate::kernels::Kernels::matmul_rows`].
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    let block_bytes = block_bytes(w.cols().next_multiple_of(4));
    let data = w.data().get(first_row / ROWS * block_bytes..).unwrap_or(&[]);
    let Scales::PerGroup(scales) = w.scales() else { return };
    let are_aligned = are_words(data, x.values(0)) && scales.as_ptr().addr().is_multiple_of(4);
    if !are_aligned || n_rows == 0 || !first_row.is_multiple_of(ROWS) {
        // A linked model's matrices and an arena's buffers start at whole words.
        #[cfg(not(feature = "linked-model"))]
        crate::kernels::generic::matmul_rows(out, first_row, w, x);
        return;
    }
    for (token_idx, out) in out.chunks_exact_mut(n_rows.max(1)).enumerate() {
        let (values, x_scales) = (x.values(token_idx), x.scales(token_idx));
        let scales = scales.get(first_row * x_scales.len()..).unwrap_or(&[]);
        token(out, data, scales.as_chunks().0, values, x_scales);
    }
}

/// One token's `out`, `(rows,)`: the whole groups, as many at a time as [`GROUPS_MAX`], then the shorter last one.
fn token(out: &mut [f32], data: &[u8], scales: &[[u16; ROWS]], values: &[i16], x_scales: &[f32]) {
    let (whole, rest) = values.as_chunks::<GROUP_SIZE>();
    out.fill(-0.0);
    for (idx, x) in whole.chunks(GROUPS_MAX).enumerate() {
        let first_group = idx * GROUPS_MAX;
        let mut groups = [Group::default(); GROUPS_MAX + 1];
        for ((group, x), &scale) in groups.iter_mut().zip(x).zip(x_scales.cut(first_group..)) {
            *group = Group { offset: -8 * sum_of(x), scale };
        }
        let (data, scales) = (data.cut(first_group * block_bytes(GROUP_SIZE)..), scales.cut(first_group..));
        let (blocks, last) = out.as_chunks_mut::<ROWS>();
        let n_blocks = blocks.len();
        groups_of_blocks(blocks, data, scales, (values.len(), x_scales.len()), x, &groups);
        if !last.is_empty() {
            let mut block = [[0.0; ROWS]];
            block[0].iter_mut().zip(&*last).for_each(|(block, last)| *block = *last);
            let (data, scales) =
                (data.cut(n_blocks * block_bytes(values.len())..), scales.cut(n_blocks * x_scales.len()..));
            groups_of_blocks(&mut block, data, scales, (values.len(), x_scales.len()), x, &groups);
            last.iter_mut().zip(block[0]).for_each(|(last, block)| *last = block);
        }
    }
    let blocks = data.chunks_exact(block_bytes(values.len()).max(1)).zip(scales.chunks_exact(x_scales.len().max(1)));
    let (false, Some(x_scale)) = (rest.is_empty(), x_scales.last()) else { return };
    let offset = -8 * rest.iter().map(|&x| i32::from(x)).sum::<i32>();
    for (out, (data, scales)) in out.chunks_mut(ROWS).zip(blocks) {
        let dots = rest_dots(data.cut(block_bytes(GROUP_SIZE * whole.len())..), rest, offset);
        for ((out, dot), &scale) in out.iter_mut().zip(dots).zip(scales.cut(whole.len()..).as_flattened()) {
            *out += dot as f32 * (math::bf16_to_f32(scale) * x_scale);
        }
    }
}

/// Adds the products of `x` and the columns from `data` on to blocks of `out`, of matrices of `n_cols` padded columns and `n_groups` groups.
fn groups_of_blocks(
    out: &mut [[f32; ROWS]],
    data: &[u8],
    scales: &[[u16; ROWS]],
    (n_cols, n_groups): (usize, usize),
    x: &[[i16; GROUP_SIZE]],
    groups: &[Group; GROUPS_MAX + 1],
) {
    let Some(n_more) = out.len().checked_sub(1) else { return };
    require!(!x.is_empty() && x.len() <= GROUPS_MAX && x.len() <= n_groups && x.len() * GROUP_SIZE <= n_cols);
    require!(data.len() >= n_more * block_bytes(n_cols) + block_bytes(x.len() * GROUP_SIZE));
    require!(scales.len() >= n_more * n_groups + x.len());
    require!(are_words(data, x.as_flattened()) && scales.as_ptr().addr().is_multiple_of(4));
    let skipped = (block_bytes(n_cols - x.len() * GROUP_SIZE), (n_groups - x.len()) * size_of::<[u16; ROWS]>());
    // SAFETY: the assertions are its conditions.
    unsafe { group_blocks(out, data.as_ptr(), scales.as_ptr(), x, groups, skipped) };
}

/// Products of a word of weights in `$w` with the activations in `$x`, added to r4, r5 and r6; r7 holds the mask. Takes r11.
macro_rules! add_two_columns {
    ($w:literal, $x:literal) => {
        concat!(
            "and r11, r7, ",
            $w,
            "\n smlad r4, r11, ",
            $x,
            ", r4\n and r11, r7, ",
            $w,
            ", ror #8\n smlad r5, r11, ",
            $x,
            ", r5\n",
            "and ",
            $w,
            ", ",
            $w,
            ", #0x0f0f0f0f\n smlad r6, ",
            $w,
            ", ",
            $x,
            ", r6\n",
        )
    };
}

/// Adds the products of the whole groups in `x`, group after group, to the blocks of `out`.
///
/// From a block to the next `skipped` bytes of data, and of scales, are left out.
///
/// # Safety
/// `out` and `x` are not empty, and `x` has no more than [`GROUPS_MAX`] groups. `data` and `scales` are valid for reads of what the blocks
/// take: for each group [`block_bytes`] of data, and four scales. `data`, `scales` and `x` start at whole words.
#[inline(never)]
unsafe fn group_blocks(
    out: &mut [[f32; ROWS]],
    data: *const u8,
    scales: *const [u16; ROWS],
    x: &[[i16; GROUP_SIZE]],
    groups: &[Group; GROUPS_MAX + 1],
    skipped: (usize, usize),
) {
    let (x, out) = (x.as_ptr_range(), out.as_mut_ptr_range());
    // SAFETY: it reads what the caller vouches for and, of `groups`, one more offset than `x` has groups, writes `out`, and restores the
    // registers and the stack it uses.
    unsafe {
        asm!(
            // On the stack: +0 x, +4 groups, +8 the end of x, +12 the end of out, +16 and +20 what a block skips of the data and of the
            // scales, +24 scales, +28 out. In s6 and s7 while a block goes on: groups and scales.
            "push {{r6, r7}}\n push {{r3, lr}}\n push {{r0, r2, r4, r5, r8, r9}}",
            "mov r7, #0x000f000f\n orr r7, r7, #0xf000f000",
            "10: ldrd r0, r2, [sp]\n ldrd r3, r12, [sp, #24]",
            "vldmia r12, {{s0-s3}}\n ldr r4, [r2], #4\n vmov s6, s7, r2, r3",
            "2: ldm r0!, {{r8-r10}}\n ldm r1!, {{r2, r3, r12, lr}}",
            // The first two columns, from the offset in r4.
            "add r6, r4, r4, lsl #8\n and r11, r7, r2, ror #8\n smlad r5, r11, r8, r4",
            "and r11, r7, r2\n smlad r4, r11, r8, r4\n and r2, r2, #0x0f0f0f0f\n smlad r6, r2, r8, r6",
            add_two_columns!("r3", "r9"),
            add_two_columns!("r12", "r10"),
            "ldm r0!, {{r8-r10}}",
            add_two_columns!("lr", "r8"),
            "ldm r1!, {{r2, r3, r12, lr}}",
            add_two_columns!("r2", "r9"),
            add_two_columns!("r3", "r10"),
            "ldm r0!, {{r8-r10}}",
            add_two_columns!("r12", "r8"),
            add_two_columns!("lr", "r9"),
            "ldm r1!, {{r2, r3, r12, lr}}",
            add_two_columns!("r2", "r10"),
            "ldm r0!, {{r8-r10}}",
            add_two_columns!("r3", "r8"),
            add_two_columns!("r12", "r9"),
            add_two_columns!("lr", "r10"),
            "ldm r1!, {{r2, r3, r12, lr}}\n ldm r0!, {{r8-r10}}",
            add_two_columns!("r2", "r8"),
            add_two_columns!("r3", "r9"),
            add_two_columns!("r12", "r10"),
            "ldr r8, [r0], #4",
            add_two_columns!("lr", "r8"),
            // S0, 256 * S2, 4096 * S1 and 4096 * S3, all below 2^23 without their fraction bits, so nothing rounds.
            "sub r8, r6, r5, lsl #8\n sxth r8, r8\n subs r10, r4, r8\n subs r9, r6, r8\n sub r11, r5, r9, asr #8",
            "vmov s8, s9, r8, r10\n vmov s10, s11, r9, r11",
            "vcvt.f32.s32 s8, s8\n vcvt.f32.s32 s9, s9, #12\n vcvt.f32.s32 s10, s10, #8\n vcvt.f32.s32 s11, s11, #12",
            "vmov r2, r3, s6, s7\n vldmia r2!, {{s4}}\n ldr r4, [r2], #4\n ldrd r8, r9, [r3], #8\n vmov s6, s7, r2, r3",
            // A bfloat16 is the upper half of a float.
            "lsl r10, r8, #16\n bfc r8, #0, #16\n lsl r11, r9, #16\n bfc r9, #0, #16",
            "vmov s12, s13, r10, r8\n vmov s14, s15, r11, r9",
            "vmul.f32 s12, s12, s4\n vmul.f32 s13, s13, s4\n vmul.f32 s14, s14, s4\n vmul.f32 s15, s15, s4",
            // Not fused: the product is rounded before it is added.
            "vmla.f32 s0, s8, s12\n vmla.f32 s1, s9, s13\n vmla.f32 s2, s10, s14\n vmla.f32 s3, s11, s15",
            "ldr r2, [sp, #8]\n cmp r0, r2\n bne 2b",
            "ldrd r4, r5, [sp, #16]\n vmov r2, s7\n ldr r3, [sp, #28]",
            "add r1, r4\n add r2, r5\n vstmia r3!, {{s0-s3}}\n strd r2, r3, [sp, #24]",
            "ldr r2, [sp, #12]\n cmp r3, r2\n bne 10b",
            "add sp, #32\n pop {{r6, r7}}",
            inout("r0") x.start => _,
            inout("r1") data => _,
            inout("r2") groups.as_ptr() => _,
            inout("r3") scales => _,
            inout("r4") x.end => _,
            inout("r5") out.end => _,
            inout("r8") skipped.0 => _,
            inout("r9") skipped.1 => _,
            inout("lr") out.start => _,
            out("r10") _, out("r11") _, out("r12") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s6") _, out("s7") _, out("s8") _, out("s9") _,
            out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
        );
    }
}

/// Dot products of a block's four rows with `x`, whole fours; `offset` is -8 times the sum of `x`.
#[inline(never)]
fn rest_dots(data: &[u8], x: &[i16], offset: i32) -> [i32; ROWS] {
    require!(!x.is_empty() && x.len().is_multiple_of(4) && data.len() >= block_bytes(x.len()) && are_words(data, x));
    let [s0, s1, s2, s3]: [i32; ROWS];
    // SAFETY: the assertion gives the lengths that are read, and their alignment. Registers and stack are restored.
    unsafe {
        asm!(
            "push {{r6, r7}}\n mov r7, #0x000f000f\n orr r7, r7, #0xf000f000",
            "mov r5, r4\n add r6, r4, r4, lsl #8",
            "2: ldrd r3, r12, [r1], #8\n ldrd r8, r9, [r0], #8",
            add_two_columns!("r3", "r8"),
            add_two_columns!("r12", "r9"),
            "cmp r0, r2\n bne 2b",
            "sub r8, r6, r5, lsl #8\n sxth r8, r8\n sub r9, r6, r8\n sub r4, r4, r8\n asr r4, r4, #12",
            "sub r5, r5, r9, asr #8\n asr r5, r5, #12\n asr r9, r9, #8",
            "pop {{r6, r7}}",
            inout("r0") x.as_ptr() => _,
            inout("r1") data.as_ptr() => _,
            in("r2") x.as_ptr_range().end,
            inout("r4") offset => s1,
            out("r5") s3,
            out("r8") s0,
            out("r9") s2,
            out("r3") _, out("r11") _, out("r12") _,
            options(readonly),
        );
    }
    [s0, s1, s2, s3]
}

/// The sum of a group's activations, which start at a whole word.
fn sum_of(x: &[i16; GROUP_SIZE]) -> i32 {
    let sum;
    // SAFETY: the four loads read the group, whose alignment `matmul_rows` looked at.
    unsafe {
        asm!(
            "movs {sum}, #0",
            ".rept 4\n ldm {x}!, {{r2, r3, r4, r5}}",
            "smlad {sum}, r2, {ones}, {sum}\n smlad {sum}, r3, {ones}, {sum}",
            "smlad {sum}, r4, {ones}, {sum}\n smlad {sum}, r5, {ones}, {sum}",
            ".endr",
            x = inout(reg) x.as_ptr() => _,
            sum = out(reg) sum,
            ones = in(reg) 0x0001_0001,
            out("r2") _, out("r3") _, out("r4") _, out("r5") _,
            options(readonly, nostack),
        );
    }
    sum
}
