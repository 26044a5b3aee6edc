//! Dot products with keys, the softmax's loops, and sums of weighted values.

use core::arch::asm;

/// Products of eight query elements with the same of each key: they start `dots`, or are added to it.
///
/// `sxtb16` takes bytes 0 and 2 of a word, and turned by 8 bits bytes 1 and 3: so the query's lanes are paired.
///
/// # Safety
/// `k` is valid for reads of 8 bytes, and so is what lies `stride` behind it, `dots.len()` times, which is not 0.
pub unsafe fn score_piece(q: &[i16; 8], k: *const i8, stride: usize, dots: &mut [i32], is_first: bool) {
    let lanes = |low: usize, high: usize| u32::from(q[low] as u16) | (q[high] as u32) << 16;
    let end = dots.as_ptr_range().end;
    macro_rules! each_key {
        ($first_product:literal) => {
            asm!(
                "2: ldr {odd}, [{k}]",
                "sxtb16 {even}, {odd}\n sxtb16 {odd}, {odd}, ror #8",
                $first_product,
                "smlad {sum}, {odd}, {q13}, {sum}",
                "ldr {odd}, [{k}, #4]",
                "add {k}, {k}, {stride}",
                "sxtb16 {even}, {odd}\n sxtb16 {odd}, {odd}, ror #8",
                "smlad {sum}, {even}, {q46}, {sum}\n smlad {sum}, {odd}, {q57}, {sum}",
                "str {sum}, [{dots}], #4",
                "cmp {dots}, {end}\n bne 2b",
                dots = inout(reg) dots.as_mut_ptr() => _,
                end = in(reg) end,
                k = inout(reg) k => _,
                stride = in(reg) stride,
                q02 = in(reg) lanes(0, 2),
                q13 = in(reg) lanes(1, 3),
                q46 = in(reg) lanes(4, 6),
                q57 = in(reg) lanes(5, 7),
                even = out(reg) _,
                odd = out(reg) _,
                sum = out(reg) _,
                options(nostack),
            )
        };
    }
    // SAFETY: it reads what the caller vouches for, and writes `dots`.
    unsafe {
        if is_first {
            each_key!("smuad {sum}, {even}, {q02}");
        } else {
            each_key!("ldr {sum}, [{dots}]\n smlad {sum}, {even}, {q02}, {sum}");
        }
    }
}

/// The loop of [`crate::kernels::generic::score_exponents`]; `smmul` is the upper half of a product.
///
/// # Safety
/// `key_scales` is no shorter than `scores`, which is not empty.
pub unsafe fn score_exponents(scores: &mut [i32], key_scales: &[u16], mantissa: i32, right_of_zero: i32) -> i32 {
    let range = scores.as_mut_ptr_range();
    let mut greatest = i32::MIN;
    // SAFETY: it reads and writes `scores`, and reads as many scales.
    unsafe {
        asm!(
            "2: ldrh r8, [r1], #2\n ldr r9, [r0]",
            "sub r10, r5, r8, lsr #7\n bfi r8, r11, #7, #25",
            "mul r8, r8, r4\n smmul r9, r9, r8",
            "cmp r10, #32\n bhs 4f",
            "asr r9, r9, r10",
            "3: str r9, [r0], #4",
            "cmp r9, r3\n it gt\n movgt r3, r9",
            "cmp r0, r2\n bne 2b",
            "b 5f",
            // Rare: far to the right, or to the left within 2^30.
            "4: cmp r10, #0\n itt ge\n asrge r9, r9, #31\n bge 3b",
            "rsb r10, r10, #0\n cmp r10, #30\n it hi\n movhi r10, #30",
            "mov r8, #0x40000000\n lsr r8, r8, r10",
            "cmp r9, r8\n it gt\n movgt r9, r8",
            "rsb r8, r8, #0\n cmp r9, r8\n it lt\n movlt r9, r8",
            "lsl r9, r9, r10\n b 3b",
            "5:",
            inout("r0") range.start => _,
            inout("r1") key_scales.as_ptr() => _,
            in("r2") range.end,
            inout("r3") greatest,
            in("r4") mantissa,
            in("r5") right_of_zero,
            in("r11") 1,
            out("r8") _, out("r9") _, out("r10") _,
            options(nostack),
        );
    }
    greatest
}

/// The loop of [`crate::kernels::generic::softmax_weights`]: compiled, its constants would not stay in registers.
#[inline(never)]
pub fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    assert!(scores.len() == value_scales.len());
    let range = scores.as_mut_ptr_range();
    let mut total = 0;
    // SAFETY: it reads and writes `scores`, and reads as many scales, which the assertion has seen; r6 and r7
    // and the stack are restored.
    unsafe {
        asm!(
            "push {{r6, r7}}\n push {{r12}}",
            "b 3f",
            "2: ldr r6, [r0]\n ldrh r7, [r1], #2",
            "subs r6, r3, r6\n cmp r6, #0x100000\n bhs 4f",
            // 2^-t of the fraction, then of the whole part.
            "uxth r12, r6\n lsrs r6, r6, #16",
            "mul lr, r12, r8\n sub lr, r9, lr, lsr #16",
            "mul lr, r12, lr\n sub lr, r10, lr, lsr #16",
            "mul lr, r12, lr\n sub lr, r11, lr, lsr #16",
            "mul lr, r12, lr\n sub lr, r5, lr, lsr #16",
            "lsr r6, lr, r6\n add r2, r2, r6",
            // A shift by 32 or more leaves nothing of 24 bits, as one by 31.
            "sub lr, r4, r7, lsr #7\n usat lr, #5, lr",
            "and r7, r7, #0x7f\n orr r7, r7, #0x80",
            "muls r6, r7, r6\n lsr r6, r6, lr\n adds r6, #1\n lsrs r6, r6, #1",
            "str r6, [r0], #4",
            "3: ldr r12, [sp]\n cmp r0, r12\n bne 2b",
            "b 5f",
            "4: movs r6, #0\n str r6, [r0], #4\n b 3b",
            "5: add sp, #4\n pop {{r6, r7}}",
            inout("r0") range.start => _,
            inout("r1") value_scales.as_ptr() => _,
            inout("r2") total,
            in("r3") greatest,
            in("r4") 8 + greatest_exponent,
            in("r5") 65_535,
            in("r8") 453,
            in("r9") 3498,
            in("r10") 15_699,
            in("r11") 45_422,
            inout("r12") range.end => _,
            out("lr") _,
        );
    }
    total
}

/// Sums of eight elements of each value times its weight.
///
/// # Safety
/// `v` is valid for reads of 8 bytes, and so is what lies `stride` behind it, `weights.len()` times, which is not 0.
#[inline(never)]
pub unsafe fn value_piece(weights: &[i32], v: *const i8, stride: usize, sums: &mut [i32; 8]) {
    let range = weights.as_ptr_range();
    // SAFETY: it reads what the caller vouches for and `weights`, and writes `sums`; r6 and r7 and the stack are restored.
    unsafe {
        asm!(
            "push {{r0, r1, r6, r7}}",
            "movs r0, #0\n movs r1, #0\n movs r2, #0\n movs r3, #0",
            "movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0",
            "2: ldr lr, [r9], #4",
            "ldr r11, [r8]\n sxtb16 r12, r11\n sxtb16 r11, r11, ror #8",
            "smlabb r0, r12, lr, r0\n smlabb r1, r11, lr, r1\n smlatb r2, r12, lr, r2\n smlatb r3, r11, lr, r3",
            "ldr r11, [r8, #4]\n add r8, r10\n sxtb16 r12, r11\n sxtb16 r11, r11, ror #8",
            "smlabb r4, r12, lr, r4\n smlabb r5, r11, lr, r5\n smlatb r6, r12, lr, r6\n smlatb r7, r11, lr, r7",
            "ldr r11, [sp, #4]\n cmp r9, r11\n bne 2b",
            "ldr r12, [sp]\n stm r12, {{r0-r7}}",
            "pop {{r0, r1, r6, r7}}",
            in("r0") sums,
            in("r1") range.end,
            inout("r8") v => _,
            inout("r9") range.start => _,
            in("r10") stride,
            out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r11") _, out("r12") _, out("lr") _,
        );
    }
}
