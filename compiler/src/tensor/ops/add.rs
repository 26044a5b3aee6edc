//! The residual connection.

use crate::tensor::simd;
use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// `a + b`, element by element.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        let (rows, cols) = self.shape(a);
        assert_eq!((rows, cols), self.shape(b), "shapes of a sum");
        let mut sum = self.buffer(rows * cols);
        simd::add(&mut sum, self.value(a), self.value(b));
        let out = self.push(rows, cols, sum);
        self.note(Add { a, b, out });
        out
    }
}

struct Add {
    a: Var,
    b: Var,
    out: Var,
}

impl Op for Add {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(grad) = pass.take(self.out) else { return };
        let (mut to, write) = pass.open(self.b);
        write.store(&mut to, &grad);
        pass.close(self.b, to);
        pass.hand_on(self.a, grad);
    }
}
