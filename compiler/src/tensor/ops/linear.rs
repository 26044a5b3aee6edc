//! The product with a weight matrix, with what usually follows it.

use super::Activation;
use crate::tensor::gemm::{MatRef, Write, gemm};
use crate::tensor::params::ParamId;
use crate::tensor::simd::add_assign;
use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// `activation(x wᵀ + bias)`: `x` is `(n, inputs)`, `weight` `(outputs, inputs)`, `bias` `(outputs,)`, the result `(n, outputs)`.
    ///
    /// # Panics
    /// If the inner sizes differ.
    pub fn linear(&mut self, x: Var, weight: ParamId, bias: Option<ParamId>, activation: Activation) -> Var {
        self.follow([weight].into_iter().chain(bias));
        let (n, outputs) = (self.shape(x).0, self.params().layout.spec(weight).rows);
        let mut y = self.buffer(n * outputs);
        self.product(x, weight, bias, Write::Set, &mut y);
        let before = match activation {
            Activation::None => None,
            _ if !self.records() => {
                activation.apply(&mut y);
                None
            }
            _ => {
                let mut before = self.buffer(n * outputs);
                before.copy_from_slice(&y);
                activation.apply(&mut y);
                Some(self.push(n, outputs, before))
            }
        };
        let out = self.push(n, outputs, y);
        self.note(Linear { x, weight, bias, activation, before, residual: None, out });
        out
    }

    /// `residual + x wᵀ + bias`: the end of a residual branch, as [`Graph::linear`] otherwise.
    ///
    /// # Panics
    /// If the inner sizes differ, or `residual` is not `(n, outputs)`.
    pub fn linear_onto(&mut self, residual: Var, x: Var, weight: ParamId, bias: Option<ParamId>) -> Var {
        self.follow([weight].into_iter().chain(bias));
        let (n, outputs) = (self.shape(x).0, self.params().layout.spec(weight).rows);
        assert_eq!(self.shape(residual), (n, outputs), "shape of the residual");
        let mut y = self.buffer(n * outputs);
        y.copy_from_slice(self.value(residual));
        self.product(x, weight, bias, Write::Add, &mut y);
        let out = self.push(n, outputs, y);
        let activation = Activation::None;
        self.note(Linear { x, weight, bias, activation, before: None, residual: Some(residual), out });
        out
    }

    /// Writes, or adds, `x wᵀ + bias`.
    fn product(&mut self, x: Var, weight: ParamId, bias: Option<ParamId>, write: Write, y: &mut [f32]) {
        let (n, inputs) = self.shape(x);
        let params = self.params();
        let outputs = params.layout.spec(weight).rows;
        let w = self.weight(weight);
        let w_t = MatRef::new(&w, outputs, inputs).transposed();
        gemm(write, MatRef::new(self.value(x), n, inputs), w_t, y);
        self.recycle_weight(w);
        if let Some(bias) = bias {
            let bias = params.get(bias);
            assert_eq!(bias.len(), outputs, "a bias for each output");
            for row in y.chunks_exact_mut(outputs) {
                add_assign(row, bias);
            }
        }
    }
}

struct Linear {
    x: Var,
    weight: ParamId,
    bias: Option<ParamId>,
    activation: Activation,
    /// The activation's input, where there is one.
    before: Option<Var>,
    /// What it was added to, if to anything.
    residual: Option<Var>,
    out: Var,
}

impl Op for Linear {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut grad) = pass.take(self.out) else { return };
        let ((n, inputs), outputs) = (pass.shape(self.x), pass.shape(self.out).1);
        if let Some(before) = self.before {
            self.activation.apply_slope(pass.value(before), &mut grad);
        }
        if let Some(sums) = self.bias.and_then(|bias| pass.param_grad_to_add(bias)) {
            for row in grad.chunks_exact(outputs) {
                add_assign(sums, row);
            }
        }
        let dy = MatRef::new(&grad, n, outputs);
        let x = MatRef::new(pass.value(self.x), n, inputs);
        if let Some((dweight, weight_write)) = pass.param_grad(self.weight) {
            gemm(weight_write, dy.transposed(), x, dweight);
        }
        if pass.is_followed(self.x) {
            let (mut dx, write) = pass.open(self.x);
            let w = pass.weight(self.weight);
            gemm(write, dy, MatRef::new(&w, outputs, inputs), &mut dx);
            pass.recycle_weight(w);
            pass.close(self.x, dx);
        }
        match self.residual {
            Some(residual) => pass.hand_on(residual, grad),
            None => pass.recycle(grad),
        }
    }
}
