//! Dot products with keys, the softmax's loops, and sums of weighted values: eight elements of a head at a time.

use core::arch::asm;

/// Products of eight query elements with the same of each key: they start `dots`, or are added to it.
///
/// # Safety
/// `k` is valid for reads of 8 bytes, and so is what lies `stride` behind it, `dots.len()` times, which is not 0.
pub unsafe fn score_piece(q: &[i16; 8], k: *const i8, stride: usize, dots: &mut [i32], is_first: bool) {
    let range = dots.as_mut_ptr_range();
    macro_rules! each_key {
        ($start:literal) => {
            asm!(
                "2:",
                $start,
                "lb {t}, 1({k})\n mul {t}, {t}, {q1}\n add {sum}, {sum}, {t}",
                "lb {t}, 2({k})\n mul {t}, {t}, {q2}\n add {sum}, {sum}, {t}",
                "lb {t}, 3({k})\n mul {t}, {t}, {q3}\n add {sum}, {sum}, {t}",
                "lb {t}, 4({k})\n mul {t}, {t}, {q4}\n add {sum}, {sum}, {t}",
                "lb {t}, 5({k})\n mul {t}, {t}, {q5}\n add {sum}, {sum}, {t}",
                "lb {t}, 6({k})\n mul {t}, {t}, {q6}\n add {sum}, {sum}, {t}",
                "lb {t}, 7({k})\n mul {t}, {t}, {q7}\n add {sum}, {sum}, {t}",
                "sw {sum}, 0({dots})",
                "addi {dots}, {dots}, 4\n add {k}, {k}, {stride}\n bne {dots}, {end}, 2b",
                dots = inout(reg) range.start => _,
                end = in(reg) range.end,
                k = inout(reg) k => _,
                stride = in(reg) stride,
                q0 = in(reg) i32::from(q[0]),
                q1 = in(reg) i32::from(q[1]),
                q2 = in(reg) i32::from(q[2]),
                q3 = in(reg) i32::from(q[3]),
                q4 = in(reg) i32::from(q[4]),
                q5 = in(reg) i32::from(q[5]),
                q6 = in(reg) i32::from(q[6]),
                q7 = in(reg) i32::from(q[7]),
                sum = out(reg) _,
                t = out(reg) _,
                options(nostack),
            )
        };
    }
    // SAFETY: it reads what the caller vouches for, and writes `dots`.
    unsafe {
        if is_first {
            each_key!("lb {sum}, 0({k})\n mul {sum}, {sum}, {q0}");
        } else {
            each_key!("lw {sum}, 0({dots})\n lb {t}, 0({k})\n mul {t}, {t}, {q0}\n add {sum}, {sum}, {t}");
        }
    }
}

/// The loop of [`crate::kernels::generic::score_exponents`]; `mulh` is the upper half of a product.
///
/// # Safety
/// `key_scales` is no shorter than `scores`, which is not empty.
pub unsafe fn score_exponents(scores: &mut [i32], key_scales: &[u16], mantissa: i32, right_of_zero: i32) -> i32 {
    let range = scores.as_mut_ptr_range();
    let mut greatest = i32::MIN;
    // SAFETY: it reads and writes `scores`, and reads as many scales.
    unsafe {
        asm!(
            "2: lhu {m}, 0({scale})\n lw {score}, 0({at})",
            "srli {by}, {m}, 7\n andi {m}, {m}, 0x7f\n ori {m}, {m}, 0x80",
            "mul {m}, {m}, {mantissa}\n mulh {score}, {score}, {m}",
            "sub {by}, {right}, {by}\n bgtu {by}, {most}, 5f",
            "sra {score}, {score}, {by}",
            "3: sw {score}, 0({at})\n addi {at}, {at}, 4\n addi {scale}, {scale}, 2",
            "ble {score}, {greatest}, 4f\n mv {greatest}, {score}",
            "4: bne {at}, {end}, 2b",
            "j 9f",
            // Rare: far to the right, or to the left within 2^30.
            "5: bltz {by}, 6f\n srai {score}, {score}, 31\n j 3b",
            "6: neg {by}, {by}\n li {m}, 30\n bleu {by}, {m}, 7f\n mv {by}, {m}",
            "7: lui {m}, 0x40000\n srl {m}, {m}, {by}",
            "ble {score}, {m}, 8f\n mv {score}, {m}",
            "8: neg {m}, {m}\n bge {score}, {m}, 10f\n mv {score}, {m}",
            "10: sll {score}, {score}, {by}\n j 3b",
            "9:",
            at = inout(reg) range.start => _,
            end = in(reg) range.end,
            scale = inout(reg) key_scales.as_ptr() => _,
            greatest = inout(reg) greatest,
            mantissa = in(reg) mantissa,
            right = in(reg) right_of_zero,
            most = in(reg) 31,
            m = out(reg) _,
            by = out(reg) _,
            score = out(reg) _,
            options(nostack),
        );
    }
    greatest
}

/// The loop of [`crate::kernels::generic::softmax_weights`]. With the fraction in the upper half of a register, `mulhu` shifts the
/// polynomial's products.
///
/// # Safety
/// `value_scales` is no shorter than `scores`, which is not empty.
pub unsafe fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    let range = scores.as_mut_ptr_range();
    let mut total = 0;
    // SAFETY: it reads and writes `scores`, and reads as many scales.
    unsafe {
        asm!(
            "2: lw {t}, 0({at})\n lhu {scale}, 0({scales})",
            "sub {t}, {greatest}, {t}\n bgeu {t}, {limit}, 5f",
            // 2^-t of the fraction, then of the whole part.
            "slli {f}, {t}, 16\n srli {t}, {t}, 16",
            "mulhu {p}, {c4}, {f}",
            "sub {p}, {c3}, {p}\n mulhu {p}, {p}, {f}",
            "sub {p}, {c2}, {p}\n mulhu {p}, {p}, {f}",
            "sub {p}, {c1}, {p}\n mulhu {p}, {p}, {f}",
            "sub {p}, {c0}, {p}\n srl {p}, {p}, {t}\n add {total}, {total}, {p}",
            "srli {t}, {scale}, 7\n sub {t}, {exponent}, {t}\n bgtu {t}, {most}, 6f",
            "3: andi {scale}, {scale}, 0x7f\n ori {scale}, {scale}, 0x80\n mul {p}, {p}, {scale}",
            "srl {p}, {p}, {t}\n addi {p}, {p}, 1\n srli {p}, {p}, 1",
            "4: sw {p}, 0({at})",
            "addi {at}, {at}, 4\n addi {scales}, {scales}, 2\n bne {at}, {end}, 2b",
            "j 7f",
            "5: li {p}, 0\n j 4b",
            "6: mv {t}, {most}\n j 3b",
            "7:",
            at = inout(reg) range.start => _,
            end = in(reg) range.end,
            scales = inout(reg) value_scales.as_ptr() => _,
            total = inout(reg) total,
            greatest = in(reg) greatest,
            exponent = in(reg) 8 + greatest_exponent,
            limit = in(reg) 16 << 16,
            most = in(reg) 31,
            c4 = in(reg) 453,
            c3 = in(reg) 3498,
            c2 = in(reg) 15_699,
            c1 = in(reg) 45_422,
            c0 = in(reg) 65_535,
            t = out(reg) _,
            f = out(reg) _,
            p = out(reg) _,
            scale = out(reg) _,
            options(nostack),
        );
    }
    total
}

/// Sums of eight elements of each value times its weight.
///
/// # Safety
/// `v` is valid for reads of 8 bytes, and so is what lies `stride` behind it, `weights.len()` times, which is not 0.
pub unsafe fn value_piece(weights: &[i32], v: *const i8, stride: usize, sums: &mut [i32; 8]) {
    let range = weights.as_ptr_range();
    *sums = [0; 8];
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
    // SAFETY: it reads what the caller vouches for and `weights`.
    unsafe {
        asm!(
            "2: lw {w}, 0({at})\n addi {at}, {at}, 4",
            "lb {t}, 0({v})\n mul {t}, {t}, {w}\n add {s0}, {s0}, {t}",
            "lb {t}, 1({v})\n mul {t}, {t}, {w}\n add {s1}, {s1}, {t}",
            "lb {t}, 2({v})\n mul {t}, {t}, {w}\n add {s2}, {s2}, {t}",
            "lb {t}, 3({v})\n mul {t}, {t}, {w}\n add {s3}, {s3}, {t}",
            "lb {t}, 4({v})\n mul {t}, {t}, {w}\n add {s4}, {s4}, {t}",
            "lb {t}, 5({v})\n mul {t}, {t}, {w}\n add {s5}, {s5}, {t}",
            "lb {t}, 6({v})\n mul {t}, {t}, {w}\n add {s6}, {s6}, {t}",
            "lb {t}, 7({v})\n mul {t}, {t}, {w}\n add {s7}, {s7}, {t}",
            "add {v}, {v}, {stride}\n bne {at}, {end}, 2b",
            at = inout(reg) range.start => _,
            end = in(reg) range.end,
            v = inout(reg) v => _,
            stride = in(reg) stride,
            s0 = inout(reg) *s0,
            s1 = inout(reg) *s1,
            s2 = inout(reg) *s2,
            s3 = inout(reg) *s3,
            s4 = inout(reg) *s4,
            s5 = inout(reg) *s5,
            s6 = inout(reg) *s6,
            s7 = inout(reg) *s7,
            w = out(reg) _,
            t = out(reg) _,
            options(nostack, readonly),
        );
    }
}
