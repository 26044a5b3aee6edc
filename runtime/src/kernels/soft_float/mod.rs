//! The f32 loops for cores without an FPU: the bits of [`super::generic`], in integers.
//!
//! Every loop takes numbers apart once and keeps them apart until a result is stored. What it cannot do that way (zeros, subnormal
//! numbers, infinities) it does with the language's operators.

pub(crate) mod arithmetic;
pub(crate) mod grouped;
mod silu;

use arithmetic::{
    Rounded, add, cold, divide_positive, exponent_of, full_mantissa, is_normal, multiply, scale_integer, slow_product,
};

use super::generic;
use crate::kv_cache::ScaleFormat;
use crate::math;
use crate::tensor;

/// The f32 loops of a [`super::backend::Backend`] whose core has no FPU; it names its own quantisation to 16 bits.
#[cfg(all(feature = "soft-float", target_os = "none"))]
macro_rules! float_kernels {
    ($quantize_to:path) => {
        fn quantize_to(self, limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
            $quantize_to(limit, x, values)
        }

        fn quantize_to_int8(self, x: &[f32], values: &mut [i8]) -> f32 {
            $crate::kernels::soft_float::quantize_to_int8(x, values)
        }

        fn rmsnorm(self, out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
            $crate::kernels::soft_float::rmsnorm(out, x, gain, eps);
        }

        fn swiglu(self, out: &mut [f32], gate: &[f32], up: &[f32]) {
            $crate::kernels::soft_float::swiglu(out, gate, up);
        }

        fn rotate(self, x: &mut [f32], cos_sin: &[f32]) {
            $crate::kernels::soft_float::rotate(x, cos_sin);
        }

        fn add(self, x: &mut [f32], y: &[f32]) {
            $crate::kernels::soft_float::add_to(x, y);
        }

        fn scale_integers(self, out: &mut [f32], sums: &[i32], factor: f32) {
            $crate::kernels::soft_float::scale_integers(out, sums, factor);
        }

        fn store(self, x: &[f32], values: &mut [i8], scales: $crate::kv_cache::ScaleFormat) -> u16 {
            $crate::kernels::soft_float::store(x, values, scales)
        }
    };
}
#[cfg(all(feature = "soft-float", target_os = "none"))]
pub(crate) use float_kernels;

/// See [`super::Kernels::quantize_to`].
#[inline(never)]
pub fn quantize_to(limit: f32, x: &[f32], values: &mut [i16]) -> f32 {
    let (scale, inverse) = scale_to(limit, magnitude_bits(x));
    round_to_int16(inverse, x, values);
    scale
}

/// [`math::round_i32`] of each `x * inverse`, as [`round_scaled`] has it.
#[inline(never)]
pub fn round_to_int16(inverse: f32, x: &[f32], values: &mut [i16]) {
    round_scaled(inverse, x, values, |value| value as i16);
}

/// See [`super::Kernels::quantize_to_int8`].
#[inline(never)]
pub fn quantize_to_int8(x: &[f32], values: &mut [i8]) -> f32 {
    let (scale, inverse) = scale_to(tensor::INT8_LIMIT, magnitude_bits(x));
    round_scaled(inverse, x, values, |value| value as i8);
    scale
}

/// See [`super::Kernels::store`].
#[inline(never)]
pub fn store(x: &[f32], values: &mut [i8], scales: ScaleFormat) -> u16 {
    let (scale, _) = scale_to(tensor::INT8_LIMIT, magnitude_bits(x));
    let bits = scales.at_least(scale);
    if scales.is_greatest(bits) {
        return generic::store(x, values, scales);
    }
    if scale.to_bits() == 0 {
        values.fill(0);
        return bits;
    }
    round_scaled(divide_positive(1.0, math::bf16_to_f32(bits)), x, values, |value| value as i8);
    bits
}

/// See [`super::Kernels::scale_integers`].
pub fn scale_integers(out: &mut [f32], sums: &[i32], factor: f32) {
    let parts = Rounded::new(factor);
    for (out, &sum) in out.iter_mut().zip(sums) {
        *out = match parts.and_then(|parts| scale_integer(sum, parts)) {
            Some(scaled) => scaled,
            None => sum as f32 * factor,
        };
    }
}

/// [`tensor::scale_to`].
#[inline(never)]
pub fn scale_to(limit: f32, magnitude_bits: u32) -> (f32, f32) {
    if !tensor::has_scale(magnitude_bits) {
        return (0.0, 0.0);
    }
    let largest = f32::from_bits(magnitude_bits);
    // That of int8 is known when this is compiled.
    let is_int8 = limit.to_bits() == tensor::INT8_LIMIT.to_bits();
    let one_th = if is_int8 { 1.0 / tensor::INT8_LIMIT } else { divide_positive(1.0, limit) };
    (product(largest, one_th), divide_positive(limit, largest))
}

/// The bits of the largest magnitude in `x`.
fn magnitude_bits(x: &[f32]) -> u32 {
    // Compared without the sign, which is shifted out.
    let mut most = 0;
    let (fours, rest) = x.as_chunks::<4>();
    for [a, b, c, d] in fours {
        let larger = |most: u32, x: &f32| most.max(x.to_bits() << 1);
        most = larger(larger(larger(larger(most, a), b), c), d);
    }
    for x in rest {
        most = most.max(x.to_bits() << 1);
    }
    most >> 1
}

/// [`math::round_i32`] of each `x * inverse`, which is below `2^15`, for an `inverse` that [`tensor::scale_to`] gave.
///
/// The product has 16 bits behind the point. Only within what both roundings may move it, next to a half, does it take the long way.
#[inline(always)]
pub fn round_scaled<T>(inverse: f32, x: &[f32], values: &mut [T], narrow: impl Fn(i32) -> T) {
    const BELOW_POINT: i32 = 16;
    /// The cut-off, and half a unit in the last place of a product of 15 bits before the point.
    const DOUBT: u32 = 66;
    let Some(factor) = Rounded::new(inverse) else {
        for (value, &x) in values.iter_mut().zip(x) {
            *value = narrow(math::round_i32(x * inverse));
        }
        return;
    };
    // full * 2^(exponent - 158) * mantissa * 2^(factor's - 157), of which the upper half counts 2^32.
    let right_of_zero = 158 + 157 - 32 - BELOW_POINT - factor.exponent;
    for (value, &x) in values.iter_mut().zip(x) {
        let bits = x.to_bits();
        let right = (right_of_zero - exponent_of(bits)) as u32;
        let mut rounded = 0;
        if right >= 32 {
            cold();
        } else {
            let product = (u64::from(full_mantissa(bits)) * u64::from(factor.mantissa)) >> 32;
            let shifted = ((product as u32) >> right) + (1 << (BELOW_POINT - 1));
            rounded = (shifted >> BELOW_POINT) as i32;
            if (shifted + DOUBT) << 16 <= (2 * DOUBT) << 16 {
                rounded = round_exactly(bits, factor);
            }
            let sign = bits as i32 >> 31;
            rounded = (rounded ^ sign) - sign;
        }
        *value = narrow(rounded);
    }
}

/// [`math::round_i32`] of the magnitude of a normal number with these bits times `factor`, where that is below `2^15`.
#[cold]
#[inline(never)]
fn round_exactly(bits: u32, factor: Rounded) -> i32 {
    let product = factor.times(full_mantissa(bits), exponent_of(bits));
    let right = (157 - product.exponent) as u32;
    if right > 31 {
        // At most a half, which rounds to the even 0.
        return 0;
    }
    let (whole, rest) = (product.mantissa >> right, product.mantissa << (32 - right));
    (whole + u32::from(rest > arithmetic::TOP || rest == arithmetic::TOP && whole & 1 != 0)) as i32
}

/// What exact sums are scaled by: activations' scale, beside the scale of each row of weights.
#[derive(Clone, Copy)]
pub struct OutputScale {
    scale: f32,
    full: u32,
    /// Not a normal number's where the fast way is closed.
    exponent: i32,
}

impl OutputScale {
    /// A scale of activations.
    #[inline(always)]
    pub fn new(scale: f32) -> Self {
        let bits = scale.to_bits();
        let exponent = (bits >> 23) as i32;
        // A product with a normal number is then far from every limit, or its own check sees it.
        let exponent = if is_normal(exponent) { exponent } else { -1000 };
        Self { scale, full: full_mantissa(bits), exponent }
    }

    /// `float(dot) * (row_scale * scale)`.
    #[inline(always)]
    pub fn apply(self, dot: i32, row_scale: f32) -> f32 {
        if let Some(row_scale) = Rounded::new(row_scale) {
            let scale = row_scale.times(self.full, self.exponent);
            if is_normal(scale.exponent)
                && let Some(scaled) = scale_integer(dot, scale)
            {
                return scaled;
            }
        }
        scaled_slowly(dot, row_scale, self.scale)
    }
}

#[cold]
#[inline(never)]
fn scaled_slowly(dot: i32, row_scale: f32, scale: f32) -> f32 {
    dot as f32 * (row_scale * scale)
}

/// See [`super::Kernels::rmsnorm`].
#[inline(never)]
pub fn rmsnorm(out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let Some(total) = sum_of_squares(x) else {
        return generic::rmsnorm(out, x, gain, eps);
    };
    let inverse = inv_sqrt(add(divide_positive(total, x.len() as f32), eps));
    let factor = Rounded::new(inverse);
    for ((out, &x), &gain) in out.iter_mut().zip(x).zip(gain) {
        *out =
            factor.and_then(|factor| twice_scaled(x, factor, gain)).unwrap_or_else(|| slow_product(x * inverse, gain));
    }
}

/// [`math::inv_sqrt`].
fn inv_sqrt(x: f32) -> f32 {
    let half = product(x, 0.5);
    let mut y = math::inv_sqrt_estimate(x);
    for _ in 0..3 {
        y = product(y, difference(1.5, product(product(half, y), y)));
    }
    y
}

/// The squares of `x` in 8 lanes, and those folded; `None` where an element, but for zeros, or a square is no normal number, or there are
/// not 8.
#[inline(always)]
fn sum_of_squares(x: &[f32]) -> Option<f32> {
    let (first, rest) = x.split_first_chunk::<8>()?;
    let mut lanes = [Rounded { mantissa: 0, exponent: 0 }; 8];
    for (lane, &x) in lanes.iter_mut().zip(first) {
        if x.to_bits() << 1 != 0 {
            *lane = square(x)?;
        }
    }
    for chunk in rest.chunks(8) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            if x.to_bits() << 1 != 0 {
                *lane = lane.plus(square(x)?)?;
            }
        }
    }
    let mut l = [0.0; 8];
    for (number, lane) in l.iter_mut().zip(lanes) {
        // A lane of zeros has no exponent.
        *number = if lane.mantissa == 0 { 0.0 } else { lane.pack(0)? };
    }
    Some(sum(sum(sum(l[0], l[4]), sum(l[2], l[6])), sum(sum(l[1], l[5]), sum(l[3], l[7]))))
}

#[inline(always)]
fn square(x: f32) -> Option<Rounded> {
    let (full, exponent) = (full_mantissa(x.to_bits()), exponent_of(x.to_bits()));
    let square = Rounded { mantissa: full >> 1, exponent }.times(full, exponent);
    // The square of what is no normal number is none either, but for NaN and infinity.
    (is_normal(square.exponent) && exponent != 255).then_some(square)
}

/// `x * factor * gain`.
#[inline(always)]
fn twice_scaled(x: f32, factor: Rounded, gain: f32) -> Option<f32> {
    let (x, gain) = (x.to_bits(), gain.to_bits());
    let (x_exponent, gain_exponent) = (exponent_of(x), exponent_of(gain));
    if !is_normal(x_exponent) || !is_normal(gain_exponent) {
        return None;
    }
    let scaled = factor.times(full_mantissa(x), x_exponent);
    if !is_normal(scaled.exponent) {
        return None;
    }
    scaled.times(full_mantissa(gain), gain_exponent).pack(x ^ gain)
}

/// See [`super::Kernels::swiglu`].
#[inline(never)]
pub fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gated(gate, up).unwrap_or_else(|| gated_slowly(gate, up));
    }
}

#[inline(always)]
fn gated(gate: f32, up: f32) -> Option<f32> {
    let bits = up.to_bits();
    let exponent = exponent_of(bits);
    if !is_normal(exponent) {
        return None;
    }
    silu::silu(gate)?.times(full_mantissa(bits), exponent).pack(gate.to_bits() ^ bits)
}

#[cold]
#[inline(never)]
fn gated_slowly(gate: f32, up: f32) -> f32 {
    math::silu(gate) * up
}

/// See [`super::Kernels::rotate`].
#[inline(never)]
pub fn rotate(x: &mut [f32], cos_sin: &[f32]) {
    let half = x.len() / 2;
    let (low, high) = x.split_at_mut(half);
    let (cos, sin) = cos_sin.split_at(half.min(cos_sin.len()));
    for ((a, b), (&cos, &sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
        let (x, y) = (*a, *b);
        // The angle 0, which all have at the first position, changes no ordinary number.
        let is_normal = |x: f32| is_normal(exponent_of(x.to_bits()));
        if sin.to_bits() == 0 && cos.to_bits() == 1.0f32.to_bits() && is_normal(x) && is_normal(y) {
            continue;
        }
        *a = add(multiply(x, cos), -multiply(y, sin));
        *b = add(multiply(y, cos), multiply(x, sin));
    }
}

/// Shared by the places that are not worth a copy each.
#[inline(never)]
fn product(a: f32, b: f32) -> f32 {
    multiply(a, b)
}

#[inline(never)]
fn sum(a: f32, b: f32) -> f32 {
    add(a, b)
}

#[inline(always)]
fn difference(a: f32, b: f32) -> f32 {
    sum(a, -b)
}

/// See [`super::Kernels::add`].
#[inline(never)]
pub fn add_to(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = add(*x, y);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::vec;
    use std::vec::Vec;

    /// Numbers of like size, with zeros among them, and now and then one of any bits.
    fn vector(rng: &mut ChaCha8Rng, round: i32) -> Vec<f32> {
        let spread = 2f32.powi(round % 240 - 120);
        let len = rng.random_range(1..50);
        let number = |rng: &mut ChaCha8Rng| match rng.random_range(0..40) {
            0 => 0.0,
            1 if round % 5 == 0 => f32::from_bits(rng.random_range(0..=u32::MAX)),
            2 => spread * rng.random_range(-8..8) as f32 / 8.0,
            _ => rng.random_range(-spread..spread),
        };
        (0..len).map(|_| number(rng)).collect()
    }

    #[test]
    fn quantised_vectors_are_the_definition_s() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        for round in 0..20_000 {
            let x = vector(&mut rng, round);
            // What is not finite has no scale, and rounds to anything.
            let is_defined = x.iter().all(|x| x.is_finite());
            let (mut got, mut want) = (vec![0i8; x.len()], vec![0i8; x.len()]);
            let scales = (quantize_to_int8(&x, &mut got), generic::quantize_to_int8(&x, &mut want));
            assert_eq!(scales.0.to_bits(), scales.1.to_bits(), "int8 of {x:?}");
            assert!(!is_defined || got == want, "int8 of {x:?}");
            for scales in ScaleFormat::ALL {
                assert_eq!(store(&x, &mut got, scales), generic::store(&x, &mut want, scales), "stored {x:?}");
                assert!(!is_defined || got == want, "stored {x:?}");
            }
            for limit in [2047.0, 16_383.0] {
                let (mut got, mut want) = (vec![0i16; x.len()], vec![0i16; x.len()]);
                let scales = (quantize_to(limit, &x, &mut got), generic::quantize_to(limit, &x, &mut want));
                assert_eq!(scales.0.to_bits(), scales.1.to_bits(), "{limit} of {x:?}");
                assert!(!is_defined || got == want, "{limit} of {x:?}");
            }
        }
    }

    #[test]
    fn scaled_integers_are_the_definition_s() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        for round in 0..200_000 {
            let any = |rng: &mut ChaCha8Rng| f32::from_bits(rng.random_range(0..=u32::MAX));
            let ordinary = |rng: &mut ChaCha8Rng| 2f32.powi(rng.random_range(-70..20)) * rng.random_range(0.5..1.0);
            let (row_scale, scale) =
                if round % 7 == 0 { (any(&mut rng), any(&mut rng)) } else { (ordinary(&mut rng), ordinary(&mut rng)) };
            let dot = rng.random_range(i32::MIN..=i32::MAX) >> rng.random_range(0..32);
            let want = dot as f32 * (row_scale * scale);
            let got = OutputScale::new(scale).apply(dot, row_scale);
            assert!(same(got, want), "{dot} * ({row_scale:e} * {scale:e}): {got:e}, not {want:e}");
            let mut out = [0.0];
            scale_integers(&mut out, &[dot], scale);
            assert!(same(out[0], dot as f32 * scale), "{dot} * {scale:e}: {:e}", out[0]);
        }
    }

    #[test]
    fn loops_give_the_definition_s_bits() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for round in 0..4000 {
            let (len, spread) = (2 * rng.random_range(1..50), 2f32.powi(round % 40 - 20));
            let mut random = || -> Vec<f32> { (0..len).map(|_| rng.random_range(-spread..spread)).collect() };
            let (mut x, y) = (random(), random());
            if round % 3 == 0 {
                x.iter_mut().step_by(3).for_each(|x| *x = 0.0);
            }
            let bits = |x: &[f32]| -> Vec<u32> { x.iter().map(|x| x.to_bits()).collect() };
            let (mut got, mut want) = (vec![0.0; len], vec![0.0; len]);
            rmsnorm(&mut got, &x, &y, 1e-5);
            generic::rmsnorm(&mut want, &x, &y, 1e-5);
            assert_eq!(bits(&got), bits(&want), "rmsnorm of {x:?}");
            swiglu(&mut got, &x, &y);
            generic::swiglu(&mut want, &x, &y);
            assert_eq!(bits(&got), bits(&want), "swiglu of {x:?}");
            rotate(&mut got, &y);
            generic::rotate(&mut want, &y);
            assert_eq!(bits(&got), bits(&want), "rotate by {y:?}");
            let (cos, sin) = (vec![1.0; len / 2], vec![0.0; len / 2]);
            let mut turned = x.clone();
            rotate(&mut turned, &[cos.clone(), sin.clone()].concat());
            let mut unturned = x.clone();
            generic::rotate(&mut unturned, &[cos, sin].concat());
            assert_eq!(bits(&turned), bits(&unturned), "no turn of {x:?}");
            add_to(&mut got, &x);
            generic::add(&mut want, &x);
            assert_eq!(bits(&got), bits(&want), "add {x:?}");
            for limit in [127.0, 2047.0, 16383.0] {
                let (mut got, mut want) = (vec![0; len], vec![0; len]);
                let scale = quantize_to(limit, &x, &mut got);
                assert_eq!(scale.to_bits(), generic::quantize_to(limit, &x, &mut want).to_bits());
                assert_eq!(got, want, "{x:?} within {limit}");
            }
        }
    }
}
