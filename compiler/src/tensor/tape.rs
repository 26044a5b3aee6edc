//! Reverse-mode differentiation over fused operations.
//!
//! A [`Graph`] is one forward pass: calling an operation computes its result at once and, when gradients are wanted, notes
//! an [`Op`] on the tape. [`Graph::backward`] walks the tape from its end; each op turns the gradient of its output
//! into gradients of its inputs and parameters. What an op saves for the way back is a value on the tape like any other.
//!
//! A [`Tape`] keeps the memory from one pass to the next: buffers return to a pool by size, and a training step like
//! the last allocates almost nothing. Buffers from the pool hold stale numbers: an op writes all of its output.

use super::Buffer;
use super::gemm::Write;
use super::params::{ParamId, Params};
use std::collections::HashMap;

/// A matrix on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(usize);

/// The way back through one operation.
pub trait Op: Send {
    /// Turns the gradient of the output (taken by [`Backward::take`]) into those of the inputs and parameters.
    fn backward(&self, pass: &mut Backward<'_>);
}

struct Value {
    data: Buffer,
    rows: usize,
    cols: usize,
}

/// Buffers waiting to be used again, by class: sequences of every length share a few sizes.
#[derive(Default)]
struct Pool(HashMap<usize, Vec<Buffer>>);

impl Pool {
    fn take(&mut self, len: usize) -> Buffer {
        let mut buffer =
            self.0.get_mut(&Buffer::class(len)).and_then(Vec::pop).unwrap_or_else(|| Buffer::of_class(len));
        buffer.set_len(len);
        buffer
    }

    /// A buffer that was not taken from a pool, and is of no class, is let go.
    fn give(&mut self, mut buffer: Buffer) {
        let n_lines = buffer.n_lines();
        buffer.set_len(0);
        if buffer.is_of_class() {
            self.0.entry(n_lines).or_default().push(buffer);
        }
    }
}

/// The memory of a pass, kept for the next.
#[derive(Default)]
pub struct Tape {
    values: Vec<Value>,
    grads: Vec<Option<Buffer>>,
    ops: Vec<Box<dyn Op>>,
    pool: Pool,
}

impl Tape {
    /// Starts a pass that can go back: parameter gradients are added to `param_grads`, laid out as `params`.
    ///
    /// # Panics
    /// If `param_grads` has another length than the parameters.
    pub fn record<'a>(&'a mut self, params: &'a Params, param_grads: &'a mut [f32]) -> Graph<'a> {
        assert_eq!(param_grads.len(), params.layout.len(), "gradient buffer of another model");
        self.clear();
        Graph { tape: self, params, param_grads: Some(param_grads), dropout_key: 0 }
    }

    /// Starts a pass that only computes.
    pub fn evaluate<'a>(&'a mut self, params: &'a Params) -> Graph<'a> {
        self.clear();
        Graph { tape: self, params, param_grads: None, dropout_key: 0 }
    }

    /// A buffer of `len` numbers with unspecified contents, to be kept from one pass to another.
    pub fn buffer(&mut self, len: usize) -> Buffer {
        self.pool.take(len)
    }

    /// Returns a buffer of [`Tape::buffer`] or [`Graph::buffer`].
    pub fn recycle(&mut self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    /// Bytes of the buffers that it holds, in use or not.
    pub fn n_bytes(&self) -> usize {
        let values = self.values.iter().map(|value| value.data.n_bytes());
        let grads = self.grads.iter().flatten().map(Buffer::n_bytes);
        let pool = self.pool.0.values().flatten().map(Buffer::n_bytes);
        values.chain(grads).chain(pool).sum()
    }

    fn clear(&mut self) {
        self.ops.clear();
        self.values.drain(..).for_each(|value| self.pool.give(value.data));
        self.grads.drain(..).flatten().for_each(|grad| self.pool.give(grad));
    }
}

/// One pass: forward as the operations are called, then optionally back.
pub struct Graph<'a> {
    tape: &'a mut Tape,
    params: &'a Params,
    param_grads: Option<&'a mut [f32]>,
    dropout_key: u64,
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

    /// Puts a matrix, `(rows, cols)`, on the tape.
    ///
    /// # Panics
    /// If `data` has another length.
    pub fn input(&mut self, rows: usize, cols: usize, data: &[f32]) -> Var {
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
        assert_eq!(data.len(), rows * cols, "value of {rows} x {cols}");
        self.tape.values.push(Value { data, rows, cols });
        self.tape.grads.push(None);
        Var(self.tape.values.len() - 1)
    }

    /// Notes how to come back through an operation; does nothing in a pass that only computes.
    pub fn note(&mut self, op: impl Op + 'static) {
        if self.param_grads.is_some() {
            self.tape.ops.push(Box::new(op));
        }
    }

    /// Whether this pass can go back.
    pub fn records(&self) -> bool {
        self.param_grads.is_some()
    }

    /// The numbers of a matrix.
    pub fn value(&self, var: Var) -> &[f32] {
        &self.tape.values[var.0].data
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

    /// The numbers of a matrix, and where the gradient of a parameter is added, in a pass that can go back.
    pub fn value_and_param_grad(&mut self, var: Var, id: ParamId) -> (&[f32], Option<&mut [f32]>) {
        let range = self.params.layout.spec(id).range.clone();
        let grad = self.param_grads.as_deref_mut().map(|grads| &mut grads[range]);
        (&self.tape.values[var.0].data, grad)
    }

    /// Goes back from `root`, whose gradient is `seed`, to every input and parameter.
    ///
    /// # Panics
    /// If the pass only computes, or `seed` is not as long as the value of `root`.
    pub fn backward(&mut self, root: Var, seed: &[f32]) {
        let mut grad = self.buffer(seed.len());
        grad.copy_from_slice(seed);
        assert_eq!(grad.len(), self.value(root).len(), "gradient of the root");
        let Tape { values, grads, ops, pool } = &mut *self.tape;
        grads[root.0] = Some(grad);
        let param_grads = self.param_grads.as_deref_mut().expect("a pass that records");
        let mut pass = Backward { values, grads, pool, params: self.params, param_grads };
        for op in ops.iter().rev() {
            op.backward(&mut pass);
        }
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
    param_grads: &'a mut [f32],
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
            None => (self.pool.take(self.values[input.0].data.len()), Write::Set),
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
        &self.values[var.0].data
    }

    /// `(rows, cols)` of a matrix.
    pub fn shape(&self, var: Var) -> (usize, usize) {
        (self.values[var.0].rows, self.values[var.0].cols)
    }

    /// The numbers of a parameter.
    pub fn param(&self, id: ParamId) -> &'a [f32] {
        self.params.get(id)
    }

    /// Where the gradient of a parameter is added.
    pub fn param_grad(&mut self, id: ParamId) -> &mut [f32] {
        &mut self.param_grads[self.params.layout.spec(id).range.clone()]
    }
}
