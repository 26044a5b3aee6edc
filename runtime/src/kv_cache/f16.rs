//! Rows of the cache in IEEE half precision.
//!
//! Before its attention a row becomes integers of 14 bits and a sign in units of a power of two, in two bytes, `128 * high + low`, which
//! attention meets one after the other: so every core's kernels serve, and sums are exact.

use half::f16;

/// Stores `x`, `(head_dim,)`, as the nearest halves, two bytes each; the greatest there is beyond that, and 0 for what is no number.
pub fn pack(x: &[f32], row: &mut [u8]) {
    for (half, &x) in row.as_chunks_mut().0.iter_mut().zip(x) {
        *half = bits(x).to_le_bytes();
    }
}

fn bits(x: f32) -> u16 {
    const INFINITE: u32 = 0x7f80_0000;
    const GREATEST: u16 = 0x7bff;
    if x.to_bits() & 0x7fff_ffff > INFINITE {
        return 0;
    }
    let bits = f16::from_f32_const(x).to_bits();
    bits & 0x8000 | (bits & 0x7fff).min(GREATEST)
}

/// Unpacks rows of halves to integers `128 * high + low`, `(n_positions, head_dim)` each and both of one sign, and the scales of `high`, each a
/// power of two as a bfloat16. The row's greatest half has 14 bits; others are rounded to its unit, away from zero from the middle on.
pub fn unpack(rows: &[u8], head_dim: usize, high: &mut [i8], low: &mut [i8], scales: &mut [u16]) {
    let width = head_dim.max(1);
    let rows = rows.chunks_exact((2 * width).max(1)).zip(scales);
    for ((row, scale), (high, low)) in rows.zip(high.chunks_exact_mut(width).zip(low.chunks_exact_mut(width))) {
        let halves = row.as_chunks().0;
        let greatest = halves.iter().fold(0, |greatest, &half| (u16::from_le_bytes(half) & 0x7fff).max(greatest));
        let exponent = (greatest >> 10).max(1);
        // A half is an integer of 11 bits times 2^(exponent - 25); `high` counts 2^7 units of 2^-3 of that.
        *scale = (exponent + 106) << 7;
        for ((&half, high), low) in halves.iter().zip(high).zip(low) {
            let half = u16::from_le_bytes(half);
            let own = half >> 10 & 31;
            let mantissa = u32::from(half & 0x3ff) | if own == 0 { 0 } else { 0x400 };
            let magnitude = ((mantissa << 4 >> (exponent - own.max(1))) + 1) >> 1;
            let sign = if half & 0x8000 == 0 { 1 } else { -1 };
            (*high, *low) = (sign * (magnitude >> 7) as i8, sign * (magnitude & 127) as i8);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::math;

    /// A half's value.
    fn value(bits: u16) -> f64 {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        let magnitude = match exponent {
            0 => fraction * (-24f64).exp2(),
            _ => (1024.0 + fraction) * f64::from(exponent - 25).exp2(),
        };
        if bits & 0x8000 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn halves_are_the_nearest() {
        for half in 0..0x7c00u16 {
            assert_eq!(bits(value(half) as f32), half);
            if half < 0x7bff {
                let middle = ((value(half) + value(half + 1)) / 2.0) as f32;
                assert_eq!(bits(middle), half + (half & 1), "the middle above {half:#x}");
                assert_eq!(bits(f32::from_bits(middle.to_bits() + 1)), half + 1);
                assert_eq!(bits(-f32::from_bits(middle.to_bits() - 1)), half | 0x8000);
            }
        }
        assert_eq!([65504.0, 65519.9, 65520.0, 1e30, f32::INFINITY].map(bits), [0x7bff; 5]);
        assert_eq!([f32::NAN, -f32::NAN, 1e-40, 0.0].map(bits), [0; 4]);
    }

    #[test]
    fn two_bytes_are_as_exact_as_their_row_lets_them() {
        let mut row = Vec::new();
        for exponents in [[3u16, 3, 3, 3], [30, 29, 16, 1], [1, 0, 0, 0], [0; 4], [12, 11, 10, 9], [31, 31, 30, 0]] {
            for fraction in [0u16, 1, 0x155, 0x2aa, 0x3ff] {
                row.clear();
                let halves = exponents.map(|exponent| exponent << 10 | fraction);
                let halves = [halves[0], halves[1] | 0x8000, halves[2], halves[3] | 0x8000];
                halves.iter().for_each(|half| row.extend(half.to_le_bytes()));
                let (mut high, mut low, mut scale) = ([0; 4], [0; 4], [0]);
                unpack(&row, 4, &mut high, &mut low, &mut scale);
                let unit = f64::from(math::bf16_to_f32(scale[0])) / 128.0;
                for ((&half, high), low) in halves.iter().zip(high).zip(low) {
                    assert!(high >= -127 && low >= -127 && i32::from(high) * i32::from(low) >= 0);
                    let integer = 128 * i32::from(high) + i32::from(low);
                    assert!((f64::from(integer) * unit - value(half)).abs() <= unit / 2.0, "{half:#x} as {integer}");
                }
            }
        }
    }
}
