//! The integer kernels of attention: dot products with keys, the softmax, sums of values.

use siskin_runtime::Kernels;
use siskin_runtime::kernels::generic;
use siskin_runtime::math::bf16_at_least;

use crate::random::{Fill, Random};
use crate::{Memory, Mismatch};

const HEAD_DIMS: [usize; 13] = [2, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64, 128, 256];
const HEAD_DIM_MAX: usize = if cfg!(feature = "small") { 64 } else { 256 };
/// Most positions of a case.
pub(crate) const POSITIONS_MAX: usize = if cfg!(feature = "small") { 64 } else { 512 };
/// Most keys or values of a case.
pub(crate) const CACHED_MAX: usize = if cfg!(feature = "small") { 512 } else { 4096 };

/// Numbers of positions to try with heads of `head_dim`, as many as the memory holds.
fn lengths(head_dim: usize) -> impl Iterator<Item = usize> {
    (0..20).chain([33, 64, 511, 512]).filter(move |&n| n <= POSITIONS_MAX && n * head_dim <= CACHED_MAX)
}

fn mismatch(kernel: &'static str, head_dim: usize, n: usize, fill: Fill, at: usize) -> Mismatch {
    Mismatch { kernel, case: [("head_dim", head_dim), ("positions", n), ("fill", fill as usize), ("at", at)] }
}

/// Scores and softmax weights.
pub(crate) fn check_scores(kernels: Kernels, memory: &mut Memory) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    for head_dim in HEAD_DIMS.into_iter().filter(|&head_dim| head_dim <= HEAD_DIM_MAX) {
        for n in lengths(head_dim) {
            for fill in Fill::ALL {
                n_cases += 1;
                let mut random = Random::new((head_dim * 521 + n) as u32);
                let mut q = [0i16; HEAD_DIM_MAX];
                let q = &mut q[..head_dim];
                // Queries have 15 bits.
                q.iter_mut().for_each(|q| *q = 129 * i16::from(random.value(fill)));
                let k = &mut memory.kv.0[..n * head_dim];
                k.iter_mut().for_each(|k| *k = random.value(fill));
                let [scores, _] = &mut memory.scores;
                let scores = &mut scores[..n];
                kernels.score_dots(q, k, scores);
                for (at, (&score, k)) in scores.iter().zip(k.chunks_exact(head_dim)).enumerate() {
                    let want: i32 = q.iter().zip(k).map(|(&q, &k)| i32::from(q) * i32::from(k)).sum();
                    if score != want {
                        return Err(mismatch("score_dots", head_dim, n, fill, at));
                    }
                }
                check_softmax(kernels, memory, &mut random, head_dim, n, fill)?;
            }
        }
    }
    Ok(n_cases)
}

/// The softmax of the scores in `memory`, with scales that differ little, and with scales that differ as much as they can.
fn check_softmax(
    kernels: Kernels,
    memory: &mut Memory,
    random: &mut Random,
    head_dim: usize,
    n: usize,
    fill: Fill,
) -> Result<(), Mismatch> {
    for (per_unit, spread) in [(0.02, 1), (1.0, 1), (1e-9, 1), (1e9, 1), (0.0, 1), (0.02, 240)] {
        let scales = &mut memory.scales[..n];
        for scale in scales.iter_mut() {
            let bits = bf16_at_least(random.scale());
            *scale = match random.below(8) {
                0 => 0,
                _ => bits.wrapping_sub((random.below(spread) as u16) << 7).min(bits),
            };
        }
        let [scores, wanted] = &mut memory.scores;
        let (scores, wanted) = (&mut scores[..n], &mut wanted[..n]);
        wanted.copy_from_slice(scores);
        let greatest = generic::score_exponents(wanted, scales, per_unit);
        let same = kernels.score_exponents(scores, scales, per_unit) == greatest;
        if !same || scores != wanted {
            return Err(mismatch("score_exponents", head_dim, n, fill, 0));
        }
        let greatest_scale = scales.iter().max().copied().unwrap_or(0);
        if kernels.greatest_scale(scales) != greatest_scale {
            return Err(mismatch("greatest_scale", head_dim, n, fill, 0));
        }
        let exponent = u32::from(greatest_scale >> 7);
        // It may leave anything in the scores, so it has a copy of them.
        let mut sums = [[7; HEAD_DIM_MAX]; 2];
        let [got, want] = sums.each_mut().map(|sums| &mut sums[..head_dim]);
        let v = &memory.kv.0[..n * head_dim];
        let total_of_values = kernels.softmax_values(wanted, greatest, scales, exponent, v, got);
        wanted.copy_from_slice(scores);
        let total = generic::softmax_weights(wanted, greatest, scales, exponent);
        generic::weighted_values(wanted, v, want);
        if total_of_values != total || got != want {
            return Err(mismatch("softmax_values", head_dim, n, fill, 0));
        }
        let same = kernels.softmax_weights(scores, greatest, scales, exponent) == total;
        if !same || scores != wanted {
            return Err(mismatch("softmax_weights", head_dim, n, fill, 0));
        }
    }
    Ok(())
}

/// Sums of weighted values.
pub(crate) fn check_values(kernels: Kernels, memory: &mut Memory) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    for head_dim in HEAD_DIMS.into_iter().filter(|&head_dim| head_dim <= HEAD_DIM_MAX) {
        for n in lengths(head_dim) {
            for fill in Fill::ALL {
                n_cases += 1;
                let mut random = Random::new((head_dim * 523 + n) as u32);
                let v = &mut memory.kv.0[..n * head_dim];
                v.iter_mut().for_each(|v| *v = random.value(fill));
                let weights = &mut memory.scores[0][..n];
                for weight in weights.iter_mut() {
                    *weight = if fill == Fill::Random { random.below(32_640) as i32 } else { 32_639 };
                }
                let mut sums = [7; HEAD_DIM_MAX];
                let sums = &mut sums[..head_dim];
                kernels.weighted_values(weights, v, sums);
                for (at, &sum) in sums.iter().enumerate() {
                    let each = weights.iter().zip(v.chunks_exact(head_dim));
                    let want: i64 = each.map(|(&weight, v)| i64::from(weight) * i64::from(v[at])).sum();
                    if i64::from(sum) != want {
                        return Err(mismatch("weighted_values", head_dim, n, fill, at));
                    }
                }
            }
        }
    }
    Ok(n_cases)
}
