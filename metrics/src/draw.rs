//! Random draws as numpy makes them: `numpy.random.default_rng(seed).integers(0, n)`.
//!
//! Resampling is only comparable where the draws are the same, so this is numpy's own generator: PCG64 (O'Neill, 2014;
//! 128 bits of state, XSL-RR output), seeded by its `SeedSequence`, and its bounded integers, which are Lemire's (2019)
//! on halves of 64 bits.

/// numpy's generator of a seed.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u128,
    increment: u128,
    /// The upper half of a number whose lower half was given.
    half: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

impl Draw {
    /// The generator `default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        let words = seed_sequence(seed);
        let wide = |idx: usize| u128::from(words[idx]) << 64 | u128::from(words[idx + 1]);
        let mut draw = Self { state: 0, increment: wide(2) << 1 | 1, half: None };
        draw.step();
        draw.state = draw.state.wrapping_add(wide(0));
        draw.step();
        draw
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let both = self.next_u64();
            self.half = Some((both >> 32) as u32);
            both as u32
        })
    }

    /// A number below `n`, each as probable as any other; 0, without a draw, where `n` is 0 or 1.
    ///
    /// # Panics
    /// If `n` is 2^32 or more: no list of segments is so long.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u32::try_from(n).expect("fewer than 2^32 things are drawn from");
        if n <= 1 {
            return 0;
        }
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as usize
    }

    /// Draws `n` of `n` with replacement: one resample.
    pub fn resample(&mut self, n: usize) -> Vec<usize> {
        (0..n).map(|_| self.below(n)).collect()
    }
}

/// Four words of 64 bits from a seed, as numpy's `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_sequence(seed: u64) -> [u64; 4] {
    let mut hash_const = 0x43b0_d7e5_u32;
    let mut hash = |value: u32| {
        let value = value ^ hash_const;
        hash_const = hash_const.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(hash_const);
        value ^ value >> 16
    };
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(&mut hash);
    for from in 0..pool.len() {
        for to in (0..pool.len()).filter(|&to| to != from) {
            let hashed = hash(pool[from]);
            let mixed = 0xca01_f9dd_u32.wrapping_mul(pool[to]).wrapping_sub(0x4973_f715_u32.wrapping_mul(hashed));
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    let mut hash_const = 0x8b51_f9dd_u32;
    let mut word = |idx: usize| {
        let value = pool[idx % pool.len()] ^ hash_const;
        hash_const = hash_const.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(hash_const);
        u64::from(value ^ value >> 16)
    };
    [0, 2, 4, 6].map(|idx| word(idx) | word(idx + 1) << 32)
}
