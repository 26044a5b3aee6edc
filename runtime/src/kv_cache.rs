//! Keys and values of past positions, int8 with a scale per position and head, and the formats that scales have.

use core::ops::Range;

use crate::config::ModelConfig;
use crate::cut::{Cut, copy_part};
use crate::kernels::Kernels;
use crate::math;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum KvFormat {
    /// int8, with a bfloat16 scale a position and head.
    #[default]
    Int8 = 0,
    /// int8, with a scale of one byte: an unsigned float of 5 exponent and 3 mantissa bits.
    Int8Ue5m3 = 1,
}

impl KvFormat {
    /// Every format, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::Int8, Self::Int8Ue5m3];

    /// The format with this code in a packed file.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Int8),
            1 => Some(Self::Int8Ue5m3),
            _ => None,
        }
    }

    /// Whether a cache may be in this format: in firmware only that of its model is, so that code for others is left out.
    #[inline(always)]
    pub(crate) const fn is_possible(self) -> bool {
        #[cfg(feature = "linked-model")]
        return crate::linked::has_kv(self);
        #[cfg(not(feature = "linked-model"))]
        true
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int8Ue5m3 => "int8-ue5m3",
        }
    }

    /// Bytes of a key's (or a value's) scale.
    pub const fn scale_bytes(self) -> usize {
        match self {
            Self::Int8 => 2,
            Self::Int8Ue5m3 => 1,
        }
    }

    /// The numbers that scales can be.
    pub const fn scale_format(self) -> ScaleFormat {
        match self {
            Self::Int8 => ScaleFormat::Bf16,
            Self::Int8Ue5m3 => ScaleFormat::Ue5m3,
        }
    }
}

/// The numbers that scales in the cache can be. Kernels read them all as bfloat16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleFormat {
    /// bfloat16.
    Bf16,
    /// `(8 + m) * 2^(e - 27)` of a byte `8 * e + m`: from `2^-24` to 240. A vector of any size has its scale there, but for what is
    /// smaller than `127 * 2^-24`, which is kept in fewer steps, or larger than 30,480, which is cut.
    Ue5m3,
}

impl ScaleFormat {
    /// The least number of this format that is not below `scale`, which [`math::bf16_at_least`] takes; as a bfloat16. The nearest where there
    /// is none.
    #[inline(always)]
    pub fn at_least(self, scale: f32) -> u16 {
        let bits = math::bf16_at_least(scale);
        match self {
            Self::Bf16 => bits,
            Self::Ue5m3 => ((bits + 15) & !15).clamp(UE5M3_LEAST, UE5M3_MOST),
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

/// The scales of a cache's keys, or of its values, as they are kept: `(n_layers, n_kv_heads, context_len)`.
pub(crate) enum Scales<'a> {
    Bf16(&'a mut [u16]),
    Ue5m3(&'a mut [u8]),
}

/// Keys, or values, of all layers.
pub(crate) struct Stored<'a> {
    /// `(n_layers, n_kv_heads, context_len, head_dim)`.
    pub elements: &'a mut [i8],
    pub scales: Scales<'a>,
}

impl Stored<'_> {
    /// The bytes of the elements and of the scales.
    pub fn bytes_mut(&mut self) -> (&mut [u8], &mut [u8]) {
        let scales = match &mut self.scales {
            Scales::Bf16(scales) => bytemuck::cast_slice_mut(scales),
            Scales::Ue5m3(scales) => scales,
        };
        (bytemuck::cast_slice_mut(self.elements), scales)
    }

    /// Quantises the heads `x`, `(n_kv_heads, head_dim)`, of a layer into `position`.
    pub fn put(&mut self, kernels: Kernels, config: &ModelConfig, layer_idx: usize, position: usize, x: &[f32]) {
        for (kv_head_idx, x) in x.chunks(config.head_dim.max(1)).enumerate() {
            let slot = (layer_idx * config.n_kv_heads + kv_head_idx) * config.context_len + position;
            let elements = self.elements.cut_mut(slot * x.len()..(slot + 1) * x.len());
            match &mut self.scales {
                Scales::Bf16(scales) => {
                    scales.cut_mut(slot..slot + 1).fill(kernels.store(x, elements, ScaleFormat::Bf16));
                }
                Scales::Ue5m3(_) if !KvFormat::Int8Ue5m3.is_possible() => {}
                Scales::Ue5m3(scales) => {
                    let bits = kernels.store(x, elements, ScaleFormat::Ue5m3);
                    scales.cut_mut(slot..slot + 1).fill((bits.wrapping_sub(UE5M3_LEAST) >> 4) as u8);
                }
            }
        }
    }

    /// Copies positions of a beam, in all layers, to another.
    pub fn copy_beam(&mut self, config: &ModelConfig, from: usize, to: usize, positions: Range<usize>) {
        let (n_heads, width) = (config.n_layers * config.n_kv_heads, config.head_dim);
        for head_idx in 0..n_heads {
            let [from, to] = [from, to].map(|beam| (beam * n_heads + head_idx) * config.context_len + positions.start);
            copy_part(self.elements, from * width, to * width, positions.len() * width);
            match &mut self.scales {
                Scales::Bf16(scales) => copy_part(scales, from, to, positions.len()),
                Scales::Ue5m3(scales) => copy_part(scales, from, to, positions.len()),
            }
        }
    }

    /// The first `n_positions` of a head; those of all layers are counted. `unpacked`, `(context_len,)`, is for scales that kernels do not
    /// read as they are.
    #[inline(always)]
    pub fn head<'s>(
        &'s self,
        kernels: Kernels,
        config: &ModelConfig,
        unpacked: &'s mut [u16],
        head_idx: usize,
        n_positions: usize,
    ) -> Head<'s> {
        let (first, width) = (head_idx * config.context_len, config.head_dim);
        let elements = self.elements.cut(first * width..(first + n_positions) * width);
        let scales = match &self.scales {
            Scales::Bf16(scales) => scales.cut(first..first + n_positions),
            Scales::Ue5m3(_) if !KvFormat::Int8Ue5m3.is_possible() => &[],
            Scales::Ue5m3(scales) => {
                let unpacked = unpacked.cut_mut(..n_positions);
                kernels.unpack_ue5m3(scales.cut(first..first + n_positions), unpacked);
                unpacked
            }
        };
        Head { elements, scales }
    }
}

/// The first positions of one head's keys, or values.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// `(n_positions, head_dim)`.
    pub elements: &'a [i8],
    /// bfloat16 `(n_positions,)`.
    pub scales: &'a [u16],
}

impl<'a> Head<'a> {
    /// As kernels take them.
    pub fn parts(self) -> (&'a [i8], &'a [u16]) {
        (self.elements, self.scales)
    }
}

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
}
