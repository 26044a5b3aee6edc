//! Random choices that are the same everywhere: SplitMix64 (Steele, Lea and Flood, 2014).

/// A sequence of choices that follows from a seed and a name.
pub(crate) struct Draw {
    state: u64,
}

impl Draw {
    /// Different names give sequences that have nothing to do with each other.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self { state: seed ^ hash(name) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `n`, which is 1 at least.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// One of these, of which there is one at least.
    pub(crate) fn choice<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A hash of a text that never changes.
pub(crate) fn hash(text: &str) -> u64 {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text);
    digest.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}
