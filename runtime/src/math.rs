//! The few functions whose every bit is part of the numerics contract (runtime/NUMERICS.md).
//!
//! Built from IEEE `+ - * /` and integer operations only, in the order written, so that each target computes the same bits.
//! `core` never fuses or reassociates these.

use micromath::F32;

/// `1.5 * 2^23`: adding it to `|x| < 2^22` rounds `x` to an integer, half to even, in the low bits of the sum.
pub(crate) const ROUND_MAGIC: f32 = 12_582_912.0;

/// Rounds half to even. Meaningful for `|x| < 2^22`; any other input gives some integer, the same on every target that
/// agrees on the bits of `x + 1.5 * 2^23`.
#[inline(always)]
pub fn round_i32(x: f32) -> i32 {
    ((x + ROUND_MAGIC).to_bits() as i32).wrapping_sub(ROUND_MAGIC.to_bits() as i32)
}

/// The coefficients of [`exp`]'s polynomial over `r^2`, the highest power's first.
pub(crate) const EXP_POWERS: [f32; 6] = [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
/// The logarithm of 2 in two parts, of which the first has few digits.
pub(crate) const LN2_HI: f32 = 0.693_359_4;
pub(crate) const LN2_LO: f32 = -2.121_944_4e-4;

/// `e^x`, within 2 ulp of the true value for results that are normal numbers; 0 below -87, and `e^88` above 88.
///
/// Range reduction by Cody and Waite's two-part ln 2, then Cephes' polynomial of degree 5 (`expf`).
#[inline]
pub fn exp(x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * core::f32::consts::LOG2_E + ROUND_MAGIC;
    let n = shifted - ROUND_MAGIC;
    let r = (x - n * LN2_HI) - n * LN2_LO;
    let [fifth, fourth, third, second, first, last] = EXP_POWERS;
    let p = ((((fifth * r + fourth) * r + third) * r + second) * r + first) * r + last;
    let fraction = p * (r * r) + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND_MAGIC.to_bits() as i32);
    fraction * f32::from_bits((exponent.wrapping_add(127) << 23) as u32)
}

/// `ln x` of a positive normal `x`, within 2 ulp; of anything else, some number that is the same on every target.
///
/// `x = 2^n * (1 + f)` with `1 + f` in `sqrt(1/2)..sqrt(2)`, and `ln(1 + f) = f - f^2 / 2 + f^3 p(f)` with a polynomial of degree 7.
#[inline]
pub fn ln(x: f32) -> f32 {
    const SQRT_HALF: i32 = 0x3f35_04f3;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let bits = x.to_bits() as i32;
    let exponent = bits.wrapping_sub(SQRT_HALF) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32) - 1.0;
    let n = exponent as f32;
    let mut p = -7.634_415e-2;
    p = p * f + 1.276_154_5e-1;
    p = p * f - 1.316_019_9e-1;
    p = p * f + 1.420_176_3e-1;
    p = p * f - 1.662_335_7e-1;
    p = p * f + 2.000_122_7e-1;
    p = p * f - 2.500_082_3e-1;
    p = p * f + 3.333_333e-1;
    let square = f * f;
    (((f * square) * p + n * LN2_LO) - 0.5 * square) + f + n * LN2_HI
}

/// `x / (1 + e^-x)`, the activation of SwiGLU, within 2^-18 of it; `x` or 0 where `|x|` is 64 or more.
///
/// `2^n` is added to the exponent of `2^f`, a polynomial of degree 5 over `-0.5..=0.5`, with `n + f = -x / ln 2`.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    if x.to_bits() << 1 >= SILU_LIMIT {
        return if x < 0.0 { 0.0 } else { x };
    }
    let t = x * -core::f32::consts::LOG2_E;
    let shifted = t + ROUND_MAGIC;
    let f = t - (shifted - ROUND_MAGIC);
    let [fifth, fourth, third, second, first, last] = SILU_POWERS;
    // Written out: compiled for size, a loop copies the coefficients for every number.
    let p = ((((fifth * f + fourth) * f + third) * f + second) * f + first) * f + last;
    x / (1.0 + f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23)))
}

/// Twice the bits of the least magnitude that [`silu`] takes for infinite.
pub(crate) const SILU_LIMIT: u32 = 64.0f32.to_bits() << 1;

/// Coefficients of `2^f`, the highest power's first.
pub(crate) const SILU_POWERS: [f32; 6] = [1.339_086_6e-3, 9.676_036e-3, 5.550_33e-2, 2.402_212_1e-1, 6.931_472e-1, 1.0];

/// `1 / (1 + e^-x)`, within 2^-18 of it; 1 or 0 where `|x|` is 64 or more.
#[inline]
pub fn sigmoid(x: f32) -> f32 {
    if x < -64.0 {
        return 0.0;
    }
    if x > 64.0 {
        return 1.0;
    }
    1.0 / (1.0 + exp(-x))
}

/// `tanh x`, within 4 ulp of it.
///
/// Below 0.625 Cephes' odd polynomial (`tanhf`), above `1 - 2 / (1 + e^2x)`; 1 from 9 on.
#[inline]
pub fn tanh(x: f32) -> f32 {
    let magnitude = f32::from_bits(x.to_bits() & 0x7fff_ffff);
    if magnitude < 0.625 {
        let square = x * x;
        let mut p = -5.704_988_7e-3;
        p = p * square + 2.063_909e-2;
        p = p * square - 5.373_971_6e-2;
        p = p * square + 1.333_144_2e-1;
        p = p * square - 3.333_328e-1;
        return p * square * x + x;
    }
    let value = if magnitude > 9.0 { 1.0 } else { 1.0 - 2.0 / (1.0 + exp(magnitude + magnitude)) };
    // A NaN takes the branch of neither comparison and comes out of `exp`.
    if x < 0.0 { -value } else { value }
}

/// The coefficients of [`gelu`]'s polynomial over `t`, the highest power's first.
pub(crate) const GELU_POWERS: [f32; 7] =
    [4.752_397e-2, -1.813_654_5e-1, 1.831_335e-1, 2.504_704e-2, 1.402_688_7e-1, 1.416_718_4e-1, 1.437_202_2e-1];
/// What [`gelu`] divides by grows so fast.
pub(crate) const GELU_SLOPE: f32 = 0.36;

/// `x` times the normal distribution's share below it, as BERT has it; within 2^-19 of it for `x` above -5.
///
/// The share beyond `a = |x|` is `e^(-a^2 / 2)` times a polynomial of degree 7 in `t = 1 / (1 + 0.36 a)`, fitted over 0 to 13.2.
#[inline]
pub fn gelu(x: f32) -> f32 {
    let magnitude = f32::from_bits(x.to_bits() & 0x7fff_ffff);
    let t = 1.0 / (1.0 + GELU_SLOPE * magnitude);
    let [sixth, fifth, fourth, third, second, first, last] = GELU_POWERS;
    let p = (((((sixth * t + fifth) * t + fourth) * t + third) * t + second) * t + first) * t + last;
    let tail = p * t * exp(x * x * -0.5);
    if x < 0.0 { x * tail } else { x - x * tail }
}

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, the approximation in GPT-2, as `x / (1 + e^-2u)` with the tangent's argument
/// `u`; within 2^-18 of it for `x` above -5.
#[inline]
pub fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(x * (1.0 + 0.044_715 * (x * x)) * 1.595_769)
}

/// `1 / sqrt(x)` for positive normal `x`, within 3 ulp.
///
/// micromath's estimate (3.4 % off) seeds three Newton steps: it is cheaper than a software square root and a division on
/// cores without either, and only multiplies and subtracts.
#[inline]
pub fn inv_sqrt(x: f32) -> f32 {
    let half = x * 0.5;
    let mut y = inv_sqrt_estimate(x);
    for _ in 0..3 {
        y = y * (1.5 - half * y * y);
    }
    y
}

/// The coefficients of [`exp2_neg_q16`], but for the last, the highest power's first.
pub(crate) const EXP2_Q16: [u32; 4] = [453, 3498, 15_699, 45_422];
/// What [`inv_sqrt`] begins with.
#[inline]
pub(crate) fn inv_sqrt_estimate(x: f32) -> f32 {
    // Without its sign, not even a NaN makes the integer subtraction wrap.
    F32(f32::from_bits(x.to_bits() & 0x7fff_ffff)).invsqrt().0
}

/// `2^(-t / 2^16)` in units of `2^-16`, rounded down, at most 65,535; within 3 units.
///
/// The softmax's exponential. A quartic in 16-bit fixed point, so that cores without an FPU pay four multiplications.
#[inline(always)]
pub fn exp2_neg_q16(t: u32) -> u32 {
    let whole = t >> 16;
    if whole > 15 {
        return 0;
    }
    let f = t & 0xffff;
    let mut p = (EXP2_Q16[0] * f) >> 16;
    for coefficient in &EXP2_Q16[1..] {
        p = ((coefficient - p) * f) >> 16;
    }
    (65_535 - p) >> whole
}

/// A positive normal bfloat16 as an integer mantissa and exponent: its value is `mantissa * 2^(exponent - 134)`.
///
/// Zero, the scale of zeros, has the mantissa and exponent of `2^-127`, which scales zeros as well.
#[inline(always)]
pub fn split_bf16(bits: u16) -> (u32, u32) {
    (0x80 | u32::from(bits & 0x7f), u32::from(bits >> 7))
}

/// The value of a bfloat16.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The least bfloat16 that is not below `x`, for positive finite `x` of at most `2^127`.
#[inline(always)]
pub fn bf16_at_least(x: f32) -> u16 {
    ((x.to_bits() + 0xffff) >> 16) as u16
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// Distance between `x` and `exact` in units of the last place of `exact`.
    fn ulps(x: f32, exact: f64) -> f64 {
        let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
        ((f64::from(x) - exact) / ulp).abs()
    }

    #[test]
    fn exp_is_within_two_ulps() {
        for i in -86_999..88_000 {
            let x = i as f32 * 1e-3;
            let off = ulps(exp(x), f64::from(x).exp());
            assert!(off <= 2.0, "exp({x}) = {} is {off} ulp off", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn ln_is_within_two_ulps() {
        for i in 0..4_000_000u32 {
            let x = f32::from_bits(0x0080_0000 + i * 529);
            let exact = f64::from(x).ln();
            if exact != 0.0 {
                let off = ulps(ln(x).abs(), exact.abs());
                assert!(off <= 2.0, "ln({x}) = {} is {off} ulp off", ln(x));
            }
        }
        // Around 1, where the logarithm is next to nothing.
        for bits in 0x3f7f_0000..0x3f81_0000 {
            let x = f32::from_bits(bits);
            let off = ulps(ln(x).abs(), f64::from(x).ln().abs());
            assert!(off <= 2.0 || x == 1.0, "ln({x}) = {} is {off} ulp off", ln(x));
        }
        assert_eq!(ln(1.0), 0.0);
        for bits in [0, 1, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffff_ffff, 0x807f_ffff] {
            // No input overflows an integer.
            ln(f32::from_bits(bits));
        }
    }

    #[test]
    fn silu_is_close() {
        for i in -63_999..64_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let off = (f64::from(silu(x)) - exact).abs() / exact.abs().max(1e-30);
            assert!(off <= 1.0 / 262_144.0, "silu({x}) = {} is off by {off}", silu(x));
        }
        assert_eq!([silu(0.0), silu(64.0), silu(f32::INFINITY)], [0.0, 64.0, f32::INFINITY]);
        assert_eq!([silu(-64.0), silu(-1e30), silu(f32::NEG_INFINITY)], [0.0; 3]);
        assert!(silu(f32::NAN).is_nan());
    }

    /// The normal distribution's share below `x`, by the series of its integral: to ten digits for `|x|` up to 5.
    fn normal_below(x: f64) -> f64 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 2.0;
            term *= x * x / n;
            sum += term;
        }
        0.5 + sum * (-0.5 * x * x).exp() / (2.0 * core::f64::consts::PI).sqrt()
    }

    #[test]
    fn sigmoid_and_both_gelus_are_close() {
        let close = |name: &str, x: f32, got: f32, exact: f64, share: f64| {
            let off = (f64::from(got) - exact).abs() / exact.abs().max(1e-30);
            assert!(off <= share, "{name}({x}) = {got} is off by {off}");
        };
        for i in -5_000..9_000 {
            let x = i as f32 * 1e-3 + 1e-4;
            let wide = f64::from(x);
            close("sigmoid", x, sigmoid(x), 1.0 / (1.0 + (-wide).exp()), 1.0 / 262_144.0);
            close("gelu", x, gelu(x), wide * normal_below(wide), 1.0 / 524_288.0);
            let inner = (2.0 / core::f64::consts::PI).sqrt() * (wide + 0.044715 * wide * wide * wide);
            close("gelu_tanh", x, gelu_tanh(x), wide / (1.0 + (-2.0 * inner).exp()), 1.0 / 262_144.0);
        }
        assert_eq!([sigmoid(f32::INFINITY), sigmoid(f32::NEG_INFINITY), sigmoid(0.0)], [1.0, 0.0, 0.5]);
        for gelu in [gelu, gelu_tanh] {
            assert_eq!([gelu(0.0), gelu(20.0), gelu(1e6)], [0.0, 20.0, 1e6]);
            assert!(gelu(-14.0).abs() < 1e-37 && gelu(f32::NAN).is_nan());
        }
        assert!(sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_within_four_ulps() {
        for i in -12_000..12_000 {
            let x = i as f32 * 1e-3;
            let off = if i == 0 { 0.0 } else { ulps(tanh(x).abs(), f64::from(x).tanh().abs()) };
            assert!(off <= 4.0, "tanh({x}) = {} is {off} ulp off", tanh(x));
        }
        assert_eq!([tanh(0.0), tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)], [0.0, 1.0, -1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn inv_sqrt_is_within_three_ulps() {
        let mut worst: f64 = 0.0;
        for i in 0..400_000u32 {
            let x = f32::from_bits(0x2000_0000 + i * 2000);
            worst = worst.max(ulps(inv_sqrt(x), 1.0 / f64::from(x).sqrt()));
        }
        assert!(worst <= 3.0, "inv_sqrt is {worst} ulp off");
    }

    #[test]
    fn exp2_neg_q16_is_within_three_units() {
        for t in 0..(20 << 16) {
            let exact = (-f64::from(t) / 65536.0).exp2() * 65536.0;
            let got = f64::from(exp2_neg_q16(t));
            assert!((got - exact).abs() <= 3.0, "t {t}: {got} for {exact}");
        }
    }

    #[test]
    fn rounding_is_half_to_even() {
        for (x, want) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (126.5, 126), (-126.6, -127)] {
            assert_eq!(round_i32(x), want, "{x}");
        }
    }

    #[test]
    fn bf16_scales_round_up_and_split_exactly() {
        for i in 1..60_000u32 {
            let x = f32::from_bits(0x3000_0000 + i * 7919);
            let bits = bf16_at_least(x);
            assert!(bf16_to_f32(bits) >= x && bf16_to_f32(bits) <= x * (1.0 + 1.0 / 128.0));
            let (mantissa, exponent) = split_bf16(bits);
            assert_eq!(f64::from(mantissa) * f64::from(exponent as i32 - 134).exp2(), f64::from(bf16_to_f32(bits)));
        }
    }
}
