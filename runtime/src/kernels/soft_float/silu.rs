//! SwiGLU's activation without an FPU: [`crate::math::silu`] step by step, each rounded as IEEE asks, with exponents that are known
//! beforehand and numbers that stay apart.

use core::f32::consts::LOG2_E;

use super::arithmetic::{Rounded, TOP, cold, exponent_of, full_mantissa, leading_zeros, quotient};
use crate::math::SILU_POWERS;

/// Exponent fields of `|x|` from `2^-8` to 64.
const EXPONENTS: core::ops::Range<i32> = 127 - 8..127 + 6;

/// `silu(x)`'s magnitude, which has the sign of `x`; `None` where `x` is zero, small, or too large to matter.
#[inline(always)]
pub fn silu(x: f32) -> Option<Rounded> {
    let bits = x.to_bits();
    let (exponent, full) = (exponent_of(bits), full_mantissa(bits));
    if !EXPONENTS.contains(&exponent) {
        return None;
    }
    const LOG2_E_PARTS: Rounded = Rounded { mantissa: full_mantissa(LOG2_E.to_bits()) >> 1, exponent: 127 };
    let t = LOG2_E_PARTS.times(full, exponent);
    if t.mantissa == TOP {
        return None;
    }
    // t = whole + fraction, the fraction at most a half, in units of 2^-32. Neither shift loses a bit.
    let (mut whole, mut fraction, mut is_above) = (0, t.mantissa >> ((125 - t.exponent) & 31), true);
    if t.exponent > 125 {
        let (mantissa, right) = (t.mantissa >> 7, 150 - t.exponent);
        whole = (mantissa + (1 << (right - 1))) >> right;
        let rest = mantissa.wrapping_sub(whole << right) as i32;
        is_above = rest >= 0;
        fraction = rest.unsigned_abs() << (32 - right);
        // Half-way between two.
        if fraction == TOP {
            return None;
        }
    }
    // t has the other sign than x.
    let is_negative = bits & TOP == 0;
    let power = if is_above == is_negative { polynomial::<true>(fraction) } else { polynomial::<false>(fraction) };
    let whole = if is_negative { -(whole as i32) } else { whole as i32 };
    const ONE: Rounded = Rounded { mantissa: TOP >> 1, exponent: 127 };
    let denominator = ONE.plus(Rounded { exponent: power.exponent + whole, ..power })?;
    Some(quotient(full, exponent, denominator))
}

/// `2^f` for `f` of `fraction * 2^-32`, at most a half, less than 0 where `IS_NEGATIVE`, by Horner's rule.
#[inline(always)]
fn polynomial<const IS_NEGATIVE: bool>(fraction: u32) -> Rounded {
    const C5: Rounded = coefficient(5);
    const C4: Rounded = coefficient(4);
    const C3: Rounded = coefficient(3);
    const C2: Rounded = coefficient(2);
    const C1: Rounded = coefficient(1);
    let p = step::<IS_NEGATIVE, false>(C5, fraction, C4);
    let p = step::<IS_NEGATIVE, false>(p, fraction, C3);
    let p = step::<IS_NEGATIVE, true>(p, fraction, C2);
    let p = step::<IS_NEGATIVE, false>(p, fraction, C1);
    // The last constant is 1: below it, numbers have the exponent of a half.
    const ONE: Rounded = Rounded { mantissa: TOP >> 1, exponent: 127 };
    const TWO_HALVES: Rounded = Rounded { mantissa: TOP, exponent: 126 };
    step::<IS_NEGATIVE, false>(p, fraction, if IS_NEGATIVE { TWO_HALVES } else { ONE })
}

/// `c` plus or minus `p * f`, where the result has the exponent of `c` or, where it `CARRIES`, perhaps the next.
///
/// The product is rounded, then the sum. Rounding the sum of the product as it is gives the same, unless it is so near a half that the
/// rounding of the product could move it to the other side.
#[inline(always)]
fn step<const IS_NEGATIVE: bool, const CARRIES: bool>(p: Rounded, fraction: u32, c: Rounded) -> Rounded {
    let product = ((u64::from(fraction) * u64::from(p.mantissa)) >> 32) as u32;
    let right = (c.exponent - p.exponent) as u32;
    let aligned = product >> right;
    let sum = if IS_NEGATIVE { c.mantissa.wrapping_sub(aligned) } else { c.mantissa.wrapping_add(aligned) };
    // Half a unit in the product's last place, and what was cut off, in units of the sum's lowest bit.
    let doubt = (aligned >> 24) + 4;
    if CARRIES && !IS_NEGATIVE && sum >= TOP - 0x80 {
        let half = sum.wrapping_add(0x80);
        if sum < TOP + 0x80 || half.wrapping_add(doubt) & 0xff <= 2 * doubt {
            cold();
            return step_exactly::<IS_NEGATIVE>(p, fraction, c);
        }
        return Rounded { mantissa: half >> 8 << 7, exponent: c.exponent + 1 };
    }
    let half = sum.wrapping_add(0x40);
    if half.wrapping_add(doubt) & 0x7f <= 2 * doubt {
        cold();
        return step_exactly::<IS_NEGATIVE>(p, fraction, c);
    }
    Rounded { mantissa: half & !0x7f, exponent: c.exponent }
}

/// The same, each rounded in its turn.
#[inline(always)]
fn step_exactly<const IS_NEGATIVE: bool>(p: Rounded, fraction: u32, c: Rounded) -> Rounded {
    if fraction == 0 {
        return c;
    }
    let left = leading_zeros(fraction);
    next_or_carried::<IS_NEGATIVE>(p.times(fraction << left, 126 - left as i32), c)
}

/// What the polynomial multiplies this power of its argument by.
const fn coefficient(power: usize) -> Rounded {
    let bits = SILU_POWERS[SILU_POWERS.len() - 1 - power].to_bits();
    Rounded { mantissa: full_mantissa(bits) >> 1, exponent: (bits >> 23) as i32 }
}

/// `c` plus or minus `product`, where the result has the exponent of `c`.
#[inline(always)]
fn next<const IS_NEGATIVE: bool>(product: Rounded, c: u32, exponent: i32) -> Rounded {
    let right = (exponent - product.exponent) as u32;
    let aligned = product.mantissa >> right;
    let sum = if IS_NEGATIVE { c.wrapping_sub(aligned) } else { c.wrapping_add(aligned) };
    let mut mantissa = sum.wrapping_add(0x40) & !0x7f;
    if sum & 0x7f == 0x40 {
        cold();
        if aligned << right == product.mantissa {
            mantissa &= !0xff;
        } else if IS_NEGATIVE {
            // What was cut off makes it less than a half.
            mantissa -= 0x80;
        }
    }
    Rounded { mantissa, exponent }
}

/// The same where a sum may have the next exponent.
#[inline(always)]
fn next_or_carried<const IS_NEGATIVE: bool>(product: Rounded, c: Rounded) -> Rounded {
    let right = (c.exponent - product.exponent) as u32;
    let aligned = product.mantissa >> right;
    if IS_NEGATIVE || c.mantissa + aligned < TOP {
        return next::<IS_NEGATIVE>(product, c.mantissa, c.exponent);
    }
    let sum = c.mantissa + aligned;
    let mut mantissa = sum.wrapping_add(0x80) & !0xff;
    if sum & 0xff == 0x80 {
        cold();
        if aligned << right == product.mantissa {
            mantissa &= !0x1ff;
        }
    }
    Rounded { mantissa: mantissa >> 1, exponent: c.exponent + 1 }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::math;

    #[test]
    fn numbers_of_all_sizes_give_the_definition_s_bits() {
        let mut n_fast = 0u64;
        for idx in 0..u32::MAX / 997 {
            let x = f32::from_bits(idx * 997);
            if let Some(fast) = silu(x) {
                n_fast += 1;
                let want = math::silu(x);
                assert_eq!(fast.pack(x.to_bits()).map(f32::to_bits), Some(want.to_bits()), "silu({x:e})");
            }
        }
        assert!(n_fast > 200_000, "{n_fast}");
    }
}
