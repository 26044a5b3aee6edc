//! Reverse-mode differentiation over fused operations.
//!
//! A [`Graph`] is one forward pass: calling an operation computes its result at once and, when gradients are wanted, notes
//! an [`Op`] on the tape. [`Graph::backward`] walks the tape from its end; each op turns the gradient of its output
//! into gradients of its inputs and parameters. What an op saves for the way back is a value on the tape like any other.
//!
//! A [`Tape`] keeps the memory from one pass to the next: buffers return to a pool by size, and a training step like
//! the last allocates almost nothing. Buffers from the pool hold stale numbers: an op writes all of its output.
//!
//! Where activations are stored in 16 bits, a pass is cut into sections ([`Graph::section`]). At its end, what a section has put on the
//! tape is narrowed and the buffers go back to the pool; on the way back it is widened again, section by section:
//!
//! ```text
//! forward:   section 1 ── narrow ── section 2 ── narrow ── … ── head and loss
//! backward:  head and loss ── … ── widen ── section 2 ── leave ── widen ── section 1 ── leave
//! ```
//! What comes forward is that of `f32` to the bit. Numbers that ops put on the tape by [`Graph::push_exact`] stay as they are.
//!
//! Where parameters are frozen, a pass follows nothing until the first trained one has a say ([`Graph::follow`]): what comes before it is
//! not noted, and sections that end before it keep their result alone.

use super::Buffer;
use super::bf16::Dtype;
use super::gemm::Write;
use super::param_grads::ParamGrads;
use super::params::{ParamId, Params};
use super::pool::{Pool, Saved, Widened};
use std::ops::Range;

/// A matrix on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(usize);

/// The way back through one operation.
pub trait Op: Send {
    /// Turns the gradient of the output (taken by [`Backward::take`]) into those of the inputs and parameters.
    fn backward(&self, pass: &mut Backward<'_>);
}

struct Value {
    /// `None` once it is released, or the way back has left its section.
    data: Option<Saved>,
    rows: usize,
    cols: usize,
    /// Whether it is never narrowed.
    is_exact: bool,
    /// Whether its buffer is free only because values are narrowed.
    is_spared: bool,
    /// Whether it depends on anything that is trained, as far as that is known.
    is_followed: bool,
}

impl Value {
    fn whole(&self) -> &Buffer {
        match &self.data {
            Some(Saved::Whole(data)) => data,
            _ => panic!("a value was released, or its section has ended"),
        }
    }

    fn narrow(&mut self, pool: &mut Pool) {
        if !self.is_exact
            && let Some(Saved::Whole(data)) = self.data.take_if(|data| matches!(data, Saved::Whole(_)))
        {
            self.data = Some(pool.save(data, Dtype::Bf16));
        }
    }

    fn widen(&mut self, pool: &mut Pool) {
        self.data = self.data.take().map(|data| Saved::Whole(pool.restore(data)));
    }

    /// Gives the buffer back, which a pass of `f32` would hold to its end.
    fn leave(&mut self, pool: &mut Pool) {
        if let Some(data) = self.data.take() {
            let data = pool.restore(data);
            pool.forget(data);
            self.is_spared = true;
        }
    }

    fn clear(self, pool: &mut Pool) {
        match self.data {
            Some(data) => pool.discard(data),
            None if self.is_spared => pool.remember(self.rows * self.cols),
            None => {}
        }
    }
}

/// A part of a pass whose values are narrowed.
struct Section {
    ops: Range<usize>,
    values: Range<usize>,
    /// What it begins with, a value of an earlier section or of none.
    input: Option<Var>,
}

impl Section {
    fn end(&self, values: &mut [Value], pool: &mut Pool, out: Var) {
        let input = self.input.map(|input| input.0).into_iter();
        for idx in input.chain(self.values.clone()).filter(|idx| *idx != out.0) {
            values[idx].narrow(pool);
        }
    }

    fn widen(&self, values: &mut [Value], pool: &mut Pool) {
        let input = self.input.map(|input| input.0).into_iter();
        input.chain(self.values.clone()).for_each(|idx| values[idx].widen(pool));
    }

    fn leave(&self, values: &mut [Value], pool: &mut Pool) {
        values[self.values.clone()].iter_mut().for_each(|value| value.leave(pool));
    }
}

/// The memory of a pass, kept for the next.
#[derive(Default)]
pub struct Tape {
    values: Vec<Value>,
    grads: Vec<Option<Buffer>>,
    ops: Vec<Box<dyn Op>>,
    sections: Vec<Section>,
    pool: Pool,
}

impl Tape {
    /// Starts a pass that can go back: parameter gradients are added to `param_grads`.
    ///
    /// # Panics
    /// If `param_grads` has another length than the trained parameters.
    pub fn record<'a>(&'a mut self, params: &'a Params, param_grads: &'a mut ParamGrads) -> Graph<'a> {
        assert_eq!(param_grads.len(), params.layout.n_trained(), "gradients of another model");
        self.clear();
        Graph {
            tape: self,
            params,
            param_grads: Some(param_grads),
            is_followed: false,
            dropout_key: 0,
            dtype: Dtype::F32,
        }
    }

    /// Starts a pass that only computes.
    pub fn evaluate<'a>(&'a mut self, params: &'a Params) -> Graph<'a> {
        self.clear();
        Graph { tape: self, params, param_grads: None, is_followed: false, dropout_key: 0, dtype: Dtype::F32 }
    }

    /// A buffer of `len` numbers with unspecified contents, to be kept from one pass to another.
    pub fn buffer(&mut self, len: usize) -> Buffer {
        self.pool.take(len)
    }

    /// Returns a buffer of [`Tape::buffer`] or [`Graph::buffer`].
    pub fn recycle(&mut self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    /// Keeps the numbers of a buffer as `dtype`, from one pass to another.
    pub fn save(&mut self, buffer: Buffer, dtype: Dtype) -> Saved {
        self.pool.save(buffer, dtype)
    }

    /// The numbers of [`Tape::save`], in a buffer to be recycled.
    pub fn restore(&mut self, saved: Saved) -> Buffer {
        self.pool.restore(saved)
    }

    /// Bytes of the buffers that it holds, in use or not.
    pub fn n_bytes(&self) -> usize {
        let values = self.values.iter().filter_map(|value| value.data.as_ref()).map(Saved::n_bytes);
        let grads = self.grads.iter().flatten().map(Buffer::n_bytes);
        values.chain(grads).sum::<usize>() + self.pool.n_free_bytes()
    }

    /// What [`Tape::n_bytes`] would be if all passes had been of `f32`.
    pub fn n_bytes_unnarrowed(&self) -> usize {
        self.pool.n_bytes_unnarrowed()
    }

    fn clear(&mut self) {
        self.ops.clear();
        self.sections.clear();
        self.values.drain(..).for_each(|value| value.clear(&mut self.pool));
        self.grads.drain(..).flatten().for_each(|grad| self.pool.give(grad));
    }
}

/// One pass: forward as the operations are called, then optionally back.
pub struct Graph<'a> {
    tape: &'a mut Tape,
    params: &'a Params,
    param_grads: Option<&'a mut ParamGrads>,
    /// Whether anything so far depends on what is trained: only then operations are noted.
    is_followed: bool,
    dropout_key: u64,
    /// What the values of sections are stored as.
    dtype: Dtype,
}

impl<'a> Graph<'a> {
    /// Decides all masks of dropouts that follow.
    pub fn seed_dropout(&mut self, seed: u64) {
        self.dropout_key = seed;
    }

    /// What [`Graph::seed_dropout`] would have to be called with for the dropouts from here on to be the same again.
    pub fn dropout_key(&self) -> u64 {
        self.dropout_key
    }

    /// The key of the next dropout: another one each time.
    pub(super) fn next_dropout_key(&mut self) -> u64 {
        // An odd multiplier and an odd step: a full cycle through all keys.
        self.dropout_key = self.dropout_key.wrapping_mul(0xd129_0b2d_3a91_4c25).wrapping_add(0x2545_f491_4f6c_dd1d);
        self.dropout_key
    }

    /// Decides what the values of the sections that follow are stored as.
    pub fn store_sections_as(&mut self, dtype: Dtype) {
        self.dtype = dtype;
    }

    /// Runs a part of the pass that begins with `input`, and gives its result.
    ///
    /// Nothing that comes after it may ask for `input`, or for anything that it has put on the tape but its result: all that is
    /// narrowed now, where the pass can go back and [`Graph::store_sections_as`] wants it.
    ///
    /// # Panics
    /// If sections are narrowed and one is inside the other.
    pub fn section(&mut self, input: Option<Var>, part: impl FnOnce(&mut Self) -> Var) -> Var {
        let (first_op, first_value) = (self.tape.ops.len(), self.tape.values.len());
        let out = part(self);
        if self.records() && !self.is_followed {
            let values = first_value..self.tape.values.len();
            input.into_iter().chain(values.map(Var)).filter(|var| *var != out).for_each(|var| self.release(var));
        } else if self.records() && !self.dtype.is_f32() {
            let Tape { values, ops, sections, pool, .. } = &mut *self.tape;
            assert!(sections.last().is_none_or(|last| last.ops.end <= first_op), "a section inside of another");
            let section = Section { ops: first_op..ops.len(), values: first_value..values.len(), input };
            section.end(values, pool, out);
            sections.push(section);
        }
        out
    }

    /// Puts a matrix, `(rows, cols)`, on the tape, whose gradient may be asked for.
    ///
    /// # Panics
    /// If `data` has another length.
    pub fn input(&mut self, rows: usize, cols: usize, data: &[f32]) -> Var {
        self.is_followed = self.records();
        self.constant(rows, cols, data)
    }

    /// As [`Graph::input`], of which nobody wants a gradient.
    ///
    /// # Panics
    /// As [`Graph::input`].
    pub fn constant(&mut self, rows: usize, cols: usize, data: &[f32]) -> Var {
        let mut buffer = self.buffer(rows * cols);
        buffer.copy_from_slice(data);
        self.push(rows, cols, buffer)
    }

    /// A buffer of `len` numbers with unspecified contents, to become an operation's output.
    pub fn buffer(&mut self, len: usize) -> Buffer {
        self.tape.pool.take(len)
    }

    /// Returns a buffer that is not needed any more.
    pub fn recycle(&mut self, buffer: Buffer) {
        self.tape.pool.give(buffer);
    }

    /// Puts a computed matrix on the tape.
    ///
    /// # Panics
    /// If `data` is not `rows * cols` long.
    pub fn push(&mut self, rows: usize, cols: usize, data: Buffer) -> Var {
        self.push_value(rows, cols, data, false)
    }

    /// As [`Graph::push`], for a few numbers a row that the way back depends on to the last bit: never narrowed.
    ///
    /// # Panics
    /// As [`Graph::push`].
    pub fn push_exact(&mut self, rows: usize, cols: usize, data: Buffer) -> Var {
        self.push_value(rows, cols, data, true)
    }

    fn push_value(&mut self, rows: usize, cols: usize, data: Buffer, is_exact: bool) -> Var {
        assert_eq!(data.len(), rows * cols, "value of {rows} x {cols}");
        let (data, is_followed) = (Some(Saved::Whole(data)), self.is_followed);
        self.tape.values.push(Value { data, rows, cols, is_exact, is_spared: false, is_followed });
        self.tape.grads.push(None);
        Var(self.tape.values.len() - 1)
    }

    /// Gives the buffer of a value back early: for one whose numbers nothing that follows asks for, neither forward nor on the way back.
    pub fn release(&mut self, var: Var) {
        let Tape { values, pool, .. } = &mut *self.tape;
        if let Some(data) = values[var.0].data.take() {
            pool.discard(data);
        }
    }

    /// Hears which parameters the next operation depends on: from the first trained one on, operations are noted.
    pub fn follow(&mut self, params: impl IntoIterator<Item = ParamId>) {
        if self.records() && !self.is_followed {
            self.is_followed = params.into_iter().any(|id| self.params.layout.is_trained(id));
        }
    }

    /// Notes how to come back through an operation; does nothing in a pass that only computes, or before anything trained had a say.
    pub fn note(&mut self, op: impl Op + 'static) {
        if self.is_followed {
            self.tape.ops.push(Box::new(op));
        }
    }

    /// Whether this pass can go back.
    pub fn records(&self) -> bool {
        self.param_grads.is_some()
    }

    /// The numbers of a matrix.
    pub fn value(&self, var: Var) -> &[f32] {
        self.tape.values[var.0].whole()
    }

    /// `(rows, cols)` of a matrix.
    pub fn shape(&self, var: Var) -> (usize, usize) {
        let value = &self.tape.values[var.0];
        (value.rows, value.cols)
    }

    /// The parameters of this pass.
    pub fn params(&self) -> &'a Params {
        self.params
    }

    /// The numbers of a parameter in `f32`, to be given back by [`Graph::recycle_weight`].
    pub fn weight(&mut self, id: ParamId) -> Widened<'a> {
        self.tape.pool.widen(self.params.weight(id))
    }

    /// Takes back what [`Graph::weight`] gave.
    pub fn recycle_weight(&mut self, weight: Widened<'_>) {
        self.tape.pool.give_widened(weight);
    }

    /// The numbers of a matrix, and where the gradient of a trained parameter is written, in a pass that can go back.
    pub fn value_and_param_grad(&mut self, var: Var, id: ParamId) -> (&[f32], Option<(&mut [f32], Write)>) {
        let grad = self.param_grads.as_deref_mut().and_then(|grads| grads.open(&self.params.layout, id));
        (self.tape.values[var.0].whole(), grad)
    }

    /// Goes back from `root`, whose gradient is `seed`, to every input and parameter.
    ///
    /// # Panics
    /// If the pass only computes, or `seed` is not as long as the value of `root`.
    pub fn backward(&mut self, root: Var, seed: &[f32]) {
        let mut grad = self.buffer(seed.len());
        grad.copy_from_slice(seed);
        assert_eq!(grad.len(), self.value(root).len(), "gradient of the root");
        let Tape { values, grads, ops, sections, pool } = &mut *self.tape;
        grads[root.0] = Some(grad);
        let (params, param_grads) = (self.params, self.param_grads.as_deref_mut().expect("a pass that records"));
        let mut go = |ops: &[Box<dyn Op>], values: &[Value], pool: &mut Pool| {
            let mut pass = Backward { values, grads, pool, params, param_grads };
            ops.iter().rev().for_each(|op| op.backward(&mut pass));
        };
        let mut end = ops.len();
        for section in sections.iter().rev() {
            go(&ops[section.ops.end..end], values, pool);
            section.widen(values, pool);
            go(&ops[section.ops.clone()], values, pool);
            section.leave(values, pool);
            end = section.ops.start;
        }
        go(&ops[..end], values, pool);
    }

    /// The gradient of an input after [`Graph::backward`]; `None` where nothing depends on it.
    pub fn grad(&self, input: Var) -> Option<&[f32]> {
        self.tape.grads[input.0].as_deref()
    }
}

/// The state of a pass on its way back.
pub struct Backward<'a> {
    values: &'a [Value],
    grads: &'a mut [Option<Buffer>],
    pool: &'a mut Pool,
    params: &'a Params,
    param_grads: &'a mut ParamGrads,
}

impl<'a> Backward<'a> {
    /// Takes the gradient of an op's output; `None` where nothing depends on it.
    pub fn take(&mut self, output: Var) -> Option<Buffer> {
        self.grads[output.0].take()
    }

    /// A buffer of `len` numbers with unspecified contents.
    pub fn buffer(&mut self, len: usize) -> Buffer {
        self.pool.take(len)
    }

    /// Takes the buffer that an input's gradient goes to, and whether to set or to add.
    pub fn open(&mut self, input: Var) -> (Buffer, Write) {
        match self.grads[input.0].take() {
            Some(grad) => (grad, Write::Add),
            None => {
                let (rows, cols) = self.shape(input);
                (self.pool.take(rows * cols), Write::Set)
            }
        }
    }

    /// Gives back the buffer of [`Backward::open`], filled.
    pub fn close(&mut self, input: Var, grad: Buffer) {
        self.grads[input.0] = Some(grad);
    }

    /// Gives an input a gradient that came out in a buffer of its own.
    pub fn hand_on(&mut self, input: Var, from: Buffer) {
        let (mut to, write) = self.open(input);
        match write {
            Write::Set => {
                self.recycle(to);
                self.close(input, from);
            }
            Write::Add => {
                write.store(&mut to, &from);
                self.close(input, to);
                self.recycle(from);
            }
        }
    }

    /// Returns a buffer that is not needed any more.
    pub fn recycle(&mut self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    /// The numbers of a matrix.
    pub fn value(&self, var: Var) -> &'a [f32] {
        self.values[var.0].whole()
    }

    /// `(rows, cols)` of a matrix.
    pub fn shape(&self, var: Var) -> (usize, usize) {
        (self.values[var.0].rows, self.values[var.0].cols)
    }

    /// As [`Graph::weight`].
    pub fn weight(&mut self, id: ParamId) -> Widened<'a> {
        self.pool.widen(self.params.weight(id))
    }

    /// Takes back what [`Backward::weight`] gave.
    pub fn recycle_weight(&mut self, weight: Widened<'_>) {
        self.pool.give_widened(weight);
    }

    /// The numbers of a parameter that keeps `f32`.
    pub fn param(&self, id: ParamId) -> &'a [f32] {
        self.params.get(id)
    }

    /// Whether a matrix depends on anything trained; the gradient of another one is asked for by nobody.
    pub fn is_followed(&self, var: Var) -> bool {
        self.values[var.0].is_followed
    }

    /// Where the gradient of a parameter is written, all of it, and whether to set it or to add to it; `None` where it is frozen.
    pub fn param_grad(&mut self, id: ParamId) -> Option<(&mut [f32], Write)> {
        self.param_grads.open(&self.params.layout, id)
    }

    /// Where to add to the gradient of a parameter, for an operation that does not reach all of it; `None` where it is frozen.
    pub fn param_grad_to_add(&mut self, id: ParamId) -> Option<&mut [f32]> {
        self.param_grads.open_to_add(&self.params.layout, id)
    }

    /// Room for the gradient of a frozen parameter that comes out along with others, and that nobody reads; empty for a trained one.
    pub fn unread_grad(&mut self, id: ParamId) -> Buffer {
        let spec = self.params.layout.spec(id);
        let len = if spec.grad.is_some() { 0 } else { spec.range.len() };
        let mut unread = self.buffer(len);
        unread.fill(0.0);
        unread
    }
}
