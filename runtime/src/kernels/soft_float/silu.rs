//! SwiGLU's activation without an FPU: [`crate::math::silu`] step by step, each rounded as IEEE asks, with exponents that are known
//! beforehand and numbers that stay apart.

use core::f32::consts::LOG2_E;

use super::arithmetic::{Rounded, TOP, cold, exponent_of, full_mantissa, leading_zeros, quotient};
use crate::math::SILU_POWERS;

/// Exponent fields of `|x|` from `2^-16` to 64.
const EXPONENTS: core::ops::Range<i32> = 127 - 16..127 + 6;

/// `silu(x)`'s magnitude, which has the sign of `x`; `None` where `x` is zero, tiny, or too large to matter.
#[inline(always)]
pub fn silu(x: f32) -> Option<Rounded> {
    let bits = x.to_bits();
    let (exponent, full) = (exponent_of(bits), full_mantissa(bits));
    if !EXPONENTS.contains(&exponent) {
        return None;
    }
    const LOG2_E_PARTS: Rounded = Rounded { mantissa: full_mantissa(LOG2_E.to_bits()) >> 1, exponent: 127 };
    let t = LOG2_E_PARTS.times(full, exponent);
    // t = whole + fraction, the fraction at most a half.
    if t.mantissa == TOP {
        return None;
    }
    let (mantissa, right) = (t.mantissa >> 7, 150 - t.exponent);
    let (mut whole, mut fraction, mut fraction_exponent) = (0, t.mantissa << 1, t.exponent);
    let mut is_above = true;
    if right <= 24 {
        let odd = mantissa >> right & 1;
        whole = (mantissa + (1 << (right - 1)) - 1 + odd) >> right;
        let rest = mantissa.wrapping_sub(whole << right) as i32;
        is_above = rest >= 0;
        let rest = rest.unsigned_abs();
        if rest < 1 << 4 {
            return None;
        }
        let left = leading_zeros(rest);
        fraction = rest << left;
        fraction_exponent = 127 + 31 - left as i32 - right;
    }
    // t has the other sign than x.
    let is_negative = bits & TOP == 0;
    let power = if is_above == is_negative {
        polynomial::<true>(fraction, fraction_exponent)
    } else {
        polynomial::<false>(fraction, fraction_exponent)
    };
    let whole = if is_negative { -(whole as i32) } else { whole as i32 };
    let denominator = one_plus(Rounded { exponent: power.exponent + whole, ..power });
    Some(quotient(full, exponent, denominator))
}

/// What the polynomial multiplies this power of its argument by.
const fn coefficient(power: usize) -> Rounded {
    let bits = SILU_POWERS[SILU_POWERS.len() - 1 - power].to_bits();
    Rounded { mantissa: full_mantissa(bits) >> 1, exponent: (bits >> 23) as i32 }
}

/// `2^f` for `f` of at most a half, less than 0 where `IS_NEGATIVE`, by Horner's rule. `f` is not below `2^-21`.
#[inline(always)]
fn polynomial<const IS_NEGATIVE: bool>(full: u32, exponent: i32) -> Rounded {
    const C5: Rounded = coefficient(5);
    const C4: Rounded = coefficient(4);
    const C3: Rounded = coefficient(3);
    const C2: Rounded = coefficient(2);
    const C1: Rounded = coefficient(1);
    let p = step::<IS_NEGATIVE>(C5, full, exponent, C4.mantissa, C4.exponent);
    let p = step::<IS_NEGATIVE>(p, full, exponent, C3.mantissa, C3.exponent);
    let p = step::<IS_NEGATIVE>(p, full, exponent, C2.mantissa, C2.exponent);
    let p = step::<IS_NEGATIVE>(p, full, exponent, C1.mantissa, C1.exponent);
    // The last constant is 1: below it, numbers have the exponent of a half.
    if IS_NEGATIVE {
        step::<true>(p, full, exponent, TOP, 126)
    } else {
        step::<false>(p, full, exponent, TOP >> 1, 127)
    }
}

/// `c` plus or minus `p * f`, where the result has the exponent of `c` or, without a minus, the next.
///
/// The product is rounded, then the sum. Rounding the sum of the product as it is gives the same, unless it is so near a half that the
/// rounding of the product could move it to the other side.
#[inline(always)]
fn step<const IS_NEGATIVE: bool>(p: Rounded, full: u32, exponent: i32, c: u32, c_exponent: i32) -> Rounded {
    let product = ((u64::from(full) * u64::from(p.mantissa)) >> 32) as u32;
    let right = (c_exponent - p.exponent - exponent + 126) as u32;
    let aligned = product >> right;
    let sum = if IS_NEGATIVE { c.wrapping_sub(aligned) } else { c.wrapping_add(aligned) };
    // Half a unit in the product's last place, and what was cut off, in units of the sum's lowest bit.
    let doubt = (0x40 >> right) + 3;
    let half = sum.wrapping_add(0x40);
    if half.wrapping_add(doubt) & 0x7f <= 2 * doubt || !IS_NEGATIVE && half >= TOP {
        cold();
        let c = Rounded { mantissa: c, exponent: c_exponent };
        return next_or_carried::<IS_NEGATIVE>(p.times(full, exponent), c);
    }
    Rounded { mantissa: half & !0x7f, exponent: c_exponent }
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

/// `1 + x`.
#[inline(always)]
fn one_plus(x: Rounded) -> Rounded {
    const ONE: u32 = TOP >> 1;
    let above = x.exponent - 127;
    let (large, small, right, exponent) =
        if above >= 0 { (x.mantissa, ONE, above, x.exponent) } else { (ONE, x.mantissa, -above, 127) };
    if right > 26 {
        return Rounded { mantissa: large, exponent };
    }
    let aligned = small >> right;
    let sum = large + aligned;
    let is_exact = || aligned << right == small;
    if sum < TOP {
        let mut mantissa = (sum + 0x40) & !0x7f;
        if sum & 0x7f == 0x40 {
            cold();
            mantissa &= if is_exact() { !0xff } else { !0x7f };
        }
        return Rounded { mantissa, exponent };
    }
    let half = (sum >> 1) + 0x40;
    let mut mantissa = half & !0x7f;
    if sum & 0xff == 0x80 {
        cold();
        mantissa &= if is_exact() { !0xff } else { !0x7f };
    }
    Rounded { mantissa, exponent: exponent + 1 }
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
        assert!(n_fast > 300_000, "{n_fast}");
    }
}
