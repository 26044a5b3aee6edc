//! Matrix products on pairs of rows.
//!
//! In [`WeightLayout::RowPairs`](crate::layout::WeightLayout::RowPairs) a word holds two columns of two rows, each lane
//! `256 * odd + even`. Four products take three instructions:
//!
//! ```text
//! smlad  both, w, x, both    both += 256 * odd . x + even . x
//! sxtb16 w, w                keeps the even row's bytes
//! smlad  even, w, x, even    even += even . x
//! ```
//!
//! and at the row's end the odd row's product is `(both - even) / 256`. It is exact for at most [`COLUMNS_MAX`] columns:
//! `512 * (256 * 127 + 127) * 127 < 2^31`; longer rows are summed in pieces. Groups of 32 columns leave room for activations
//! of 12 bits.

use core::arch::asm;

use crate::cut::Cut;
use crate::tensor::{ActivationsQ8, GROUP_SIZE, MatrixQ8, Scales};
use crate::{known, math};

/// Columns whose products with two rows in one lane fit 32 bits.
const COLUMNS_MAX: usize = 512;

/// Rows of a block of the layout.
pub const ROWS: usize = 4;

/// See [`crate::kernels::Kernels::matmul_rows`].
pub fn matmul_rows(out: &mut [f32], first_row: usize, w: &MatrixQ8<'_>, x: &ActivationsQ8<'_>) {
    let n_rows = out.len() / x.n_tokens().max(1);
    let block_bytes = ROWS * w.cols().next_multiple_of(4);
    let data = w.data().get(first_row / ROWS * block_bytes..).unwrap_or(&[]);
    let are_scales_words = match w.scales() {
        Scales::PerRow(_) => true,
        Scales::PerGroup(scales) => scales.as_ptr().addr().is_multiple_of(4),
    };
    if !are_words(data, x.values(0)) || !are_scales_words || n_rows == 0 || !first_row.is_multiple_of(ROWS) {
        // A linked model's matrices and an arena's buffers start at whole words.
        #[cfg(not(feature = "linked-model"))]
        crate::kernels::generic::matmul_rows(out, first_row, w, x);
        return;
    }
    for (token_idx, out) in out.chunks_exact_mut(n_rows.max(1)).enumerate() {
        let (values, x_scales) = (x.values(token_idx), x.scales(token_idx));
        match w.scales() {
            Scales::PerRow(scales) => {
                let scales = scales.get(first_row..).unwrap_or(&[]);
                let x_scale = x_scales.first().copied().unwrap_or(0.0);
                if known::columns_max() <= COLUMNS_MAX || w.cols() <= COLUMNS_MAX {
                    per_row(out, data, scales, values, x_scale);
                } else {
                    long_rows(out, data, scales, values, x_scale);
                }
            }
            Scales::PerGroup(scales) => {
                let scales = scales.get(first_row * x_scales.len()..).unwrap_or(&[]);
                per_group(out, data, scales.as_chunks().0, values, x_scales);
            }
        }
    }
}

/// Whether weights and activations start at whole words, as loads of several words must. Rows and blocks are whole words.
pub fn are_words(data: &[u8], x: &[i16]) -> bool {
    (data.as_ptr().addr() | x.as_ptr().addr()).is_multiple_of(4)
}

/// One token's `out`, `(rows,)`, from the row blocks of `data`, with a scale a row, of at most [`COLUMNS_MAX`] columns.
fn per_row(out: &mut [f32], data: &[u8], scales: &[f32], values: &[i16], x_scale: f32) {
    in_whole_blocks(out, |out, block_idx| {
        let (data, scales) = (data.cut(block_idx * ROWS * values.len()..), scales.cut(block_idx * ROWS..));
        require!(!values.is_empty() && values.len().is_multiple_of(4) && values.len() <= COLUMNS_MAX);
        require!(are_words(data, values) && data.len() >= out.len() * ROWS * values.len());
        require!(!out.is_empty() && scales.len() >= out.len() * ROWS);
        // SAFETY: the assertions are its conditions.
        unsafe { blocks_f32(values, data.as_ptr(), out, scales.as_ptr(), x_scale) };
    });
}

/// The same for longer rows.
fn long_rows(out: &mut [f32], data: &[u8], scales: &[f32], values: &[i16], x_scale: f32) {
    // The first piece takes what the others, which are whole, leave.
    let n_first = (values.len() - 1) % COLUMNS_MAX + 1;
    in_whole_blocks(out, |out, block_idx| {
        let (data, scales) = (data.cut(block_idx * ROWS * values.len()..), scales.cut(block_idx * ROWS..));
        require!(
            n_first.is_multiple_of(4) && values.len() > n_first && (values.len() - n_first).is_multiple_of(COLUMNS_MAX)
        );
        require!(are_words(data, values) && data.len() >= out.len() * ROWS * values.len());
        require!(!out.is_empty() && scales.len() >= out.len() * ROWS);
        // SAFETY: the assertions are its conditions.
        unsafe { long_blocks_f32(values, n_first, data.as_ptr(), out, scales.as_ptr(), x_scale) };
    });
}

/// One token's `out`, `(rows,)`, with a scale a group: first all whole groups, then the shorter last one.
fn per_group(out: &mut [f32], data: &[u8], scales: &[[u16; ROWS]], values: &[i16], x_scales: &[f32]) {
    let (whole, rest) = values.as_chunks::<GROUP_SIZE>();
    out.fill(-0.0);
    if !whole.is_empty() {
        in_whole_blocks(out, |out, block_idx| {
            let (data, scales) =
                (data.cut(block_idx * ROWS * values.len()..), scales.cut(block_idx * x_scales.len()..));
            require!(!out.is_empty() && are_words(data, values) && data.len() >= out.len() * ROWS * values.len());
            require!(scales.as_ptr().addr().is_multiple_of(4) && scales.len() >= out.len() * x_scales.len());
            require!(x_scales.len() == values.len().div_ceil(GROUP_SIZE));
            // SAFETY: the assertions are its conditions.
            unsafe { group_blocks(out, data.as_ptr(), scales.as_ptr(), whole, rest.len(), x_scales.as_ptr()) };
        });
    }
    let blocks = data.chunks_exact(ROWS * values.len().max(1)).zip(scales.chunks_exact(x_scales.len().max(1)));
    let (false, Some(x_scale)) = (rest.is_empty(), x_scales.last()) else { return };
    for (out, (data, scales)) in out.chunks_mut(ROWS).zip(blocks) {
        let dots = piece_dots(data.cut(ROWS * GROUP_SIZE * whole.len()..), rest);
        for ((out, dot), &scale) in out.iter_mut().zip(dots).zip(scales.cut(whole.len()..).as_flattened()) {
            *out += dot as f32 * (math::bf16_to_f32(scale) * x_scale);
        }
    }
}

/// Runs `product` on the whole blocks of `out`, then on a copy of the rows behind them, where there are such; it is told
/// the index of the first block.
fn in_whole_blocks(out: &mut [f32], mut product: impl FnMut(&mut [[f32; ROWS]], usize)) {
    let (whole, rest) = out.as_chunks_mut::<ROWS>();
    let n_whole = whole.len();
    if n_whole != 0 {
        product(whole, 0);
    }
    if !rest.is_empty() {
        let mut last = [[-0.0; ROWS]];
        product(&mut last, n_whole);
        rest.iter_mut().zip(last.as_flattened()).for_each(|(out, last)| *out = *last);
    }
}

/// Four columns of a block times the activations in `$x0` and `$x1`, added to r4 (rows 0 and 1 together), r5 (row 0),
/// r6 (rows 2 and 3) and r7 (row 2). Reads 16 bytes at r1.
macro_rules! add_four_columns {
    ($x0:literal, $x1:literal) => {
        concat!(
            "ldm r1!, {{r2, r3, r12, lr}}\n",
            "smlad r4, r2, ",
            $x0,
            ", r4\n sxtb16 r2, r2\n smlad r5, r2, ",
            $x0,
            ", r5\n",
            "smlad r6, r12, ",
            $x0,
            ", r6\n sxtb16 r12, r12\n smlad r7, r12, ",
            $x0,
            ", r7\n",
            "smlad r4, r3, ",
            $x1,
            ", r4\n sxtb16 r3, r3\n smlad r5, r3, ",
            $x1,
            ", r5\n",
            "smlad r6, lr, ",
            $x1,
            ", r6\n sxtb16 lr, lr\n smlad r7, lr, ",
            $x1,
            ", r7\n",
        )
    };
}

/// The same for the first four columns: r4 to r7 start with them.
macro_rules! set_four_columns {
    () => {
        concat!(
            "ldm r1!, {{r2, r3, r12, lr}}\n",
            "smuad r4, r2, r8\n sxtb16 r2, r2\n smuad r5, r2, r8\n",
            "smuad r6, r12, r8\n sxtb16 r12, r12\n smuad r7, r12, r8\n",
            "smlad r4, r3, r9, r4\n sxtb16 r3, r3\n smlad r5, r3, r9, r5\n",
            "smlad r6, lr, r9, r6\n sxtb16 lr, lr\n smlad r7, lr, r9, r7\n",
        )
    };
}

/// Prepares the jumps of [`block_of_columns`] from r0 activations, r1 weights, r2 columns; r3, r12 and lr are kept.
///
/// Leaves on the stack: +0 the activations, +4 their end, +8 where a block starts, +12 r3, +16 where the loop is entered,
/// +20 r12, +24 lr. The loop runs over 64 columns and is entered so far before its end that it is left with the last.
///
/// It saves registers itself, for the compiler keeps r6 and r7 from assembly; [`finish`] restores them.
macro_rules! prepare {
    () => {
        concat!(
            "push {{r4-r11}}\n",
            // The first step takes 4 columns where they are an odd number of fours, else 8.
            "adr.w r4, 11f\n adr.w r5, 12f\n tst r2, #4\n it eq\n moveq r4, r5\n adds r6, r4, #1\n",
            // The other steps of 8 columns, 108 bytes of code each, modulo the loop's 8.
            "subs r4, r2, #1\n ubfx r4, r4, #3, #3\n movs r5, #108\n",
            "adr.w r7, 14f\n adds r7, #1\n mls r4, r4, r5, r7\n",
            "add r5, r0, r2, lsl #1\n",
            "push {{r3, r4, r12, lr}}\n push {{r0, r5, r6}}\n",
        )
    };
}

/// Undoes [`prepare`].
macro_rules! finish {
    () => {
        "add sp, #28\n pop {{r4-r11}}"
    };
}

/// The products of a block's four rows with all activations, into r4 to r7 as in [`add_four_columns`].
macro_rules! block_of_columns {
    () => {
        concat!(
            "ldr r0, [sp]\n ldr pc, [sp, #8]\n",
            ".p2align 2\n",
            "11: ldrd r8, r9, [r0], #8\n",
            set_four_columns!(),
            "ldr pc, [sp, #16]\n",
            ".p2align 2\n",
            "12: ldm r0!, {{r8-r11}}\n",
            set_four_columns!(),
            add_four_columns!("r10", "r11"),
            "ldr pc, [sp, #16]\n",
            ".p2align 2\n",
            "13:\n .rept 8\n ldm r0!, {{r8-r11}}\n",
            add_four_columns!("r8", "r9"),
            add_four_columns!("r10", "r11"),
            ".endr\n",
            "14: ldr r2, [sp, #4]\n cmp r0, r2\n bne 13b\n",
        )
    };
}

/// Writes the scaled outputs of the blocks from `data` on to `out`.
///
/// # Safety
/// `x` is not empty, has whole fours, and at most [`COLUMNS_MAX`]; `out` is not empty. [`are_words`] holds. `data` is valid for reads of
/// `out.len() * ROWS * x.len()` bytes, and `scales` for reads of `out.len() * ROWS` floats.
#[inline(never)]
unsafe fn blocks_f32(x: &[i16], data: *const u8, out: &mut [[f32; ROWS]], scales: *const f32, x_scale: f32) {
    let range = out.as_mut_ptr_range();
    // SAFETY: it reads what the caller vouches for, writes `out`, and restores the registers and the stack it uses.
    unsafe {
        asm!(
            "vmov s0, r4",
            prepare!(),
            "10:",
            block_of_columns!(),
            "ldrd r2, r3, [sp, #20]",
            "subs r4, r4, r5\n subs r6, r6, r7",
            "vmov s4, s5, r5, r4\n vmov s6, s7, r7, r6",
            "vldmia r3!, {{s8-s11}}",
            // The odd rows' products still have 8 fraction bits; all are below 2^23, so nothing rounds.
            "vcvt.f32.s32 s4, s4\n vcvt.f32.s32 s5, s5, #8\n vcvt.f32.s32 s6, s6\n vcvt.f32.s32 s7, s7, #8",
            "vmul.f32 s8, s8, s0\n vmul.f32 s9, s9, s0\n vmul.f32 s10, s10, s0\n vmul.f32 s11, s11, s0",
            "vmul.f32 s4, s4, s8\n vmul.f32 s5, s5, s9\n vmul.f32 s6, s6, s10\n vmul.f32 s7, s7, s11",
            "vstmia r2!, {{s4-s7}}",
            "strd r2, r3, [sp, #20]\n ldr r4, [sp, #12]\n cmp r2, r4\n bne 10b",
            finish!(),
            inout("r0") x.as_ptr() => _,
            inout("r1") data => _,
            inout("r2") x.len() => _,
            inout("r3") range.end => _,
            inout("r12") range.start => _,
            inout("lr") scales => _,
            in("r4") x_scale.to_bits(),
            in("r5") 0.0f32.to_bits(),
            out("s0") _, out("s1") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _, out("s8") _, out("s9") _, out("s10") _, out("s11") _,
        );
    }
}

/// [`blocks_f32`] for rows of several pieces: the first of `n_first` columns, the others of [`COLUMNS_MAX`], their exact sums added up.
///
/// # Safety
/// As for [`blocks_f32`], but for the length of `x`: it is `n_first`, 1 to [`COLUMNS_MAX`] and whole fours, and at least one piece more.
#[inline(never)]
unsafe fn long_blocks_f32(
    x: &[i16],
    n_first: usize,
    data: *const u8,
    out: &mut [[f32; ROWS]],
    scales: *const f32,
    x_scale: f32,
) {
    let range = out.as_mut_ptr_range();
    let end = x.as_ptr_range().end;
    // SAFETY: it reads what the caller vouches for, writes `out`, and restores the registers and the stack it uses.
    unsafe {
        asm!(
            "vmov s0, r4\n vmov s1, r5",
            prepare!(),
            // Below what `prepare` left, from +28 on: where a whole piece enters the loop, behind its first 8 columns; the end of the
            // first piece and its entry; the end of the row; the sums of the block's rows.
            "adr.w r4, 13f\n add r4, #109\n ldr r5, [sp, #4]\n ldr r6, [sp, #16]\n vmov r7, s1",
            "pop {{r8-r11}}\n pop {{r0, r2, r3}}\n sub sp, #16\n push {{r4-r7}}\n push {{r0, r2, r3}}\n push {{r8-r11}}",
            "10: movs r4, #0\n movs r5, #0\n strd r4, r5, [sp, #44]\n strd r4, r5, [sp, #52]",
            "ldrd r4, r5, [sp, #32]\n str r4, [sp, #4]\n str r5, [sp, #16]",
            block_of_columns!(),
            "subs r4, r4, r5\n subs r6, r6, r7\n ldrd r8, r9, [sp, #44]\n ldrd r10, r11, [sp, #52]",
            "adds r8, r8, r5\n add r9, r9, r4, asr #8\n adds r10, r10, r7\n add r11, r11, r6, asr #8",
            "ldr r4, [sp, #40]\n cmp r0, r4\n beq 15f",
            "strd r8, r9, [sp, #44]\n strd r10, r11, [sp, #52]",
            "add r4, r0, #1024\n str r4, [sp, #4]\n ldr r5, [sp, #28]\n str r5, [sp, #16]",
            "b 12b",
            "15: ldrd r2, r3, [sp, #20]",
            "vmov s4, s5, r8, r9\n vmov s6, s7, r10, r11",
            "vldmia r3!, {{s8-s11}}",
            "vcvt.f32.s32 s4, s4\n vcvt.f32.s32 s5, s5\n vcvt.f32.s32 s6, s6\n vcvt.f32.s32 s7, s7",
            "vmul.f32 s8, s8, s0\n vmul.f32 s9, s9, s0\n vmul.f32 s10, s10, s0\n vmul.f32 s11, s11, s0",
            "vmul.f32 s4, s4, s8\n vmul.f32 s5, s5, s9\n vmul.f32 s6, s6, s10\n vmul.f32 s7, s7, s11",
            "vstmia r2!, {{s4-s7}}",
            "strd r2, r3, [sp, #20]\n ldr r4, [sp, #12]\n cmp r2, r4\n bne 10b",
            "add sp, #32",
            finish!(),
            inout("r0") x.as_ptr() => _,
            inout("r1") data => _,
            inout("r2") n_first => _,
            inout("r3") range.end => _,
            inout("r12") range.start => _,
            inout("lr") scales => _,
            in("r4") x_scale.to_bits(),
            in("r5") end,
            out("s0") _, out("s1") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _, out("s8") _, out("s9") _,
            out("s10") _, out("s11") _,
        );
    }
}

/// Writes the scaled products of whole groups, summed group after group, of the blocks from `data` on to `out`.
///
/// A block has `n_rest` more columns, 0 or fewer than a group, and for them one more scale a row and one more of `x`.
///
/// # Safety
/// `out` and `x` are not empty. With `n` the columns and `g` the groups, those of the rest included: `data` is valid for
/// reads of `out.len() * ROWS * n` bytes, `scales` of `out.len() * g` elements, and `x_scales` of `g`. `data`, `scales` and
/// `x` start at whole words.
#[inline(never)]
unsafe fn group_blocks(
    out: &mut [[f32; ROWS]],
    data: *const u8,
    scales: *const [u16; ROWS],
    x: &[[i16; GROUP_SIZE]],
    n_rest: usize,
    x_scales: *const f32,
) {
    let (x, out) = (x.as_ptr_range(), out.as_mut_ptr_range());
    let scale_bytes_skipped = if n_rest == 0 { 0 } else { size_of::<[u16; ROWS]>() };
    // SAFETY: it reads what the caller vouches for, writes `out`, and restores the registers and the stack it uses.
    unsafe {
        asm!(
            // On the stack: +0 x, +4 x_scales, +8 the end of x, +12 the end of out, +16 and +20 what a block skips of the data
            // and of the scales, +24 scales, +28 out.
            "push {{r6, r7}}\n push {{r3, lr}}\n push {{r0, r2, r4, r5, r8, r9}}",
            "10: ldr r0, [sp]\n ldr r2, [sp, #4]",
            "vmov s0, r10\n vmov s1, r10\n vmov s2, r10\n vmov s3, r10",
            "vmov s5, r2",
            "2: ldm r0!, {{r8-r11}}",
            set_four_columns!(),
            add_four_columns!("r10", "r11"),
            ".rept 3\n ldm r0!, {{r8-r11}}",
            add_four_columns!("r8", "r9"),
            add_four_columns!("r10", "r11"),
            ".endr",
            "vmov r2, s5\n ldr r3, [sp, #24]",
            "vldmia r2!, {{s4}}\n ldrd r8, r9, [r3], #8\n vmov s5, r2\n str r3, [sp, #24]",
            "subs r4, r4, r5\n subs r6, r6, r7",
            "vmov s8, s9, r5, r4\n vmov s10, s11, r7, r6",
            "vcvt.f32.s32 s8, s8\n vcvt.f32.s32 s9, s9, #8\n vcvt.f32.s32 s10, s10\n vcvt.f32.s32 s11, s11, #8",
            // A bfloat16 is the upper half of a float.
            "lsls r10, r8, #16\n bfc r8, #0, #16\n lsl r11, r9, #16\n bfc r9, #0, #16",
            "vmov s12, s13, r10, r8\n vmov s14, s15, r11, r9",
            "vmul.f32 s12, s12, s4\n vmul.f32 s13, s13, s4\n vmul.f32 s14, s14, s4\n vmul.f32 s15, s15, s4",
            // Not fused: the product is rounded before it is added.
            "vmla.f32 s0, s8, s12\n vmla.f32 s1, s9, s13\n vmla.f32 s2, s10, s14\n vmla.f32 s3, s11, s15",
            "ldr r2, [sp, #8]\n cmp r0, r2\n bne 2b",
            "ldrd r4, r5, [sp, #16]\n ldrd r2, r3, [sp, #24]",
            "add r1, r4\n add r2, r5\n vstmia r3!, {{s0-s3}}\n strd r2, r3, [sp, #24]",
            "mov r10, #0x80000000\n ldr r2, [sp, #12]\n cmp r3, r2\n bne 10b",
            "add sp, #32\n pop {{r6, r7}}",
            inout("r0") x.start => _,
            inout("r1") data => _,
            inout("r2") x_scales => _,
            inout("r3") scales => _,
            inout("r4") x.end => _,
            inout("r5") out.end => _,
            inout("r8") ROWS * n_rest => _,
            inout("r9") scale_bytes_skipped => _,
            inout("r10") (-0.0f32).to_bits() => _,
            inout("lr") out.start => _,
            out("r11") _, out("r12") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s8") _, out("s9") _,
            out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
        );
    }
}

/// Dot products of a block's four rows with `x`, whole fours and at most [`COLUMNS_MAX`] of them.
#[inline(never)]
fn piece_dots(data: &[u8], x: &[i16]) -> [i32; ROWS] {
    require!(!x.is_empty() && x.len().is_multiple_of(4) && data.len() == ROWS * x.len() && are_words(data, x));
    let mut dots = [0; ROWS];
    // SAFETY: the assertion gives the lengths that are read, and their alignment; `dots` is the 16 bytes that are written. Registers and stack
    // are restored.
    unsafe {
        asm!(
            prepare!(),
            block_of_columns!(),
            "ldr r2, [sp, #12]",
            "subs r4, r4, r5\n asrs r4, r4, #8\n subs r6, r6, r7\n asrs r6, r6, #8",
            "strd r5, r4, [r2]\n strd r7, r6, [r2, #8]",
            finish!(),
            inout("r0") x.as_ptr() => _,
            inout("r1") data.as_ptr() => _,
            inout("r2") x.len() => _,
            inout("r3") dots.as_mut_ptr() => _,
            out("r12") _,
            out("lr") _,
        );
    }
    dots
}
