//! Vectors of `f32`: eight lanes for AVX2 + FMA, NEON or any CPU, sixteen for AVX-512, and the switch between them.
//!
//! A kernel is a type with a [`Kernel::run`] that is generic over vectors of [`Sixteen`] lanes, two of eight where the CPU has no wider;
//! [`dispatch`] runs it with those that the CPU has. Every operation works lane by lane and rounds as IEEE 754 says (`mul_add`
//! rounds once, in all forms), and reductions fold in one fixed tree, so all forms give the same bits: the portable one is only
//! slower. A [`WideKernel`], in which lanes never meet, is generic over vectors of any width.

#[cfg(target_arch = "aarch64")]
mod neon;
mod pair;
mod portable;
mod slices;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use portable::Portable;
pub use slices::{add, add_assign};

/// Lanes of a [`Lanes`].
pub const LANES: usize = 8;
/// Lanes of a [`Sixteen`].
pub const SIXTEEN: usize = 16;

/// A vector of some width, no lane of which ever meets another.
///
/// Every method is lane-wise.
pub trait Vector: Copy {
    /// The eight lanes that the same CPU has.
    type Lanes: Lanes;
    /// Numbers in a vector.
    const WIDTH: usize;
    /// Rows of a matrix product's widest tile: its sums fit in the registers beside a row of vectors.
    const TILE_ROWS: usize;
    /// Vectors of its columns, at most four.
    const TILE_VECTORS: usize;

    /// The same number in every lane.
    fn splat(value: f32) -> Self;
    /// Reads a vector at any alignment.
    ///
    /// # Safety
    /// `from` must be valid for reading [`Vector::WIDTH`] numbers.
    unsafe fn load_ptr(from: *const f32) -> Self;
    /// Writes a vector at any alignment.
    ///
    /// # Safety
    /// `to` must be valid for writing [`Vector::WIDTH`] numbers.
    unsafe fn store_ptr(self, to: *mut f32);
    /// Reads the first `n` lanes, at most all of them; the others are zero.
    ///
    /// # Safety
    /// `from` must be valid for reading `n` numbers.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;
    /// Writes the first `n` lanes, at most all of them.
    ///
    /// # Safety
    /// `to` must be valid for writing `n` numbers.
    unsafe fn store_first(self, to: *mut f32, n: usize);
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// The larger of the two; `other` where either is not a number.
    fn max(self, other: Self) -> Self;
    /// The smaller of the two; `other` where either is not a number.
    fn min(self, other: Self) -> Self;
    /// The bits of each lane moved 23 places up: turns a small integer in the mantissa into an exponent.
    fn mantissa_to_exponent(self) -> Self;
    /// `self` where `a` is less than `b`, and `other` elsewhere.
    fn where_less(self, a: Self, b: Self, other: Self) -> Self;
    /// Two numbers, over and over.
    ///
    /// # Safety
    /// `from` must be valid for reading two numbers.
    unsafe fn splat_pair(from: *const f32) -> Self;

    /// Asks for the cache line at `at`, where the CPU takes such hints.
    #[inline(always)]
    fn prefetch(at: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: part of every x86-64 CPU, and a hint: no address is wrong.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast())
        };
        let _ = at;
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

    /// 2 to the power of each lane, none of which is above 127, within 2 units in the last place.
    ///
    /// Results below `2^-126.5` are zero.
    #[inline(always)]
    #[expect(clippy::approx_constant, reason = "the best polynomial's first coefficient is not quite ln 2")]
    fn exp2(self) -> Self {
        // As in `exp`, without the way from base e. The polynomial has the least relative error of its degree for `2^r`, `|r| <= 1/2`.
        let magic = Self::splat(12_582_912.0 + 127.0);
        let x = self.max(Self::splat(-127.0));
        let shifted = x.add(magic);
        let r = x.sub(shifted.sub(magic));
        let mut p = Self::splat(1.326_472_7e-3);
        for coefficient in [9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, 6.931_47e-1, 1.0] {
            p = p.mul_add(r, Self::splat(coefficient));
        }
        p.mul(shifted.mantissa_to_exponent())
    }

    /// Zero in every lane.
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }
}

/// A vector of [`LANES`] numbers, and what takes several lanes together.
pub trait Lanes: Vector {
    /// Reads a vector.
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        // SAFETY: the array is valid for reading `LANES` numbers.
        unsafe { Self::load_ptr(from.as_ptr()) }
    }
    /// Writes a vector.
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: the array is valid for writing `LANES` numbers.
        unsafe { self.store_ptr(to.as_mut_ptr()) }
    }
    /// Rows and columns exchanged: lane `j` of the result's row `i` is lane `i` of row `j`.
    fn transpose(rows: [Self; LANES]) -> [Self; LANES];

    /// The sum of all lanes, folded as `((0+4)+(2+6)) + ((1+5)+(3+7))`.
    #[inline(always)]
    fn reduce_sum(self) -> f32 {
        let mut l = [0.0; LANES];
        self.store(&mut l);
        ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
    }
}

/// A vector of sixteen numbers, and what takes several lanes together.
pub trait Sixteen: Vector {
    /// The lower and the upper eight lanes.
    fn halves(self) -> [Self::Lanes; 2];

    /// Reads a vector.
    #[inline(always)]
    fn load(from: &[f32; SIXTEEN]) -> Self {
        // SAFETY: the array is valid for reading all lanes.
        unsafe { Self::load_ptr(from.as_ptr()) }
    }
    /// Writes a vector.
    #[inline(always)]
    fn store(self, to: &mut [f32; SIXTEEN]) {
        // SAFETY: the array is valid for writing all lanes.
        unsafe { self.store_ptr(to.as_mut_ptr()) }
    }
    /// The sum of all lanes: the lower and the upper eight added, and then as [`Lanes::reduce_sum`].
    #[inline(always)]
    fn reduce_sum(self) -> f32 {
        let [low, high] = self.halves();
        low.add(high).reduce_sum()
    }
    /// The largest lane.
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        let [low, high] = self.halves();
        let mut l = [0.0; LANES];
        Lanes::store(low.max(high), &mut l);
        l.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// A computation that takes sixteen numbers at a time.
///
/// `run` and everything it calls that touches lanes must be `#[inline(always)]`, so that it is compiled for the CPU features
/// of the [`dispatch`] arm it ends up in.
pub trait Kernel {
    /// What the computation returns.
    type Output;
    /// Computes with vectors of kind `V`.
    fn run<V: Sixteen>(self) -> Self::Output;
}

/// Runs `kernel` with the widest vectors this CPU has.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx512() {
            // SAFETY: the CPU was just seen to have the features that `run` is compiled for.
            return unsafe { x86::run_avx512(kernel) };
        }
        if x86::has_avx2() {
            // SAFETY: as above.
            return unsafe { x86::run_avx2(kernel) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    return kernel.run::<pair::Pair<neon::Neon>>();
    #[cfg(not(target_arch = "aarch64"))]
    kernel.run::<pair::Pair<Portable>>()
}

/// A computation that no lane's neighbours have a part in, so that the width of the vectors leaves no trace in its result.
///
/// `run` and everything it calls that touches vectors must be `#[inline(always)]`, as for [`Kernel`].
pub trait WideKernel {
    /// What the computation returns.
    type Output;
    /// Computes with vectors of kind `V`.
    fn run<V: Vector>(self) -> Self::Output;
}

/// Runs `kernel` with the widest vectors this CPU has.
#[inline]
pub fn dispatch_wide<K: WideKernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx512() {
            // SAFETY: the CPU was just seen to have the features that `run` is compiled for.
            return unsafe { x86::run_wide_avx512(kernel) };
        }
        if x86::has_avx2() {
            // SAFETY: as above.
            return unsafe { x86::run_wide_avx2(kernel) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    return kernel.run::<neon::Neon>();
    #[cfg(not(target_arch = "aarch64"))]
    kernel.run::<Portable>()
}

/// Reads up to a vector of numbers, the missing ones as zero.
///
/// # Panics
/// If there are more.
#[inline(always)]
pub fn load_part<V: Vector>(from: &[f32]) -> V {
    assert!(from.len() <= V::WIDTH);
    // SAFETY: as many numbers are read as there are.
    unsafe {
        if from.len() == V::WIDTH { V::load_ptr(from.as_ptr()) } else { V::load_first(from.as_ptr(), from.len()) }
    }
}

/// Writes the first `to.len()` lanes.
///
/// # Panics
/// If there are not as many.
#[inline(always)]
pub fn store_part<V: Vector>(value: V, to: &mut [f32]) {
    assert!(to.len() <= V::WIDTH);
    // SAFETY: as many numbers are written as there is room for.
    unsafe {
        if to.len() == V::WIDTH {
            value.store_ptr(to.as_mut_ptr());
        } else {
            value.store_first(to.as_mut_ptr(), to.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `exp`, or `exp2` where the flag is set.
    struct ExpOf<'a>(&'a [f32], bool);

    impl Kernel for ExpOf<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<V: Sixteen>(self) -> Vec<f32> {
            let mut out = vec![0.0; self.0.len()];
            for (to, from) in out.chunks_mut(SIXTEEN).zip(self.0.chunks(SIXTEEN)) {
                let x = load_part::<V>(from);
                store_part(if self.1 { x.exp2() } else { x.exp() }, to);
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
        for (x, got) in x.iter().zip(dispatch(ExpOf(&x, false))) {
            let want = f64::from(x.clamp(-1e9, 88.37)).exp();
            let error = (f64::from(got) - want).abs() / want;
            assert!(error < 2.5e-7 || (*x < -87.3 && got == 0.0), "exp({x}) = {got}, want {want}");
        }
    }

    #[test]
    fn exp2_is_close_to_the_true_value() {
        let x: Vec<f32> = (0..32_001).map(|i| (i as f32 - 16_000.0) / 16_000.0 * 127.0).collect();
        for (x, got) in x.iter().zip(dispatch(ExpOf(&x, true))) {
            let want = f64::from(*x).exp2();
            let error = (f64::from(got) - want).abs() / want;
            assert!(error < 2.5e-7 || (*x < -126.4 && got == 0.0), "exp2({x}) = {got}, want {want}");
        }
    }

    #[test]
    fn portable_lanes_give_the_same_bits() {
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        // Not a whole number of vectors.
        let x = &grid()[..31_997];
        for base_2 in [false, true] {
            let x = if base_2 { x.iter().map(|x| x.min(127.0)).collect() } else { x.to_vec() };
            let [wide, portable] =
                [dispatch(ExpOf(&x, base_2)), ExpOf(&x, base_2).run::<pair::Pair<Portable>>()].map(bits);
            assert!(wide == portable, "base 2: {base_2}");
        }
    }

    struct Reductions<'a>(&'a [f32; SIXTEEN]);

    impl Kernel for Reductions<'_> {
        type Output = [f32; 2];
        #[inline(always)]
        fn run<V: Sixteen>(self) -> [f32; 2] {
            let x = V::load(self.0);
            [x.reduce_sum(), x.reduce_max()]
        }
    }

    #[test]
    fn reductions_take_every_lane_in_one_order() {
        let x: [f32; SIXTEEN] = std::array::from_fn(|i| (i as f32 * 0.7).sin() * 10f32.powi(i as i32 % 5));
        let wide = dispatch(Reductions(&x));
        assert_eq!(wide, Reductions(&x).run::<pair::Pair<Portable>>());
        assert!((wide[0] - x.iter().sum::<f32>()).abs() < 1e-2);
        assert_eq!(wide[1], x.iter().copied().fold(f32::MIN, f32::max));
    }

    #[test]
    fn very_negative_arguments_vanish() {
        for base_2 in [false, true] {
            assert_eq!(dispatch(ExpOf(&[-1e30; SIXTEEN], base_2)), vec![0.0; SIXTEEN]);
        }
    }
}
