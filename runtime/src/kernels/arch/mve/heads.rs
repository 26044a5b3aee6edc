//! Attention of query heads of 8 that share a key head, each in one go: its integers stay in registers from step to step, and what is the
//! same for all of them is found once.

use super::attention::{add_eight_values, greatest_scale, powers, weights};
use super::vector_asm;
use crate::kernels::generic;
use crate::math;
use crate::tensor;

/// Elements of a head.
const WIDTH: usize = 8;

/// Positions that a vector of weights has.
const BLOCK: usize = 8;

/// With this or a greater exponent among the value scales, what sums are multiplied by is a normal number: they are divided by less
/// than `2^26`.
const LEAST_EXPONENT: u32 = 32;

/// The coefficients of [`math::exp2_neg_q16`] in all lanes, the last one's first.
static QUARTIC: [[u16; 8]; 4] = {
    let [highest, third, second, first] = math::EXP2_Q16;
    [[first as u16; 8], [second as u16; 8], [third as u16; 8], [highest as u16; 8]]
};

/// A key head's part of the cache: elements, `(n_positions, 8)`, and bfloat16 scales, `(n_positions,)`.
type Cached<'a> = (&'a [i8], &'a [u16]);

/// See [`crate::kernels::Kernels::attend_heads`].
pub fn attend_heads(
    out: &mut [f32],
    q: &[f32],
    temperature: f32,
    keys: Cached<'_>,
    values: Cached<'_>,
    scores: &mut [i32],
) -> bool {
    let n = keys.1.len();
    let (heads, whole) = (out.as_chunks_mut::<WIDTH>().0, q.as_chunks::<WIDTH>().0);
    let value_exponent = u32::from(greatest_scale(values.1) >> 7);
    let is_ours = keys.0.len() == WIDTH * n
        && values.0.len() == WIDTH * n
        && values.1.len() == n
        && (1..=generic::VALUE_BLOCK).contains(&n)
        // The last vector of scores is read whole.
        && scores.len() >= n.next_multiple_of(BLOCK)
        && value_exponent >= LEAST_EXPONENT;
    if !is_ours {
        return false;
    }
    let key_exponent = i32::from(greatest_scale(keys.1) >> 7);
    let unit = f32::from_bits((value_exponent + 2).min(254) << 23);
    for (out, q) in heads.iter_mut().zip(whole) {
        let (scale, inverse) = tensor::scale_to(tensor::QUERY_LIMIT, magnitude_bits(q));
        // SAFETY: `is_ours` has compared the lengths.
        unsafe { score_dots(q, inverse, keys.0.as_ptr(), scores, n) };
        let (mantissa, right_of_zero) = generic::fixed_point(scale * temperature);
        let greatest = if key_exponent > right_of_zero {
            // Shifts to the left saturate in a way of their own.
            generic::score_exponents(&mut scores[..n], keys.1, scale * temperature)
        } else {
            // SAFETY: likewise.
            unsafe { score_exponents(scores, keys.1, mantissa, right_of_zero) }
        };
        // SAFETY: likewise. Scores are within `2^30`.
        unsafe { weigh_values(out, scores, greatest, values, value_exponent, unit) };
    }
    true
}

/// The bits of the largest magnitude.
fn magnitude_bits(x: &[f32; WIDTH]) -> u32 {
    let mut greatest = 0;
    // SAFETY: it reads `x`.
    unsafe {
        vector_asm!(
            "vldrw.u32 q0, [r0]\n vldrw.u32 q1, [r0, #16]",
            "vbic.i32 q0, #0x80000000\n vbic.i32 q1, #0x80000000\n vmaxv.u32 r2, q0\n vmaxv.u32 r2, q1",
            in("r0") x,
            inout("r2") greatest,
        );
    }
    greatest
}

/// The dot products of `n` keys and the query `x`, rounded to integers as [`super::quantize`] does.
///
/// # Safety
/// `k` is valid for reads of `8 * n` bytes, and `dots` has `n`.
#[inline(always)]
unsafe fn score_dots(x: &[f32; WIDTH], inverse: f32, k: *const i8, dots: &mut [i32], n: usize) {
    // SAFETY: it reads `x` and what the caller vouches for, and writes `dots`.
    unsafe {
        vector_asm!(
            "vld20.32 {{q6, q7}}, [r3]\n vld21.32 {{q6, q7}}, [r3]",
            "vmul.f32 q6, q6, r4\n vmul.f32 q7, q7, r4\n vadd.f32 q6, q6, r8\n vadd.f32 q7, q7, r8",
            "vmovnt.i32 q6, q7",
            "wls lr, lr, 3f",
            "2:\n .rept 2",
            "vldrb.s16 q0, [r1], #32\n vldrb.s16 q1, [r1, #-24]\n vldrb.s16 q2, [r1, #-16]\n vldrb.s16 q3, [r1, #-8]",
            "vmladav.s16 r2, q0, q6\n vmladav.s16 r4, q1, q6\n vmladav.s16 r8, q2, q6\n vmladav.s16 r10, q3, q6",
            "stm r0!, {{r2, r4, r8, r10}}\n .endr\n le lr, 2b",
            "3: wls lr, r5, 5f",
            "4: vldrb.s16 q0, [r1], #8\n vmladav.s16 r2, q0, q6\n str r2, [r0], #4\n le lr, 4b",
            "5:",
            inout("r0") dots.as_mut_ptr() => _,
            inout("r1") k => _,
            in("r3") x,
            inout("r4") inverse.to_bits() => _,
            in("r5") n % BLOCK,
            inout("r8") math::ROUND_MAGIC.to_bits() => _,
            inout("lr") n / BLOCK => _,
            out("r2") _, out("r10") _,
        );
    }
}

/// The loop of [`generic::score_exponents`] for shifts to the right.
///
/// # Safety
/// There are as many scores as scales.
#[inline(always)]
unsafe fn score_exponents(scores: &mut [i32], key_scales: &[u16], mantissa: i32, right_of_zero: i32) -> i32 {
    let mut greatest = i32::MIN;
    // SAFETY: it reads `key_scales`, and reads and writes as many scores.
    unsafe {
        vector_asm!(
            "vmov.i16 q7, #1\n wls lr, lr, 3f",
            "2: vld20.32 {{q2, q3}}, [r0]\n vld21.32 {{q2, q3}}, [r0]\n vldrh.u16 q0, [r1], #16",
            // A shift takes a lane's low byte, so that saturates: far to the right nothing changes any more.
            "vshr.u16 q1, q0, #7\n vsub.i16 q1, q1, r5\n vqmovnb.s16 q1, q1",
            // The mantissa, with its leading one put over the exponent. Even positions first.
            "vsli.16 q0, q7, #7\n vmovlb.u16 q4, q0\n vmovlt.u16 q0, q0",
            "vmul.i32 q4, q4, r4\n vmulh.s32 q2, q2, q4\n vshl.s32 q2, q2, q1\n vmaxv.s32 r3, q2",
            "vshr.u32 q1, q1, #16",
            "vmul.i32 q0, q0, r4\n vmulh.s32 q3, q3, q0\n vshl.s32 q3, q3, q1\n vmaxv.s32 r3, q3",
            "vst20.32 {{q2, q3}}, [r0]\n vst21.32 {{q2, q3}}, [r0]!\n le lr, 2b",
            "3: vmov.i32 q7, #1\n wlstp.32 lr, r2, 5f",
            "4: vldrh.u32 q0, [r1], #8\n vldrw.u32 q2, [r0]",
            "vshr.u32 q1, q0, #7\n vsub.i32 q1, q1, r5\n vqmovnb.s16 q1, q1",
            "vsli.32 q0, q7, #7\n vmul.i32 q0, q0, r4\n vmulh.s32 q2, q2, q0\n vshl.s32 q2, q2, q1",
            "vstrw.32 q2, [r0], #16\n vmaxv.s32 r3, q2\n letp lr, 4b\n 5:",
            inout("r0") scores.as_mut_ptr() => _,
            inout("r1") key_scales.as_ptr() => _,
            in("r2") key_scales.len() % BLOCK,
            inout("r3") greatest,
            in("r4") mantissa,
            in("r5") right_of_zero,
            inout("lr") key_scales.len() / BLOCK => _,
        );
    }
    greatest
}

/// The head's output: the softmax of the scores, whose powers and weights replace them, and the values times those.
///
/// # Safety
/// There are as many scores as scales, of whole vectors, and eight elements of each value; scores are within `2^30`.
#[inline(always)]
unsafe fn weigh_values(
    out: &mut [f32; WIDTH],
    scores: &mut [i32],
    greatest: i32,
    (values, scales): Cached<'_>,
    greatest_exponent: u32,
    unit: f32,
) {
    // SAFETY: it reads what the caller vouches for, reads and writes `scores`, writes `out`, and restores r6 and the stack.
    unsafe {
        vector_asm!(
            "vldrw.u32 q4, [r8]\n vldrw.u32 q5, [r8, #16]\n vldrw.u32 q6, [r8, #32]\n vldrw.u32 q7, [r8, #48]",
            "mov r8, r0\n wls lr, lr, 3f",
            // Weights are left as halfwords, one behind the other in the front half of the scores.
            "2: vld20.32 {{q0, q1}}, [r0]\n vld21.32 {{q0, q1}}, [r0]!",
            powers!(),
            "vaddva.u16 r2, q1\n vldrh.u16 q0, [r1], #16",
            weights!(),
            "vstrh.16 q2, [r5], #16\n le lr, 2b",
            // The rest as well, but only what there is of it counts.
            "3: cmp r12, #0\n beq 4f",
            "vld20.32 {{q0, q1}}, [r0]\n vld21.32 {{q0, q1}}, [r0]",
            powers!(),
            "vctp.16 r12\n vpstt\n vaddvat.u16 r2, q1\n vldrht.u16 q0, [r1]",
            weights!(),
            "vpst\n vstrht.16 q2, [r5]",
            "4: push {{r2, r6, r10, r12}}\n mov r1, r8\n mov r3, r11",
            "clrm {{r0, r2, r4, r6, r8, r10, r12, lr}}\n cmp r1, r5\n beq 6f",
            "5: vldrh.u16 q4, [r1], #16",
            add_eight_values!(),
            "cmp r1, r5\n bne 5b",
            "6: stm r9, {{r0, r2, r4, r6, r8, r10, r12, lr}}\n vldrw.u32 q2, [r9]\n vldrw.u32 q3, [r9, #16]",
            "pop {{r2, r6, r10, r12}}\n wls lr, r12, 8f",
            "7: ldrh r4, [r1], #2\n vldrb.s32 q0, [r3], #8\n vldrb.s32 q1, [r3, #-4]",
            "vmla.s32 q2, q0, r4\n vmla.s32 q3, q1, r4\n le lr, 7b",
            // With a normal factor no result is below the normal numbers.
            "8: vmov s0, r2\n vmov s1, r10\n vcvt.f32.u32 s0, s0\n vdiv.f32 s0, s1, s0\n vmov r4, s0",
            "vcvt.f32.s32 q2, q2\n vcvt.f32.s32 q3, q3\n vmul.f32 q2, q2, r4\n vmul.f32 q3, q3, r4",
            "vstrw.32 q2, [r9]\n vstrw.32 q3, [r9, #16]",
            inout("r0") scores.as_mut_ptr() => _,
            inout("r1") scales.as_ptr() => _,
            inout("r2") 0 => _,
            inout("r3") greatest - 65_535 => _,
            inout("r4") greatest_exponent + 1 => _,
            inout("r5") scores.as_mut_ptr() => _,
            inout("r8") &QUARTIC => _,
            in("r9") out,
            in("r10") unit.to_bits(),
            in("r11") values.as_ptr(),
            in("r12") scales.len() % BLOCK,
            inout("lr") scales.len() / BLOCK => _,
        );
    }
}
