//! LayerNorm (Ba et al. 2016): each row freed of its mean and divided by its deviation, then a gain and a bias.

use crate::tensor::gemm::Write;
use crate::tensor::params::ParamId;
use crate::tensor::simd::{Kernel, SIXTEEN, Sixteen, dispatch, load_part, store_part};
use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// `(x - mean(x)) / sqrt(var(x) + eps) * gain + bias` for each row of `x`, `(n, dim)`, with the biased variance; `gain`
    /// and `bias` are `(dim,)`.
    ///
    /// # Panics
    /// If the widths differ.
    pub fn layer_norm(&mut self, x: Var, gain: ParamId, bias: ParamId, eps: f32) -> Var {
        self.follow([gain, bias]);
        let (n, dim) = self.shape(x);
        let params = self.params();
        assert_eq!((params.get(gain).len(), params.get(bias).len()), (dim, dim), "widths of gain and bias");
        let (mut y, mut moments) = (self.buffer(n * dim), self.buffer(n * 2));
        let (x_rows, gain_row, bias_row) = (self.value(x), params.get(gain), params.get(bias));
        dispatch(Forward { x: x_rows, gain: gain_row, bias: bias_row, eps, y: &mut y, moments: &mut moments });
        let moments = self.push_exact(n, 2, moments);
        let out = self.push(n, dim, y);
        self.note(LayerNorm { x, gain, bias, moments, out });
        out
    }
}

struct LayerNorm {
    x: Var,
    gain: ParamId,
    bias: ParamId,
    /// Mean and inverse deviation of each row.
    moments: Var,
    out: Var,
}

impl Op for LayerNorm {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(dy) = pass.take(self.out) else { return };
        let dim = pass.shape(self.x).1;
        if let Some(dbias) = pass.param_grad_to_add(self.bias) {
            for row in dy.chunks_exact(dim) {
                dbias.iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy);
            }
        }
        let (mut dx, write) = pass.open(self.x);
        let (x, gain, moments) = (pass.value(self.x), pass.param(self.gain), pass.value(self.moments));
        let mut unread = pass.unread_grad(self.gain);
        let dgain = pass.param_grad_to_add(self.gain).unwrap_or(&mut unread);
        dispatch(BackwardRows { x, gain, moments, dy: &dy, dx: &mut dx, dgain, write });
        pass.close(self.x, dx);
        pass.recycle(unread);
        pass.recycle(dy);
    }
}

struct Forward<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
    moments: &'a mut [f32],
}

/// The vectors of a row less its mean; missing lanes stay zero.
#[inline(always)]
fn centred<V: Sixteen>(x: &[f32], mean: f32) -> V {
    if x.len() == SIXTEEN {
        return load_part::<V>(x).sub(V::splat(mean));
    }
    let mut lanes = [0.0; SIXTEEN];
    lanes.iter_mut().zip(x).for_each(|(to, x)| *to = x - mean);
    V::load(&lanes)
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let dim = self.gain.len();
        let rows = self.x.chunks_exact(dim).zip(self.y.chunks_exact_mut(dim));
        for ((x, y), moments) in rows.zip(self.moments.chunks_exact_mut(2)) {
            let mut sum = V::zero();
            for x in x.chunks(SIXTEEN) {
                sum = sum.add(load_part(x));
            }
            let mean = sum.reduce_sum() / dim as f32;
            let mut squares = V::zero();
            for x in x.chunks(SIXTEEN) {
                let x = centred::<V>(x, mean);
                squares = x.mul_add(x, squares);
            }
            let inverse = 1.0 / (squares.reduce_sum() / dim as f32 + self.eps).sqrt();
            moments.copy_from_slice(&[mean, inverse]);
            let scale = V::splat(inverse);
            let affine = self.gain.chunks(SIXTEEN).zip(self.bias.chunks(SIXTEEN));
            for ((x, (gain, bias)), y) in x.chunks(SIXTEEN).zip(affine).zip(y.chunks_mut(SIXTEEN)) {
                store_part(centred::<V>(x, mean).mul(scale).mul_add(load_part(gain), load_part(bias)), y);
            }
        }
    }
}

struct BackwardRows<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    moments: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    dgain: &'a mut [f32],
    write: Write,
}

impl Kernel for BackwardRows<'_> {
    type Output = ();

    /// With `z` the normed row and `r` the inverse deviation:
    /// `dx = r (gain dy - mean(gain dy) - z mean(gain dy z))`, `dgain += dy z`.
    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let dim = self.gain.len();
        let rows = self.x.chunks_exact(dim).zip(self.dy.chunks_exact(dim)).zip(self.dx.chunks_exact_mut(dim));
        for (((x, dy), dx), moments) in rows.zip(self.moments.chunks_exact(2)) {
            let (mean, scale) = (moments[0], V::splat(moments[1]));
            let (mut sum, mut slope) = (V::zero(), V::zero());
            for (((x, dy), gain), dgain) in x
                .chunks(SIXTEEN)
                .zip(dy.chunks(SIXTEEN))
                .zip(self.gain.chunks(SIXTEEN))
                .zip(self.dgain.chunks_mut(SIXTEEN))
            {
                let (z, dy) = (centred::<V>(x, mean).mul(scale), load_part::<V>(dy));
                store_part(dy.mul_add(z, load_part(dgain)), dgain);
                let dz = dy.mul(load_part(gain));
                sum = sum.add(dz);
                slope = dz.mul_add(z, slope);
            }
            let shift = V::splat(sum.reduce_sum() / dim as f32);
            let pull = V::splat(-slope.reduce_sum() / dim as f32);
            for (((x, dy), gain), dx) in
                x.chunks(SIXTEEN).zip(dy.chunks(SIXTEEN)).zip(self.gain.chunks(SIXTEEN)).zip(dx.chunks_mut(SIXTEEN))
            {
                let z = centred::<V>(x, mean).mul(scale);
                let dz = load_part::<V>(dy).mul(load_part(gain)).sub(shift);
                let grad = z.mul_add(pull, dz).mul(scale);
                store_part(if self.write == Write::Add { grad.add(load_part(dx)) } else { grad }, dx);
            }
        }
    }
}
