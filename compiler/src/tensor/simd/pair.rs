//! Sixteen lanes in two vectors of eight.

use super::{LANES, Lanes, SIXTEEN, Sixteen, Vector};

/// The lower and the upper eight lanes.
#[derive(Clone, Copy)]
pub(super) struct Pair<V>([V; 2]);

impl<V: Lanes> Pair<V> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(V, V) -> V) -> Self {
        let ([a, b], [x, y]) = (self.0, other.0);
        Self([f(a, x), f(b, y)])
    }
}

impl<V: Lanes<Lanes = V>> Sixteen for Pair<V> {
    #[inline(always)]
    fn halves(self) -> [V; 2] {
        self.0
    }
}

impl<V: Lanes<Lanes = V>> Vector for Pair<V> {
    type Lanes = V;
    const WIDTH: usize = SIXTEEN;
    const TILE_ROWS: usize = V::TILE_ROWS / 2;
    const TILE_VECTORS: usize = V::TILE_VECTORS;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([V::splat(value); 2])
    }
    #[inline(always)]
    unsafe fn load_ptr(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { [V::load_ptr(from), V::load_ptr(from.add(LANES))] })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            self.0[0].store_ptr(to);
            self.0[1].store_ptr(to.add(LANES));
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: the caller's promise; where the upper half has no lane of it, its address is not read.
        unsafe {
            let high = V::load_first(from.wrapping_add(LANES), n.saturating_sub(LANES));
            Self([V::load_first(from, n.min(LANES)), high])
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: as in `load_first`.
        unsafe {
            self.0[0].store_first(to, n.min(LANES));
            self.0[1].store_first(to.wrapping_add(LANES), n.saturating_sub(LANES));
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, V::add)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        let ([a, b], [x, y], [c, d]) = (self.0, factor.0, addend.0);
        Self([a.mul_add(x, c), b.mul_add(y, d)])
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, V::sub)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, V::mul)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, V::div)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, V::max)
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, V::min)
    }
    #[inline(always)]
    fn mantissa_to_exponent(self) -> Self {
        Self(self.0.map(V::mantissa_to_exponent))
    }
    #[inline(always)]
    fn where_less(self, a: Self, b: Self, other: Self) -> Self {
        let half = |i: usize| self.0[i].where_less(a.0[i], b.0[i], other.0[i]);
        Self([half(0), half(1)])
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { V::splat_pair(from) }; 2])
    }
}
