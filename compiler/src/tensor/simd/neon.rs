//! Eight lanes in two NEON registers, which every aarch64 CPU has.

use super::{LANES, Lanes, Vector};
use core::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(super) struct Neon([float32x4_t; 2]);

/// Calls an intrinsic on both halves, with both halves of each operand.
macro_rules! halves {
    ($call:ident, $($operand:expr),+) => {
        // SAFETY: NEON is part of every aarch64 CPU, and the intrinsic touches no memory.
        Neon(unsafe { [$call($($operand.0[0]),+), $call($($operand.0[1]),+)] })
    };
}

impl Vector for Neon {
    type Lanes = Self;
    const WIDTH: usize = LANES;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: as in `halves!`.
        Self([unsafe { vdupq_n_f32(value) }; 2])
    }
    #[inline(always)]
    unsafe fn load_ptr(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller's promise for `n` numbers, and no more than a vector is taken.
        unsafe { core::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n.min(LANES)) };
        Self::load(&lanes)
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        // SAFETY: as in `load_first`.
        unsafe { core::ptr::copy_nonoverlapping(lanes.as_ptr(), to, n.min(LANES)) };
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        halves!(vaddq_f32, self, other)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        halves!(vfmaq_f32, addend, self, factor)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        halves!(vsubq_f32, self, other)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        halves!(vmulq_f32, self, other)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        halves!(vdivq_f32, self, other)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // Not NEON's own maximum, which is not a number where either operand is none.
        // SAFETY: as in `halves!`.
        let pick = |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) };
        Self([pick(self.0[0], other.0[0]), pick(self.0[1], other.0[1])])
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as in `halves!`.
        let pick = |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) };
        Self([pick(self.0[0], other.0[0]), pick(self.0[1], other.0[1])])
    }
    #[inline(always)]
    fn mantissa_to_exponent(self) -> Self {
        // SAFETY: as in `halves!`.
        Self(self.0.map(|half| unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(half))) }))
    }
    #[inline(always)]
    fn where_less(self, a: Self, b: Self, other: Self) -> Self {
        // SAFETY: as in `halves!`.
        let pick = |i: usize| unsafe { vbslq_f32(vcltq_f32(a.0[i], b.0[i]), self.0[i], other.0[i]) };
        Self([pick(0), pick(1)])
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const f32) -> Self {
        // SAFETY: the caller's promise: the two numbers are read as one.
        let pair = unsafe { vreinterpretq_f32_u64(vdupq_n_u64(from.cast::<u64>().read_unaligned())) };
        Self([pair; 2])
    }
}

impl Lanes for Neon {
    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut numbers = [[0.0; LANES]; LANES];
        for (row, to) in rows.into_iter().zip(&mut numbers) {
            row.store(to);
        }
        core::array::from_fn(|i| Self::load(&core::array::from_fn(|j| numbers[j][i])))
    }
}
