//! The residual connection.

use crate::tensor::gemm::Write;
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
        for ((sum, a), b) in sum.iter_mut().zip(self.value(a)).zip(self.value(b)) {
            *sum = a + b;
        }
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
        accumulate(write, &mut to, &grad);
        pass.close(self.b, to);
        let (mut to, write) = pass.open(self.a);
        match write {
            // The output's gradient is this input's: hand the buffer on.
            Write::Set => {
                pass.recycle(to);
                pass.close(self.a, grad);
            }
            Write::Add => {
                accumulate(write, &mut to, &grad);
                pass.close(self.a, to);
                pass.recycle(grad);
            }
        }
    }
}

fn accumulate(write: Write, to: &mut [f32], from: &[f32]) {
    match write {
        Write::Set => to.copy_from_slice(from),
        Write::Add => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
    }
}
