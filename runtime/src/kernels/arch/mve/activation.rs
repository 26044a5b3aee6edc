//! GELU, four numbers at a time, where vectors flush nothing that counts.

use super::vector_asm;
use crate::kernels::{Activation, generic};
use crate::math;

/// From here on the share beyond a number comes near the least normal number.
const GELU_LIMIT: f32 = 12.0;
/// The least magnitude, but for 0, of which every product that counts is a normal number.
const GELU_LEAST: f32 = f32::from_bits((127 - 100) << 23);

/// What [`gelu`] needs, in the order in which it does.
static GELU: [f32; 21] = {
    let [a, b, c, d, e, f, g] = math::GELU_POWERS;
    let [p, q, r, s, t, u] = math::EXP_POWERS;
    let (log2_e, magic) = (core::f32::consts::LOG2_E, math::ROUND_MAGIC);
    let (high, low) = (math::LN2_HI, math::LN2_LO);
    [math::GELU_SLOPE, 1.0, a, b, c, d, e, f, g, -0.5, log2_e, magic, high, low, p, q, r, s, t, u, 1.0]
};

/// See [`crate::kernels::Kernels::activate`].
pub fn activate(activation: Activation, x: &mut [f32]) {
    match activation {
        Activation::Gelu if is_ordinary(x) => gelu(x),
        other => generic::activate(other, x),
    }
}

/// Whether all numbers are 0 or between the limits.
fn is_ordinary(x: &[f32]) -> bool {
    let (mut least, mut greatest) = (u32::MAX, 0u32);
    // SAFETY: it reads `x`. Without the sign, numbers order as integers; less 1, a zero becomes the greatest.
    unsafe {
        vector_asm!(
            "wlstp.32 lr, lr, 3f",
            "2: vldrw.u32 q0, [r0], #16\n vshl.i32 q0, q0, #1\n vmaxv.u32 r3, q0\n vsub.i32 q0, q0, r2\n vminv.u32 r1, q0",
            "letp lr, 2b\n 3:",
            inout("r0") x.as_ptr() => _,
            inout("r1") least,
            in("r2") 1,
            inout("r3") greatest,
            inout("lr") x.len() => _,
        );
    }
    greatest < GELU_LIMIT.to_bits() << 1 && least >= (GELU_LEAST.to_bits() << 1) - 1
}

/// [`math::gelu`] of ordinary numbers, in its order of operations. What is flushed nevertheless, squares of small numbers, is added to
/// larger ones.
fn gelu(x: &mut [f32]) {
    // SAFETY: it reads and writes `x`, and reads the constants; what a tail does not have is divided in vain.
    unsafe {
        vector_asm!(
            "vmov.f32 s28, #1.0\n wlstp.32 lr, lr, 3f",
            "2: vldrw.u32 q0, [r0]\n vabs.f32 q1, q0\n ldm r1!, {{r2, r3, r4, r5, r8, r9, r10, r11, r12}}",
            "vmul.f32 q1, q1, r2\n vadd.f32 q1, q1, r3",
            "vdiv.f32 s4, s28, s4\n vdiv.f32 s5, s28, s5\n vdiv.f32 s6, s28, s6\n vdiv.f32 s7, s28, s7",
            "vmul.f32 q2, q1, r4\n vadd.f32 q2, q2, r5\n vmul.f32 q2, q2, q1\n vadd.f32 q2, q2, r8",
            "vmul.f32 q2, q2, q1\n vadd.f32 q2, q2, r9\n vmul.f32 q2, q2, q1\n vadd.f32 q2, q2, r10",
            "vmul.f32 q2, q2, q1\n vadd.f32 q2, q2, r11\n vmul.f32 q2, q2, q1\n vadd.f32 q2, q2, r12",
            // The exponential of half the negative square.
            "ldm r1!, {{r2, r3, r4, r5, r8, r9, r10, r11, r12}}",
            "vmul.f32 q3, q0, q0\n vmul.f32 q3, q3, r2\n vmul.f32 q4, q3, r3\n vadd.f32 q4, q4, r4\n vsub.f32 q5, q4, r4",
            "vmul.f32 q6, q5, r5\n vsub.f32 q3, q3, q6\n vmul.f32 q6, q5, r8\n vsub.f32 q3, q3, q6",
            "vmul.f32 q5, q3, r9\n vadd.f32 q5, q5, r10\n vmul.f32 q5, q5, q3\n vadd.f32 q5, q5, r11",
            "vmul.f32 q5, q5, q3\n vadd.f32 q5, q5, r12\n ldm r1!, {{r2, r3, r4}}",
            "vmul.f32 q5, q5, q3\n vadd.f32 q5, q5, r2\n vmul.f32 q5, q5, q3\n vadd.f32 q5, q5, r3",
            "vmul.f32 q6, q3, q3\n vmul.f32 q5, q5, q6\n vadd.f32 q5, q5, q3\n vadd.f32 q5, q5, r4",
            // The bits of 1 are also what an exponent is counted from.
            "vshl.i32 q4, q4, #23\n vadd.i32 q4, q4, r4\n vmul.f32 q5, q5, q4",
            "vmul.f32 q2, q2, q1\n vmul.f32 q2, q2, q5\n vmul.f32 q2, q2, q0\n vsub.f32 q1, q0, q2",
            "vcmp.f32 lt, q0, zr\n vpsel q0, q2, q1\n vstrw.32 q0, [r0], #16\n sub r1, r1, #84\n letp lr, 2b\n 3:",
            inout("r0") x.as_mut_ptr() => _,
            inout("r1") &GELU => _,
            out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _,
            inout("lr") x.len() => _,
        );
    }
}
