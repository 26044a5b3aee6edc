//! A shuffle of any length that stores nothing.

/// A permutation of `0..len`, another one for each seed.
///
/// A four-round Feistel network over the next power of four, walked until it comes back inside (Black and Rogaway 2002): every
/// position is computed alone, so an epoch over any number of records needs no table.
#[derive(Clone, Copy, Debug)]
pub struct Shuffle {
    len: u64,
    half_bits: u32,
    key: u64,
}

impl Shuffle {
    /// A permutation of `0..len`.
    pub fn new(len: u64, seed: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self { len, half_bits: bits.div_ceil(2).max(1), key: mix(seed) }
    }

    /// The permutation of one epoch of a run.
    pub fn of_epoch(len: u64, seed: u64, epoch: u64) -> Self {
        Self::new(len, mix(seed) ^ mix(!epoch))
    }

    /// Where `idx` goes.
    ///
    /// # Panics
    /// If `idx` is not below the length.
    pub fn at(&self, idx: u64) -> u64 {
        assert!(idx < self.len, "position {idx} of {}", self.len);
        let mut at = self.step(idx);
        while at >= self.len {
            at = self.step(at);
        }
        at
    }

    fn step(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..4 {
            (left, right) = (right, left ^ (mix(self.key ^ right.wrapping_add(round << 56)) & mask));
        }
        left << self.half_bits | right
    }
}

/// SplitMix64's finaliser (Steele et al. 2014).
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_comes_once_and_seeds_differ() {
        for len in [1, 2, 3, 4, 5, 16, 17, 100, 1025] {
            let order = |seed| (0..len).map(|i| Shuffle::new(len, seed).at(i)).collect::<Vec<u64>>();
            let mut sorted = order(1);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..len).collect::<Vec<u64>>());
            if len > 16 {
                assert_ne!(order(1), order(2));
                let epoch =
                    |seed, epoch| (0..len).map(|i| Shuffle::of_epoch(len, seed, epoch).at(i)).collect::<Vec<u64>>();
                assert!(epoch(1, 0) != epoch(1, 1) && epoch(1, 0) != epoch(0, 1) && epoch(1, 1) != epoch(0, 0));
                let in_place = order(3).iter().enumerate().filter(|(i, at)| *i as u64 == **at).count();
                assert!(in_place < 8, "{in_place} of {len} stayed");
            }
        }
    }
}
