//! Dot products with keys, the softmax's loops, and sums of weighted values.

use super::vector_asm;
use crate::kernels::generic;
use crate::kv_cache::UE5M3_LEAST;
use crate::math;

/// The loops of [`generic::score_dots`]: any head of up to `2^16` elements.
pub fn score_dots(q: &[i16], k: &[i8], dots: &mut [i32]) {
    require!(k.len() >= dots.len() * q.len());
    if let Ok(q) = <&[i16; 8]>::try_from(q) {
        // SAFETY: there are eight elements of a key for each dot product.
        return unsafe { score_dots_of_8(q, k.as_ptr(), dots) };
    }
    if dots.is_empty() || q.is_empty() {
        return dots.fill(0);
    }
    let range = dots.as_mut_ptr_range();
    // SAFETY: it reads `q` and as many elements of each key, and writes `dots`. What lies behind a key's last is masked.
    unsafe {
        vector_asm!(
            "2: mov r3, r5\n mov r4, r1\n mov r8, #0",
            "wlstp.16 lr, r9, 4f",
            "3: vldrb.s16 q0, [r4], #8\n vldrh.u16 q1, [r3], #16\n vmladava.s16 r8, q0, q1\n letp lr, 3b",
            "4: str r8, [r0], #4\n add r1, r1, r9\n cmp r0, r2\n bne 2b",
            inout("r0") range.start => _,
            inout("r1") k.as_ptr() => _,
            in("r2") range.end,
            in("r5") q.as_ptr(),
            in("r9") q.len(),
            out("r3") _, out("r4") _, out("r8") _, out("lr") _,
        );
    }
}

/// The same for a head of 8: a key is a vector, and several sums are stored at once.
///
/// # Safety
/// `k` is valid for reads of `8 * dots.len()` bytes.
unsafe fn score_dots_of_8(q: &[i16; 8], k: *const i8, dots: &mut [i32]) {
    // SAFETY: it reads `q` and what the caller vouches for, and writes `dots`.
    unsafe {
        vector_asm!(
            "vldrh.u16 q7, [r3]",
            "wls lr, lr, 3f",
            "2:\n .rept 2",
            "vldrb.s16 q0, [r1], #32\n vldrb.s16 q1, [r1, #-24]\n vldrb.s16 q2, [r1, #-16]\n vldrb.s16 q3, [r1, #-8]",
            "vmladav.s16 r2, q0, q7\n vmladav.s16 r4, q1, q7\n vmladav.s16 r8, q2, q7\n vmladav.s16 r10, q3, q7",
            "stm r0!, {{r2, r4, r8, r10}}\n .endr\n le lr, 2b",
            "3: wls lr, r5, 5f",
            "4: vldrb.s16 q0, [r1], #8\n vmladav.s16 r2, q0, q7\n str r2, [r0], #4\n le lr, 4b",
            "5:",
            inout("r0") dots.as_mut_ptr() => _,
            inout("r1") k => _,
            in("r3") q,
            in("r5") dots.len() % 8,
            inout("lr") dots.len() / 8 => _,
            out("r2") _, out("r4") _, out("r8") _, out("r10") _,
        );
    }
}

/// The greatest of `scales`.
pub fn greatest_scale(scales: &[u16]) -> u16 {
    let mut greatest = 0u32;
    // SAFETY: it reads `scales`.
    unsafe {
        vector_asm!(
            "wlstp.16 lr, lr, 3f",
            "2: vldrh.u16 q0, [r0], #16\n vmaxv.u16 r2, q0\n letp lr, 2b\n 3:",
            inout("r0") scales.as_ptr() => _,
            inout("r2") greatest,
            inout("lr") scales.len() => _,
        );
    }
    greatest as u16
}

/// Scales of a byte as bfloat16.
pub fn unpack_ue5m3(scales: &[u8], unpacked: &mut [u16]) {
    require!(scales.len() == unpacked.len());
    // SAFETY: it reads `scales`, and writes as many halves to `unpacked`.
    unsafe {
        vector_asm!(
            "wlstp.16 lr, lr, 3f",
            "2: vldrb.u16 q0, [r0], #8\n vshl.i16 q0, q0, #4\n vadd.i16 q0, q0, r2\n vstrh.16 q0, [r1], #16\n letp lr, 2b\n 3:",
            inout("r0") scales.as_ptr() => _,
            inout("r1") unpacked.as_mut_ptr() => _,
            in("r2") u32::from(UE5M3_LEAST),
            inout("lr") scales.len() => _,
        );
    }
}

/// See [`generic::score_exponents`].
pub fn score_exponents(scores: &mut [i32], key_scales: &[u16], per_unit: f32) -> i32 {
    require!(scores.len() == key_scales.len());
    let (mantissa, right_of_zero) = generic::fixed_point(per_unit);
    // Shifts to the left saturate in a way of their own.
    if i32::from(greatest_scale(key_scales) >> 7) > right_of_zero {
        return generic::score_exponents(scores, key_scales, per_unit);
    }
    let mut greatest = i32::MIN;
    // SAFETY: it reads and writes `scores`, and reads as many scales.
    unsafe {
        vector_asm!(
            "vmov.i32 q7, #1",
            "wlstp.32 lr, lr, 3f",
            "2: vldrh.u32 q0, [r1], #8\n vldrw.u32 q2, [r0]",
            // A shift takes its low byte, so that saturates: far to the right nothing changes any more.
            "vshr.u32 q1, q0, #7\n vsub.i32 q1, q1, r5\n vqmovnb.s16 q1, q1",
            // The mantissa, with its leading one put over the exponent.
            "vsli.32 q0, q7, #7\n vmul.i32 q0, q0, r4",
            "vmulh.s32 q2, q2, q0\n vshl.s32 q2, q2, q1",
            "vstrw.32 q2, [r0], #16\n vmaxv.s32 r3, q2\n letp lr, 2b\n 3:",
            inout("r0") scores.as_mut_ptr() => _,
            inout("r1") key_scales.as_ptr() => _,
            inout("r3") greatest,
            in("r4") mantissa,
            in("r5") right_of_zero,
            inout("lr") scores.len() => _,
        );
    }
    greatest
}

/// The least greatest score from which 65,535 can be taken.
const GREATEST_LEAST: i32 = i32::MIN + 65_535;

/// Scores that [`softmax_weights`] turns into weights at a time.
const SOFTMAX_BLOCK: usize = 8;

/// See [`generic::softmax_weights`].
pub fn softmax_weights(scores: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    require!(scores.len() == value_scales.len());
    if greatest < GREATEST_LEAST {
        return generic::softmax_weights(scores, greatest, value_scales, greatest_exponent);
    }
    let (whole, rest) = scores.as_chunks_mut::<SOFTMAX_BLOCK>();
    let (whole_scales, rest_scales) = value_scales.as_chunks::<SOFTMAX_BLOCK>();
    let total = softmax_blocks(whole, greatest, whole_scales, greatest_exponent);
    total.wrapping_add(softmax_rest(rest, greatest, rest_scales, greatest_exponent))
}

/// The scores behind the last whole block, computed as one; the sum of their powers.
#[inline(always)]
fn softmax_rest(rest: &mut [i32], greatest: i32, value_scales: &[u16], greatest_exponent: u32) -> u32 {
    if rest.is_empty() {
        return 0;
    }
    // So far below the greatest that its power is 0.
    let (mut block, mut scales) = ([[greatest.saturating_sub(1 << 30); SOFTMAX_BLOCK]], [[0; SOFTMAX_BLOCK]]);
    copy_words(&mut block[0][..rest.len()], rest);
    copy_halfwords(&mut scales[0][..rest.len()], value_scales);
    let total = softmax_blocks(&mut block, greatest, &scales, greatest_exponent);
    copy_words(rest, &block[0][..rest.len()]);
    total
}

/// `to.copy_from_slice(from)`, without a call for a few elements.
macro_rules! define_copy {
    ($name:ident, $element:ty, $instructions:literal) => {
        #[inline(always)]
        fn $name(to: &mut [$element], from: &[$element]) {
            require!(to.len() == from.len());
            // SAFETY: it reads `from` and writes `to`, as long.
            unsafe {
                vector_asm!(
                    $instructions,
                    inout("r0") to.as_mut_ptr() => _,
                    inout("r1") from.as_ptr() => _,
                    inout("lr") from.len() => _,
                );
            }
        }
    };
}
define_copy!(
    copy_words,
    i32,
    "wlstp.32 lr, lr, 3f\n 2: vldrw.u32 q0, [r1], #16\n vstrw.32 q0, [r0], #16\n letp lr, 2b\n 3:"
);
define_copy!(
    copy_halfwords,
    u16,
    "wlstp.16 lr, lr, 3f\n 2: vldrh.u16 q0, [r1], #16\n vstrh.16 q0, [r0], #16\n letp lr, 2b\n 3:"
);

/// The powers, in q1, of the eight scores in q0 and q1, those at even and those at odd places, in 16-bit lanes: the upper half of a product
/// is what [`math::exp2_neg_q16`] takes of each. q4 to q7 hold its coefficients, r3 the greatest score less 65,535; uses q2.
macro_rules! powers {
    () => {
        concat!(
            // -t + 65535 for the exponent -t: its upper half is -t's rounded up, and its lower half's complement t's fraction.
            "vqsub.s32 q0, q0, r3\n vqsub.s32 q1, q1, r3\n",
            "vmov q2, q1\n vsri.32 q2, q0, #16\n vsli.32 q0, q1, #16\n",
            "vqmovnb.s16 q2, q2\n vmvn q0, q0\n",
            "vmulh.u16 q1, q0, q7\n vsub.i16 q1, q6, q1\n vmulh.u16 q1, q0, q1\n vsub.i16 q1, q5, q1\n",
            "vmulh.u16 q1, q0, q1\n vsub.i16 q1, q4, q1\n vmulh.u16 q1, q0, q1\n vmvn q1, q1\n",
            "vshl.u16 q1, q1, q2\n",
        )
    };
}
pub(super) use powers;

/// The weights, in q2, of the powers in q1 and the scales in q0; r4 holds the greatest exponent and 1.
macro_rules! weights {
    () => {
        concat!(
            // The upper half of the product with the mantissa times 256 is shifted by 8 less.
            "vshr.u16 q2, q0, #7\n vsub.i16 q2, q2, r4\n vqmovnb.s16 q2, q2\n",
            "vshl.i16 q0, q0, #8\n vorr.i16 q0, #0x8000\n vmulh.u16 q1, q1, q0\n vrshl.u16 q2, q1, q2\n",
        )
    };
}
pub(super) use weights;

/// Eight scores at a time.
///
/// The second of the loads may move r0, and the weights, in q2, are stored there or from r5 on.
macro_rules! define_softmax_blocks {
    ($(#[$doc:meta])* $name:ident, $second_load:literal, $store:literal) => {
        $(#[$doc])*
        fn $name(
            scores: &mut [[i32; SOFTMAX_BLOCK]],
            greatest: i32,
            value_scales: &[[u16; SOFTMAX_BLOCK]],
            greatest_exponent: u32,
        ) -> u32 {
            require!(value_scales.len() >= scores.len());
            let mut total = 0;
            // SAFETY: it reads and writes `scores`, and reads as many scales.
            unsafe {
                vector_asm!(
                    "vdup.16 q7, r8\n vdup.16 q6, r9\n vdup.16 q5, r10\n vdup.16 q4, r11",
                    "wls lr, lr, 3f",
                    "2: vld20.32 {{q0, q1}}, [r0]",
                    $second_load,
                    powers!(),
                    "vaddva.u16 r2, q1\n vldrh.u16 q0, [r1], #16",
                    weights!(),
                    $store,
                    "le lr, 2b\n 3:",
                    inout("r0") scores.as_mut_ptr() => _,
                    inout("r1") value_scales.as_ptr() => _,
                    inout("r2") total,
                    in("r3") greatest - 65_535,
                    in("r4") greatest_exponent + 1,
                    inout("r5") scores.as_mut_ptr() => _,
                    in("r8") math::EXP2_Q16[0],
                    in("r9") math::EXP2_Q16[1],
                    in("r10") math::EXP2_Q16[2],
                    in("r11") math::EXP2_Q16[3],
                    inout("lr") scores.len() => _,
                );
            }
            total
        }
    };
}
define_softmax_blocks!(
    softmax_blocks,
    "vld21.32 {{q0, q1}}, [r0]",
    "vmovlb.u16 q0, q2\n vmovlt.u16 q1, q2\n vst20.32 {{q0, q1}}, [r0]\n vst21.32 {{q0, q1}}, [r0]!"
);
define_softmax_blocks!(
    /// The same, but that the weights are left as halfwords, one behind the other in the front half of `scores`.
    softmax_blocks_packed,
    "vld21.32 {{q0, q1}}, [r0]!",
    "vstrh.16 q2, [r5], #16"
);

/// See [`crate::kernels::Kernels::softmax_values`].
pub fn softmax_values(
    scores: &mut [i32],
    greatest: i32,
    value_scales: &[u16],
    greatest_exponent: u32,
    v: &[i8],
    sums: &mut [i32],
) -> u32 {
    require!(scores.len() == value_scales.len());
    let sums = match <&mut [i32; 8]>::try_from(&mut *sums) {
        Ok(sums) if greatest >= GREATEST_LEAST => sums,
        _ => {
            let total = softmax_weights(scores, greatest, value_scales, greatest_exponent);
            weighted_values(scores, v, sums);
            return total;
        }
    };
    require!(v.len() >= 8 * scores.len());
    let (whole, rest) = scores.as_chunks_mut::<SOFTMAX_BLOCK>();
    let (whole_scales, rest_scales) = value_scales.as_chunks::<SOFTMAX_BLOCK>();
    let mut total = softmax_rest(rest, greatest, rest_scales, greatest_exponent);
    // SAFETY: `v` has eight elements of each position, the whole blocks' first; of these the weights are halfwords now.
    unsafe {
        value_piece(rest, v.as_ptr().wrapping_add(8 * SOFTMAX_BLOCK * whole.len()), 8, sums);
        if !whole.is_empty() {
            total = total.wrapping_add(softmax_blocks_packed(whole, greatest, whole_scales, greatest_exponent));
            let weights = whole.as_ptr().cast::<u16>();
            add_packed_value_blocks(weights, weights.wrapping_add(SOFTMAX_BLOCK * whole.len()), v.as_ptr(), sums);
        }
    }
    total
}

/// See [`generic::weighted_values`].
pub fn weighted_values(weights: &[i32], v: &[i8], sums: &mut [i32]) {
    let head_dim = sums.len();
    let (pieces, rest) = sums.as_chunks_mut::<8>();
    if !rest.is_empty() {
        return generic::weighted_values(weights, v, sums);
    }
    require!(v.len() >= weights.len() * head_dim);
    for (piece_idx, piece) in pieces.iter_mut().enumerate() {
        let n_blocks = if head_dim == 8 { weights.len() / 8 } else { 0 };
        let (blocks, rest) = weights.split_at(8 * n_blocks);
        let v = v.as_ptr().wrapping_add(8 * piece_idx);
        // SAFETY: `v` holds `weights.len()` rows of `head_dim`, of which this is the piece that starts at `8 * piece_idx`.
        unsafe {
            value_piece(rest, v.wrapping_add(blocks.len() * head_dim), head_dim, piece);
            if !blocks.is_empty() {
                add_value_blocks(blocks.as_ptr_range().start, blocks.as_ptr_range().end, v, piece);
            }
        }
    }
}

/// Sums of eight elements of each value times its weight.
///
/// # Safety
/// `v` is valid for reads of 8 bytes, and so is what lies `stride` behind it, `weights.len()` times.
unsafe fn value_piece(weights: &[i32], v: *const i8, stride: usize, sums: &mut [i32; 8]) {
    // SAFETY: it reads what the caller vouches for and `weights`, and writes `sums`.
    unsafe {
        vector_asm!(
            "vmov.i32 q2, #0\n vmov.i32 q3, #0\n wls lr, lr, 3f",
            "2: ldr r4, [r1], #4\n vldrb.s32 q0, [r2]\n vldrb.s32 q1, [r2, #4]",
            "vmla.s32 q2, q0, r4\n vmla.s32 q3, q1, r4\n add r2, r2, r3\n le lr, 2b",
            "3: vstrw.32 q2, [r0]\n vstrw.32 q3, [r0, #16]",
            in("r0") sums,
            inout("r1") weights.as_ptr() => _,
            inout("r2") v => _,
            in("r3") stride,
            out("r4") _,
            inout("lr") weights.len() => _,
        );
    }
}

/// Adds the values at r3 of eight positions of a head of 8, times the weights in q4, to the sums in the even registers: four loads leave
/// positions side by side, two elements in turn.
macro_rules! add_eight_values {
    () => {
        concat!(
            "vld40.8 {{q0, q1, q2, q3}}, [r3]\n vld41.8 {{q0, q1, q2, q3}}, [r3]\n",
            "vld42.8 {{q0, q1, q2, q3}}, [r3]\n vld43.8 {{q0, q1, q2, q3}}, [r3]!\n",
            "vmovlb.s8 q5, q0\n vmladava.s16 r0, q5, q4\n vmovlt.s8 q6, q0\n vmladava.s16 r8, q6, q4\n",
            "vmovlb.s8 q5, q1\n vmladava.s16 r2, q5, q4\n vmovlt.s8 q6, q1\n vmladava.s16 r10, q6, q4\n",
            "vmovlb.s8 q5, q2\n vmladava.s16 r4, q5, q4\n vmovlt.s8 q6, q2\n vmladava.s16 r12, q6, q4\n",
            "vmovlb.s8 q5, q3\n vmladava.s16 r6, q5, q4\n vmovlt.s8 q6, q3\n vmladava.s16 lr, q6, q4\n",
        )
    };
}
pub(super) use add_eight_values;

/// Adds the values of heads of 8, eight positions at a time. The first instructions leave eight weights in q4.
macro_rules! define_value_blocks {
    ($(#[$doc:meta])* $name:ident, $weight:ty, $load_weights:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// From `weights` to `end` there are whole eights, of numbers that are not negative and below `2^15`, and not none; `v` is valid for
        /// reads of 8 bytes each.
        unsafe fn $name(weights: *const $weight, end: *const $weight, v: *const i8, sums: &mut [i32; 8]) {
            // SAFETY: it reads what the caller vouches for, adds to `sums`, and restores r6 and the stack.
            unsafe {
                vector_asm!(
                    "push {{r0, r6}}\n ldm r0, {{r0, r2, r4, r6, r8, r10, r12, lr}}",
                    concat!("2: ", $load_weights),
                    add_eight_values!(),
                    "cmp r1, r5\n bne 2b",
                    "pop {{r1}}\n stm r1, {{r0, r2, r4, r6, r8, r10, r12, lr}}\n pop {{r6}}",
                    inout("r0") sums => _,
                    inout("r1") weights => _,
                    inout("r3") v => _,
                    in("r5") end,
                    out("r2") _, out("r4") _, out("r8") _, out("r10") _, out("r12") _, out("lr") _,
                );
            }
        }
    };
}
define_value_blocks!(
    /// With a weight a word.
    add_value_blocks,
    i32,
    "vld20.32 {{q4, q5}}, [r1]\n vld21.32 {{q4, q5}}, [r1]!\n vmovnt.i32 q4, q5"
);
define_value_blocks!(
    /// With a weight a halfword.
    add_packed_value_blocks,
    u16,
    "vldrh.u16 q4, [r1], #16"
);
