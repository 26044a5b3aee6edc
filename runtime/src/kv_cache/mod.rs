//! Keys and values of past positions: a row a position and head, in one of several formats.

use core::ops::Range;

use crate::config::ModelConfig;
use crate::cut::{Cut, copy_part};
use crate::kernels::Kernels;

pub mod f16;
pub mod int4;
mod scale;

pub use scale::ScaleFormat;
pub(crate) use scale::UE5M3_LEAST;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum KvFormat {
    /// int8, with a bfloat16 scale a position and head.
    #[default]
    Int8 = 0,
    /// int8, with a scale of one byte: an unsigned float of 5 exponent and 3 mantissa bits.
    Int8Ue5m3 = 1,
    /// Four bits, with a word of scale, step and sign a position and head: see [`int4`].
    Int4 = 2,
    /// IEEE half precision: see [`mod@f16`].
    F16 = 3,
}

impl KvFormat {
    /// Every format, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Int8, Self::Int8Ue5m3, Self::Int4, Self::F16];

    /// The format with this code in a packed file.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Int8),
            1 => Some(Self::Int8Ue5m3),
            2 => Some(Self::Int4),
            3 => Some(Self::F16),
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
            Self::Int4 => "int4",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a key's (or a value's) elements.
    pub const fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::Int8 | Self::Int8Ue5m3 => head_dim,
            Self::Int4 => int4::row_bytes(head_dim),
            Self::F16 => 2 * head_dim,
        }
    }

    /// Bytes of a key's (or a value's) scale.
    pub const fn scale_bytes(self) -> usize {
        match self {
            Self::Int8 | Self::Int4 => 2,
            Self::Int8Ue5m3 => 1,
            Self::F16 => 0,
        }
    }

    /// Bytes that an element is unpacked to for kernels; 0 where they read it as it lies.
    pub const fn unpacked_bytes(self) -> usize {
        match self {
            Self::Int8 | Self::Int8Ue5m3 => 0,
            Self::Int4 => 1,
            Self::F16 => 2,
        }
    }

    /// Whether scales are unpacked for kernels.
    pub const fn unpacks_scales(self) -> bool {
        !matches!(self, Self::Int8)
    }

    /// The numbers that scales can be, where there are some.
    pub const fn scale_format(self) -> Option<ScaleFormat> {
        match self {
            Self::Int8 => Some(ScaleFormat::Bf16),
            Self::Int8Ue5m3 => Some(ScaleFormat::Ue5m3),
            Self::Int4 => Some(ScaleFormat::Ue8m4),
            Self::F16 => None,
        }
    }
}

/// The scales of a cache's keys, or of its values, as they are kept: `(n_layers, n_kv_heads, context_len)`.
pub(crate) enum Scales<'a> {
    Bf16(&'a mut [u16]),
    Ue5m3(&'a mut [u8]),
    /// Of [`KvFormat::Int4`], with steps and signs.
    Int4(&'a mut [u16]),
    /// Of [`KvFormat::F16`], which has none.
    None,
}

impl Scales<'_> {
    /// The cache's format, which follows from them.
    #[inline(always)]
    fn kv(&self) -> KvFormat {
        match self {
            Self::Int4(_) if KvFormat::Int4.is_possible() => KvFormat::Int4,
            Self::None if KvFormat::F16.is_possible() => KvFormat::F16,
            Self::Ue5m3(_) if KvFormat::Int8Ue5m3.is_possible() => KvFormat::Int8Ue5m3,
            _ => KvFormat::Int8,
        }
    }
}

/// Where one head is unpacked for kernels that do not read it as it lies.
pub(crate) struct Unpacked<'a> {
    /// `(unpacked_bytes, context_len, head_dim)`, see [`KvFormat::unpacked_bytes`].
    pub elements: &'a mut [i8],
    /// `(context_len,)`, or empty.
    pub scales: &'a mut [u16],
}

impl Unpacked<'_> {
    /// The same, for as long as this borrow.
    #[inline(always)]
    pub fn reborrow(&mut self) -> Unpacked<'_> {
        Unpacked { elements: self.elements, scales: self.scales }
    }
}

/// Keys, or values, of all layers.
pub(crate) struct Stored<'a> {
    /// `(n_layers, n_kv_heads, context_len)` rows of [`KvFormat::row_bytes`].
    pub elements: &'a mut [i8],
    pub scales: Scales<'a>,
}

impl Stored<'_> {
    /// The bytes of the elements and of the scales.
    pub fn bytes_mut(&mut self) -> (&mut [u8], &mut [u8]) {
        let scales = match &mut self.scales {
            Scales::Bf16(scales) | Scales::Int4(scales) => bytemuck::cast_slice_mut(scales),
            Scales::Ue5m3(scales) => scales,
            Scales::None => &mut [],
        };
        (bytemuck::cast_slice_mut(self.elements), scales)
    }

    /// Quantises the heads `x`, `(n_kv_heads, head_dim)`, of a layer into `position`; what `unpacked` held is lost.
    pub fn put(
        &mut self,
        kernels: Kernels,
        config: &ModelConfig,
        unpacked: &mut Unpacked<'_>,
        layer_idx: usize,
        position: usize,
        x: &[f32],
    ) {
        for (kv_head_idx, x) in x.chunks(config.head_dim.max(1)).enumerate() {
            let slot = (layer_idx * config.n_kv_heads + kv_head_idx) * config.context_len + position;
            let row_bytes = self.scales.kv().row_bytes(x.len());
            let elements = self.elements.cut_mut(slot * row_bytes..(slot + 1) * row_bytes);
            match &mut self.scales {
                Scales::Bf16(scales) => {
                    scales.cut_mut(slot..slot + 1).fill(kernels.store(x, elements, ScaleFormat::Bf16));
                }
                Scales::Ue5m3(_) if !KvFormat::Int8Ue5m3.is_possible() => {}
                Scales::Ue5m3(scales) => {
                    let bits = kernels.store(x, elements, ScaleFormat::Ue5m3);
                    scales.cut_mut(slot..slot + 1).fill((bits.wrapping_sub(UE5M3_LEAST) >> 4) as u8);
                }
                Scales::Int4(_) if !KvFormat::Int4.is_possible() => {}
                Scales::Int4(scales) => {
                    let coarse = unpacked.elements.cut_mut(..x.len());
                    let bits = kernels.store(x, coarse, ScaleFormat::Ue8m4);
                    scales.cut_mut(slot..slot + 1).fill(bits | int4::pack(coarse, bytemuck::cast_slice_mut(elements)));
                }
                Scales::None if !KvFormat::F16.is_possible() => {}
                Scales::None => f16::pack(x, bytemuck::cast_slice_mut(elements)),
            }
        }
    }

    /// Copies positions of a beam, in all layers, to another.
    pub fn copy_beam(&mut self, config: &ModelConfig, from: usize, to: usize, positions: Range<usize>) {
        let (n_heads, width) = (config.n_layers * config.n_kv_heads, self.scales.kv().row_bytes(config.head_dim));
        for head_idx in 0..n_heads {
            let [from, to] = [from, to].map(|beam| (beam * n_heads + head_idx) * config.context_len + positions.start);
            copy_part(self.elements, from * width, to * width, positions.len() * width);
            match &mut self.scales {
                Scales::Bf16(scales) | Scales::Int4(scales) => copy_part(scales, from, to, positions.len()),
                Scales::Ue5m3(scales) => copy_part(scales, from, to, positions.len()),
                Scales::None => {}
            }
        }
    }

    /// The first `n_positions` of a head; those of all layers are counted. `unpacked` is for what kernels do not read as
    /// it lies.
    #[inline(always)]
    pub fn head<'s>(
        &'s self,
        kernels: Kernels,
        config: &ModelConfig,
        unpacked: &'s mut Unpacked<'_>,
        head_idx: usize,
        n_positions: usize,
    ) -> Head<'s> {
        let (first, head_dim) = (head_idx * config.context_len, config.head_dim);
        let (slots, n_elements) = (first..first + n_positions, n_positions * head_dim);
        let row_bytes = self.scales.kv().row_bytes(head_dim);
        let elements = self.elements.cut(first * row_bytes..(first + n_positions) * row_bytes);
        match &self.scales {
            Scales::Bf16(scales) => Head { elements, low: &[], scales: scales.cut(slots) },
            Scales::Ue5m3(_) if !KvFormat::Int8Ue5m3.is_possible() => Head::EMPTY,
            Scales::Ue5m3(scales) => {
                let unpacked = unpacked.scales.cut_mut(..n_positions);
                kernels.unpack_ue5m3(scales.cut(slots), unpacked);
                Head { elements, low: &[], scales: unpacked }
            }
            Scales::Int4(_) if !KvFormat::Int4.is_possible() => Head::EMPTY,
            Scales::Int4(words) => {
                let Unpacked { elements: unpacked, scales } = unpacked.reborrow();
                let (unpacked, scales) = (unpacked.cut_mut(..n_elements), scales.cut_mut(..n_positions));
                int4::unpack(bytemuck::cast_slice(elements), words.cut(slots), head_dim, unpacked, scales);
                Head { elements: unpacked, low: &[], scales }
            }
            Scales::None if !KvFormat::F16.is_possible() => Head::EMPTY,
            Scales::None => {
                let Unpacked { elements: unpacked, scales } = unpacked.reborrow();
                let (high, low) = unpacked.cut_mut(..2 * n_elements).parts_mut(n_elements);
                let scales = scales.cut_mut(..n_positions);
                f16::unpack(bytemuck::cast_slice(elements), head_dim, high, low, scales);
                Head { elements: high, low, scales }
            }
        }
    }
}

/// The first positions of one head's keys, or values.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// `(n_positions, head_dim)`.
    pub elements: &'a [i8],
    /// What 128 of make one of those, `(n_positions, head_dim)`; empty where there is no more to them.
    pub low: &'a [i8],
    /// bfloat16 `(n_positions,)`.
    pub scales: &'a [u16],
}

impl<'a> Head<'a> {
    const EMPTY: Self = Self { elements: &[], low: &[], scales: &[] };

    /// Whether elements have two bytes.
    #[inline(always)]
    pub fn is_wide(self) -> bool {
        KvFormat::F16.is_possible() && !self.low.is_empty()
    }

    /// As kernels take them.
    pub fn parts(self) -> (&'a [i8], &'a [u16]) {
        (self.elements, self.scales)
    }
}
