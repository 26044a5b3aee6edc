//! Dot products with keys and sums of weighted values, where the elements of a head are the lanes; the softmax's loops, where positions are.

use core::arch::asm;

/// Dot products of a query with each key.
///
/// # Safety
/// `q` and `dots` are not empty; `k` is valid for reads of `q.len()` bytes for each of the dots.
pub unsafe fn score_dots(q: &[i16], k: *const i8, dots: &mut [i32]) {
    let range = dots.as_mut_ptr_range();
    // SAFETY: it reads `q` and what the caller vouches for, and writes `dots`.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "2: mv {n}, {len}\n mv {at}, {q}",
            "vsetivli zero, 1, e32, m1, ta, ma\n vmv.s.x v16, zero",
            // As many elements as two registers hold, their products in four.
            "3: vsetvli {vl}, {n}, e16, m2, ta, ma",
            "vle16.v v8, ({at})\n vle8.v v10, ({k})",
            "vsext.vf2 v12, v10",
            "vwmul.vv v20, v8, v12",
            "vsetvli zero, zero, e32, m4, ta, ma",
            "vredsum.vs v16, v20, v16",
            "add {k}, {k}, {vl}\n add {at}, {at}, {vl}\n add {at}, {at}, {vl}\n sub {n}, {n}, {vl}",
            "bnez {n}, 3b",
            "vmv.x.s {n}, v16\n sw {n}, 0({dots})\n addi {dots}, {dots}, 4",
            "bne {dots}, {end}, 2b",
            ".option pop",
            q = in(reg) q.as_ptr(),
            len = in(reg) q.len(),
            k = inout(reg) k => _,
            dots = inout(reg) range.start => _,
            end = in(reg) range.end,
            n = out(reg) _,
            at = out(reg) _,
            vl = out(reg) _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v16") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(nostack),
        );
    }
}

/// Sums of values times their weights.
///
/// # Safety
/// `weights` and `sums` are not empty; `v` is valid for reads of `sums.len()` bytes for each weight.
pub unsafe fn weighted_values(weights: &[i32], v: *const i8, sums: &mut [i32]) {
    let range = weights.as_ptr_range();
    // SAFETY: it reads `weights` and what the caller vouches for, and writes `sums`.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            // As many elements as four registers of sums hold, over all positions.
            "2: vsetvli {vl}, {n}, e32, m4, ta, ma",
            "vmv.v.i v8, 0",
            "mv {at}, {weights}\n mv {value}, {v}",
            "3: lw {weight}, 0({at})\n addi {at}, {at}, 4",
            "vle8.v v12, ({value})\n add {value}, {value}, {width}",
            "vsext.vf4 v16, v12",
            "vmacc.vx v8, {weight}, v16",
            "bne {at}, {end}, 3b",
            "vse32.v v8, ({sums})",
            "slli {at}, {vl}, 2\n add {sums}, {sums}, {at}\n add {v}, {v}, {vl}\n sub {n}, {n}, {vl}",
            "bnez {n}, 2b",
            ".option pop",
            weights = in(reg) range.start,
            end = in(reg) range.end,
            v = inout(reg) v => _,
            width = in(reg) sums.len(),
            sums = inout(reg) sums.as_mut_ptr() => _,
            n = inout(reg) sums.len() => _,
            at = out(reg) _,
            value = out(reg) _,
            weight = out(reg) _,
            vl = out(reg) _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            options(nostack),
        );
    }
}

/// The loop of [`crate::kernels::generic::score_exponents`] as far as every shift is to the right by less than 32: how many scores it took,
/// and the greatest of them.
///
/// # Safety
/// `key_scales` is no shorter than `scores`, which is not empty.
pub unsafe fn score_exponents(
    scores: &mut [i32],
    key_scales: &[u16],
    mantissa: i32,
    right_of_zero: i32,
) -> (usize, i32) {
    let (mut n, greatest): (usize, isize);
    n = scores.len();
    // SAFETY: it reads and writes `scores`, and reads as many scales.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "vsetivli zero, 1, e32, m1, ta, ma\n lui {t}, 0x80000\n vmv.s.x v4, {t}",
            "2: vsetvli {vl}, {n}, e32, m4, ta, ma",
            "vle16.v v8, ({scales})\n vzext.vf2 v12, v8",
            "vsrl.vi v16, v12, 7\n vrsub.vx v16, v16, {right}",
            "vmsgtu.vx v1, v16, {most}\n vfirst.m {t}, v1\n bgez {t}, 3f",
            "li {t}, 0x7f\n vand.vx v12, v12, {t}\n li {t}, 0x80\n vor.vx v12, v12, {t}\n vmul.vx v12, v12, {mantissa}",
            "vle32.v v20, ({at})\n vmulh.vv v20, v20, v12\n vsra.vv v20, v20, v16\n vse32.v v20, ({at})",
            "vredmax.vs v4, v20, v4",
            "slli {t}, {vl}, 1\n add {scales}, {scales}, {t}\n slli {t}, {vl}, 2\n add {at}, {at}, {t}",
            "sub {n}, {n}, {vl}\n bnez {n}, 2b",
            "3: vsetivli zero, 1, e32, m1, ta, ma\n vmv.x.s {greatest}, v4",
            ".option pop",
            at = inout(reg) scores.as_mut_ptr() => _,
            scales = inout(reg) key_scales.as_ptr() => _,
            n = inout(reg) n,
            mantissa = in(reg) mantissa,
            right = in(reg) right_of_zero,
            most = in(reg) 31,
            vl = out(reg) _,
            t = out(reg) _,
            greatest = lateout(reg) greatest,
            out("v1") _, out("v4") _, out("v8") _, out("v9") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(nostack),
        );
    }
    (scores.len() - n, greatest as i32)
}

/// The loop of [`crate::kernels::generic::softmax_weights`]. With the fraction in the upper half of a lane, `vmulhu` shifts the
/// polynomial's products.
///
/// # Safety
/// `value_scales` is no shorter than `scores`, which is not empty.
pub unsafe fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    let total: usize;
    // SAFETY: it reads and writes `scores`, and reads as many scales.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "vsetivli zero, 1, e32, m1, ta, ma\n vmv.s.x v4, zero",
            "2: vsetvli {vl}, {n}, e32, m4, ta, ma",
            "vle32.v v8, ({at})\n vrsub.vx v8, v8, {greatest}",
            "vmsgtu.vx v0, v8, {limit}",
            // 2^-t of the fraction, then of the whole part.
            "vsll.vi v12, v8, 16\n vsrl.vi v8, v8, 16",
            "vmulhu.vx v16, v12, {c4}",
            "vrsub.vx v16, v16, {c3}\n vmulhu.vv v16, v16, v12",
            "vrsub.vx v16, v16, {c2}\n vmulhu.vv v16, v16, v12",
            "vrsub.vx v16, v16, {c1}\n vmulhu.vv v16, v16, v12",
            "vrsub.vx v16, v16, {c0}\n vsrl.vv v16, v16, v8\n vmerge.vim v16, v16, 0, v0",
            "vredsum.vs v4, v16, v4",
            "vle16.v v8, ({scales})\n vzext.vf2 v12, v8",
            "vsrl.vi v20, v12, 7\n vrsub.vx v20, v20, {exponent}\n vminu.vx v20, v20, {most}",
            "li {t}, 0x7f\n vand.vx v12, v12, {t}\n li {t}, 0x80\n vor.vx v12, v12, {t}",
            "vmul.vv v16, v16, v12\n vsrl.vv v16, v16, v20\n vadd.vi v16, v16, 1\n vsrl.vi v16, v16, 1",
            "vse32.v v16, ({at})",
            "slli {t}, {vl}, 1\n add {scales}, {scales}, {t}\n slli {t}, {vl}, 2\n add {at}, {at}, {t}",
            "sub {n}, {n}, {vl}\n bnez {n}, 2b",
            "vsetivli zero, 1, e32, m1, ta, ma\n vmv.x.s {total}, v4",
            ".option pop",
            at = inout(reg) scores.as_mut_ptr() => _,
            scales = inout(reg) value_scales.as_ptr() => _,
            n = inout(reg) scores.len() => _,
            greatest = in(reg) greatest,
            exponent = in(reg) 8 + greatest_exponent,
            limit = in(reg) (16 << 16) - 1,
            most = in(reg) 31,
            c4 = in(reg) 453,
            c3 = in(reg) 3498,
            c2 = in(reg) 15_699,
            c1 = in(reg) 45_422,
            c0 = in(reg) 65_535,
            vl = out(reg) _,
            t = out(reg) _,
            total = lateout(reg) total,
            out("v0") _, out("v4") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
            out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _,
            options(nostack),
        );
    }
    total as u32
}
