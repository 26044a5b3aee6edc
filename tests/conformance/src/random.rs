//! Numbers that every machine draws alike.

/// The xorshift generator of Marsaglia, 32 bits.
pub struct Random(u32);

impl Random {
    /// A generator; `seed` may be anything.
    pub fn new(seed: u32) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9) | 1)
    }

    /// Any 32 bits but 0.
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// A number of `0..n`.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.bits()) * u64::from(n)) >> 32) as u32
    }

    /// A quantised value, `-127..=127`.
    pub fn int8(&mut self) -> i8 {
        (self.below(255) as i32 - 127) as i8
    }

    /// A scale between `2^-10` and `2^-3`.
    pub fn scale(&mut self) -> f32 {
        f32::from_bits((117 << 23) + self.below(7 << 23))
    }
}

impl Random {
    /// A quantised value as `fill` asks for it.
    pub fn value(&mut self, fill: Fill) -> i8 {
        match fill {
            Fill::Random => self.int8(),
            Fill::Largest => 127,
            Fill::Alternating => {
                if self.bits() & 1 == 0 {
                    127
                } else {
                    -127
                }
            }
        }
    }
}

/// What values a case is filled with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Any.
    Random,
    /// All 127: the largest sums.
    Largest,
    /// 127 or -127.
    Alternating,
}

impl Fill {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Random, Self::Largest, Self::Alternating];
}
