//! Attention of the query heads that share a key head, where a backend has a way of its own for it: against the kernels of its steps.

use siskin_runtime::Kernels;
use siskin_runtime::kernels::generic;
use siskin_runtime::math::bf16_at_least;

use crate::attention::{CACHED_MAX, POSITIONS_MAX};
use crate::random::{Fill, Random};
use crate::{Memory, Mismatch};

const HEAD_DIMS: [usize; 2] = [8, HEAD_DIM_MAX];
const HEAD_DIM_MAX: usize = 16;
/// Elements of the most query heads of a case.
const QUERY_MAX: usize = 3 * HEAD_DIM_MAX;

/// How queries are quantised.
const QUERY_LIMIT: f32 = 16_383.0;

/// What a case is made of besides its shape: the queries' magnitude, what scores are multiplied by, how far apart the scales are, and by
/// how many powers of 2 they are less than usual.
const KINDS: [(f32, f32, u32, u16); 8] = [
    (1.0, 0.5, 1, 0),
    (4.0, 0.5, 3, 0),
    (1e-3, 0.5, 1, 0),
    (1e6, 0.5, 1, 0),
    (0.0, 0.5, 1, 0),
    (f32::NAN, 0.5, 1, 0),
    (4.0, 0.5, 240, 0),
    (4.0, 0.5, 3, 90),
];

/// Every shape with every kind of numbers.
pub(crate) fn check(kernels: Kernels, memory: &mut Memory) -> Result<usize, Mismatch> {
    let mut n_cases = 0;
    for head_dim in HEAD_DIMS {
        let lengths = (1..20).chain([33, 64, 255, 256, 511, 512]);
        for n in lengths.filter(|&n| n <= POSITIONS_MAX && n * head_dim <= CACHED_MAX) {
            for (kind_idx, kind) in KINDS.into_iter().enumerate() {
                for n_heads in 1..=3 {
                    n_cases += 1;
                    let seed = ((head_dim * 521 + n) * 31 + kind_idx * 3 + n_heads) as u32;
                    if let Some(at) = first_difference(kernels, memory, [head_dim, n, n_heads], kind, seed) {
                        let shape = [("head_dim", head_dim), ("positions", n), ("kind", kind_idx), ("at", at)];
                        return Err(Mismatch { kernel: "attend_heads", case: shape });
                    }
                }
            }
        }
    }
    Ok(n_cases)
}

/// The first element of the outputs that differs, if there is one.
fn first_difference(
    kernels: Kernels,
    memory: &mut Memory,
    [head_dim, n, n_heads]: [usize; 3],
    (magnitude, temperature, spread, less): (f32, f32, u32, u16),
    seed: u32,
) -> Option<usize> {
    let mut random = Random::new(seed);
    let (mut q, mut got, mut want) = ([0.0; QUERY_MAX], [7.0; QUERY_MAX], [7.0; QUERY_MAX]);
    let [q, got, want] = [&mut q, &mut got, &mut want].map(|x| &mut x[..n_heads * head_dim]);
    q.iter_mut().for_each(|q| *q = f32::from(random.int8()) * magnitude * (1.0 / 127.0));
    // Keys and values apart where there is room for both.
    let values_at = if 2 * n * head_dim <= CACHED_MAX && 2 * n <= POSITIONS_MAX { n } else { 0 };
    memory.kv.0.iter_mut().for_each(|element| *element = random.value(Fill::Random));
    for scale in &mut memory.scales {
        let bits = bf16_at_least(random.scale()) - (less << 7);
        let below = (random.below(spread) as u16) << 7;
        *scale = if random.below(16) == 0 { 0 } else { bits.saturating_sub(below) };
    }
    let keys = (&memory.kv.0[..n * head_dim], &memory.scales[..n]);
    let values = (&memory.kv.0[values_at * head_dim..][..n * head_dim], &memory.scales[values_at..][..n]);
    let [scores, steps] = &mut memory.scores;
    if kernels.attend_heads(got, q, temperature, keys, values, scores) {
        for (q, want) in q.chunks(head_dim).zip(want.chunks_mut(head_dim)) {
            attend(want, q, temperature, keys, values, &mut steps[..n]);
        }
    }
    got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits())
}

/// One head, step by step.
fn attend(
    out: &mut [f32],
    q: &[f32],
    temperature: f32,
    (keys, key_scales): (&[i8], &[u16]),
    (values, value_scales): (&[i8], &[u16]),
    scores: &mut [i32],
) {
    let (mut query, mut sums) = ([0; HEAD_DIM_MAX], [0; HEAD_DIM_MAX]);
    let (query, sums) = (&mut query[..q.len()], &mut sums[..q.len()]);
    let scale = generic::quantize_to(QUERY_LIMIT, q, query);
    generic::score_dots(query, keys, scores);
    let greatest = generic::score_exponents(scores, key_scales, scale * temperature);
    let exponent = u32::from(generic::greatest_scale(value_scales) >> 7);
    let total = generic::softmax_weights(scores, greatest, value_scales, exponent);
    generic::weighted_values(scores, values, sums);
    generic::scale_integers(out, sums, f32::from_bits((exponent + 2).min(254) << 23) / total as f32);
}
