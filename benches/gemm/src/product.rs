//! A product of the forward or the backward pass of a linear layer.

use siskin_compiler::tensor::Buffer;

/// `c = a b`, or `c += a b`.
pub struct Product {
    /// Rows of `a` and `c`.
    pub m: usize,
    /// Columns of `b` and `c`.
    pub n: usize,
    /// The inner size.
    pub k: usize,
    pub a: Operand,
    pub b: Operand,
    /// Whether the product is added to what is there.
    pub adds: bool,
}

/// A matrix as it lies in memory: row-major, or the transpose of a row-major one.
pub struct Operand {
    /// On a cache line, as the engine's are.
    pub numbers: Buffer,
    pub rows: usize,
    pub cols: usize,
    pub is_transposed: bool,
}

impl Operand {
    fn new(rows: usize, cols: usize, is_transposed: bool) -> Self {
        let mut numbers = Buffer::zeros(rows * cols);
        numbers.iter_mut().enumerate().for_each(|(i, to)| *to = (i * 7919 % 1009) as f32 / 1009.0 - 0.5);
        Self { numbers, rows, cols, is_transposed }
    }

    /// Numbers between a row and the next, and between a column and the next.
    pub fn strides(&self) -> (isize, isize) {
        match self.is_transposed {
            false => (self.cols as isize, 1),
            true => (1, self.rows as isize),
        }
    }
}

impl Product {
    /// Reads `KIND:ROWS:INPUTS:OUTPUTS`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, numbers) = text.split_once(':')?;
        let numbers: Vec<usize> = numbers.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [rows, inputs, outputs] = numbers[..] else { return None };
        let (m, n, k, a_flipped, b_flipped) = match kind {
            "forward" => (rows, outputs, inputs, false, true),
            "dx" => (rows, inputs, outputs, false, false),
            "dw" => (outputs, inputs, rows, true, false),
            _ => return None,
        };
        let (a, b) = (Operand::new(m, k, a_flipped), Operand::new(k, n, b_flipped));
        Some(Self { m, n, k, a, b, adds: kind == "dw" })
    }
}
