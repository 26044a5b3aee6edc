//! Named parameters in one flat buffer, so that gradients, optimiser state and averages are flat buffers too.

use super::Buffer;
use std::ops::Range;

/// Which parameter of a [`ParamLayout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);

impl ParamId {
    /// Its place among [`ParamLayout::specs`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One named matrix, `(rows, cols)`, row-major; a vector has one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// Hugging Face name.
    pub name: String,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Where its numbers lie in a flat buffer.
    pub range: Range<usize>,
    /// Whether it is a vector (a norm's gain), which optimisers may leave out of weight decay.
    pub is_vector: bool,
}

/// The names, shapes and places of all parameters of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamLayout {
    specs: Vec<ParamSpec>,
    len: usize,
}

impl ParamLayout {
    /// Adds a matrix, `(rows, cols)`.
    pub fn matrix(&mut self, name: impl Into<String>, rows: usize, cols: usize) -> ParamId {
        self.push(name.into(), rows, cols, false)
    }

    /// Adds a vector of `len` numbers.
    pub fn vector(&mut self, name: impl Into<String>, len: usize) -> ParamId {
        self.push(name.into(), 1, len, true)
    }

    fn push(&mut self, name: String, rows: usize, cols: usize, is_vector: bool) -> ParamId {
        let range = self.len..self.len + rows * cols;
        self.len = range.end;
        self.specs.push(ParamSpec { name, rows, cols, range, is_vector });
        ParamId(self.specs.len() - 1)
    }

    /// Numbers in a flat buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All parameters, in the order of their places.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// One parameter.
    pub fn spec(&self, id: ParamId) -> &ParamSpec {
        &self.specs[id.0]
    }
}

/// The numbers of a layout.
#[derive(Clone, Debug)]
pub struct Params {
    /// What lies where.
    pub layout: ParamLayout,
    /// The numbers, `layout.len()` of them.
    pub values: Buffer,
}

impl Params {
    /// All zeros.
    pub fn zeros(layout: ParamLayout) -> Self {
        let values = Buffer::zeros(layout.len());
        Self { layout, values }
    }

    /// The numbers of one parameter.
    pub fn get(&self, id: ParamId) -> &[f32] {
        &self.values[self.layout.spec(id).range.clone()]
    }

    /// The numbers of one parameter, for writing.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        let range = self.layout.spec(id).range.clone();
        &mut self.values[range]
    }
}
