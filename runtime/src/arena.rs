//! The caller's memory, cut into typed buffers once.

use core::fmt;
use core::ops::Range;

use bytemuck::{AnyBitPattern, NoUninit};

use crate::beam::Record;
use crate::kv_cache::{KvFormat, Scales, Stored, Unpacked};
use crate::plan::{ARENA_ALIGN, MemoryPlan};

/// Bytes with the alignment that an arena and a packed model need: for a `static` on a device.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct Aligned<B: ?Sized>(pub B);

/// Why a model cannot be set up in the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArenaError {
    /// Too few bytes.
    TooSmall {
        /// What the model needs.
        needed_bytes: usize,
        /// What it was given.
        given_bytes: usize,
    },
    /// The memory does not start at a multiple of 16 bytes; [`Aligned`] does.
    Misaligned,
    /// The model is an encoder alone, which no session continues, or is none, so that no encoder runs it.
    OtherKind,
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { needed_bytes, given_bytes } => {
                write!(f, "the arena needs {needed_bytes} bytes, but has {given_bytes}")
            }
            Self::Misaligned => write!(f, "the arena must start at a multiple of {ARENA_ALIGN} bytes"),
            Self::OtherKind => {
                f.write_str("encoders alone are run by an encoder, all other models by a session: take the other")
            }
        }
    }
}

impl core::error::Error for ArenaError {}

/// The arena's buffers; see [`MemoryPlan`] for their shapes.
pub(crate) struct Buffers<'a> {
    pub keys: Stored<'a>,
    pub values: Stored<'a>,
    pub cross_keys: Stored<'a>,
    pub cross_values: Stored<'a>,
    pub state: &'a mut [f32],
    pub beam_nodes: &'a mut [u32],
    pub beam_records: &'a mut [Record],
    pub history: &'a mut [u32],
    pub residual: &'a mut [f32],
    pub product: &'a mut [f32],
    pub row: &'a mut [f32],
    pub activations: &'a mut [i16],
    pub activation_scales: &'a mut [f32],
    pub query: &'a mut [i16],
    pub unpacked_keys: Unpacked<'a>,
    pub unpacked_values: Unpacked<'a>,
    pub scores: &'a mut [i32],
    pub value_sums: &'a mut [i32],
    pub logits: &'a mut [f32],
    /// What is left of the caller's memory: working memory of further threads.
    pub spare: &'a mut [u8],
}

/// Cuts buffers off the front of what is left of the arena.
struct Cutter<'a> {
    rest: &'a mut [u8],
    at: usize,
}

impl<'a> Cutter<'a> {
    // Inlined, so that a buffer without bytes, which a linked model's plan has as a constant, takes no code.
    #[inline(always)]
    fn cut<T: AnyBitPattern + NoUninit>(&mut self, range: &Range<usize>) -> Option<&'a mut [T]> {
        if range.is_empty() { Some(&mut []) } else { self.take(range.start, range.end) }
    }

    #[inline(never)]
    fn take<T: AnyBitPattern + NoUninit>(&mut self, start: usize, end: usize) -> Option<&'a mut [T]> {
        let (_, rest) = core::mem::take(&mut self.rest).split_at_mut_checked(start.checked_sub(self.at)?)?;
        let (buffer, rest) = rest.split_at_mut_checked(end.checked_sub(start)?)?;
        self.rest = rest;
        self.at = end;
        bytemuck::try_cast_slice_mut(buffer).ok()
    }
}

impl<'a> Buffers<'a> {
    /// Cuts `arena` as `plan` says. What the bytes held before does not matter.
    pub fn cut(arena: &'a mut [u8], plan: &MemoryPlan) -> Result<Self, ArenaError> {
        let too_small = ArenaError::TooSmall { needed_bytes: plan.arena_bytes, given_bytes: arena.len() };
        if !arena.as_ptr().addr().is_multiple_of(ARENA_ALIGN) {
            return Err(ArenaError::Misaligned);
        }
        let (arena, spare) = arena.split_at_mut_checked(plan.arena_bytes).ok_or(too_small)?;
        Self::cut_in_order(Cutter { rest: arena, at: 0 }, spare, plan).ok_or(too_small)
    }

    /// Keys and values, then the scales of each.
    fn cut_cache(
        cutter: &mut Cutter<'a>,
        kv: KvFormat,
        ranges: [&Range<usize>; 4],
    ) -> Option<(Stored<'a>, Stored<'a>)> {
        let (keys, values) = (cutter.cut(ranges[0])?, cutter.cut(ranges[1])?);
        let mut scales = |range| {
            Some(match kv {
                KvFormat::Int8 => Scales::Bf16(cutter.cut(range)?),
                KvFormat::Int8Ue5m3 => Scales::Ue5m3(cutter.cut(range)?),
                KvFormat::Int4 => Scales::Int4(cutter.cut(range)?),
                KvFormat::F16 => Scales::None,
            })
        };
        let (key_scales, value_scales) = (scales(ranges[2])?, scales(ranges[3])?);
        Some((Stored { elements: keys, scales: key_scales }, Stored { elements: values, scales: value_scales }))
    }

    #[inline(always)]
    fn cut_unpacked(cutter: &mut Cutter<'a>, [elements, scales]: [&Range<usize>; 2]) -> Option<Unpacked<'a>> {
        Some(Unpacked { elements: cutter.cut(elements)?, scales: cutter.cut(scales)? })
    }

    fn cut_in_order(mut cutter: Cutter<'a>, spare: &'a mut [u8], plan: &MemoryPlan) -> Option<Self> {
        let ranges = [&plan.keys, &plan.values, &plan.key_scales, &plan.value_scales];
        let (keys, values) = Self::cut_cache(&mut cutter, plan.kv, ranges)?;
        let ranges = [&plan.cross_keys, &plan.cross_values, &plan.cross_key_scales, &plan.cross_value_scales];
        let (cross_keys, cross_values) = Self::cut_cache(&mut cutter, plan.kv, ranges)?;
        Some(Self {
            keys,
            values,
            cross_keys,
            cross_values,
            state: cutter.cut(&plan.state)?,
            beam_nodes: cutter.cut(&plan.beam_nodes)?,
            beam_records: cutter.cut(&plan.beam_records)?,
            history: cutter.cut(&plan.history)?,
            residual: cutter.cut(&plan.residual)?,
            product: cutter.cut(&plan.product)?,
            row: cutter.cut(&plan.row)?,
            activations: cutter.cut(&plan.activations)?,
            activation_scales: cutter.cut(&plan.activation_scales)?,
            query: cutter.cut(&plan.query)?,
            unpacked_keys: Self::cut_unpacked(&mut cutter, [&plan.unpacked_keys, &plan.unpacked_key_scales])?,
            unpacked_values: Self::cut_unpacked(&mut cutter, [&plan.unpacked_values, &plan.unpacked_value_scales])?,
            scores: cutter.cut(&plan.scores)?,
            value_sums: cutter.cut(&plan.value_sums)?,
            logits: cutter.cut(&plan.logits)?,
            spare,
        })
    }
}
