//! Eight `f32` lanes, once for AVX2 + FMA and once for any CPU, and the switch between them.
//!
//! A kernel is a type with a [`Kernel::run`] that is generic over [`Lanes`]; [`dispatch`] runs it with the widest lanes the
//! CPU has. Every operation works lane by lane and rounds as IEEE 754 says (`mul_add` rounds once, in both forms), and
//! reductions fold in one fixed tree, so both forms give the same bits: the portable form is only slower.

/// Lanes in a vector.
pub const LANES: usize = 8;

/// A vector of [`LANES`] numbers.
///
/// Every method is lane-wise unless it says otherwise.
pub trait Lanes: Copy {
    /// The same number in every lane.
    fn splat(value: f32) -> Self;
    /// Reads a vector.
    fn load(from: &[f32; LANES]) -> Self;
    /// Writes a vector.
    fn store(self, to: &mut [f32; LANES]);
    /// Reads a vector at any alignment.
    ///
    /// # Safety
    /// `from` must be valid for reading [`LANES`] numbers.
    unsafe fn load_ptr(from: *const f32) -> Self;
    /// Writes a vector at any alignment.
    ///
    /// # Safety
    /// `to` must be valid for writing [`LANES`] numbers.
    unsafe fn store_ptr(self, to: *mut f32);
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The larger of the two; `other` where either is not a number.
    fn max(self, other: Self) -> Self;
    /// The smaller of the two; `other` where either is not a number.
    fn min(self, other: Self) -> Self;
    /// The bits of each lane moved 23 places up: turns a small integer in the mantissa into an exponent.
    fn mantissa_to_exponent(self) -> Self;

    /// Zero in every lane.
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    /// `e` to the power of each lane, within 2 units in the last place.
    ///
    /// Arguments are clamped to at most 88.37; results below `2^-126.5` are zero.
    #[inline(always)]
    fn exp(self) -> Self {
        // 1.5 * 2^23 puts the rounded quotient into the low mantissa bits, the exponent's bias on top of it.
        let magic = Self::splat(12_582_912.0 + 127.0);
        let x = self.max(Self::splat(-88.029)).min(Self::splat(88.37));
        let shifted = x.mul_add(Self::splat(core::f32::consts::LOG2_E), magic);
        let power = shifted.mantissa_to_exponent();
        let n = shifted.sub(magic);
        // ln 2 in two parts: the first has few enough bits for its product with `n` to be exact.
        let r = n.mul_add(Self::splat(-0.693_359_4), x);
        let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.mul_add(r, Self::splat(coefficient));
        }
        p.mul_add(r.mul(r), r).add(Self::splat(1.0)).mul(power)
    }

    /// The sum of all lanes, folded as `((0+4)+(2+6)) + ((1+5)+(3+7))`.
    #[inline(always)]
    fn reduce_sum(self) -> f32 {
        let mut l = [0.0; LANES];
        self.store(&mut l);
        ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
    }

    /// The largest lane.
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        let mut l = [0.0; LANES];
        self.store(&mut l);
        l.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// A computation that can run on any kind of lanes.
///
/// `run` and everything it calls that touches lanes must be `#[inline(always)]`, so that it is compiled for the CPU features
/// of the [`dispatch`] arm it ends up in.
pub trait Kernel {
    /// What the computation returns.
    type Output;
    /// Computes with vectors of kind `V`.
    fn run<V: Lanes>(self) -> Self::Output;
}

/// Runs `kernel` with the widest lanes this CPU has.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        // SAFETY: the CPU was just seen to have the features that `run` is compiled for.
        return unsafe { x86::run(kernel) };
    }
    kernel.run::<Portable>()
}

/// Splits `x` into whole vectors and the rest.
#[inline(always)]
pub fn vectors(x: &[f32]) -> (&[[f32; LANES]], &[f32]) {
    x.as_chunks()
}

/// Splits `x` into whole vectors and the rest, for writing.
#[inline(always)]
pub fn vectors_mut(x: &mut [f32]) -> (&mut [[f32; LANES]], &mut [f32]) {
    x.as_chunks_mut()
}

/// Reads up to [`LANES`] numbers, the missing ones as zero.
#[inline(always)]
pub fn load_part<V: Lanes>(from: &[f32]) -> V {
    if let Ok(whole) = from.try_into() {
        return V::load(whole);
    }
    let mut lanes = [0.0; LANES];
    lanes[..from.len()].copy_from_slice(from);
    V::load(&lanes)
}

/// Writes the first `to.len()` lanes.
#[inline(always)]
pub fn store_part<V: Lanes>(value: V, to: &mut [f32]) {
    if let Ok(whole) = to.try_into() {
        return value.store(whole);
    }
    let mut lanes = [0.0; LANES];
    value.store(&mut lanes);
    to.copy_from_slice(&lanes[..to.len()]);
}

/// Lanes on any CPU.
#[derive(Clone, Copy)]
pub struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(core::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Portable {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    unsafe fn load_ptr(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array of numbers has the alignment of a number.
        Self(unsafe { *from.cast::<[f32; LANES]>() })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut f32) {
        // SAFETY: as in `load_ptr`.
        unsafe { *to.cast::<[f32; LANES]>() = self.0 }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn mantissa_to_exponent(self) -> Self {
        Self(self.0.map(|x| f32::from_bits(x.to_bits() << 23)))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Lanes in one AVX register.
    //!
    //! `Avx2` is private and used only by `run`, whose caller has seen the features: that is the proof each intrinsic needs.

    use super::{Kernel, LANES, Lanes};
    use core::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256);

    #[inline]
    pub(super) fn available() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }

    /// Runs `kernel` on AVX2 lanes.
    ///
    /// # Safety
    /// The CPU must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    /// Calls an intrinsic that touches no memory.
    macro_rules! avx {
        ($($call:tt)*) => {
            // SAFETY: a value of `Avx2` is made only inside `run`, where the CPU has the features.
            unsafe { $($call)* }
        };
    }

    impl Lanes for Avx2 {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            Self(avx!(_mm256_set1_ps(value)))
        }
        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            // SAFETY: the array is valid for reading `LANES` numbers.
            unsafe { Self::load_ptr(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            // SAFETY: the array is valid for writing `LANES` numbers.
            unsafe { self.store_ptr(to.as_mut_ptr()) }
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
        fn add(self, other: Self) -> Self {
            Self(avx!(_mm256_add_ps(self.0, other.0)))
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
        fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self(avx!(_mm256_fmadd_ps(self.0, factor.0, addend.0)))
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct ExpOf<'a>(&'a [f32]);

    impl Kernel for ExpOf<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<V: Lanes>(self) -> Vec<f32> {
            let mut out = vec![0.0; self.0.len()];
            for (to, from) in vectors_mut(&mut out).0.iter_mut().zip(vectors(self.0).0) {
                V::load(from).exp().store(to);
            }
            out
        }
    }

    fn grid() -> Vec<f32> {
        (0..32_000).map(|i| (i as f32 - 16_000.0) * 0.0055).collect()
    }

    #[test]
    fn exp_is_close_to_the_true_value() {
        let x = grid();
        for (x, got) in x.iter().zip(dispatch(ExpOf(&x))) {
            let want = f64::from(x.clamp(-1e9, 88.37)).exp();
            let error = (f64::from(got) - want).abs() / want;
            assert!(error < 2.5e-7 || (*x < -87.3 && got == 0.0), "exp({x}) = {got}, want {want}");
        }
    }

    #[test]
    fn portable_lanes_give_the_same_bits() {
        let x = grid();
        let wide: Vec<u32> = dispatch(ExpOf(&x)).iter().map(|v| v.to_bits()).collect();
        let portable: Vec<u32> = ExpOf(&x).run::<Portable>().iter().map(|v| v.to_bits()).collect();
        assert_eq!(wide, portable);
    }

    #[test]
    fn very_negative_arguments_vanish() {
        assert_eq!(dispatch(ExpOf(&[-1e30; LANES])), vec![0.0; LANES]);
    }
}
