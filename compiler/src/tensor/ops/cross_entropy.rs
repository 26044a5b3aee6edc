//! The output head and the loss in one: logits exist for a few rows at a time only.

use crate::tensor::gemm::{MatRef, Write, gemm};
use crate::tensor::params::ParamId;
use crate::tensor::simd::{Kernel, LANES, Lanes, dispatch, load_part, store_part};
use crate::tensor::tape::{Backward, Graph, Op, Var};

/// Logits held at a time, unless a single block of rows needs more.
const LOGITS_MAX: usize = 1 << 16;
/// Fewest rows worth a matrix product.
const ROWS_MIN: usize = 16;

impl Graph<'_> {
    /// The summed negative log-probability, in nats, of `targets[i]` under the softmax of `x[i] headᵀ`.
    ///
    /// `x` is `(n, dim)`, `head` `(vocab, dim)`. Where the pass records, the gradient of `weight * loss` is computed here,
    /// while the logits are at hand: the head's is added at once, that of `x` is kept for the way back, which starts
    /// from the returned variable, `(1, 1)`, with a seed of one.
    ///
    /// # Panics
    /// If `targets` is not `n` long or a target is not below the vocabulary's size.
    pub fn linear_cross_entropy(&mut self, x: Var, head: ParamId, targets: &[u32], weight: f32) -> (Var, f64) {
        let (n, dim) = self.shape(x);
        assert_eq!(targets.len(), n, "one target a row");
        let params = self.params();
        let vocab = params.layout.spec(head).rows;
        let w = MatRef::new(params.get(head), vocab, dim);
        let block = (LOGITS_MAX / vocab).max(ROWS_MIN).min(n.max(1));
        let mut dx = if self.records() { self.buffer(n * dim) } else { Vec::new() };
        let mut logits = self.buffer(block * vocab);
        let mut nats = 0.0;
        for (start, targets) in (0..n).step_by(block).zip(targets.chunks(block)) {
            let rows = targets.len();
            let logits = &mut logits[..rows * vocab];
            let x_block = start * dim..(start + rows) * dim;
            gemm(Write::Set, MatRef::new(&self.value(x)[x_block.clone()], rows, dim), w.transposed(), logits);
            nats += dispatch(SoftmaxLoss { logits, targets, vocab, weight: self.records().then_some(weight) });
            if self.records() {
                let slopes = MatRef::new(logits, rows, vocab);
                gemm(Write::Set, slopes, w, &mut dx[x_block.clone()]);
                let (x, dhead) = self.value_and_param_grad(x, head);
                if let Some(dhead) = dhead {
                    gemm(Write::Add, slopes.transposed(), MatRef::new(&x[x_block], rows, dim), dhead);
                }
            }
        }
        self.recycle(logits);
        let loss = self.push(1, 1, vec![(nats * f64::from(weight)) as f32]);
        if self.records() {
            let dx = self.push(n, dim, dx);
            self.note(LinearCrossEntropy { x, dx, loss });
        }
        (loss, nats)
    }
}

struct LinearCrossEntropy {
    x: Var,
    dx: Var,
    loss: Var,
}

impl Op for LinearCrossEntropy {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(seed) = pass.take(self.loss) else { return };
        pass.recycle(seed);
        let (mut to, write) = pass.open(self.x);
        let from = pass.value(self.dx);
        match write {
            Write::Set => to.copy_from_slice(from),
            Write::Add => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
        }
        pass.close(self.x, to);
    }
}

struct SoftmaxLoss<'a> {
    /// Logits, `(targets.len(), vocab)`; become `weight * (softmax - one_hot(target))` where there is a weight.
    logits: &'a mut [f32],
    targets: &'a [u32],
    vocab: usize,
    weight: Option<f32>,
}

impl Kernel for SoftmaxLoss<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Lanes>(self) -> f64 {
        let mut nats = 0.0;
        for (row, &target) in self.logits.chunks_exact_mut(self.vocab).zip(self.targets) {
            let target = target as usize;
            let (whole, rest) = row.as_chunks::<LANES>();
            let mut top = V::splat(f32::NEG_INFINITY);
            for logits in whole {
                top = top.max(V::load(logits));
            }
            let top = rest.iter().copied().fold(top.reduce_max(), f32::max);
            let target_logit = row[target];
            let (shift, mut sum) = (V::splat(top), V::zero());
            let (whole, rest) = row.as_chunks_mut::<LANES>();
            for logits in whole {
                let odds = V::load(logits).sub(shift).exp();
                sum = sum.add(odds);
                odds.store(logits);
            }
            let mut total = sum.reduce_sum();
            if !rest.is_empty() {
                store_part(load_part::<V>(rest).sub(shift).exp(), rest);
                rest.iter().for_each(|odds| total += odds);
            }
            nats += f64::from(total).ln() + f64::from(top) - f64::from(target_logit);
            if let Some(weight) = self.weight {
                let factor = weight / total;
                row.iter_mut().for_each(|odds| *odds *= factor);
                row[target] -= weight;
            }
        }
        nats
    }
}
