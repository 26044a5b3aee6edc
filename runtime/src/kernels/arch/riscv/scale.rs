//! Exact sums into outputs: `float(sum) * (row_scale * scale)`, in place. [`OutputScale`] is the same, one at a time.

use core::arch::asm;

use crate::kernels::soft_float::OutputScale;
use crate::kernels::soft_float::arithmetic::{BYTE_LEADING_ZEROS, Rounded, TOP};

/// Turns the bits of `out`, which are sums as `i32`, into outputs. `row_scales` has no fewer.
pub fn scale_sums(out: &mut [f32], row_scales: &[f32], scale: f32) {
    let n = out.len();
    let row_scales = &row_scales[..n];
    let slow = OutputScale::new(scale);
    let mut done = 0;
    while let Some(scale) = Rounded::new(scale)
        && done < n
    {
        // SAFETY: from `done` on, `row_scales` has as many elements as `out`, and not none.
        done += unsafe { scale_while_ordinary(&mut out[done..], row_scales[done..].as_ptr(), scale) };
        if let Some(out) = out.get_mut(done) {
            *out = slow.apply(out.to_bits() as i32, row_scales[done]);
            done += 1;
        }
    }
    for (out, &row_scale) in out[done..].iter_mut().zip(&row_scales[done..]) {
        *out = slow.apply(out.to_bits() as i32, row_scale);
    }
}

/// One product with what `$factor` holds, normalised and rounded to 24 bits above `$below`.
macro_rules! times {
    ($product:literal, $full:literal, $half:literal, $tie:literal, $skip:literal, $back:literal) => {
        concat!(
            "mulhu ",
            $product,
            ", ",
            $full,
            ", ",
            $half,
            "\n",
            "bgeu ",
            $product,
            ", s3, ",
            $skip,
            "f\n slli ",
            $product,
            ", ",
            $product,
            ", 1\n addi a4, a4, -1\n",
            $skip,
            ": andi a5, ",
            $product,
            ", 0x7f\n addi ",
            $product,
            ", ",
            $product,
            ", 0x40\n",
            "beq a5, s4, ",
            $tie,
            "f\n",
            $back,
            ":\n",
        )
    };
}

/// Scales the sums from the first on, until one has no ordinary scale or output, or more than 24 bits; gives how many it scaled.
///
/// # Safety
/// `row_scales` is valid for reads of as many elements as `out` has, which is not none.
#[inline(never)]
unsafe fn scale_while_ordinary(out: &mut [f32], row_scales: *const f32, scale: Rounded) -> usize {
    let range = out.as_mut_ptr_range();
    let mut at = range.start;
    // SAFETY: it reads and writes `out`, and reads as many scales and the table.
    unsafe {
        asm!(
            "2: lw a0, 0(t0)\n lw a1, 0(t1)",
            "beqz a0, 9f",
            // The magnitude, its sign in a2, and its leading zeros in a3.
            "srai a2, a0, 31\n xor a0, a0, a2\n sub a0, a0, a2",
            "srli a5, a0, 16\n bnez a5, 4f",
            "srli a5, a0, 8\n beqz a5, 5f",
            "add a5, a5, s2\n lbu a3, 0(a5)\n addi a3, a3, 16",
            "3: sll a0, a0, a3",
            "srli a4, a1, 23\n addi a5, a4, -1\n bgeu a5, s5, 10f",
            "slli a1, a1, 8\n or a1, a1, s6",
            // The row's scale times the activations', then the sum times that.
            times!("a6", "a1", "t3", "6", "20", "21"),
            "andi a6, a6, -128\n add a4, a4, t4",
            "blt a4, s7, 10f",
            times!("a7", "a0", "a6", "7", "22", "23"),
            "sub a4, a4, a3\n bgeu a4, s5, 10f",
            "srli a7, a7, 7\n slli a4, a4, 23\n slli a2, a2, 31\n add a7, a7, a4\n add a7, a7, a2",
            "8: sw a7, 0(t0)",
            "addi t0, t0, 4\n addi t1, t1, 4\n bne t0, t2, 2b",
            "j 10f",
            // Large and small sums.
            "4: srli a3, a5, 8\n bnez a3, 10f",
            "add a5, a5, s2\n lbu a3, 0(a5)\n addi a3, a3, 8\n j 3b",
            "5: add a5, a0, s2\n lbu a3, 0(a5)\n addi a3, a3, 24\n j 3b",
            // Half-way, unless something of it is in the lower half of the product.
            "6: mul a5, a1, t3\n bnez a5, 21b\n andi a6, a6, -256\n j 21b",
            "7: mul a5, a0, a6\n bnez a5, 23b\n andi a7, a7, -256\n j 23b",
            "9: li a7, 0\n j 8b",
            "10:",
            inout("t0") at,
            inout("t1") row_scales => _,
            in("t2") range.end,
            in("t3") scale.mantissa,
            // So that the exponent of the product of scales is 31 above its field, and so is the output's before the zeros are taken off.
            in("t4") scale.exponent - 126 + 31,
            in("s2") BYTE_LEADING_ZEROS.as_ptr(),
            in("s3") 1 << 30,
            in("s4") 0x40,
            in("s5") 254,
            in("s6") TOP,
            in("s7") 32,
            out("a0") _, out("a1") _, out("a2") _, out("a3") _, out("a4") _, out("a5") _, out("a6") _, out("a7") _,
            options(nostack),
        );
        at.offset_from_unsigned(range.start)
    }
}
