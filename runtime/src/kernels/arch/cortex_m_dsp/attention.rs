//! Dot products with keys, the softmax's loops, and sums of weighted values.
//!
//! Heads of eight, which small models have, lie one behind the other: two words are one load, and several positions share a turn of the loop.

use core::arch::asm;

use crate::kv_cache::UE5M3_LEAST;

/// Dot products of eight query elements with pairs of keys of eight.
///
/// `sxtb16` takes bytes 0 and 2 of a word, and turned by 8 bits bytes 1 and 3: so the query's lanes are paired.
///
/// # Safety
/// `k` starts at a whole word and is valid for reads of `16 * dots.len()` bytes; `dots` is not empty.
pub unsafe fn score_pairs_of_eights(q: &[i16; 8], k: *const i8, dots: &mut [[i32; 2]]) {
    let lanes = |low: usize, high: usize| u32::from(q[low] as u16) | (q[high] as u32) << 16;
    macro_rules! one_key {
        ($sum:literal) => {
            concat!(
                "ldrd {low}, {high}, [{k}], #8\n",
                "sxtb16 {even}, {low}\n sxtb16 {low}, {low}, ror #8\n",
                "smuad ",
                $sum,
                ", {even}, {q02}\n smlad ",
                $sum,
                ", {low}, {q13}, ",
                $sum,
                "\n sxtb16 {even}, {high}\n sxtb16 {high}, {high}, ror #8\n",
                "smlad ",
                $sum,
                ", {even}, {q46}, ",
                $sum,
                "\n smlad ",
                $sum,
                ", {high}, {q57}, ",
                $sum,
            )
        };
    }
    let end = dots.as_ptr_range().end;
    // SAFETY: it reads what the caller vouches for, and writes `dots`.
    unsafe {
        asm!(
            "2:",
            one_key!("{first}"),
            one_key!("{second}"),
            "strd {first}, {second}, [{dots}], #8",
            "cmp {dots}, {end}\n bne 2b",
            dots = inout(reg) dots.as_mut_ptr() => _,
            end = in(reg) end,
            k = inout(reg) k => _,
            q02 = in(reg) lanes(0, 2),
            q13 = in(reg) lanes(1, 3),
            q46 = in(reg) lanes(4, 6),
            q57 = in(reg) lanes(5, 7),
            low = out(reg) _,
            high = out(reg) _,
            even = out(reg) _,
            first = out(reg) _,
            second = out(reg) _,
            options(nostack),
        );
    }
}

/// Products of eight query elements with the same of each key: they start `dots`, or are added to it.
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

/// A score's exponent in [`score_exponents`]: `smmul` is the upper half of a product. A shift by 32 or more leaves the sign, so only those to
/// the left, which are rare, want care.
macro_rules! exponent {
    ($score:literal, $to_the_left:literal, $shifted:literal, $greater:literal, $back:literal) => {
        concat!(
            "ldrh r8, [r1], #2\n subs r12, r5, r8, lsr #7\n bfi r8, r11, #7, #25\n",
            "mul r8, r8, r4\n smmul ",
            $score,
            ", ",
            $score,
            ", r8\n",
            "bmi ",
            $to_the_left,
            "f\n asr ",
            $score,
            ", ",
            $score,
            ", r12\n",
            $shifted,
            ": cmp ",
            $score,
            ", r3\n bgt ",
            $greater,
            "f\n",
            $back,
            ":",
        )
    };
}

/// Where [`exponent`] goes: to the left within `2^30`, and with a new greatest.
macro_rules! rare_exponent {
    ($score:literal, $to_the_left:literal, $shifted:literal, $greater:literal, $back:literal) => {
        concat!(
            $to_the_left,
            ": rsb r12, r12, #0\n cmp r12, #30\n it hi\n movhi r12, #30\n",
            "mov r8, #0x40000000\n lsr r8, r8, r12\n",
            "cmp ",
            $score,
            ", r8\n it gt\n movgt ",
            $score,
            ", r8\n",
            "rsb r8, r8, #0\n cmp ",
            $score,
            ", r8\n it lt\n movlt ",
            $score,
            ", r8\n",
            "lsl ",
            $score,
            ", ",
            $score,
            ", r12\n b ",
            $shifted,
            "b\n",
            $greater,
            ": mov r3, ",
            $score,
            "\n b ",
            $back,
            "b",
        )
    };
}

/// The loop of [`crate::kernels::generic::score_exponents`], two at a time.
///
/// # Safety
/// `key_scales` has as many elements as `scores`, which is not empty.
pub unsafe fn score_exponents(scores: &mut [[i32; 2]], key_scales: &[u16], mantissa: i32, right_of_zero: i32) -> i32 {
    let range = scores.as_mut_ptr_range();
    let mut greatest = i32::MIN;
    // SAFETY: it reads and writes `scores`, and reads as many scales.
    unsafe {
        asm!(
            "2: ldrd r9, r10, [r0]",
            exponent!("r9", "31", "41", "51", "61"),
            exponent!("r10", "32", "42", "52", "62"),
            "strd r9, r10, [r0], #8",
            "cmp r0, r2\n bne 2b\n b 3f",
            rare_exponent!("r9", "31", "41", "51", "61"),
            rare_exponent!("r10", "32", "42", "52", "62"),
            "3:",
            inout("r0") range.start => _,
            inout("r1") key_scales.as_ptr() => _,
            in("r2") range.end,
            inout("r3") greatest,
            in("r4") mantissa,
            in("r5") right_of_zero,
            in("r11") 1,
            out("r8") _, out("r9") _, out("r10") _, out("r12") _,
            options(nostack),
        );
    }
    greatest
}

/// One weight of [`softmax_weights`].
macro_rules! softmax_weight {
    ($zero:literal, $next:literal) => {
        concat!(
            // 16 more than the whole part, so that what is left of 2^32 needs no shift of its own.
            "ldr r6, [r0]\n ldrh r7, [r1], #2\n subs r6, r3, r6\n cmp r6, #0x200000\n bhs ",
            $zero,
            "f\n",
            // 2^-t of the fraction, then of the whole part; a complement is 65535 less the upper half.
            "uxth r12, r6\n lsrs r6, r6, #16\n",
            "mul lr, r12, r8\n sub lr, r9, lr, lsr #16\n",
            "mul lr, r12, lr\n sub lr, r10, lr, lsr #16\n",
            "mul lr, r12, lr\n sub lr, r11, lr, lsr #16\n",
            "mul lr, r12, lr\n mvn lr, lr\n lsr r6, lr, r6\n add r2, r2, r6\n",
            // The carry is what is shifted out last: it rounds half up. A shift by more than 32 leaves nothing.
            "sub lr, r4, r7, lsr #7\n bfi r7, r5, #7, #25\n muls r6, r7, r6\n lsrs r6, r6, lr\n adc r6, r6, #0\n",
            "str r6, [r0], #4\n",
            $next,
            ":",
        )
    };
}

/// Where [`softmax_weight`] goes with what is too far below the greatest.
macro_rules! zero_weight {
    ($zero:literal, $next:literal) => {
        concat!($zero, ": movs r6, #0\n str r6, [r0], #4\n b ", $next, "b")
    };
}

/// The loop of [`crate::kernels::generic::softmax_weights`], four at a time: compiled, its constants would not stay in registers.
///
/// # Safety
/// `value_scales` has as many elements as `scores`, which is not empty. Scores are within `2^30`, and `greatest_exponent` is below 247.
#[inline(never)]
pub unsafe fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    let range = scores.as_mut_ptr_range();
    let mut total = 0;
    // SAFETY: it reads and writes `scores`, and reads as many scales; r6 and r7 and the stack are restored.
    unsafe {
        asm!(
            "push {{r6, r7}}\n push {{r12}}",
            // Into the loop where whole fours are left.
            "ands lr, lr, #3\n beq 20f\n cmp lr, #2\n bhi 21f\n beq 22f\n b 23f",
            "20:",
            softmax_weight!("30", "40"),
            "21:",
            softmax_weight!("31", "41"),
            "22:",
            softmax_weight!("32", "42"),
            "23:",
            softmax_weight!("33", "43"),
            "ldr r12, [sp]\n cmp r0, r12\n bne 20b\n b 2f",
            zero_weight!("30", "40"),
            zero_weight!("31", "41"),
            zero_weight!("32", "42"),
            zero_weight!("33", "43"),
            "2: add sp, #4\n pop {{r6, r7}}",
            inout("r0") range.start => _,
            inout("r1") value_scales.as_ptr() => _,
            inout("r2") total,
            in("r3") greatest.wrapping_add(16 << 16),
            in("r4") 9 + greatest_exponent,
            in("r5") 1,
            in("r8") 453,
            in("r9") 3498,
            in("r10") 15_699,
            in("r11") 45_422,
            inout("r12") range.end => _,
            inout("lr") scores.len() => _,
        );
    }
    total
}

/// The greatest of pairs of bfloat16 scales: what is positive orders as its bits do. `sel` takes each half from where `usub16` did not borrow.
///
/// # Safety
/// `scales` starts at a whole word and is not empty.
pub unsafe fn greatest_scale(scales: &[[u16; 2]]) -> u16 {
    let range = scales.as_ptr_range();
    let mut greatest = 0u32;
    // SAFETY: it reads `scales`.
    unsafe {
        asm!(
            "2: ldr {pair}, [{at}], #4",
            "usub16 {rest}, {greatest}, {pair}\n sel {greatest}, {greatest}, {pair}",
            "cmp {at}, {end}\n bne 2b",
            at = inout(reg) range.start => _,
            end = in(reg) range.end,
            greatest = inout(reg) greatest,
            pair = out(reg) _,
            rest = out(reg) _,
            options(nostack, readonly),
        );
    }
    (greatest as u16).max((greatest >> 16) as u16)
}

/// Scales of a byte as bfloat16, four at a time: bytes in the lanes of halves, from which no sum carries over.
///
/// # Safety
/// `unpacked` starts at a whole word; `scales` has as many elements, which are not none.
pub unsafe fn unpack_ue5m3(scales: &[[u8; 4]], unpacked: &mut [[u16; 4]]) {
    let range = scales.as_ptr_range();
    // SAFETY: it reads `scales`, and writes as many halves to `unpacked`.
    unsafe {
        asm!(
            "2: ldr {odd}, [{at}], #4",
            "uxtb16 {even}, {odd}\n uxtb16 {odd}, {odd}, ror #8",
            "add {even}, {least}, {even}, lsl #4\n add {odd}, {least}, {odd}, lsl #4",
            "pkhbt {low}, {even}, {odd}, lsl #16\n pkhtb {odd}, {odd}, {even}, asr #16",
            "strd {low}, {odd}, [{to}], #8",
            "cmp {at}, {end}\n bne 2b",
            at = inout(reg) range.start => _,
            end = in(reg) range.end,
            to = inout(reg) unpacked.as_mut_ptr() => _,
            least = in(reg) u32::from(UE5M3_LEAST) << 16 | u32::from(UE5M3_LEAST),
            even = out(reg) _,
            odd = out(reg) _,
            low = out(reg) _,
            options(nostack),
        );
    }
}

/// One position of [`values_of_eights`].
macro_rules! weighted_eight {
    () => {
        concat!(
            "ldr lr, [r9], #4\n ldrd r10, r11, [r8], #8\n",
            "sxtb16 r12, r10\n sxtb16 r10, r10, ror #8\n",
            "smlabb r0, r12, lr, r0\n smlabb r1, r10, lr, r1\n smlatb r2, r12, lr, r2\n smlatb r3, r10, lr, r3\n",
            "sxtb16 r12, r11\n sxtb16 r11, r11, ror #8\n",
            "smlabb r4, r12, lr, r4\n smlabb r5, r11, lr, r5\n smlatb r6, r12, lr, r6\n smlatb r7, r11, lr, r7\n",
        )
    };
}

/// Sums of values of eight elements times their weights.
///
/// # Safety
/// `v` starts at a whole word and is valid for reads of `8 * weights.len()` bytes; `weights` is not empty.
#[inline(never)]
pub unsafe fn values_of_eights(weights: &[i32], v: *const i8, sums: &mut [i32; 8]) {
    let range = weights.as_ptr_range();
    // SAFETY: it reads what the caller vouches for and `weights`, and writes `sums`; r6 and r7 and the stack are restored.
    unsafe {
        asm!(
            "push {{r0, r1, r6, r7}}",
            "movs r0, #0\n movs r1, #0\n movs r2, #0\n movs r3, #0",
            "movs r4, #0\n movs r5, #0\n movs r6, #0\n movs r7, #0",
            "ands lr, lr, #3\n beq 20f\n cmp lr, #2\n bhi 21f\n beq 22f\n b 23f",
            "20:",
            weighted_eight!(),
            "21:",
            weighted_eight!(),
            "22:",
            weighted_eight!(),
            "23:",
            weighted_eight!(),
            "ldr r11, [sp, #4]\n cmp r9, r11\n bne 20b",
            "ldr r12, [sp]\n stm r12, {{r0-r7}}",
            "pop {{r0, r1, r6, r7}}",
            in("r0") sums,
            in("r1") range.end,
            inout("r8") v => _,
            inout("r9") range.start => _,
            inout("lr") weights.len() => _,
            out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r10") _, out("r11") _, out("r12") _,
        );
    }
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
