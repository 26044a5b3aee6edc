//! Loops over f32 whose elements do not meet: as many at a time as four vector registers hold.

use core::arch::asm;

/// The bits of the largest magnitude in `x`, which order as integers do.
pub fn magnitude_bits(x: &[f32]) -> u32 {
    let largest: usize;
    // SAFETY: it reads `x`.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "vsetivli zero, 1, e32, m1, ta, ma\n vmv.s.x v8, zero",
            "beqz {n}, 3f",
            "2: vsetvli {vl}, {n}, e32, m4, ta, ma",
            "vle32.v v12, ({x})",
            "vsll.vi v12, v12, 1",
            "vredmaxu.vs v8, v12, v8",
            "slli {bytes}, {vl}, 2\n add {x}, {x}, {bytes}\n sub {n}, {n}, {vl}",
            "bnez {n}, 2b",
            "3: vsetivli zero, 1, e32, m1, ta, ma\n vsrl.vi v8, v8, 1\n vmv.x.s {largest}, v8",
            ".option pop",
            x = inout(reg) x.as_ptr() => _,
            n = inout(reg) x.len() => _,
            vl = out(reg) _,
            bytes = out(reg) _,
            largest = lateout(reg) largest,
            out("v8") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            options(nostack, readonly),
        );
    }
    largest as u32
}

/// [`crate::math::round_i32`] of each `x * inverse`: the low half of the sum with `1.5 * 2^23`, whose own low half is 0.
///
/// # Safety
/// `x` is valid for reads and `values` for writes of `n` elements.
pub unsafe fn round_scaled(inverse: f32, x: *const f32, values: *mut i16, n: usize) {
    if n == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "2: vsetvli {vl}, {n}, e32, m4, ta, ma",
            "vle32.v v8, ({x})",
            "vfmul.vf v8, v8, {inverse}",
            "vfadd.vf v8, v8, {magic}",
            "vsetvli zero, zero, e16, m2, ta, ma",
            "vnsrl.wi v12, v8, 0",
            "vse16.v v12, ({values})",
            "slli {bytes}, {vl}, 1\n add {values}, {values}, {bytes}",
            "slli {bytes}, {vl}, 2\n add {x}, {x}, {bytes}",
            "sub {n}, {n}, {vl}\n bnez {n}, 2b",
            ".option pop",
            x = inout(reg) x => _,
            values = inout(reg) values => _,
            n = inout(reg) n => _,
            vl = out(reg) _,
            bytes = out(reg) _,
            inverse = in(freg) inverse,
            magic = in(freg) crate::math::ROUND_MAGIC,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
            options(nostack),
        );
    }
}

/// `out[i] = float(sums[i]) * factor`.
///
/// # Safety
/// `sums` is valid for reads of as many elements as `out` has.
pub unsafe fn scale_integers(out: &mut [f32], sums: *const i32, factor: f32) {
    if out.is_empty() {
        return;
    }
    // SAFETY: it writes `out`, and reads what the caller vouches for.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "2: vsetvli {vl}, {n}, e32, m4, ta, ma",
            "vle32.v v8, ({sums})",
            "vfcvt.f.x.v v8, v8",
            "vfmul.vf v8, v8, {factor}",
            "vse32.v v8, ({out})",
            "slli {bytes}, {vl}, 2\n add {sums}, {sums}, {bytes}\n add {out}, {out}, {bytes}",
            "sub {n}, {n}, {vl}\n bnez {n}, 2b",
            ".option pop",
            out = inout(reg) out.as_mut_ptr() => _,
            sums = inout(reg) sums => _,
            n = inout(reg) out.len() => _,
            vl = out(reg) _,
            bytes = out(reg) _,
            factor = in(freg) factor,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            options(nostack),
        );
    }
}

/// `x[i] += y[i]`.
///
/// # Safety
/// `y` is valid for reads of as many elements as `x` has.
pub unsafe fn add(x: &mut [f32], y: *const f32) {
    if x.is_empty() {
        return;
    }
    // SAFETY: it reads and writes `x`, and reads what the caller vouches for.
    unsafe {
        asm!(
            ".option push\n .option arch, +v",
            "2: vsetvli {vl}, {n}, e32, m4, ta, ma",
            "vle32.v v8, ({x})\n vle32.v v12, ({y})",
            "vfadd.vv v8, v8, v12",
            "vse32.v v8, ({x})",
            "slli {bytes}, {vl}, 2\n add {x}, {x}, {bytes}\n add {y}, {y}, {bytes}",
            "sub {n}, {n}, {vl}\n bnez {n}, 2b",
            ".option pop",
            x = inout(reg) x.as_mut_ptr() => _,
            y = inout(reg) y => _,
            n = inout(reg) x.len() => _,
            vl = out(reg) _,
            bytes = out(reg) _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            options(nostack),
        );
    }
}
