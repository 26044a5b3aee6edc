//! Dropout (Srivastava et al. 2014) whose mask is a function of a key and a place: nothing is stored for the way back, and
//! no thread or order of work changes it.

use crate::tensor::tape::{Backward, Graph, Op, Var};

/// Which numbers a dropout keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DropoutMask {
    key: u64,
    /// Hashes below this are dropped.
    threshold: u64,
    /// What the kept are multiplied with.
    keep: f32,
}

impl DropoutMask {
    /// A mask that drops a share `rate` of the numbers.
    ///
    /// # Panics
    /// If the rate is not at least 0 and below 1.
    pub fn new(key: u64, rate: f32) -> Self {
        assert!((0.0..1.0).contains(&rate), "a dropout rate of {rate}");
        let threshold = (f64::from(rate) * (1_u64 << 32) as f64) as u64;
        Self { key, threshold, keep: 1.0 / (1.0 - rate) }
    }

    /// The factor of the number at a place: 0, or one over the share that is kept.
    #[inline(always)]
    pub fn factor(self, place: u64) -> f32 {
        // SplitMix64 (Steele et al. 2014) of the place, from the key on.
        let mut z = self.key.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (z ^ (z >> 31)) >> 32 < self.threshold { 0.0 } else { self.keep }
    }

    fn apply(self, x: &mut [f32]) {
        x.iter_mut().enumerate().for_each(|(place, x)| *x *= self.factor(place as u64));
    }
}

impl Graph<'_> {
    /// Sets a share `rate` of `x` to zero and multiplies the rest by `1 / (1 - rate)`; the same as `x` where the rate is 0 or the
    /// pass only computes. The mask depends on the pass's seed ([`Graph::seed_dropout`]), how many dropouts came before, and the
    /// place.
    ///
    /// # Panics
    /// If the rate is not at least 0 and below 1.
    pub fn dropout(&mut self, x: Var, rate: f32) -> Var {
        if rate == 0.0 || !self.records() {
            return x;
        }
        let mask = DropoutMask::new(self.next_dropout_key(), rate);
        let (rows, cols) = self.shape(x);
        let mut y = self.buffer(rows * cols);
        y.copy_from_slice(self.value(x));
        mask.apply(&mut y);
        let out = self.push(rows, cols, y);
        self.note(Dropout { x, mask, out });
        out
    }
}

struct Dropout {
    x: Var,
    mask: DropoutMask,
    out: Var,
}

impl Op for Dropout {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut grad) = pass.take(self.out) else { return };
        self.mask.apply(&mut grad);
        pass.hand_on(self.x, grad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{ParamGrads, ParamLayout, Params, Tape};

    #[test]
    fn drops_its_share_and_keeps_the_mean() {
        let mask = DropoutMask::new(7, 0.3);
        let factors: Vec<f32> = (0..100_000).map(|place| mask.factor(place)).collect();
        let dropped = factors.iter().filter(|factor| **factor == 0.0).count();
        assert!((dropped as f64 / 1e5 - 0.3).abs() < 0.006, "{dropped}");
        let mean = factors.iter().sum::<f32>() / 1e5;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
    }

    #[test]
    fn masks_differ_by_seed_and_by_operation_and_go_back_as_they_came() {
        let params = Params::zeros(ParamLayout::default());
        let (mut tape, mut no_grads) = (Tape::default(), ParamGrads::new(&params.layout));
        let mut pass = |seed: u64| {
            let mut graph = tape.record(&params, &mut no_grads);
            graph.seed_dropout(seed);
            let x = graph.input(1, 64, &[1.0; 64]);
            let (a, b) = (graph.dropout(x, 0.5), graph.dropout(x, 0.5));
            let values = (graph.value(a).to_vec(), graph.value(b).to_vec());
            graph.backward(a, &[1.0; 64]);
            assert_eq!(graph.grad(x).expect("used"), values.0);
            values
        };
        let (a, b) = pass(1);
        assert_ne!(a, b);
        assert_eq!(pass(1), (a.clone(), b));
        assert_ne!(pass(2).0, a);
    }

    #[test]
    fn a_pass_that_only_computes_drops_nothing() {
        let params = Params::zeros(ParamLayout::default());
        let mut tape = Tape::default();
        let mut graph = tape.evaluate(&params);
        let x = graph.input(1, 8, &[1.0; 8]);
        assert_eq!(graph.dropout(x, 0.5), x);
    }
}
