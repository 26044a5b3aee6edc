//! A group's exact sums, scaled and added to outputs.
//!
//! With mantissas of 8 bits (a bfloat16's) and sums of 16 both products come of factors that fit one register's multiplication, so that no
//! core needs a wider one.

use super::arithmetic::{TOP, add, cold, is_normal, leading_zeros_by_table};
use crate::math;

/// The scale of a group's activations, beside bfloat16 scales of rows of weights.
#[derive(Clone, Copy)]
pub struct GroupScale {
    scale: f32,
    /// The leading one at bit 23.
    mantissa: u32,
    /// Not a normal number's where the fast way is closed.
    exponent: i32,
}

impl GroupScale {
    /// A scale of activations.
    #[inline(always)]
    pub fn new(scale: f32) -> Self {
        let bits = scale.to_bits();
        let exponent = (bits >> 23) as i32;
        // No bfloat16 makes up for it.
        let exponent = if is_normal(exponent) { exponent } else { -1000 };
        Self { scale, mantissa: bits & 0x7f_ffff | 0x80_0000, exponent }
    }

    /// `float(dot) * (row_scale * scale)` for the bits of a bfloat16 `row_scale`, and a sum within `2^15`.
    #[inline(always)]
    pub fn apply(self, dot: i32, row_scale: u16) -> f32 {
        let row_bits = u32::from(row_scale);
        let row_exponent = (row_bits >> 7 & 0xff) as i32;
        // Up to 255 * (2^24 - 1), so that rounding does not overflow either.
        let wide = (row_bits & 0x7f | 0x80).wrapping_mul(self.mantissa);
        // Of row_bits' exponent and the scale's 127 each are too much, and 7 bits of the mantissa.
        let (scale, exponent) = if wide & TOP == 0 {
            ((wide + 0x3f + (wide >> 7 & 1)) >> 7, row_exponent + self.exponent - 127)
        } else {
            ((wide + 0x7f + (wide >> 8 & 1)) >> 8, row_exponent + self.exponent - 126)
        };
        // A sum has up to 16 bits, so that the product with one of these is no infinity.
        if !is_normal(row_exponent) || (exponent as u32).wrapping_sub(1) >= 254 - 16 {
            return scaled_slowly(dot, row_scale, self.scale);
        }
        let sign = (dot as u32 ^ row_bits << 16) & TOP;
        let magnitude = dot.unsigned_abs();
        // The product with 8 bits cut off, and those.
        let below = magnitude.wrapping_mul(scale & 0xff);
        let high = magnitude.wrapping_mul(scale >> 8).wrapping_add(below >> 8);
        if high == 0 {
            return f32::from_bits(sign);
        }
        let left = if cfg!(feature = "cortex-m3") { high.leading_zeros() } else { leading_zeros_by_table(high) };
        let full = high << left | (below & 0xff) << left >> 8;
        let mut rounded = ((full >> 7) + 1) >> 1;
        if full & 0xff == 0x80 {
            cold();
            // Half-way, unless something of it is cut off.
            if below << left & 0xff == 0 {
                rounded &= !1;
            }
        }
        // The leading one adds to the exponent's field.
        let field = (exponent + 15) as u32 - left;
        f32::from_bits((field << 23).wrapping_add(rounded) | sign)
    }
}

#[cold]
#[inline(never)]
fn scaled_slowly(dot: i32, row_scale: u16, scale: f32) -> f32 {
    dot as f32 * (math::bf16_to_f32(row_scale) * scale)
}

/// Adds the scaled sums of rows to `out`, or makes them its first. `dots`, within `2^15`, and `row_scales` have no fewer.
#[inline(never)]
pub fn add_sums(out: &mut [f32], dots: &[i32], row_scales: &[u16], scale: GroupScale, is_first: bool) {
    for ((out, &dot), &row_scale) in out.iter_mut().zip(dots).zip(row_scales) {
        let term = scale.apply(dot, row_scale);
        *out = if is_first { term } else { add(*out, term) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn scaled_sums_are_the_definition_s() {
        let mut rng = ChaCha8Rng::seed_from_u64(10);
        for round in 0..2_000_000 {
            let ordinary = 2f32.powi(rng.random_range(-70..20)) * rng.random_range(0.5..1.0f32);
            // Mantissas of few bits, which make ties, among the others.
            let scale = match round % 8 {
                0 => f32::from_bits(rng.random_range(0..=u32::MAX)),
                1 => f32::from_bits(ordinary.to_bits() & !0 << rng.random_range(0..24)),
                _ => ordinary,
            };
            let row_scale = match round % 9 {
                0 => rng.random_range(0..=u16::MAX),
                _ => rng.random_range(0x2000..0x4080u16) | rng.random_range(0..2u16) << 15,
            };
            let dot = rng.random_range(-32_768..=32_768) >> rng.random_range(0..17);
            let want = dot as f32 * (math::bf16_to_f32(row_scale) * scale);
            let got = GroupScale::new(scale).apply(dot, row_scale);
            let is_same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(is_same, "{dot} * ({row_scale:x} * {scale:e}): {got:e}, not {want:e}");
            let start: f32 = want * rng.random_range(-2.0..2.0f32);
            let mut out = [start; 2];
            add_sums(&mut out[..1], &[dot], &[row_scale], GroupScale::new(scale), false);
            add_sums(&mut out[1..], &[dot], &[row_scale], GroupScale::new(scale), true);
            let same = |got: f32, want: f32| got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same(out[0], start + want) && same(out[1], want), "{out:?}, not {start:e} + {want:e}");
        }
    }
}
