//! Numbers stored in 16 bits as bfloat16: how they are rounded, and the buffers of them.
//!
//! A bfloat16 is the upper half of an `f32`: the same range, eight bits of precision. Arithmetic is always done in `f32`.
//!
//! What is stored once, an activation, is rounded to the nearest. What is changed a little at every step, a weight or an optimiser's
//! running average, would then stand still as soon as the change is below half a unit in the last place; it is rounded up or down by
//! chance instead, each as likely as its neighbour is near, so that it is right on average (Gupta et al. 2015). The chance is a hash of
//! the update and the place: the same for any number of threads, any vectors, and for a run that was resumed.

use super::simd::{Kernel, Sixteen, dispatch};
use serde::{Deserialize, Serialize};

pub use half::bf16;

/// Magnitudes from here on are infinite or not numbers.
const INFINITE: u32 = 0x7f80_0000;
/// The largest finite magnitude of a bfloat16.
const LARGEST: u32 = 0x7f7f;
/// Marks what is not a number, whatever else of it is cut off.
const QUIET: u32 = 0x0040;

/// What numbers are stored as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dtype {
    /// Single precision.
    #[default]
    #[serde(rename = "f32", alias = "float32")]
    F32,
    /// bfloat16.
    #[serde(rename = "bf16", alias = "bfloat16")]
    Bf16,
}

impl Dtype {
    /// Whether it is single precision.
    pub fn is_f32(&self) -> bool {
        *self == Self::F32
    }
}

/// The bfloat16 of the sign of `x` and of a magnitude that was raised before the cut, but never past the largest finite one.
#[inline(always)]
fn cut(x: u32, raised: u32) -> bf16 {
    let magnitude = x & 0x7fff_ffff;
    let special = magnitude >> 16 | if magnitude > INFINITE { QUIET } else { 0 };
    let rounded = if magnitude < INFINITE { (raised >> 16).min(LARGEST) } else { special };
    bf16::from_bits((x >> 16 & 0x8000 | rounded) as u16)
}

/// The nearest bfloat16, the even one of two; the largest finite one instead of infinity.
#[inline(always)]
fn nearest(x: f32) -> bf16 {
    let x = x.to_bits();
    let magnitude = x & 0x7fff_ffff;
    cut(x, magnitude.wrapping_add(0x7fff).wrapping_add(magnitude >> 16 & 1))
}

/// Rounds each number to the nearest bfloat16, and a finite one to a finite one.
///
/// # Panics
/// If `to` has another length.
pub fn narrow(from: &[f32], to: &mut [bf16]) {
    assert_eq!(from.len(), to.len(), "a place for each number");
    dispatch(Narrow { from, to });
}

/// Gives each number its value.
///
/// # Panics
/// If `to` has another length.
pub fn widen(from: &[bf16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "a place for each number");
    dispatch(Widen { from, to });
}

struct Narrow<'a> {
    from: &'a [f32],
    to: &'a mut [bf16],
}

impl Kernel for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        self.to.iter_mut().zip(self.from).for_each(|(to, from)| *to = nearest(*from));
    }
}

struct Widen<'a> {
    from: &'a [bf16],
    to: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        self.to.iter_mut().zip(self.from).for_each(|(to, from)| *to = from.widen());
    }
}

/// A number as it is stored.
pub trait Stored: Copy + Send + Sync {
    /// Its value.
    fn widen(self) -> f32;

    /// Stores `x`. Where it lies between two numbers, the lower 16 of the random `bits` decide: the mean over all bits is `x`.
    fn round(x: f32, bits: u32) -> Self;
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(x: f32, _bits: u32) -> Self {
        x
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Numbers that a bfloat16 holds stay what they are, finite numbers finite, and what is not a number none.
    #[inline(always)]
    fn round(x: f32, bits: u32) -> Self {
        let x = x.to_bits();
        cut(x, (x & 0x7fff_ffff).wrapping_add(bits & 0xffff))
    }
}

/// What random bits are for: each use has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The running averages of an optimiser.
    State = 1,
    /// The parameters themselves.
    Weights = 2,
}

/// Random bits of an update for all that it stores.
#[derive(Clone, Copy, Debug)]
pub struct Dithers {
    /// For running averages.
    pub state: Dither,
    /// For parameters.
    pub weights: Dither,
}

impl Dithers {
    /// The bits of the update that `n_before` others came before.
    pub fn new(n_before: u64) -> Self {
        Self { state: Dither::new(n_before, Stream::State), weights: Dither::new(n_before, Stream::Weights) }
    }
}

/// Random bits by place, for one update.
#[derive(Clone, Copy, Debug)]
pub struct Dither {
    keys: [u32; 2],
}

impl Dither {
    /// The bits of the update that `n_before` others came before.
    pub fn new(n_before: u64, stream: Stream) -> Self {
        // SplitMix64 (Steele et al. 2014).
        let mut z = n_before.wrapping_mul(4).wrapping_add(stream as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Self { keys: [z as u32, (z >> 32) as u32] }
    }

    /// The bits of the number at a place among the parameters: 32, enough for two numbers to be rounded.
    ///
    /// Multiplications of 32 bits, which vectors have; places that are `2^32` apart share their bits.
    #[inline(always)]
    pub fn bits(self, place: u32) -> u32 {
        let mut z = place ^ self.keys[0];
        z = (z ^ (z >> 16)).wrapping_mul(0x7feb_352d);
        z = (z ^ (z >> 15)).wrapping_add(self.keys[1]).wrapping_mul(0x846c_a68b);
        z ^ (z >> 16)
    }
}

/// The bytes of numbers in the order of files, the lowest first.
pub fn le_bytes(numbers: &[bf16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Takes numbers from such bytes, as far as both go.
pub fn set_le_bytes(numbers: &mut [bf16], bytes: &[u8]) {
    let words = bytes.as_chunks::<2>().0;
    numbers.iter_mut().zip(words).for_each(|(to, word)| *to = bf16::from_le_bytes(*word));
}

/// A buffer of numbers that are changed a little at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Single precision.
    F32(Vec<f32>),
    /// bfloat16.
    Bf16(Vec<bf16>),
}

impl Numbers {
    /// `len` zeros.
    pub fn zeros(dtype: Dtype, len: usize) -> Self {
        match dtype {
            Dtype::F32 => Self::F32(vec![0.0; len]),
            Dtype::Bf16 => Self::Bf16(vec![bf16::ZERO; len]),
        }
    }

    /// What they are stored as.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::Bf16(_) => Dtype::Bf16,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that they take up.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::F32(numbers) => size_of_val(numbers.as_slice()),
            Self::Bf16(numbers) => size_of_val(numbers.as_slice()),
        }
    }

    /// Their bytes in the order of files, the lowest first.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::Bf16(numbers) => le_bytes(numbers),
        }
    }

    /// Takes the numbers from such bytes; `false`, and nothing is taken, if there are not as many.
    pub fn set_le_bytes(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() != self.n_bytes() {
            return false;
        }
        match self {
            Self::F32(numbers) => {
                let words = bytes.as_chunks::<4>().0;
                numbers.iter_mut().zip(words).for_each(|(to, word)| *to = f32::from_le_bytes(*word));
            }
            Self::Bf16(numbers) => set_le_bytes(numbers, bytes),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of number: both signs, all exponents, subnormal, infinite, not a number.
    fn all_kinds() -> impl Iterator<Item = f32> {
        let exponents = (0..=255_u32).flat_map(|exponent| {
            [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1_8000, 0x7f_ffff].map(|low| exponent << 23 | low)
        });
        exponents.flat_map(|word| [f32::from_bits(word), f32::from_bits(word | 1 << 31)])
    }

    #[test]
    fn chance_leaves_representable_numbers_and_is_one_of_the_neighbours() {
        for x in all_kinds() {
            for bits in [0, 1, 0x7fff, 0x8000, 0xffff, 0xffff_ffff] {
                let got = bf16::round(x, bits);
                if x.is_nan() {
                    assert!(got.is_nan(), "{x}");
                } else if x.is_infinite() || x.to_bits() & 0xffff == 0 {
                    assert_eq!(got.widen().to_bits(), x.to_bits(), "{x}");
                } else {
                    let below = x.to_bits() >> 16;
                    let upper = if below & 0x7fff == LARGEST { below } else { below + 1 };
                    assert!(got.is_finite() && [below, upper].contains(&u32::from(got.to_bits())), "{x}: {got}");
                }
            }
        }
    }

    #[test]
    fn the_nearest_is_that_of_half_but_finite() {
        let numbers: Vec<f32> = all_kinds().collect();
        let mut narrowed = vec![bf16::ZERO; numbers.len()];
        narrow(&numbers, &mut narrowed);
        let mut widened = vec![0.0; numbers.len()];
        widen(&narrowed, &mut widened);
        for ((x, got), value) in numbers.into_iter().zip(narrowed).zip(widened) {
            let want = bf16::from_f32(x);
            assert_eq!(value.to_bits() >> 16, u32::from(got.to_bits()), "{x}");
            match want.is_infinite() && x.is_finite() {
                true => assert_eq!((got.widen().abs(), got.is_sign_negative()), (bf16::MAX.widen(), x < 0.0)),
                false => assert!(
                    got == want && got.to_bits() >> 15 == want.to_bits() >> 15 || got.is_nan() && x.is_nan(),
                    "{x}: {got} or {want}"
                ),
            }
        }
    }

    #[test]
    fn chance_is_right_on_average_over_places_and_over_updates() {
        for x in [1.003_f32, -0.7001, 3.1e-7, 123.456, 1e-40] {
            let unit = f64::from(
                f32::from_bits((x.to_bits() & 0xffff_0000) + 0x1_0000) - f32::from_bits(x.to_bits() & 0xffff_0000),
            )
            .abs();
            let n = 1 << 16;
            let mean = |rounded: &dyn Fn(u32) -> bf16| {
                (0..n).map(|i| f64::from(rounded(i).widen())).sum::<f64>() / f64::from(n)
            };
            let by_place = |half: u32| mean(&|place| bf16::round(x, Dither::new(5, Stream::State).bits(place) >> half));
            let by_update = mean(&|n_before| bf16::round(x, Dither::new(n_before.into(), Stream::State).bits(77)));
            // Five deviations of a mean of coins, and plain rounding is off by up to half a unit.
            for mean in [by_place(0), by_place(16), by_update] {
                assert!((mean - f64::from(x)).abs() < 5.0 * 0.5 * unit / f64::from(n).sqrt(), "{mean} for {x}");
            }
        }
    }

    #[test]
    fn bits_have_nothing_to_do_with_those_of_neighbours() {
        let n = 1 << 14;
        let dither = |n_before| Dither::new(n_before, Stream::State);
        let pairs: [&dyn Fn(u32) -> (u32, u32); 3] =
            [&|i| (dither(3).bits(i), dither(3).bits(i + 1)), &|i| (dither(3).bits(i), dither(4).bits(i)), &|i| {
                (dither(3).bits(i), dither(3).bits(i) >> 16)
            }];
        for pair in pairs {
            // The correlation of the lower halves, whose deviation is one over the root of n.
            let centred = |bits: u32| f64::from(bits & 0xffff) / 32_767.5 - 1.0;
            let product = |(a, b)| centred(a) * centred(b) * 3.0;
            let correlation = (0..n).map(|i| product(pair(i))).sum::<f64>() / f64::from(n);
            assert!(correlation.abs() < 5.0 / f64::from(n).sqrt(), "{correlation}");
        }
    }

    #[test]
    fn bytes_come_back() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let mut numbers = Numbers::zeros(dtype, 3);
            let bytes: Vec<u8> = (1..=numbers.n_bytes() as u8).collect();
            assert!(numbers.set_le_bytes(&bytes) && numbers.to_le_bytes() == bytes);
            assert!(!numbers.set_le_bytes(&bytes[1..]) && numbers.to_le_bytes() == bytes);
        }
    }
}
