//! Rows of a table, picked by token.

use crate::tensor::params::ParamId;
use crate::tensor::tape::{Backward, Graph, Op, Var};

impl Graph<'_> {
    /// Row `tokens[i]` of `table`, `(vocab, dim)`, as row `i` of the result, `(tokens.len(), dim)`.
    ///
    /// # Panics
    /// If a token is not below the table's rows.
    pub fn embedding(&mut self, tokens: &[u32], table: ParamId) -> Var {
        self.follow([table]);
        let params = self.params();
        let dim = params.layout.spec(table).cols;
        let mut rows = self.buffer(tokens.len() * dim);
        for (row, &token) in rows.chunks_exact_mut(dim).zip(tokens) {
            let first = token as usize * dim;
            params.weight(table).part(first..first + dim).widen_into(row);
        }
        let out = self.push(tokens.len(), dim, rows);
        self.note(Embedding { tokens: tokens.to_vec(), table, out });
        out
    }
}

struct Embedding {
    tokens: Vec<u32>,
    table: ParamId,
    out: Var,
}

impl Op for Embedding {
    fn backward(&self, pass: &mut Backward<'_>) {
        let Some(grad) = pass.take(self.out) else { return };
        let dim = pass.shape(self.out).1;
        if let Some(table) = pass.param_grad_to_add(self.table) {
            for (row, &token) in grad.chunks_exact(dim).zip(&self.tokens) {
                let to = &mut table[token as usize * dim..][..dim];
                to.iter_mut().zip(row).for_each(|(to, from)| *to += from);
            }
        }
        pass.recycle(grad);
    }
}
