//! Dot products with keys, the softmax, and sums of weighted values.

use core::arch::asm;

use super::Neon32;
use crate::kernels::generic;
use crate::math;

/// Elements that are multiplied together.
const PIECE: usize = 8;

/// See [`generic::score_dots`]. For heads of whole pieces.
pub fn score_dots(_: Neon32, q: &[i16], k: &[i8], dots: &mut [i32]) {
    if q.is_empty() || !q.len().is_multiple_of(PIECE) || dots.is_empty() {
        return generic::score_dots(q, k, dots);
    }
    require!(k.len() >= dots.len() * q.len());
    // SAFETY: it reads `q` and a key for each of `dots`, which it writes.
    unsafe {
        asm!(
            ".fpu neon",
            "1: vmov.i32 q0, #0\n mov {qp}, {q}\n mov {n}, {pieces}",
            "2: vld1.8 {{d4}}, [{k}]!\n vld1.16 {{d6, d7}}, [{qp}]!\n vmovl.s8 q1, d4",
            "vmlal.s16 q0, d2, d6\n vmlal.s16 q0, d3, d7\n subs {n}, {n}, #1\n bne 2b",
            "vpadd.i32 d0, d0, d1\n vpadd.i32 d0, d0, d0\n vst1.32 {{d0[0]}}, [{dots}]!",
            "subs {keys}, {keys}, #1\n bne 1b",
            k = inout(reg) k.as_ptr() => _,
            q = in(reg) q.as_ptr(),
            qp = out(reg) _,
            pieces = in(reg) q.len() / PIECE,
            n = out(reg) _,
            dots = inout(reg) dots.as_mut_ptr() => _,
            keys = inout(reg) dots.len() => _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d6") _, out("d7") _,
            options(nostack),
        );
    }
}

/// See [`generic::softmax_weights`]. Four positions at a time: the quartic in 16-bit lanes, whose products' upper halves it takes.
pub fn softmax_weights(
    _: Neon32,
    scores: &mut [i32],
    greatest: i32,
    value_scales: &[u16],
    greatest_exponent: u32,
) -> u32 {
    require!(scores.len() == value_scales.len());
    let (fours, rest) = scores.as_chunks_mut::<4>();
    let (four_scales, rest_scales) = value_scales.as_chunks::<4>();
    let total = generic::softmax_weights(rest, greatest, rest_scales, greatest_exponent);
    if fours.is_empty() {
        return total;
    }
    let mut totals = [0u32; 4];
    let quartic = math::EXP2_Q16.map(|coefficient| coefficient as u16);
    // SAFETY: it reads and writes `fours`, reads as many scales and the coefficients, and writes `totals`; it restores the stack and the
    // registers that the compiler may not know.
    unsafe {
        asm!(
            ".fpu neon",
            "vpush {{d16-d31}}",
            "vld1.16 {{d30}}, [{quartic}]",
            "vdup.16 d24, d30[0]\n vdup.16 d25, d30[1]\n vdup.16 d26, d30[2]\n vdup.16 d27, d30[3]",
            "vdup.32 q8, {greatest}\n vdup.16 d18, {exponent}\n vmov.i16 d19, #31\n vmov.i32 q10, #31\n vmov.i32 q11, #0",
            "2: vld1.32 {{q0}}, [{scores}]\n vsub.i32 q0, q8, q0",
            "vshr.u32 q1, q0, #16\n vmin.u32 q1, q1, q10\n vneg.s32 q1, q1\n vmovn.i32 d0, q0",
            "vmull.u16 q2, d0, d24\n vshrn.i32 d4, q2, #16\n vsub.i16 d4, d25, d4",
            "vmull.u16 q2, d0, d4\n vshrn.i32 d4, q2, #16\n vsub.i16 d4, d26, d4",
            "vmull.u16 q2, d0, d4\n vshrn.i32 d4, q2, #16\n vsub.i16 d4, d27, d4",
            "vmull.u16 q2, d0, d4\n vshrn.i32 d4, q2, #16\n vmvn d4, d4",
            "vmovl.u16 q2, d4\n vshl.u32 q2, q2, q1\n vadd.i32 q11, q11, q2",
            // The scales' exponents and mantissas.
            "vld1.16 {{d6}}, [{scales}]!\n vshr.u16 d7, d6, #7\n vsub.i16 d7, d18, d7\n vmin.u16 d7, d7, d19",
            "vorr.i16 d6, #0x80\n vbic.i16 d6, #0xff00",
            "vmovl.u16 q4, d7\n vneg.s32 q4, q4\n vmovl.u16 q5, d6",
            "vmul.i32 q2, q2, q5\n vshl.u32 q2, q2, q4\n vrshr.u32 q2, q2, #1\n vst1.32 {{q2}}, [{scores}]!",
            "subs {n}, {n}, #1\n bne 2b",
            "vst1.32 {{q11}}, [{totals}]",
            "vpop {{d16-d31}}",
            scores = inout(reg) fours.as_mut_ptr() => _,
            scales = inout(reg) four_scales.as_ptr() => _,
            n = inout(reg) fours.len() => _,
            greatest = in(reg) greatest,
            exponent = in(reg) 8 + greatest_exponent,
            quartic = in(reg) quartic.as_ptr(),
            totals = in(reg) totals.as_mut_ptr(),
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
            out("d8") _, out("d9") _, out("d10") _, out("d11") _,
        );
    }
    totals.into_iter().fold(total, u32::wrapping_add)
}

/// See [`generic::weighted_values`]. For heads of whole pieces: weights have 15 bits, so they meet values in 16-bit lanes.
pub fn weighted_values(neon: Neon32, weights: &[i32], v: &[i8], sums: &mut [i32]) {
    let head_dim = sums.len();
    if !head_dim.is_multiple_of(PIECE) {
        return generic::weighted_values(weights, v, sums);
    }
    require!(v.len() >= weights.len() * head_dim);
    for (piece_idx, sums) in sums.as_chunks_mut::<PIECE>().0.iter_mut().enumerate() {
        // SAFETY: `v` holds `weights.len()` rows of `head_dim`, of which this is the piece that starts at `PIECE * piece_idx`.
        unsafe { value_piece(neon, weights, v.as_ptr().wrapping_add(PIECE * piece_idx), head_dim, sums) };
    }
}

/// One position of four: its values times the weight in the lane `$lane` of d4.
macro_rules! add_position {
    ($lane:literal) => {
        concat!(
            "vld1.8 {{d6}}, [{v}], {stride}\n vmovl.s8 q4, d6\n",
            "vmlal.s16 q0, d8, d4[",
            $lane,
            "]\n vmlal.s16 q1, d9, d4[",
            $lane,
            "]\n",
        )
    };
}

/// Sums of eight elements of each value times its weight.
///
/// # Safety
/// `v` is valid for reads of 8 bytes, and so is what lies `stride` behind it, `weights.len()` times.
unsafe fn value_piece(_: Neon32, weights: &[i32], v: *const i8, stride: usize, sums: &mut [i32; PIECE]) {
    // SAFETY: it reads what the caller vouches for and `weights`, and writes `sums`.
    unsafe {
        asm!(
            ".fpu neon",
            "vmov.i32 q0, #0\n vmov.i32 q1, #0\n subs {n}, {n}, #4\n blo 3f",
            "2: vld1.32 {{d4, d5}}, [{weights}]!\n vmovn.i32 d4, q2",
            add_position!("0"), add_position!("1"), add_position!("2"), add_position!("3"),
            "subs {n}, {n}, #4\n bhs 2b",
            "3: adds {n}, {n}, #4\n beq 5f",
            "4: vld1.32 {{d4[0]}}, [{weights}]!",
            add_position!("0"),
            "subs {n}, {n}, #1\n bne 4b",
            "5: vst1.32 {{d0-d3}}, [{sums}]",
            weights = inout(reg) weights.as_ptr() => _,
            n = inout(reg) weights.len() => _,
            v = inout(reg) v => _,
            stride = in(reg) stride,
            sums = in(reg) sums,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d8") _,
            out("d9") _,
            options(nostack),
        );
    }
}
