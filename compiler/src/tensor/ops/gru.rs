//! A gated recurrent unit over sequences (Cho et al. 2014), in PyTorch's form.
//!
//! ```text
//! r = sigmoid(x_r + h W_rᵀ + b_r)      z = sigmoid(x_z + h W_zᵀ + b_z)
//! n = tanh(x_n + r (h W_nᵀ + b_n))     h = (1 - z) n + z h
//! ```
//!
//! All sequences take a step together while they last, so that the recurrent product has as many rows as there are
//! sequences. The way back keeps gates, not states: a state is the output of the row before.

use super::activation::{sigmoid, tanh};
use crate::tensor::Segments;
use crate::tensor::gemm::{MatRef, PackedRight, Write, gemm, gemm_packed};
use crate::tensor::params::ParamId;
use crate::tensor::simd::{Kernel, SIXTEEN, Sixteen, dispatch, load_part, store_part};
use crate::tensor::tape::{Backward, Graph, Op, Var};
use std::ops::Range;

impl Graph<'_> {
    /// The states of a recurrent layer, `(n, hidden)`, from the inputs' share of its gates.
    ///
    /// `gates` is `(n, 3 hidden)`: reset, update, candidate; `weight` `(3 hidden, hidden)` and `bias` `(3 hidden,)` are the recurrent
    /// ones. Each segment starts from its row of `initial`, `(segments.len(), hidden)`, or from zero.
    ///
    /// # Panics
    /// If the shapes do not fit together.
    pub fn gru(
        &mut self,
        gates: Var,
        weight: ParamId,
        bias: ParamId,
        segments: &Segments,
        initial: Option<Var>,
    ) -> Var {
        self.follow([weight, bias]);
        let (n, width) = self.shape(gates);
        let params = self.params();
        let hidden = params.layout.spec(weight).cols;
        assert_eq!((width, params.layout.spec(weight).rows), (3 * hidden, 3 * hidden), "three gates");
        assert_eq!(params.get(bias).len(), 3 * hidden, "a bias for each gate");
        assert_eq!(segments.n_rows(), n, "segments cover the rows");
        if let Some(initial) = initial {
            assert_eq!(self.shape(initial), (segments.len(), hidden), "a first state for each sequence");
        }
        let (mut out, mut saved) = (self.buffer(n * hidden), self.buffer(n * 4 * hidden));
        let mut recurrent = self.buffer(segments.len() * 3 * hidden);
        let mut states = self.buffer(segments.len() * hidden);
        let mut memory = self.buffer(PackedRight::memory(hidden, 3 * hidden));
        let widened = self.weight(weight);
        let w = PackedRight::new(MatRef::new(&widened, 3 * hidden, hidden).transposed(), &mut memory);
        self.recycle_weight(widened);
        for t in 0..segments.max_len() {
            let active = rows_at(segments, t);
            let states = &mut states[..active.len() * hidden];
            for (state, (segment, row)) in states.chunks_exact_mut(hidden).zip(&active) {
                match (t, initial) {
                    (0, None) => state.fill(0.0),
                    (0, Some(initial)) => state.copy_from_slice(&self.value(initial)[segment * hidden..][..hidden]),
                    _ => state.copy_from_slice(&out[(row - 1) * hidden..][..hidden]),
                }
            }
            let recurrent = &mut recurrent[..active.len() * 3 * hidden];
            gemm_packed(Write::Set, MatRef::new(states, active.len(), hidden), w, recurrent);
            let parts = states.chunks_exact(hidden).zip(recurrent.chunks_exact_mut(3 * hidden));
            for ((state, recurrent), (_, row)) in parts.zip(&active) {
                recurrent.iter_mut().zip(params.get(bias)).for_each(|(to, bias)| *to += bias);
                let gates = &self.value(gates)[row * 3 * hidden..][..3 * hidden];
                let saved = &mut saved[row * 4 * hidden..][..4 * hidden];
                let out = &mut out[row * hidden..][..hidden];
                dispatch(Step { gates, recurrent, state, saved, out });
            }
        }
        self.recycle(recurrent);
        self.recycle(states);
        self.recycle(memory);
        let saved = self.push(n, 4 * hidden, saved);
        let out = self.push(n, hidden, out);
        self.note(Gru { gates, weight, bias, segments: segments.clone(), initial, saved, out });
        out
    }
}

/// The sequences that have a position `t`: each with its number and its row.
fn rows_at(segments: &Segments, t: usize) -> Vec<(usize, usize)> {
    segments.iter().enumerate().filter(|(_, rows)| t < rows.len()).map(|(at, rows)| (at, rows.start + t)).collect()
}

struct Gru {
    gates: Var,
    weight: ParamId,
    bias: ParamId,
    segments: Segments,
    initial: Option<Var>,
    /// Reset, update, candidate, and the recurrent share of the candidate, `(n, 4 hidden)`.
    saved: Var,
    out: Var,
}

impl Gru {
    /// The states that each row started from, `(n, hidden)`.
    fn fill_states(&self, pass: &Backward<'_>, states: &mut [f32]) {
        let hidden = pass.shape(self.out).1;
        let out = pass.value(self.out);
        for (segment, rows) in self.segments.iter().enumerate() {
            let states = &mut states[rows.start * hidden..rows.end * hidden];
            let Some((first, rest)) = states.split_at_mut_checked(hidden) else { continue };
            match self.initial {
                Some(initial) => first.copy_from_slice(&pass.value(initial)[segment * hidden..][..hidden]),
                None => first.fill(0.0),
            }
            rest.copy_from_slice(&out[rows.start * hidden..(rows.end - 1) * hidden]);
        }
    }
}

impl Op for Gru {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(dout) = pass.take(self.out) else { return };
        let (n, hidden) = pass.shape(self.out);
        let n_segments = self.segments.len();
        let mut states = pass.buffer(n * hidden);
        self.fill_states(pass, &mut states);
        let (mut dgates, mut drecurrent) = (pass.buffer(n * 3 * hidden), pass.buffer(n * 3 * hidden));
        let mut slopes = pass.buffer(n_segments * 3 * hidden);
        let mut steps = pass.buffer(n_segments * hidden);
        let mut dstates = pass.buffer(n_segments * hidden);
        dstates.fill(0.0);
        let mut memory = pass.buffer(PackedRight::memory(3 * hidden, hidden));
        let saved = pass.value(self.saved);
        let widened = pass.weight(self.weight);
        let w = PackedRight::new(MatRef::new(&widened, 3 * hidden, hidden), &mut memory);
        pass.recycle_weight(widened);
        for t in (0..self.segments.max_len()).rev() {
            let active = rows_at(&self.segments, t);
            for (slope, (segment, row)) in slopes.chunks_exact_mut(3 * hidden).zip(&active) {
                let (row, dstate) = (*row, &mut dstates[segment * hidden..][..hidden]);
                Write::Add.store(dstate, &dout[row * hidden..][..hidden]);
                dispatch(StepBack {
                    saved: &saved[row * 4 * hidden..][..4 * hidden],
                    state: &states[row * hidden..][..hidden],
                    dstate,
                    dgates: &mut dgates[row * 3 * hidden..][..3 * hidden],
                    drecurrent: slope,
                });
                drecurrent[row * 3 * hidden..][..3 * hidden].copy_from_slice(slope);
            }
            let steps = &mut steps[..active.len() * hidden];
            gemm_packed(
                Write::Set,
                MatRef::new(&slopes[..active.len() * 3 * hidden], active.len(), 3 * hidden),
                w,
                steps,
            );
            for (step, (segment, _)) in steps.chunks_exact(hidden).zip(&active) {
                Write::Add.store(&mut dstates[segment * hidden..][..hidden], step);
            }
        }
        let all = MatRef::new(&drecurrent, n, 3 * hidden);
        if let Some((dweight, weight_write)) = pass.param_grad(self.weight) {
            gemm(weight_write, all.transposed(), MatRef::new(&states, n, hidden), dweight);
        }
        if let Some(dbias) = pass.param_grad_to_add(self.bias) {
            for row in drecurrent.chunks_exact(3 * hidden) {
                Write::Add.store(dbias, row);
            }
        }
        pass.hand_on(self.gates, dgates);
        match self.initial {
            Some(initial) => pass.hand_on(initial, dstates),
            None => pass.recycle(dstates),
        }
        for buffer in [dout, states, drecurrent, slopes, steps, memory] {
            pass.recycle(buffer);
        }
    }
}

/// The same units of `N` neighbouring vectors of `hidden` numbers.
// A closure would not be compiled for the kernel's CPU features.
#[inline(always)]
fn parts<V: Sixteen, const N: usize>(from: &[f32], hidden: usize, units: Range<usize>) -> [V; N] {
    let mut parts = [V::zero(); N];
    for (part, from) in parts.iter_mut().zip(from.chunks_exact(hidden)) {
        *part = load_part(&from[units.clone()]);
    }
    parts
}

struct Step<'a> {
    gates: &'a [f32],
    recurrent: &'a [f32],
    state: &'a [f32],
    saved: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let hidden = self.state.len();
        for at in (0..hidden).step_by(SIXTEEN) {
            let end = (at + SIXTEEN).min(hidden);
            let [gate_r, gate_z, gate_n] = parts::<V, 3>(self.gates, hidden, at..end);
            let [recurrent_r, recurrent_z, candidate] = parts::<V, 3>(self.recurrent, hidden, at..end);
            let r = sigmoid(gate_r.add(recurrent_r));
            let z = sigmoid(gate_z.add(recurrent_z));
            let n = tanh(gate_n.add(r.mul(candidate)));
            let h = z.mul(load_part::<V>(&self.state[at..end]).sub(n)).add(n);
            for (which, value) in [r, z, n, candidate].into_iter().enumerate() {
                store_part(value, &mut self.saved[which * hidden + at..which * hidden + end]);
            }
            store_part(h, &mut self.out[at..end]);
        }
    }
}

struct StepBack<'a> {
    saved: &'a [f32],
    state: &'a [f32],
    /// The gradient of the new state; becomes the direct share of the old state's.
    dstate: &'a mut [f32],
    dgates: &'a mut [f32],
    drecurrent: &'a mut [f32],
}

impl Kernel for StepBack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Sixteen>(self) {
        let hidden = self.state.len();
        let one = V::splat(1.0);
        for at in (0..hidden).step_by(SIXTEEN) {
            let end = (at + SIXTEEN).min(hidden);
            let [r, z, n, candidate] = parts::<V, 4>(self.saved, hidden, at..end);
            let (dh, state) = (load_part::<V>(&self.dstate[at..end]), load_part::<V>(&self.state[at..end]));
            let dn = dh.mul(one.sub(z)).mul(one.sub(n.mul(n)));
            let dz = dh.mul(state.sub(n)).mul(z).mul(one.sub(z));
            let dr = dn.mul(candidate).mul(r).mul(one.sub(r));
            for (gate, (value, recurrent)) in [(dr, dr), (dz, dz), (dn, dn.mul(r))].into_iter().enumerate() {
                store_part(value, &mut self.dgates[gate * hidden + at..gate * hidden + end]);
                store_part(recurrent, &mut self.drecurrent[gate * hidden + at..gate * hidden + end]);
            }
            store_part(dh.mul(z), &mut self.dstate[at..end]);
        }
    }
}
