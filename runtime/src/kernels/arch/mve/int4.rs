//! Matrix products of int4: sixteen bytes hold a row's 32 columns of a group, `w + 8`, the first sixteen in the lower halves.
//!
//! A mask takes the ones, a shift the others; both are whole operands. 8 times the sum of the activations, which a product with eights adds up
//! once for four rows, is subtracted again. Outputs are scaled and added as in [`matmul`](super::matmul).

use super::matmul::{LEAST_TO_ADD, ROWS, fill, is_flush_free};
use super::vector_asm;
use crate::cut::Cut;
use crate::kernels::generic;
use crate::math;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};

/// Bytes of a group of a block's rows.
const GROUP_BYTES: usize = ROWS * GROUP_SIZE / 2;

/// See [`crate::kernels::Kernels::matmul_rows`].
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    if !try_rows(out, first_row, w, x) {
        generic::matmul_rows(out, first_row, w, x);
    }
}

/// Whether nothing was flushed that counts, and the activations of short rows do not end before a group does.
fn try_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) -> bool {
    let (n_rows, n_groups) = (out.len() / x.n_tokens().max(1), w.cols().div_ceil(GROUP_SIZE));
    let Scales::PerGroup(scales) = w.scales() else { return false };
    // A token's memory has two bytes for each column, so what lies behind a row's last column belongs to it, but for short rows. It meets
    // weights of 0, which bring nothing in.
    let has_room = size_of_val(x.values(0)) >= n_groups * GROUP_SIZE;
    if !has_room || n_groups == 0 || !first_row.is_multiple_of(ROWS) {
        return false;
    }
    let block_idx = first_row / ROWS;
    let data = w.data().get(block_idx * n_groups * GROUP_BYTES..).unwrap_or(&[]);
    let scales = scales.get(block_idx * n_groups * ROWS..).unwrap_or(&[]);
    (0..x.n_tokens()).all(|token_idx| {
        let (out, x_scales) = (out.cut_mut(token_idx * n_rows..(token_idx + 1) * n_rows), x.scales(token_idx));
        let (whole, rest) = out.as_chunks_mut::<ROWS>();
        let mut least = blocks(whole, data, scales, x.values(token_idx), x_scales);
        if !rest.is_empty() {
            let (mut last, n_whole) = ([[0.0; ROWS]], whole.len());
            let (data, scales) =
                (data.cut(n_whole * n_groups * GROUP_BYTES..), scales.cut(n_whole * n_groups * ROWS..));
            least = least.min(blocks(&mut last, data, scales, x.values(token_idx), x_scales));
            rest.iter_mut().zip(last[0]).for_each(|(rest, last)| *rest = last);
        }
        least >= LEAST_TO_ADD
            || scales.chunks_exact(ROWS).zip(x_scales.iter().cycle()).all(|(scales, &x_scale)| {
                scales.iter().all(|&scale| is_flush_free(math::bf16_to_f32(scale), x_scale, LEAST_TO_ADD))
            })
    })
}

/// The outputs of whole blocks for one token; gives the least magnitude of a scale times its `x_scale`.
fn blocks(out: &mut [[f32; ROWS]], data: &[u8], scales: &[u16], x: &[i16], x_scales: &[f32]) -> f32 {
    if out.is_empty() {
        return f32::INFINITY;
    }
    let n_groups = x_scales.len();
    require!(n_groups != 0 && size_of_val(x) >= n_groups * GROUP_SIZE);
    require!(data.len() >= out.len() * n_groups * GROUP_BYTES && scales.len() >= out.len() * n_groups * ROWS);
    fill(out, -0.0);
    // SAFETY: the assertions give the lengths that it asks for.
    unsafe { add_groups(out, data.as_ptr(), scales.as_ptr(), x.as_ptr().cast(), x_scales) }
}

/// Adds the scaled products of all groups, one after the other, to `out`; gives the least magnitude of a scale times its `x_scale`.
///
/// # Safety
/// `out` and `x_scales` are not empty. For each block and each group weights of [`GROUP_BYTES`] and four scales are valid for reads, and at `x`
/// [`GROUP_SIZE`] bytes a group.
#[inline(never)]
unsafe fn add_groups(
    out: &mut [[f32; ROWS]],
    data: *const u8,
    scales: *const u16,
    x: *const i8,
    x_scales: &[f32],
) -> f32 {
    let range = out.as_mut_ptr_range();
    let least: u32;
    // SAFETY: it reads what the caller vouches for, writes `out`, and restores the stack.
    unsafe {
        vector_asm!(
            // On the stack: x, its scales, the end of out.
            "push {{r0, r2, r4}}\n vdup.32 q6, r3\n vmov.i8 q7, #15\n vmov.i8 q2, #8",
            "1: ldrd r3, r9, [sp]\n vldrw.u32 q5, [r11]\n dls lr, r10",
            "2: vldrb.u8 q3, [r3], #16\n vldrb.u8 q4, [r3], #16",
            "vmladav.s8 r12, q3, q2\n vldrb.u8 q0, [r1], #64\n vmladava.s8 r12, q4, q2",
            "vand q1, q0, q7\n vshr.u8 q0, q0, #4\n vmladav.s8 r0, q1, q3\n vldrb.u8 q1, [r1, #-48]\n vmladava.s8 r0, q0, q4",
            "vand q0, q1, q7\n vshr.u8 q1, q1, #4\n vmladav.s8 r2, q0, q3\n vldrb.u8 q0, [r1, #-32]\n vmladava.s8 r2, q1, q4",
            "vand q1, q0, q7\n vshr.u8 q0, q0, #4\n vmladav.s8 r4, q1, q3\n vldrb.u8 q1, [r1, #-16]\n vmladava.s8 r4, q0, q4",
            "vand q0, q1, q7\n vshr.u8 q1, q1, #4\n vmladav.s8 r8, q0, q3\n vmladava.s8 r8, q1, q4",
            "vmov q0[2], q0[0], r0, r4\n vmov q0[3], q0[1], r2, r8\n vsub.i32 q0, q0, r12\n vcvt.f32.s32 q0, q0",
            // A bfloat16 is the upper half of a float.
            "vldrh.u32 q1, [r5], #8\n vshl.i32 q1, q1, #16\n ldr r12, [r9], #4",
            "vmul.f32 q1, q1, r12\n vminnma.f32 q6, q1\n vmul.f32 q0, q0, q1\n vadd.f32 q5, q5, q0",
            "le lr, 2b",
            "vstrw.32 q5, [r11], #16\n ldr r12, [sp, #8]\n cmp r11, r12\n bne 1b",
            "add sp, #12\n mov r0, #0x7f800000\n vminnmav.f32 r0, q6",
            inout("r0") x => least,
            inout("r1") data => _,
            inout("r2") x_scales.as_ptr() => _,
            inout("r3") f32::INFINITY.to_bits() => _,
            inout("r4") range.end => _,
            inout("r5") scales => _,
            out("r8") _,
            out("r9") _,
            in("r10") x_scales.len(),
            inout("r11") range.start => _,
            out("r12") _,
            out("lr") _,
        );
    }
    f32::from_bits(least)
}
