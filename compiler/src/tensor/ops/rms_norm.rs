//! RMSNorm: each row scaled to a root mean square of one, then by a learned gain.

use crate::tensor::gemm::Write;
use crate::tensor::params::ParamId;
use crate::tensor::simd::{Kernel, SIXTEEN, Sixteen, dispatch, load_part, store_part};
use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// `x / sqrt(mean(x²) + eps) * gain` for each row of `x`, `(n, dim)`; `gain` is `(dim,)`.
    ///
    /// # Panics
    /// If the widths differ.
    pub fn rms_norm(&mut self, x: Var, gain: ParamId, eps: f32) -> Var {
        self.follow([gain]);
        let (n, dim) = self.shape(x);
        let params = self.params();
        assert_eq!(params.layout.spec(gain).cols, dim, "width of the gain");
        let (mut y, mut inverse_rms) = (self.buffer(n * dim), self.buffer(n));
        let kernel =
            Forward { x: self.value(x), gain: params.get(gain), eps, y: &mut y, inverse_rms: &mut inverse_rms };
        dispatch(kernel);
        let inverse_rms = self.push_exact(n, 1, inverse_rms);
        let out = self.push(n, dim, y);
        self.note(RmsNorm { x, gain, inverse_rms, out });
        out
    }
}

struct RmsNorm {
    x: Var,
    gain: ParamId,
    inverse_rms: Var,
    out: Var,
}

impl Op for RmsNorm {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(dy) = pass.take(self.out) else { return };
        let (mut dx, write) = pass.open(self.x);
        let (x, gain, inverse_rms) = (pass.value(self.x), pass.param(self.gain), pass.value(self.inverse_rms));
        let mut unread = pass.unread_grad(self.gain);
        let dgain = pass.param_grad_to_add(self.gain).unwrap_or(&mut unread);
        dispatch(BackwardRows { x, gain, inverse_rms, dy: &dy, dx: &mut dx, dgain, write });
        pass.close(self.x, dx);
        pass.recycle(unread);
        pass.recycle(dy);
    }
}

struct Forward<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
    inverse_rms: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let dim = self.gain.len();
        let rows = self.x.chunks_exact(dim).zip(self.y.chunks_exact_mut(dim));
        for ((x, y), inverse_rms) in rows.zip(self.inverse_rms) {
            let mut sum = V::zero();
            for x in x.chunks(SIXTEEN) {
                let x = load_part::<V>(x);
                sum = x.mul_add(x, sum);
            }
            *inverse_rms = 1.0 / (sum.reduce_sum() / dim as f32 + self.eps).sqrt();
            let scale = V::splat(*inverse_rms);
            for ((x, gain), y) in x.chunks(SIXTEEN).zip(self.gain.chunks(SIXTEEN)).zip(y.chunks_mut(SIXTEEN)) {
                store_part(load_part::<V>(x).mul(scale).mul(load_part(gain)), y);
            }
        }
    }
}

struct BackwardRows<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    inverse_rms: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    dgain: &'a mut [f32],
    write: Write,
}

impl Kernel for BackwardRows<'_> {
    type Output = ();

    /// With `r` the inverse root mean square: `dx = r (gain dy) - x r³ mean(gain dy x)`, `dgain += dy x r`.
    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let dim = self.gain.len();
        let rows = self.x.chunks_exact(dim).zip(self.dy.chunks_exact(dim)).zip(self.dx.chunks_exact_mut(dim));
        for (((x, dy), dx), &inverse_rms) in rows.zip(self.inverse_rms) {
            let scale = V::splat(inverse_rms);
            let mut sum = V::zero();
            for (((x, dy), gain), dgain) in x
                .chunks(SIXTEEN)
                .zip(dy.chunks(SIXTEEN))
                .zip(self.gain.chunks(SIXTEEN))
                .zip(self.dgain.chunks_mut(SIXTEEN))
            {
                let slope = load_part::<V>(x).mul(load_part(dy));
                sum = slope.mul_add(load_part(gain), sum);
                store_part(slope.mul_add(scale, load_part(dgain)), dgain);
            }
            let pull = V::splat(-sum.reduce_sum() / dim as f32 * inverse_rms * inverse_rms * inverse_rms);
            for (((x, dy), gain), dx) in
                x.chunks(SIXTEEN).zip(dy.chunks(SIXTEEN)).zip(self.gain.chunks(SIXTEEN)).zip(dx.chunks_mut(SIXTEEN))
            {
                let direct = load_part::<V>(dy).mul(load_part(gain)).mul(scale);
                let grad = load_part::<V>(x).mul_add(pull, direct);
                store_part(if self.write == Write::Add { grad.add(load_part(dx)) } else { grad }, dx);
            }
        }
    }
}
