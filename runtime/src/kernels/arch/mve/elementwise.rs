//! The f32 kernels between matrix products.
//!
//! Vectors where what they would flush can be told apart afterwards, by the least magnitude of what went in or came out; lanes of the
//! scalar unit, which flushes nothing, where that is as fast.

use super::vector_asm;
use crate::kernels::generic;
use crate::math;

/// The least magnitude whose square is a normal number.
const LEAST_TO_SQUARE: f32 = f32::from_bits((127 - 63) << 23);

/// See [`generic::rmsnorm`].
pub fn rmsnorm(out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    require!(out.len() == x.len() && gain.len() == x.len());
    if x.is_empty() || !x.len().is_multiple_of(8) {
        return generic::rmsnorm(out, x, gain, eps);
    }
    let (sum, least) = sum_of_squares(x);
    let least_input = if least >= LEAST_TO_SQUARE { least } else { least_but_zero(x) };
    if least_input < LEAST_TO_SQUARE {
        return generic::rmsnorm(out, x, gain, eps);
    }
    let inverse = math::inv_sqrt(sum / x.len() as f32 + eps);
    // Products only grow with their factors, rounding included: the least ones tell of all.
    if scale_by_gain(out, x, gain, inverse) < f32::MIN_POSITIVE
        && !(least_input * inverse > f32::MIN_POSITIVE
            && least_but_zero(gain) >= f32::MIN_POSITIVE
            && least_input * inverse * least_but_zero(gain) > f32::MIN_POSITIVE)
    {
        generic::rmsnorm(out, x, gain, eps);
    }
}

/// The sum of squares in the lanes and the order of the definition, and the least magnitude. `x` has whole eights and is not empty.
fn sum_of_squares(x: &[f32]) -> (f32, f32) {
    let mut least = f32::INFINITY.to_bits();
    let sum: u32;
    // SAFETY: it reads `x`.
    unsafe {
        vector_asm!(
            "vmov.i32 q0, #0\n vmov.i32 q1, #0\n vdup.32 q6, r1",
            "dls lr, lr",
            "2: vldrw.u32 q2, [r0], #32\n vldrw.u32 q3, [r0, #-16]",
            "vmul.f32 q4, q2, q2\n vmul.f32 q5, q3, q3\n vadd.f32 q0, q0, q4\n vadd.f32 q1, q1, q5",
            "vminnma.f32 q6, q2\n vminnma.f32 q6, q3\n le lr, 2b",
            "vminnmav.f32 r1, q6",
            "vadd.f32 q0, q0, q1\n vadd.f32 s0, s0, s2\n vadd.f32 s1, s1, s3\n vadd.f32 s0, s0, s1\n vmov r2, s0",
            inout("r0") x.as_ptr() => _,
            inout("r1") least,
            out("r2") sum,
            inout("lr") x.len() / 8 => _,
        );
    }
    (f32::from_bits(sum), f32::from_bits(least))
}

/// `out = (x * inverse) * gain`, whole eights of them; gives the least magnitude of the results.
fn scale_by_gain(out: &mut [f32], x: &[f32], gain: &[f32], inverse: f32) -> f32 {
    let mut least = f32::INFINITY.to_bits();
    // SAFETY: it reads `x` and `gain` and writes `out`, which the caller has found to be as long.
    unsafe {
        vector_asm!(
            "vdup.32 q6, r3\n dls lr, lr",
            "2: vldrw.u32 q0, [r1], #32\n vldrw.u32 q1, [r1, #-16]\n vldrw.u32 q2, [r2], #32\n vldrw.u32 q3, [r2, #-16]",
            "vmul.f32 q0, q0, r4\n vmul.f32 q1, q1, r4\n vmul.f32 q0, q0, q2\n vmul.f32 q1, q1, q3",
            "vminnma.f32 q6, q0\n vminnma.f32 q6, q1",
            "vstrw.32 q0, [r0], #32\n vstrw.32 q1, [r0, #-16]\n le lr, 2b",
            "vminnmav.f32 r3, q6",
            inout("r0") out.as_mut_ptr() => _,
            inout("r1") x.as_ptr() => _,
            inout("r2") gain.as_ptr() => _,
            inout("r3") least,
            in("r4") inverse.to_bits(),
            inout("lr") x.len() / 8 => _,
        );
    }
    f32::from_bits(least)
}

/// The least magnitude in `x` that is not 0; infinite or not a number where there is none.
fn least_but_zero(x: &[f32]) -> f32 {
    let mut least = u32::MAX;
    // SAFETY: it reads `x`. Without the sign and less 1, a zero becomes the greatest of numbers.
    unsafe {
        vector_asm!(
            "wlstp.32 lr, lr, 3f",
            "2: vldrw.u32 q0, [r0], #16\n vshl.i32 q0, q0, #1\n vsub.i32 q0, q0, r2\n vminv.u32 r1, q0\n letp lr, 2b\n 3:",
            inout("r0") x.as_ptr() => _,
            inout("r1") least,
            in("r2") 1,
            inout("lr") x.len() => _,
        );
    }
    f32::from_bits(least.saturating_add(1) >> 1)
}

/// See [`generic::swiglu`].
///
/// Up to the division flushing changes nothing: what is below the normal numbers is added to constants, or is multiplied before it is.
pub fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32]) {
    require!(out.len() == gate.len() && up.len() == gate.len());
    // The least magnitude of the results, the greatest of `gate`, the coefficients of `2^f` from the highest on.
    let powers = math::SILU_POWERS;
    let (mut least, mut greatest) = (f32::INFINITY.to_bits(), 0u32);
    // SAFETY: it reads `gate` and `up` and writes `out`, which are as long; what a tail does not have is masked, or divided in vain.
    unsafe {
        vector_asm!(
            "vdup.32 q6, r3\n vdup.32 q7, r4\n ldm r5, {{r3, r4, r5, r8, r9, r10}}",
            "wlstp.32 lr, lr, 3f",
            "2: vldrw.u32 q0, [r1], #16\n vmaxnma.f32 q7, q0",
            "vmul.f32 q1, q0, r11\n vadd.f32 q2, q1, r12\n vsub.f32 q3, q2, r12\n vsub.f32 q1, q1, q3",
            "vmul.f32 q3, q1, r3\n vadd.f32 q3, q3, r4\n vmul.f32 q3, q3, q1\n vadd.f32 q3, q3, r5",
            "vmul.f32 q3, q3, q1\n vadd.f32 q3, q3, r8\n vmul.f32 q3, q3, q1\n vadd.f32 q3, q3, r9",
            "vmul.f32 q3, q3, q1\n vadd.f32 q3, q3, r10",
            "vshl.i32 q2, q2, #23\n vadd.i32 q3, q3, q2\n vadd.f32 q3, q3, r10",
            "vdiv.f32 s0, s0, s12\n vdiv.f32 s1, s1, s13\n vdiv.f32 s2, s2, s14\n vdiv.f32 s3, s3, s15",
            "vldrw.u32 q1, [r2], #16\n vmul.f32 q0, q0, q1\n vminnma.f32 q6, q0\n vstrw.32 q0, [r0], #16\n letp lr, 2b",
            "3: mov r3, #0x7f800000\n vminnmav.f32 r3, q6\n movs r4, #0\n vmaxnmav.f32 r4, q7",
            inout("r0") out.as_mut_ptr() => _,
            inout("r1") gate.as_ptr() => _,
            inout("r2") up.as_ptr() => _,
            inout("r3") least,
            inout("r4") greatest,
            inout("r5") powers.as_ptr() => _,
            out("r8") _, out("r9") _, out("r10") _,
            in("r11") (-core::f32::consts::LOG2_E).to_bits(),
            in("r12") math::ROUND_MAGIC.to_bits(),
            inout("lr") gate.len() => _,
        );
    }
    if f32::from_bits(least) < f32::MIN_POSITIVE || greatest << 1 >= math::SILU_LIMIT {
        generic::swiglu(out, gate, up);
    }
}

/// See [`generic::scale_integers`]. With a normal factor no result is below the normal numbers.
pub fn scale_integers(out: &mut [f32], sums: &[i32], factor: f32) {
    if !factor.is_normal() {
        return generic::scale_integers(out, sums, factor);
    }
    // SAFETY: it reads and writes as many as the shorter has.
    unsafe {
        vector_asm!(
            "wlstp.32 lr, lr, 3f",
            "2: vldrw.u32 q0, [r1], #16\n vcvt.f32.s32 q0, q0\n vmul.f32 q0, q0, r2\n vstrw.32 q0, [r0], #16\n letp lr, 2b\n 3:",
            inout("r0") out.as_mut_ptr() => _,
            inout("r1") sums.as_ptr() => _,
            in("r2") factor.to_bits(),
            inout("lr") out.len().min(sums.len()) => _,
        );
    }
}

/// See [`generic::add`].
pub fn add(x: &mut [f32], y: &[f32]) {
    let n = x.len().min(y.len());
    let (x, y) = (&mut x[..n], &y[..n]);
    let (whole, rest) = x.as_chunks_mut::<16>();
    // SAFETY: it reads `y` and adds to as many of `x`, which are whole sixteens.
    unsafe {
        vector_asm!(
            "wls lr, lr, 3f",
            "2: vldmia r0, {{s0-s15}}\n vldmia r1!, {{s16-s31}}",
            "vadd.f32 s0, s0, s16\n vadd.f32 s1, s1, s17\n vadd.f32 s2, s2, s18\n vadd.f32 s3, s3, s19",
            "vadd.f32 s4, s4, s20\n vadd.f32 s5, s5, s21\n vadd.f32 s6, s6, s22\n vadd.f32 s7, s7, s23",
            "vadd.f32 s8, s8, s24\n vadd.f32 s9, s9, s25\n vadd.f32 s10, s10, s26\n vadd.f32 s11, s11, s27",
            "vadd.f32 s12, s12, s28\n vadd.f32 s13, s13, s29\n vadd.f32 s14, s14, s30\n vadd.f32 s15, s15, s31",
            "vstmia r0!, {{s0-s15}}\n le lr, 2b\n 3:",
            inout("r0") whole.as_mut_ptr() => _,
            inout("r1") y.as_ptr() => _,
            inout("lr") whole.len() => _,
        );
    }
    generic::add(rest, &y[n / 16 * 16..]);
}

/// See [`generic::rotate`], for each head of the width of `cos_sin`.
pub fn rotate_heads(x: &mut [f32], cos_sin: &[f32]) {
    let Ok(cos_sin) = <&[f32; 8]>::try_from(cos_sin) else {
        return x.chunks_exact_mut(cos_sin.len().max(1)).for_each(|head| generic::rotate(head, cos_sin));
    };
    let heads = x.as_chunks_mut::<8>().0;
    // SAFETY: it reads `cos_sin`, and reads and writes `heads`. Products are rounded before they are added: these are not fused.
    unsafe {
        vector_asm!(
            "vldmia r1, {{s24-s31}}\n wls lr, lr, 3f",
            "2: vldmia r0, {{s0-s7}}",
            "vmul.f32 s8, s0, s24\n vmul.f32 s9, s1, s25\n vmul.f32 s10, s2, s26\n vmul.f32 s11, s3, s27",
            "vmls.f32 s8, s4, s28\n vmls.f32 s9, s5, s29\n vmls.f32 s10, s6, s30\n vmls.f32 s11, s7, s31",
            "vmul.f32 s12, s4, s24\n vmul.f32 s13, s5, s25\n vmul.f32 s14, s6, s26\n vmul.f32 s15, s7, s27",
            "vmla.f32 s12, s0, s28\n vmla.f32 s13, s1, s29\n vmla.f32 s14, s2, s30\n vmla.f32 s15, s3, s31",
            "vstmia r0!, {{s8-s15}}\n le lr, 2b\n 3:",
            inout("r0") heads.as_mut_ptr() => _,
            in("r1") cos_sin,
            inout("lr") heads.len() => _,
        );
    }
}
