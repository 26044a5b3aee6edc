//! One query head's attention over the cache, in integers from the quantised query to the sum over values.
//!
//! Scores become base-2 exponents in fixed point (`2^-16`), weights are 15 bits, and the sum over values is exact in `i32`:
//! no order of positions changes a bit, and a core without an FPU pays for integers only.

use crate::cut::Cut;
use crate::kernels::{Kernels, generic::VALUE_BLOCK};
use crate::kv_cache::Head;
use crate::tensor::QUERY_LIMIT;
use crate::{known, math};

/// What the cache holds of one key-value head up to and including the current position.
pub(crate) struct CachedHead<'a> {
    pub keys: Head<'a>,
    pub values: Head<'a>,
    /// The greatest of the value scales' exponents.
    pub greatest_exponent: u32,
}

impl<'a> CachedHead<'a> {
    /// The same positions of keys and values.
    pub fn new(kernels: Kernels, keys: Head<'a>, values: Head<'a>) -> Self {
        let greatest_exponent = math::split_bf16(kernels.greatest_scale(values.scales)).1;
        Self { keys, values, greatest_exponent }
    }
}

/// How scores become exponents of 2.
pub(crate) struct Scoring<'a> {
    /// What dot products are multiplied by.
    pub temperature: f32,
    /// Added to each position's exponent in units of `2^-16`, `(n_positions,)`; or empty.
    pub bias: &'a [i32],
}

/// Working memory of one head.
pub(crate) struct Scratch<'a> {
    /// `(head_dim,)`.
    pub query: &'a mut [i16],
    /// At least `(n_positions,)`.
    pub scores: &'a mut [i32],
    /// `(head_dim,)`.
    pub value_sums: &'a mut [i32],
}

/// What scores of heads of this width are multiplied by: the usual temperature of dot products where it is `scaled`, and 1 / ln 2,
/// which turns the softmax's e into 2.
pub(crate) fn temperature(head_dim: usize, scaled: bool) -> f32 {
    if scaled { core::f32::consts::LOG2_E * math::inv_sqrt(head_dim as f32) } else { core::f32::consts::LOG2_E }
}

/// Adds a bias to each score and gives the greatest sum. Scores stay far from the limits of `i32` but where they are beyond telling
/// apart anyway.
fn add_bias(scores: &mut [i32], bias: &[i32]) -> i32 {
    scores.iter_mut().zip(bias).fold(i32::MIN, |greatest, (score, bias)| {
        *score = score.saturating_add(*bias);
        greatest.max(*score)
    })
}

/// Adds the dot products of keys' low bytes, of which 128 make a unit, each rounded down.
fn add_low_dots(kernels: Kernels, query: &[i16], low: &[i8], dots: &mut [i32]) {
    /// Held at a time.
    const N: usize = 64;
    let mut low_dots = [0; N];
    for (i, dots) in dots.chunks_mut(N).enumerate() {
        let low = low.cut(i * N * query.len()..).cut(..dots.len() * query.len());
        let low_dots = low_dots.cut_mut(..dots.len());
        kernels.score_dots(query, low, low_dots);
        dots.iter_mut().zip(low_dots).for_each(|(dot, low)| *dot += *low >> 7);
    }
}

/// `out = softmax(q . K * temperature + bias) . V`, all `(head_dim,)` or over the cached positions.
pub(crate) fn attend(
    kernels: Kernels,
    out: &mut [f32],
    q: &[f32],
    scoring: &Scoring<'_>,
    cached: &CachedHead<'_>,
    scratch: &mut Scratch<'_>,
) {
    let CachedHead { keys, values, greatest_exponent } = *cached;
    let n_positions = keys.scales.len();
    let scores = scratch.scores.cut_mut(..n_positions);
    let scale = kernels.quantize_to(QUERY_LIMIT, q, scratch.query);
    kernels.score_dots(scratch.query, keys.elements, scores);
    if keys.is_wide() {
        add_low_dots(kernels, scratch.query, keys.low, scores);
    }
    let mut greatest = kernels.score_exponents(scores, keys.scales, scale * scoring.temperature);
    if !scoring.bias.is_empty() {
        greatest = add_bias(scores, scoring.bias);
    }
    let fits_block = known::context_max() <= VALUE_BLOCK || scores.len() <= VALUE_BLOCK;
    let is_one_block = fits_block && !values.is_wide();
    let total = if is_one_block {
        let sums = &mut *scratch.value_sums;
        kernels.softmax_values(scores, greatest, values.scales, greatest_exponent, values.elements, sums)
    } else {
        kernels.softmax_weights(scores, greatest, values.scales, greatest_exponent)
    };

    // A weight is `probability * 2^16 * mantissa / 2^9` in units of the greatest scale's exponent: 2^(greatest - 134 + 9).
    let unit = f32::from_bits((greatest_exponent + 2).min(254) << 23);
    let factor = unit / total as f32;
    if is_one_block {
        return kernels.scale_integers(out, scratch.value_sums, factor);
    }
    for (block, weights) in scores.chunks(VALUE_BLOCK).enumerate() {
        let first = block * VALUE_BLOCK * q.len();
        let of_block = first..first + weights.len() * q.len();
        kernels.weighted_values(weights, values.elements.cut(of_block.clone()), scratch.value_sums);
        for (out, &sum) in out.iter_mut().zip(scratch.value_sums.iter()) {
            *out = if block == 0 { sum as f32 } else { *out + sum as f32 };
        }
        if values.is_wide() {
            kernels.weighted_values(weights, values.low.cut(of_block), scratch.value_sums);
            for (out, &sum) in out.iter_mut().zip(scratch.value_sums.iter()) {
                *out += sum as f32 * (1.0 / 128.0);
            }
        }
    }
    for out in out.iter_mut() {
        *out *= factor;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::config::ModelConfig;
    use crate::kv_cache::{KvFormat, Scales, Stored, Unpacked};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::vec;
    use std::vec::Vec;

    fn config(head_dim: usize, context_len: usize) -> ModelConfig {
        ModelConfig {
            dim: head_dim,
            hidden_dim: 4,
            n_layers: 1,
            n_heads: 1,
            n_kv_heads: 1,
            head_dim,
            vocab_size: 4,
            context_len,
            norm_eps: 1e-5,
            rope_theta: 1e4,
            tied_head: true,
            #[cfg(feature = "families")]
            parts: crate::Parts::LLAMA,
        }
    }

    fn scoring(head_dim: usize) -> Scoring<'static> {
        Scoring { temperature: temperature(head_dim, true), bias: &[] }
    }

    /// Softmax attention in f64 on the unquantised numbers.
    fn exact(q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f64> {
        let width = q.len();
        let dot = |k: &[f32]| q.iter().zip(k).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let scores: Vec<f64> = keys.chunks(width).map(|k| dot(k) / (width as f64).sqrt()).collect();
        let most = scores.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        (0..width)
            .map(|d| {
                scores.iter().enumerate().map(|(i, s)| (s - most).exp() * f64::from(values[i * width + d])).sum::<f64>()
                    / total
            })
            .collect()
    }

    #[test]
    fn integer_attention_is_close_to_exact_attention() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (head_dim, n, spread, value_spread) in [
            (8, 1, 1.0, 1.0),
            (8, 200, 1.0, 1.0),
            (64, 700, 3.0, 1.0),
            (64, 1100, 0.01, 50.0),
            (16, 64, 8.0, 1e-6),
            (128, 30, 1e-9, 1.0),
        ] {
            let config = config(head_dim, n);
            let mut random =
                |spread: f32, n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-spread..spread)).collect() };
            let (q, keys, values) =
                (random(spread, head_dim), random(spread, n * head_dim), random(value_spread, n * head_dim));
            let want = exact(&q, &keys, &values);
            for kv in KvFormat::ALL {
                let out = attended(&config, kv, n, &q, &keys, &values);
                let worst = out.iter().zip(&want).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
                let most = match kv {
                    KvFormat::Int8 => 0.02 * f64::from(value_spread),
                    // Half of the least scale's unit besides.
                    KvFormat::Int8Ue5m3 => 0.02 * f64::from(value_spread) + (-25f64).exp2(),
                    // Steps are at most so much wider than int8's.
                    KvFormat::Int4 => 0.02 * 16.0 * f64::from(value_spread),
                    KvFormat::F16 => bound_of_f16(&q, &keys, value_spread),
                };
                assert!(worst < most, "{head_dim} {n} {spread} {kv:?}: off by {worst}, of at most {most}");
            }
        }
    }

    /// How far attention may be off by what its formats say: halves of 11 bits, of which a row's are in units of at least 2^-14 of the
    /// greatest, queries of 14 bits and a sign, weights of 16 bits.
    fn bound_of_f16(q: &[f32], keys: &[f32], value_spread: f32) -> f64 {
        let greatest = |x: &[f32]| x.iter().fold(0.0, |most: f64, &x| most.max(f64::from(x.abs())));
        let sum = |x: &[f32]| x.iter().map(|&x| f64::from(x.abs())).sum::<f64>();
        // Rounded to a half, and then to the row's unit; beneath halves with all their bits, to 2^-24.
        let rounding = |greatest: f64| greatest * ((-11f64).exp2() + (-14f64).exp2()) + (-25f64).exp2();
        let row = keys.chunks(q.len()).map(sum).fold(0.0, f64::max);
        let of_score = (sum(q) * rounding(greatest(keys)) + row * greatest(q) / 32766.0) / (q.len() as f64).sqrt();
        // Each probability by the factor that the score is off by, over and under, and by what is left of 15 bits.
        let of_weights = (2.0 * of_score).exp_m1() + (-13f64).exp2();
        let spread = f64::from(value_spread);
        2.0 * spread * of_weights + rounding(spread)
    }

    /// Attention to `n` positions of a cache in a format.
    fn attended(config: &ModelConfig, kv: KvFormat, n: usize, q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let (kernels, head_dim) = (Kernels::generic(), config.head_dim);
        let mut scales = [(vec![0u16; n], vec![0u8; n]), (vec![0; n], vec![0; n])];
        let row_bytes = kv.row_bytes(head_dim);
        let mut elements = [vec![0i8; n * row_bytes], vec![0; n * row_bytes]];
        let mut unpacked = [(vec![0; n], vec![0; 2 * n * head_dim]), (vec![0; n], vec![0; 2 * n * head_dim])];
        let [of_keys, of_values] = &mut unpacked.each_mut().map(|(scales, elements)| Unpacked { elements, scales });
        let stored: Vec<Stored<'_>> = [keys, values]
            .into_iter()
            .zip(scales.iter_mut().zip(&mut elements))
            .map(|(numbers, ((bf16, bytes), elements))| {
                let scales = match kv {
                    KvFormat::Int8 => Scales::Bf16(bf16),
                    KvFormat::Int8Ue5m3 => Scales::Ue5m3(bytes),
                    KvFormat::Int4 => Scales::Int4(bf16),
                    KvFormat::F16 => Scales::None,
                };
                let mut stored = Stored { elements, scales };
                for (i, x) in numbers.chunks(head_dim).enumerate() {
                    stored.put(kernels, config, of_keys, 0, i, x);
                }
                stored
            })
            .collect();
        let keys = stored[0].head(kernels, config, of_keys, 0, n);
        let values = stored[1].head(kernels, config, of_values, 0, n);
        let cached = CachedHead::new(kernels, keys, values);
        let (mut query, mut scores, mut sums) = (vec![0; head_dim], vec![0; n], vec![0; head_dim]);
        let mut scratch = Scratch { query: &mut query, scores: &mut scores, value_sums: &mut sums };
        let mut out = vec![f32::NAN; head_dim];
        attend(kernels, &mut out, q, &scoring(head_dim), &cached, &mut scratch);
        out
    }

    #[test]
    fn huge_and_damaged_scales_do_not_panic() {
        for scale in [0u16, 1, 0x7f, 0x80, 0x7f7f, 0x7f80, 0x7fff, 0x8000, 0xffff] {
            for q in [0.0, 1e-30, 1.0, 1e30, f32::NAN, f32::INFINITY] {
                let (elements, scales) = ([-128; 8], [scale; 2]);
                let head = Head { elements: &elements, low: &[], scales: &scales };
                let cached = CachedHead::new(Kernels::generic(), head, head);
                let mut scratch = Scratch { query: &mut [0; 4], scores: &mut [0; 2], value_sums: &mut [0; 4] };
                attend(Kernels::generic(), &mut [0.0; 4], &[q; 4], &scoring(4), &cached, &mut scratch);
            }
        }
    }
}
