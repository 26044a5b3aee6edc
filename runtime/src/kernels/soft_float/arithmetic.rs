//! IEEE single precision in integers, to the bit: what a library does in 60 to 80 instructions a number, in half of them.
//!
//! Numbers stay apart, as [`Rounded`], from one operation to the next, and positive or ordinary where the caller knows it. Whatever is
//! zero, subnormal, infinite or not a number goes back to the language's operators, in a place of its own.

/// The highest bit: a sign, or the leading one of a mantissa that fills its word.
pub const TOP: u32 = 1 << 31;
/// The leading one of a mantissa of 31 bits.
const HALF_TOP: u32 = 1 << 30;
/// The largest exponent field of a finite number.
const EXPONENT_MAX: i32 = 254;

/// A positive number rounded to 24 bits: `mantissa * 2^(exponent - 127 - 30)`, with `mantissa` in `2^30..=2^31` and its lowest seven bits 0.
///
/// `2^31`, the mantissa of what was rounded up to a power of two, is as good as `2^30` with the next exponent.
#[derive(Clone, Copy, Debug)]
pub struct Rounded {
    /// The leading one at bit 30.
    pub mantissa: u32,
    /// As the field of an `f32`, but without its limits.
    pub exponent: i32,
}

/// Marks a path as unlikely.
#[cold]
pub fn cold() {}

/// The exponent field of the bits of an `f32`.
#[inline(always)]
pub fn exponent_of(bits: u32) -> i32 {
    (bits << 1 >> 24) as i32
}

/// The mantissa of the bits of a normal `f32`, the leading one at bit 31.
#[inline(always)]
pub const fn full_mantissa(bits: u32) -> u32 {
    bits << 8 | TOP
}

/// Whether this is the exponent field of a normal number.
#[inline(always)]
pub fn is_normal(exponent: i32) -> bool {
    (exponent as u32).wrapping_sub(1) < EXPONENT_MAX as u32
}

/// Zeros above the leading one of `x`, which is not 0.
///
/// Where the core has no instruction for it, a table is shorter than what the compiler makes up.
#[inline(always)]
pub fn leading_zeros(x: u32) -> u32 {
    if cfg!(any(target_arch = "riscv32", target_arch = "riscv64")) && !cfg!(target_feature = "zbb") {
        leading_zeros_by_table(x)
    } else {
        x.leading_zeros()
    }
}

/// The same by a table, which is shorter than a library's way.
#[inline(always)]
pub fn leading_zeros_by_table(x: u32) -> u32 {
    let (byte, above) = if x < 1 << 16 {
        if x < 1 << 8 { (x, 24) } else { (x >> 8, 16) }
    } else if x < 1 << 24 {
        (x >> 16, 8)
    } else {
        (x >> 24, 0)
    };
    above + u32::from(BYTE_LEADING_ZEROS[(byte & 0xff) as usize])
}

/// Zeros above the leading one of a byte.
pub static BYTE_LEADING_ZEROS: [u8; 256] = {
    let mut zeros = [8; 256];
    let mut byte = 1;
    while byte < 256 {
        zeros[byte] = (byte as u8).leading_zeros() as u8;
        byte += 1;
    }
    zeros
};

impl Rounded {
    /// A positive normal number.
    #[inline(always)]
    pub fn new(x: f32) -> Option<Self> {
        let (bits, exponent) = (x.to_bits(), (x.to_bits() >> 23) as i32);
        is_normal(exponent).then_some(Self { mantissa: full_mantissa(bits) >> 1, exponent })
    }

    /// `|x| * self`, for the full mantissa and the exponent of a normal `x`.
    #[inline(always)]
    pub fn times(self, full: u32, exponent: i32) -> Self {
        let wide = u64::from(full) * u64::from(self.mantissa);
        let (mut high, mut exponent) = ((wide >> 32) as u32, self.exponent + exponent - 126);
        if high < HALF_TOP {
            high <<= 1;
            exponent -= 1;
        }
        let mut mantissa = high.wrapping_add(0x40) & !0x7f;
        if high & 0x7f == 0x40 {
            cold();
            // Half-way, unless something of it is in the lower half of the product.
            if wide as u32 == 0 {
                mantissa &= !0xff;
            }
        }
        Self { mantissa, exponent }
    }

    /// `self + other`; `None` in the rare case that both mantissas are `2^31`.
    #[inline(always)]
    pub fn plus(self, other: Self) -> Option<Self> {
        let (large, small) = if self.exponent < other.exponent { (other, self) } else { (self, other) };
        let (right, exponent) = ((large.exponent - small.exponent) as u32, large.exponent);
        if right > 26 {
            return Some(large);
        }
        let aligned = small.mantissa >> right;
        let is_exact = || aligned << right == small.mantissa;
        let sum = large.mantissa.checked_add(aligned)?;
        if sum < TOP {
            let mut mantissa = (sum + 0x40) & !0x7f;
            if sum & 0x7f == 0x40 {
                cold();
                mantissa &= if is_exact() { !0xff } else { !0x7f };
            }
            return Some(Self { mantissa, exponent });
        }
        let mut mantissa = ((sum >> 1) + 0x40) & !0x7f;
        if sum & 0xff == 0x80 {
            cold();
            mantissa &= if is_exact() { !0xff } else { !0x7f };
        }
        Some(Self { mantissa, exponent: exponent + 1 })
    }

    /// The number with the sign bit of `sign`, or `None` where it is no normal number.
    #[inline(always)]
    pub fn pack(self, sign: u32) -> Option<f32> {
        // The leading one adds to the exponent's field; a mantissa of 2^31 adds two.
        let below = (self.exponent as u32).wrapping_sub(1);
        (below < EXPONENT_MAX as u32)
            .then(|| f32::from_bits((below << 23).wrapping_add(self.mantissa >> 7) | sign & TOP))
    }
}

/// `a * b`.
#[inline(always)]
pub fn multiply(a: f32, b: f32) -> f32 {
    let (x, y) = (a.to_bits(), b.to_bits());
    let (x_exponent, y_exponent) = (exponent_of(x), exponent_of(y));
    if is_normal(x_exponent) && is_normal(y_exponent) {
        let factor = Rounded { mantissa: full_mantissa(y) >> 1, exponent: y_exponent };
        if let Some(product) = factor.times(full_mantissa(x), x_exponent).pack(x ^ y) {
            return product;
        }
    }
    slow_product(a, b)
}

/// `a * b` by the language's operator.
#[cold]
#[inline(never)]
pub fn slow_product(a: f32, b: f32) -> f32 {
    a * b
}

/// `a + b` by the language's operator.
#[cold]
#[inline(never)]
pub fn slow_sum(a: f32, b: f32) -> f32 {
    a + b
}

/// `a + b`.
#[inline(always)]
pub fn add(a: f32, b: f32) -> f32 {
    let (mut x, mut y) = (a.to_bits(), b.to_bits());
    if x << 1 < y << 1 {
        (x, y) = (y, x);
    }
    let (exponent, shift) = (exponent_of(x), exponent_of(x) - exponent_of(y));
    // Nor may the sum be infinite.
    if exponent >= EXPONENT_MAX || exponent_of(y) == 0 {
        return slow_sum(a, b);
    }
    if shift > 25 {
        return f32::from_bits(x);
    }
    // 24 bits with six below them. What is cut off below those counts where the rest is half-way, or is moved to the left.
    let (large, small) = (full_mantissa(x) >> 2, full_mantissa(y) >> 2);
    let aligned = small >> shift;
    let is_exact = || aligned << shift == small;
    let is_difference = (x ^ y) & TOP != 0;
    let mut exponent = exponent;
    let mut sum;
    if is_difference {
        sum = large.wrapping_sub(aligned);
        if sum < HALF_TOP >> 1 {
            if sum == 0 {
                return 0.0;
            }
            let left = leading_zeros(sum) - 2;
            exponent -= left as i32;
            if exponent < 1 {
                return slow_sum(a, b);
            }
            sum = (sum << left) - u32::from(!is_exact());
        }
    } else {
        sum = large + aligned;
        if sum >= HALF_TOP {
            sum = sum >> 1 | sum & 1;
            exponent += 1;
        }
    }
    let mut rounded = (sum + 0x20) >> 6;
    if sum & 0x3f == 0x20 {
        cold();
        if is_exact() {
            rounded &= !1;
        } else if is_difference {
            rounded -= 1;
        }
    }
    f32::from_bits(((exponent as u32 - 1) << 23).wrapping_add(rounded) | x & TOP)
}

/// A full mantissa and its exponent over a number. No quotient of two such is half-way between two others.
#[inline(always)]
pub fn quotient(full: u32, exponent: i32, by: Rounded) -> Rounded {
    // A mantissa has a leading one, of which the compiler does not know.
    let (mut numerator, denominator) = (full >> 8, (by.mantissa >> 7).max(1));
    let mut exponent = exponent - by.exponent + 127;
    if numerator < denominator {
        numerator <<= 1;
        exponent -= 1;
    }
    // A leading one, and three times eight bits: one more than is kept.
    let digit = |rest: u32| ((rest << 8) / denominator, (rest << 8) % denominator);
    let (first, rest) = digit(numerator - denominator);
    let (second, rest) = digit(rest);
    let (third, _) = digit(rest);
    let quotient = 1 << 24 | first << 16 | second << 8 | third;
    Rounded { mantissa: (quotient + 1) >> 1 << 7, exponent }
}

/// `a / b` for positive numbers.
pub fn divide_positive(a: f32, b: f32) -> f32 {
    let exponent = (a.to_bits() >> 23) as i32;
    if is_normal(exponent)
        && let Some(b) = Rounded::new(b)
        && let Some(quotient) = quotient(full_mantissa(a.to_bits()), exponent, b).pack(0)
    {
        return quotient;
    }
    slow_quotient(a, b)
}

#[cold]
#[inline(never)]
fn slow_quotient(a: f32, b: f32) -> f32 {
    a / b
}

/// `float(x) * factor`, with one rounding each.
#[inline(always)]
pub fn scale_integer(x: i32, factor: Rounded) -> Option<f32> {
    let magnitude = x.unsigned_abs();
    if magnitude == 0 {
        return Some(0.0);
    }
    let left = leading_zeros(magnitude);
    let exponent = 127 + 31 - left as i32;
    let mut full = magnitude << left;
    if left < 8 {
        cold();
        let odd = full >> 8 & 1;
        let (rounded, carried) = full.overflowing_add(0x7f + odd);
        full = if carried { TOP } else { rounded & !0xff };
        return factor.times(full, exponent + i32::from(carried)).pack(x as u32);
    }
    factor.times(full, exponent).pack(x as u32)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Any bits; ordinary numbers of like size, which cancel; and mantissas of few bits, which make ties.
    fn number(rng: &mut ChaCha8Rng) -> f32 {
        let bits = rng.next_u32();
        f32::from_bits(match rng.random_range(0..6) {
            0 => bits,
            1 | 2 => bits & 0x83ff_ffff | 0x3c00_0000,
            3 => bits & 0x8080_0000 | 0x3f00_0000 | rng.random_range(0..8) << rng.random_range(0..21),
            4 => bits & 0x807f_ffff | 0x3f80_0000,
            _ => bits & 0x81ff_8000 | 0x3e00_0000 | (u32::from(bits & 1 == 1) * 0x7fff),
        })
    }

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
    }

    #[test]
    fn operations_are_the_operators() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for _ in 0..3_000_000 {
            let (a, b) = (number(&mut rng), number(&mut rng));
            assert!(same(multiply(a, b), a * b), "{a:e} * {b:e}");
            assert!(same(add(a, b), a + b), "{a:e} + {b:e}");
            let (a, b) = (a.abs(), b.abs());
            if let (Some(x), Some(y)) = (Rounded::new(a), Rounded::new(b))
                && let Some(sum) = x.plus(y).and_then(|sum| sum.pack(0))
            {
                assert!(same(sum, a + b), "{a:e} + {b:e}");
            }
            assert!(same(divide_positive(a, b), a / b), "{a:e} / {b:e}");
        }
    }

    #[test]
    fn the_table_counts_leading_zeros() {
        for x in (0..32).flat_map(|bit| [1 << bit, (2u32 << bit).wrapping_sub(1), (3u32 << bit) | 1]).chain(1..70_000) {
            assert_eq!(leading_zeros_by_table(x), x.leading_zeros(), "{x}");
        }
    }

    #[test]
    fn extremes_are_the_operators() {
        let edges =
            [0, 1, 0x7f_ffff, 0x80_0000, 0x80_0001, 0x3f7f_ffff, 0x3f80_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000];
        let edges = edges.into_iter().flat_map(|bits| [bits, bits | TOP]).map(f32::from_bits);
        for a in edges.clone() {
            for b in edges.clone() {
                assert!(same(multiply(a, b), a * b), "{a:e} * {b:e}");
                assert!(same(add(a, b), a + b), "{a:e} + {b:e}");
                assert!(same(divide_positive(a.abs(), b.abs()), a.abs() / b.abs()), "{a:e} / {b:e}");
            }
        }
    }

    #[test]
    fn integers_scale_as_floats_do() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        for _ in 0..2_000_000 {
            let factor = number(&mut rng).abs();
            let x = (rng.next_u32() as i32) >> rng.random_range(0..32);
            let Some(rounded) = Rounded::new(factor) else { continue };
            if let Some(product) = scale_integer(x, rounded) {
                assert!(same(product, x as f32 * factor), "{x} * {factor:e}");
            }
        }
    }
}
