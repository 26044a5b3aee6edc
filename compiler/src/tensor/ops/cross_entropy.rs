//! The output head and the loss in one: logits exist for a few rows at a time only.

use super::output_matrix::OutputMatrix;
use crate::tensor::Buffer;
use crate::tensor::gemm::{MatRef, Write, gemm};
use crate::tensor::params::ParamId;
use crate::tensor::simd::{Kernel, SIXTEEN, Sixteen, dispatch, load_part, store_part};
use crate::tensor::tape::{Backward, Graph, Op, Var};

/// Logits held at a time, unless a single block of rows needs more: they fit in an L2 cache.
const LOGITS_MAX: usize = 1 << 16;
/// Numbers of the head for which a block should have a row more: the head is read, and its gradient written, once a block.
const HEAD_PER_ROW: usize = 1 << 14;
/// Fewest and most rows of a block.
const BLOCK_ROWS: std::ops::RangeInclusive<usize> = 16..=512;

/// How the loss of a row is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Multiplies the loss.
    pub weight: f32,
    /// Share of the target's probability that is spread evenly over all outputs (Szegedy et al. 2015).
    pub label_smoothing: f32,
}

/// Sums over the targets of some examples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Negative log-likelihood in nats, without smoothing.
    pub nats: f64,
    /// Targets that were trained on.
    pub n_targets: u64,
    /// Targets that no output scored above.
    pub n_correct: u64,
}

impl std::ops::AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        self.nats += other.nats;
        self.n_targets += other.n_targets;
        self.n_correct += other.n_correct;
    }
}

impl std::iter::Sum for LossSums {
    fn sum<I: Iterator<Item = Self>>(sums: I) -> Self {
        sums.fold(Self::default(), |mut total, sums| {
            total += sums;
            total
        })
    }
}

impl Graph<'_> {
    /// The summed cross-entropy between `targets[i]` and the softmax of `x[i] headᵀ + bias`.
    ///
    /// `x` is `(n, dim)`, `head` `(outputs, dim)`, `bias` `(outputs,)`. Where the pass records, the gradient is computed here, while the
    /// logits are at hand: that of head and bias is added at once, that of `x` is kept for the way back, which starts from the
    /// returned variable, `(1, 1)`, with a seed of one.
    ///
    /// # Panics
    /// If `targets` is not `n` long or a target is not below the number of outputs.
    pub fn linear_cross_entropy(
        &mut self,
        x: Var,
        head: ParamId,
        bias: Option<ParamId>,
        targets: &[u32],
        options: CrossEntropy,
    ) -> (Var, LossSums) {
        self.follow([head].into_iter().chain(bias));
        let (n, dim) = self.shape(x);
        assert_eq!(targets.len(), n, "one target a row");
        let params = self.params();
        let outputs = params.layout.spec(head).rows;
        let block = (LOGITS_MAX / outputs).max(outputs * dim / HEAD_PER_ROW);
        let block = block.clamp(*BLOCK_ROWS.start(), *BLOCK_ROWS.end()).min(n.max(1));
        let records = self.records();
        let mut w = OutputMatrix::new(self, head, block);
        let mut dx = if records { self.buffer(n * dim) } else { Buffer::default() };
        let mut logits = self.buffer(block * outputs);
        let mut totals = Totals::default();
        for (start, targets) in (0..n).step_by(block).zip(targets.chunks(block)) {
            let rows = targets.len();
            let logits = &mut logits[..rows * outputs];
            let x_block = start * dim..(start + rows) * dim;
            w.logits(&self.value(x)[x_block.clone()], logits);
            if let Some(bias) = bias {
                for row in logits.chunks_exact_mut(outputs) {
                    row.iter_mut().zip(params.get(bias)).for_each(|(logit, bias)| *logit += bias);
                }
            }
            dispatch(SoftmaxLoss { logits, targets, outputs, options, slopes: records, totals: &mut totals });
            if records {
                let slopes = MatRef::new(logits, rows, outputs);
                w.gradient(logits, &mut dx[x_block.clone()]);
                let (x_rows, dhead) = self.value_and_param_grad(x, head);
                if let Some((dhead, head_write)) = dhead {
                    gemm(head_write, slopes.transposed(), MatRef::new(&x_rows[x_block], rows, dim), dhead);
                }
                if let Some((_, Some((dbias, mut write)))) = bias.map(|bias| self.value_and_param_grad(x, bias)) {
                    for row in logits.chunks_exact(outputs) {
                        write.store(dbias, row);
                        write = Write::Add;
                    }
                }
            }
        }
        self.recycle(logits);
        w.recycle(self);
        let mut value = self.buffer(1);
        value[0] = (totals.loss * f64::from(options.weight)) as f32;
        let loss = self.push(1, 1, value);
        if records {
            let dx = self.push(n, dim, dx);
            self.note(LinearCrossEntropy { x, dx, loss });
        }
        let sums = LossSums { nats: totals.nats, n_targets: n as u64, n_correct: totals.n_correct };
        (loss, sums)
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
        write.store(&mut to, pass.value(self.dx));
        pass.close(self.x, to);
    }
}

/// Sums over rows.
#[derive(Default)]
struct Totals {
    /// With smoothing.
    loss: f64,
    nats: f64,
    n_correct: u64,
}

struct SoftmaxLoss<'a> {
    /// Logits, `(targets.len(), outputs)`; become the gradient of `weight * loss` where slopes are wanted.
    logits: &'a mut [f32],
    targets: &'a [u32],
    outputs: usize,
    options: CrossEntropy,
    slopes: bool,
    totals: &'a mut Totals,
}

impl Kernel for SoftmaxLoss<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let CrossEntropy { weight, label_smoothing } = self.options;
        let spread = label_smoothing / self.outputs as f32;
        for (row, &target) in self.logits.chunks_exact_mut(self.outputs).zip(self.targets) {
            let target = target as usize;
            let target_logit = row[target];
            let logit_sum: f64 = if spread > 0.0 { row.iter().map(|x| f64::from(*x)).sum() } else { 0.0 };
            let (top, total) = softmax_sums::<V>(row);
            let log_sum = f64::from(total).ln() + f64::from(top);
            let nats = log_sum - f64::from(target_logit);
            let even = log_sum - logit_sum / self.outputs as f64;
            let smoothing = f64::from(label_smoothing);
            self.totals.nats += nats;
            self.totals.loss += if spread > 0.0 { (1.0 - smoothing) * nats + smoothing * even } else { nats };
            self.totals.n_correct += u64::from(target_logit >= top);
            if self.slopes {
                let factor = weight / total;
                if spread > 0.0 {
                    row.iter_mut().for_each(|odds| *odds = *odds * factor - weight * spread);
                } else {
                    row.iter_mut().for_each(|odds| *odds *= factor);
                }
                row[target] -= weight * (1.0 - label_smoothing);
            }
        }
    }
}

/// Turns logits into `exp(logit - largest)`; gives the largest and the sum.
#[inline(always)]
fn softmax_sums<V: Sixteen>(row: &mut [f32]) -> (f32, f32) {
    let (whole, rest) = row.as_chunks_mut::<SIXTEEN>();
    let mut top = V::splat(f32::NEG_INFINITY);
    for logits in &*whole {
        top = top.max(V::load(logits));
    }
    let top = rest.iter().copied().fold(top.reduce_max(), f32::max);
    let (shift, mut sum) = (V::splat(top), V::zero());
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
    (top, total)
}
