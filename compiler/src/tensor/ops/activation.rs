//! Functions applied element by element, and gated units made of them.
//!
//! Each is a few lane operations, the same bits on any lanes. `gelu` takes the normal distribution's tail from Abramowitz and
//! Stegun 7.1.26 (absolute error below 1.5e-7), `tanh` is `1 - 2 / (1 + e^2x)` (absolute error below 1.5e-7).

use crate::tensor::gemm::Write;
use crate::tensor::simd::{Kernel, SIXTEEN, Sixteen, dispatch, load_part, store_part};
use crate::tensor::tape::{Backward, Graph, Op, Var};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    None,
    /// `max(x, 0)`; its slope at 0 is 0.
    Relu,
    /// `x Φ(x)` with the normal distribution's `Φ` (Hendrycks and Gimpel 2016).
    Gelu,
    /// `0.5 x (1 + tanh(sqrt(2 / π) (x + 0.044715 x³)))`, its approximation in GPT-2.
    GeluTanh,
    /// `x / (1 + e^-x)`.
    Silu,
    /// `tanh x`.
    Tanh,
}

impl Activation {
    /// The function's value and its slope.
    #[inline(always)]
    fn value_and_slope<V: Sixteen>(self, x: V) -> (V, V) {
        let (zero, one) = (V::zero(), V::splat(1.0));
        match self {
            Self::None => (x, one),
            Self::Relu => {
                let value = x.max(zero);
                // Positive numbers over themselves; the smallest positive number keeps zero from dividing by zero.
                (value, value.div(value.max(V::splat(f32::MIN_POSITIVE))))
            }
            Self::Gelu => {
                let magnitude = x.max(zero.sub(x));
                let bell = x.mul(x).mul(V::splat(-0.5)).exp();
                let t = one.div(magnitude.mul_add(V::splat(0.327_591_1 * core::f32::consts::FRAC_1_SQRT_2), one));
                let mut tail = V::splat(1.061_405_4);
                for coefficient in [-1.453_152, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
                    tail = tail.mul_add(t, V::splat(coefficient));
                }
                let tail = tail.mul(t).mul(bell).mul(V::splat(0.5));
                let value = x.max(zero).sub(magnitude.mul(tail));
                // The sign of x; near zero it does not matter, since half minus the tail vanishes.
                let sign = x.mul(V::splat(1e30)).max(V::splat(-1.0)).min(one);
                let half = V::splat(0.5);
                let below = sign.mul_add(half.sub(tail), half);
                let density = bell.mul(V::splat(0.398_942_3));
                (value, x.mul_add(density, below))
            }
            Self::GeluTanh => {
                let (slope, cubic) = (V::splat(0.797_884_6), V::splat(0.044_715));
                let square = x.mul(x);
                let inner = square.mul_add(cubic, one).mul(x).mul(slope);
                let t = tanh(inner);
                let half = V::splat(0.5);
                let above = t.mul_add(half, half);
                let inner_slope = square.mul_add(V::splat(3.0 * 0.044_715), one).mul(slope);
                let bend = one.sub(t.mul(t)).mul(half).mul(x).mul(inner_slope);
                (x.mul(above), above.add(bend))
            }
            Self::Silu => {
                let s = sigmoid(x);
                (x.mul(s), s.mul(x.mul_add(one.sub(s), one)))
            }
            Self::Tanh => {
                let t = tanh(x);
                (t, one.sub(t.mul(t)))
            }
        }
    }

    /// Replaces each number by the function's value.
    pub(super) fn apply(self, x: &mut [f32]) {
        dispatch(Apply { activation: self, x });
    }

    /// Multiplies `dy` by the function's slope at `x`.
    pub(super) fn apply_slope(self, x: &[f32], dy: &mut [f32]) {
        assert_eq!(x.len(), dy.len(), "a slope for each gradient");
        dispatch(ApplySlope { activation: self, x, dy });
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid<V: Sixteen>(x: V) -> V {
    let one = V::splat(1.0);
    one.div(one.add(V::zero().sub(x).exp()))
}

/// `1 - 2 / (1 + e^2x)`.
#[inline(always)]
pub(super) fn tanh<V: Sixteen>(x: V) -> V {
    let one = V::splat(1.0);
    one.sub(V::splat(2.0).div(one.add(x.add(x).exp())))
}

struct Apply<'a> {
    activation: Activation,
    x: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        for x in self.x.chunks_mut(SIXTEEN) {
            store_part(self.activation.value_and_slope(load_part::<V>(x)).0, x);
        }
    }
}

struct ApplySlope<'a> {
    activation: Activation,
    x: &'a [f32],
    dy: &'a mut [f32],
}

impl Kernel for ApplySlope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        for (x, dy) in self.x.chunks(SIXTEEN).zip(self.dy.chunks_mut(SIXTEEN)) {
            let slope = self.activation.value_and_slope(load_part::<V>(x)).1;
            store_part(load_part::<V>(dy).mul(slope), dy);
        }
    }
}

impl Graph<'_> {
    /// `activation(gate) * up`, element by element: SwiGLU with [`Activation::Silu`], GEGLU with [`Activation::GeluTanh`]
    /// (Shazeer 2020).
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn glu(&mut self, gate: Var, up: Var, activation: Activation) -> Var {
        let (rows, cols) = self.shape(gate);
        assert_eq!((rows, cols), self.shape(up), "shapes of gate and up");
        let mut y = self.buffer(rows * cols);
        dispatch(Gate { activation, gate: self.value(gate), up: self.value(up), y: &mut y });
        let out = self.push(rows, cols, y);
        self.note(Glu { gate, up, activation, out });
        out
    }
}

struct Glu {
    gate: Var,
    up: Var,
    activation: Activation,
    out: Var,
}

impl Op for Glu {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(mut dy) = pass.take(self.out) else { return };
        let (mut dgate, write) = pass.open(self.gate);
        let (gate, up) = (pass.value(self.gate), pass.value(self.up));
        dispatch(GateBack { activation: self.activation, gate, up, dy_then_dup: &mut dy, dgate: &mut dgate, write });
        pass.close(self.gate, dgate);
        pass.hand_on(self.up, dy);
    }
}

struct Gate<'a> {
    activation: Activation,
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        for ((gate, up), y) in self.gate.chunks(SIXTEEN).zip(self.up.chunks(SIXTEEN)).zip(self.y.chunks_mut(SIXTEEN)) {
            let (value, _) = self.activation.value_and_slope(load_part::<V>(gate));
            store_part(value.mul(load_part(up)), y);
        }
    }
}

struct GateBack<'a> {
    activation: Activation,
    gate: &'a [f32],
    up: &'a [f32],
    /// Holds the output's gradient, and then that of `up`.
    dy_then_dup: &'a mut [f32],
    dgate: &'a mut [f32],
    write: Write,
}

impl Kernel for GateBack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let inputs = self.gate.chunks(SIXTEEN).zip(self.up.chunks(SIXTEEN));
        let outputs = self.dy_then_dup.chunks_mut(SIXTEEN).zip(self.dgate.chunks_mut(SIXTEEN));
        for ((gate, up), (dy, dgate)) in inputs.zip(outputs) {
            let above = load_part::<V>(dy);
            let (value, slope) = self.activation.value_and_slope(load_part::<V>(gate));
            let grad = above.mul(load_part(up)).mul(slope);
            store_part(if self.write == Write::Add { grad.add(load_part(dgate)) } else { grad }, dgate);
            store_part(above.mul(value), dy);
        }
    }
}
