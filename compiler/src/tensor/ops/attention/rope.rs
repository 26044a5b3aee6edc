//! Rotary positions (Su et al. 2021).

use super::lanes::{BLOCK, Row};

/// Cosines and sines of the rotary positions.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// `(head_dim / 2, positions / 16)` rows of 16 positions each, the last padded.
    cos: Vec<Row>,
    sin: Vec<Row>,
    positions: usize,
    pub(super) half: usize,
}

impl RopeTable {
    /// Angles `position * theta^(-2i / head_dim)`, computed in `f64`.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    pub fn new(positions: usize, head_dim: usize, theta: f32) -> Self {
        assert!(head_dim.is_multiple_of(2), "rotary positions turn pairs");
        let (half, n_blocks) = (head_dim / 2, positions.div_ceil(BLOCK));
        let angle = |row: usize, lane: usize| {
            let (i, position) = (row / n_blocks, row % n_blocks * BLOCK + lane);
            position as f64 * f64::from(theta).powf(-(i as f64) / half as f64)
        };
        let table = |f: fn(f64) -> f64| {
            (0..half * n_blocks).map(|row| Row(std::array::from_fn(|lane| f(angle(row, lane)) as f32))).collect()
        };
        Self { cos: table(f64::cos), sin: table(f64::sin), positions, half }
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Cosines and sines of pair `i` at the block of positions from `first` on.
    #[inline(always)]
    pub(super) fn block(&self, i: usize, first: usize) -> (&Row, &Row) {
        let at = i * self.positions.div_ceil(BLOCK) + first / BLOCK;
        (&self.cos[at], &self.sin[at])
    }
}
