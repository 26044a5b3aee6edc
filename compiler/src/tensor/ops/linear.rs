//! The product with a weight matrix.

use crate::tensor::gemm::{MatRef, Write, gemm};
use crate::tensor::params::ParamId;
use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// `x wᵀ`: `x` is `(n, inputs)`, `weight` `(outputs, inputs)`, the result `(n, outputs)`.
    ///
    /// # Panics
    /// If the inner sizes differ.
    pub fn linear(&mut self, x: Var, weight: ParamId) -> Var {
        let (n, inputs) = self.shape(x);
        let params = self.params();
        let outputs = params.layout.spec(weight).rows;
        let mut y = self.buffer(n * outputs);
        let w = MatRef::new(params.get(weight), outputs, inputs);
        gemm(Write::Set, MatRef::new(self.value(x), n, inputs), w.transposed(), &mut y);
        let out = self.push(n, outputs, y);
        self.note(Linear { x, weight, out });
        out
    }
}

struct Linear {
    x: Var,
    weight: ParamId,
    out: Var,
}

impl Op for Linear {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(grad) = pass.take(self.out) else { return };
        let ((n, inputs), outputs) = (pass.shape(self.x), pass.shape(self.out).1);
        let dy = MatRef::new(&grad, n, outputs);
        let x = MatRef::new(pass.value(self.x), n, inputs);
        gemm(Write::Add, dy.transposed(), x, pass.param_grad(self.weight));
        let (mut dx, write) = pass.open(self.x);
        gemm(write, dy, MatRef::new(pass.param(self.weight), outputs, inputs), &mut dx);
        pass.close(self.x, dx);
        pass.recycle(grad);
    }
}
