//! Rotary positions (Su et al. 2021).

/// Cosines and sines of the rotary positions, each `(positions, head_dim / 2)`.
#[derive(Clone, Debug)]
pub struct RopeTable {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
    pub(super) half: usize,
}

impl RopeTable {
    /// Angles `position * theta^(-2i / head_dim)`, computed in `f64`.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    pub fn new(positions: usize, head_dim: usize, theta: f32) -> Self {
        assert!(head_dim.is_multiple_of(2), "rotary positions turn pairs");
        let half = head_dim / 2;
        let angle = |at: usize| {
            let exponent = -((at % half) as f64) / half as f64;
            (at / half) as f64 * f64::from(theta).powf(exponent)
        };
        let cos = (0..positions * half).map(|at| angle(at).cos() as f32).collect();
        let sin = (0..positions * half).map(|at| angle(at).sin() as f32).collect();
        Self { cos, sin, half }
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}
