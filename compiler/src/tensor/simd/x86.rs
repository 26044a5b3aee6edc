//! Lanes in one AVX register, and the wide vectors of AVX-512.
//!
//! `Avx2` and `Avx512` are used only below the functions here that have the features enabled, whose callers have seen them: that is the
//! proof each intrinsic needs.

use super::pair::Pair;
use super::{Kernel, LANES, Lanes, Sixteen, Vector, WideKernel};
use core::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256);

#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

#[inline]
pub(super) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[inline]
pub(super) fn has_avx512() -> bool {
    has_avx2() && std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vl")
}

/// Runs `kernel` on pairs of AVX2 vectors.
///
/// # Safety
/// The CPU must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Pair<Avx2>>()
}

/// Runs `kernel` on AVX-512 vectors.
///
/// # Safety
/// The CPU must have AVX2, FMA, AVX-512F and AVX-512VL.
#[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

/// Runs `kernel` on AVX2 vectors.
///
/// # Safety
/// The CPU must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_wide_avx2<K: WideKernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

/// Runs `kernel` on AVX-512 vectors.
///
/// # Safety
/// The CPU must have AVX2, FMA, AVX-512F and AVX-512VL.
#[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
pub(super) unsafe fn run_wide_avx512<K: WideKernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

/// Calls an intrinsic that touches no memory.
macro_rules! avx {
    ($($call:tt)*) => {
        // SAFETY: a value of these types is made only below the functions above, where the CPU has the features.
        unsafe { $($call)* }
    };
}

/// A mask of the first `n` lanes of eight, as AVX2 has masks.
#[inline(always)]
fn first_lanes(n: usize) -> __m256i {
    avx!(_mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)))
}

impl Avx2 {
    /// The lower and the upper two of each half, interleaved one by one.
    #[inline(always)]
    fn pairs(self, other: Self) -> [Self; 2] {
        let (x, y) = (self.0, other.0);
        [Self(avx!(_mm256_unpacklo_ps(x, y))), Self(avx!(_mm256_unpackhi_ps(x, y)))]
    }
    /// The lower and the upper pairs of each half, side by side.
    #[inline(always)]
    fn fours(self, other: Self) -> [Self; 2] {
        let (x, y) = (self.0, other.0);
        [Self(avx!(_mm256_shuffle_ps::<0b01_00_01_00>(x, y))), Self(avx!(_mm256_shuffle_ps::<0b11_10_11_10>(x, y)))]
    }
    /// The lower halves, and the upper halves.
    #[inline(always)]
    fn halves(self, other: Self) -> [Self; 2] {
        let (x, y) = (self.0, other.0);
        [Self(avx!(_mm256_permute2f128_ps::<0x20>(x, y))), Self(avx!(_mm256_permute2f128_ps::<0x31>(x, y)))]
    }
}

impl Vector for Avx2 {
    type Lanes = Self;
    const WIDTH: usize = LANES;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(avx!(_mm256_set1_ps(value)))
    }
    #[inline(always)]
    unsafe fn load_ptr(from: *const f32) -> Self {
        // SAFETY: the caller's promise, and the features as in `avx!`.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut f32) {
        // SAFETY: the caller's promise, and the features as in `avx!`.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: lanes outside the mask are not read; for those inside, the caller's promise.
        Self(unsafe { _mm256_maskload_ps(from, first_lanes(n)) })
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: lanes outside the mask are not written; for those inside, the caller's promise.
        unsafe { _mm256_maskstore_ps(to, first_lanes(n), self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(avx!(_mm256_add_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(avx!(_mm256_fmadd_ps(self.0, factor.0, addend.0)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(avx!(_mm256_sub_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(avx!(_mm256_mul_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(avx!(_mm256_div_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(avx!(_mm256_max_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(avx!(_mm256_min_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mantissa_to_exponent(self) -> Self {
        Self(avx!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0)))))
    }
    #[inline(always)]
    fn where_less(self, a: Self, b: Self, other: Self) -> Self {
        Self(avx!(_mm256_blendv_ps(other.0, self.0, _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0))))
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const f32) -> Self {
        // SAFETY: the caller's promise: the two numbers are read as one.
        Self(unsafe { _mm256_castpd_ps(_mm256_set1_pd(from.cast::<f64>().read_unaligned())) })
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn reduce_sum(self) -> f32 {
        avx!({
            let fours = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
            _mm_cvtss_f32(_mm_add_ss(twos, _mm_movehdup_ps(twos)))
        })
    }
    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let [a, b, c, d, e, f, g, h] = rows;
        // Neighbours interleaved in pairs, then in fours, then the halves of the registers put together.
        let [[ab0, ab1], [cd0, cd1], [ef0, ef1], [gh0, gh1]] = [a.pairs(b), c.pairs(d), e.pairs(f), g.pairs(h)];
        let [[top0, top1], [top2, top3]] = [ab0.fours(cd0), ab1.fours(cd1)];
        let [[low0, low1], [low2, low3]] = [ef0.fours(gh0), ef1.fours(gh1)];
        let [[row0, row4], [row1, row5]] = [top0.halves(low0), top1.halves(low1)];
        let [[row2, row6], [row3, row7]] = [top2.halves(low2), top3.halves(low3)];
        [row0, row1, row2, row3, row4, row5, row6, row7]
    }
}

impl Vector for Avx512 {
    type Lanes = Avx2;
    const WIDTH: usize = 16;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 4;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(avx!(_mm512_set1_ps(value)))
    }
    #[inline(always)]
    unsafe fn load_ptr(from: *const f32) -> Self {
        // SAFETY: the caller's promise, and the features as in `avx!`.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut f32) {
        // SAFETY: the caller's promise, and the features as in `avx!`.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: lanes outside the mask are not read; for those inside, the caller's promise.
        Self(unsafe { _mm512_maskz_loadu_ps(((1_u32 << n) - 1) as u16, from) })
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // SAFETY: lanes outside the mask are not written; for those inside, the caller's promise.
        unsafe { _mm512_mask_storeu_ps(to, ((1_u32 << n) - 1) as u16, self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(avx!(_mm512_add_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(avx!(_mm512_fmadd_ps(self.0, factor.0, addend.0)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(avx!(_mm512_sub_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(avx!(_mm512_mul_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(avx!(_mm512_div_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(avx!(_mm512_max_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(avx!(_mm512_min_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mantissa_to_exponent(self) -> Self {
        Self(avx!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0)))))
    }
    #[inline(always)]
    fn where_less(self, a: Self, b: Self, other: Self) -> Self {
        Self(avx!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a.0, b.0), other.0, self.0)))
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const f32) -> Self {
        // SAFETY: the caller's promise: the two numbers are read as one.
        Self(unsafe { _mm512_castpd_ps(_mm512_set1_pd(from.cast::<f64>().read_unaligned())) })
    }
}

impl Sixteen for Avx512 {
    #[inline(always)]
    fn halves(self) -> [Avx2; 2] {
        let x = avx!(_mm512_castps_pd(self.0));
        [Avx2(avx!(_mm512_castps512_ps256(self.0))), Avx2(avx!(_mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(x))))]
    }
}
