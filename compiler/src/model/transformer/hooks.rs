//! What is trained beside a frozen transformer, and where it has its say.
//!
//! A hook belongs to a weight of the base: whoever multiplies with that weight asks here first. Without hooks nothing is asked twice.

use super::parameters::LinearParams;
use crate::tensor::ops::{Activation, Dora, FirstRows};
use crate::tensor::{Graph, ParamId, Segments, Var};
use siskin_runtime::TokenId;

/// What changes a product, or the rows of a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    /// LoRA: `scale b a` beside the weight.
    LowRank(LowRank),
    /// IA3 on a product's columns.
    OutputGain(ParamId),
    /// IA3 on what is multiplied.
    InputGain(ParamId),
    /// A small network behind the product, added to it.
    Bottleneck(Bottleneck),
    /// Prefix tuning: keys or values that stand before a sequence's own.
    FirstRows(FirstRows),
}

/// A low-rank pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct LowRank {
    /// `(rank, inputs)`; of a table `(rows, rank)`.
    pub a: ParamId,
    /// `(outputs, rank)`.
    pub b: ParamId,
    pub scale: f32,
    /// Share of what goes into `a` that is dropped.
    pub dropout: f32,
    /// DoRA's norms of rows, `(outputs,)`.
    pub magnitude: Option<ParamId>,
}

/// `up activation(down x)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bottleneck {
    pub down: LinearParams,
    pub up: LinearParams,
    pub activation: Activation,
}

/// Rows before the tokens of each sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct VirtualTokens {
    pub n: usize,
    /// Their embeddings; none where only their keys and values count.
    pub embeddings: Option<ParamId>,
}

/// All that is trained beside a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Hooks {
    /// By the index of the base's parameter.
    by_param: Vec<Option<Hook>>,
    pub virtual_tokens: Option<VirtualTokens>,
}

impl Hooks {
    /// Sets what belongs to a weight.
    pub fn set(&mut self, weight: ParamId, hook: Hook) {
        if self.by_param.len() <= weight.index() {
            self.by_param.resize(weight.index() + 1, None);
        }
        self.by_param[weight.index()] = Some(hook);
    }

    fn of(&self, weight: ParamId) -> Option<Hook> {
        *self.by_param.get(weight.index())?
    }

    /// Rows before the tokens of each sequence.
    pub fn n_virtual(&self) -> usize {
        self.virtual_tokens.map_or(0, |tokens| tokens.n)
    }

    /// `activation(x weightᵀ + bias)`, and what is trained beside the weight.
    pub fn linear(&self, graph: &mut Graph<'_>, x: Var, params: LinearParams, activation: Activation) -> Var {
        let LinearParams { weight, bias } = params;
        let y = match self.of(weight) {
            None | Some(Hook::FirstRows(_)) => return graph.linear(x, weight, bias, activation),
            Some(Hook::LowRank(pair)) => pair.linear(graph, x, params),
            Some(Hook::OutputGain(gain)) => {
                let y = graph.linear(x, weight, bias, Activation::None);
                graph.scale_columns(y, gain)
            }
            Some(Hook::InputGain(gain)) => {
                let x = graph.scale_columns(x, gain);
                graph.linear(x, weight, bias, Activation::None)
            }
            Some(Hook::Bottleneck(Bottleneck { down, up, activation })) => {
                let y = graph.linear(x, weight, bias, Activation::None);
                let hidden = graph.linear(y, down.weight, down.bias, activation);
                graph.linear_onto(y, hidden, up.weight, up.bias)
            }
        };
        graph.activate(y, activation)
    }

    /// `residual + x weightᵀ + bias`, and what is trained beside the weight.
    pub fn linear_onto(&self, graph: &mut Graph<'_>, residual: Var, x: Var, params: LinearParams) -> Var {
        match self.of(params.weight) {
            None => graph.linear_onto(residual, x, params.weight, params.bias),
            Some(_) => {
                let update = self.linear(graph, x, params, Activation::None);
                graph.add(residual, update)
            }
        }
    }

    /// Rows of a table, and what is trained beside it.
    pub fn embedding(&self, graph: &mut Graph<'_>, tokens: &[TokenId], table: ParamId) -> Var {
        let x = graph.embedding(tokens, table);
        let Some(Hook::LowRank(LowRank { a, b, scale, .. })) = self.of(table) else { return x };
        let low = graph.embedding(tokens, a);
        let low = graph.scale(low, scale);
        graph.linear_onto(x, low, b, None)
    }

    /// The keys or values of `weight` with those that stand before each sequence's own.
    pub fn with_first_rows(&self, graph: &mut Graph<'_>, x: Var, weight: ParamId, segments: &Segments) -> Var {
        match self.of(weight) {
            Some(Hook::FirstRows(first)) => graph.replace_first_rows(x, first, segments),
            _ => x,
        }
    }
}

impl LowRank {
    fn linear(self, graph: &mut Graph<'_>, x: Var, LinearParams { weight, bias }: LinearParams) -> Var {
        let Self { a, b, scale, dropout, magnitude } = self;
        let own_bias = if magnitude.is_some() { None } else { bias };
        let y = graph.linear(x, weight, own_bias, Activation::None);
        let input = graph.dropout(x, dropout);
        let low = graph.linear(input, a, None, Activation::None);
        let low = graph.scale(low, scale);
        let y = graph.linear_onto(y, low, b, None);
        match magnitude {
            Some(magnitude) => graph.dora(y, Dora { weight, bias, a, b, scale, magnitude }),
            None => y,
        }
    }
}
