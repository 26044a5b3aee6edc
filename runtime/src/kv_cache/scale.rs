//! The numbers that scales in the cache can be.

use crate::math;

/// The numbers that scales in the cache can be. Kernels read them all as bfloat16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleFormat {
    /// bfloat16.
    Bf16,
    /// `(8 + m) * 2^(e - 27)` of a byte `8 * e + m`: from `2^-24` to 240. A vector of any size has its scale there, but for what is
    /// smaller than `127 * 2^-24`, which is kept in fewer steps, or larger than 30,480, which is cut.
    Ue5m3,
    /// bfloat16 of which the lowest three bits are 0.
    Ue8m4,
}

impl ScaleFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Bf16, Self::Ue5m3, Self::Ue8m4];

    /// The least number of this format that is not below `scale`, which [`math::bf16_at_least`] takes; as a bfloat16. The nearest where there
    /// is none.
    #[inline(always)]
    pub fn at_least(self, scale: f32) -> u16 {
        let bits = math::bf16_at_least(scale);
        match self {
            Self::Bf16 => bits,
            Self::Ue5m3 => ((bits + 15) & !15).clamp(UE5M3_LEAST, UE5M3_MOST),
            Self::Ue8m4 => (bits + 7) & !7,
        }
    }

    /// Whether a scale that [`ScaleFormat::at_least`] gave may be too small.
    #[inline(always)]
    pub(crate) fn is_greatest(self, bits: u16) -> bool {
        self == Self::Ue5m3 && bits == UE5M3_MOST
    }
}

/// The least scale of a byte, `2^-24`, as a bfloat16; the next is 16 higher, and so on.
pub(crate) const UE5M3_LEAST: u16 = 103 << 7;
/// The greatest.
const UE5M3_MOST: u16 = UE5M3_LEAST + (255 << 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::generic;

    #[test]
    fn scales_of_a_byte_are_the_least_that_suffice() {
        let value = |byte: u8| f64::from(8 + byte % 8) * (f64::from(byte / 8) - 27.0).exp2();
        let (mut previous, mut unpacked) = (0.0f32, [0]);
        for byte in 0..=u8::MAX {
            generic::unpack_ue5m3(&[byte], &mut unpacked);
            let number = math::bf16_to_f32(unpacked[0]);
            assert_eq!(f64::from(number), value(byte));
            for (scale, want) in [(number, number), (f32::from_bits(previous.to_bits() + 1), number)] {
                let bits = ScaleFormat::Ue5m3.at_least(scale);
                assert_eq!(math::bf16_to_f32(bits), want, "of {scale}");
            }
            previous = number;
        }
        assert_eq!(math::bf16_to_f32(ScaleFormat::Ue5m3.at_least(0.0)), f32::EPSILON / 2.0);
        assert_eq!(math::bf16_to_f32(ScaleFormat::Ue5m3.at_least(1e30)), 240.0);
    }

    #[test]
    fn what_is_beyond_the_greatest_scale_is_cut() {
        let mut values = [0; 4];
        generic::store(&[1e9, -40_000.0, 30_480.0, 240.0], &mut values, ScaleFormat::Ue5m3);
        assert_eq!(values, [127, -127, 127, 1]);
        generic::store(&[0.0, f32::NAN, 1.0, f32::INFINITY], &mut values, ScaleFormat::Ue5m3);
        assert_eq!(values, [0; 4]);
        generic::store(&[1e-8, -1.2e-7, 0.0, 3e-8], &mut values, ScaleFormat::Ue5m3);
        assert_eq!(values, [0, -2, 0, 1]);
    }

    #[test]
    fn scales_beside_a_step_leave_its_bits_free() {
        for (scale, want) in [(0.0, 0.0), (1.0, 1.0), (1.001, 1.0625), (1.0626, 1.125), (1.95, 2.0), (100.0, 100.0)] {
            let bits = ScaleFormat::Ue8m4.at_least(scale);
            assert_eq!((math::bf16_to_f32(bits), bits & 7), (want, 0), "of {scale}");
        }
    }
}
