//! The gated unit of the feed-forward block.

use crate::tensor::gemm::Write;
use crate::tensor::simd::{Kernel, LANES, Lanes, dispatch, load_part, store_part};
use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// `gate * sigmoid(gate) * up`, element by element.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn swiglu(&mut self, gate: Var, up: Var) -> Var {
        let (rows, cols) = self.shape(gate);
        assert_eq!((rows, cols), self.shape(up), "shapes of gate and up");
        let mut y = self.buffer(rows * cols);
        dispatch(Forward { gate: self.value(gate), up: self.value(up), y: &mut y });
        let out = self.push(rows, cols, y);
        self.note(Swiglu { gate, up, out });
        out
    }
}

struct Swiglu {
    gate: Var,
    up: Var,
    out: Var,
}

impl Op for Swiglu {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut dy) = pass.take(self.out) else { return };
        let (mut dgate, write) = pass.open(self.gate);
        let (gate, up) = (pass.value(self.gate), pass.value(self.up));
        dispatch(BackwardSlices { gate, up, dy_then_dup: &mut dy, dgate: &mut dgate, write });
        pass.close(self.gate, dgate);
        let (mut dup, write) = pass.open(self.up);
        match write {
            Write::Set => {
                pass.recycle(dup);
                pass.close(self.up, dy);
            }
            Write::Add => {
                dup.iter_mut().zip(&dy).for_each(|(to, from)| *to += from);
                pass.close(self.up, dup);
                pass.recycle(dy);
            }
        }
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid<V: Lanes>(x: V) -> V {
    let one = V::splat(1.0);
    one.div(one.add(V::zero().sub(x).exp()))
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        for ((gate, up), y) in self.gate.chunks(LANES).zip(self.up.chunks(LANES)).zip(self.y.chunks_mut(LANES)) {
            let gate = load_part::<V>(gate);
            store_part(gate.mul(sigmoid(gate)).mul(load_part(up)), y);
        }
    }
}

struct BackwardSlices<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    /// Holds the output's gradient, and then that of `up`.
    dy_then_dup: &'a mut [f32],
    dgate: &'a mut [f32],
    write: Write,
}

impl Kernel for BackwardSlices<'_> {
    type Output = ();

    /// With `s` the sigmoid of the gate: `dup = dy gate s`, `dgate = dy up s (1 + gate (1 - s))`.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let inputs = self.gate.chunks(LANES).zip(self.up.chunks(LANES));
        let outputs = self.dy_then_dup.chunks_mut(LANES).zip(self.dgate.chunks_mut(LANES));
        let one = V::splat(1.0);
        for ((gate, up), (dy, dgate)) in inputs.zip(outputs) {
            let (gate, slope) = (load_part::<V>(gate), load_part::<V>(dy));
            let s = sigmoid(gate);
            let grad = slope.mul(load_part(up)).mul(s).mul(gate.mul_add(one.sub(s), one));
            store_part(if self.write == Write::Add { grad.add(load_part(dgate)) } else { grad }, dgate);
            store_part(slope.mul(gate).mul(s), dy);
        }
    }
}
