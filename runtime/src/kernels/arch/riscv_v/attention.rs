//! Dot products with keys and sums of weighted values: the elements of a head are the lanes.

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
