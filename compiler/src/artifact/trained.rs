//! A model of any architecture in memory: what training writes and goes on from.

use super::{NamedWeights, Problem, TokenizerSource, Weight};
use crate::model::Architecture;
use crate::tensor::{ParamLayout, ParamSpec, Params};
use siskin_runtime::TokenId;

/// Tokens with a meaning of their own; `None` where a model has no such token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a text.
    pub bos: Option<TokenId>,
    /// Ends a text.
    pub eos: Option<TokenId>,
    /// Stands for nothing.
    pub pad: Option<TokenId>,
    /// What a decoder reads first, in an encoder-decoder.
    pub decoder_start: Option<TokenId>,
}

/// A model of any architecture. [`Checkpoint`](super::Checkpoint) is one that the runtime can run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedModel {
    /// What it is made of.
    pub architecture: Architecture,
    /// Weights by the names of the model's parameter layout.
    pub tensors: NamedWeights,
    /// The tokenizer's source.
    pub tokenizer: TokenizerSource,
    /// Special tokens.
    pub specials: SpecialIds,
    /// A classifier's labels, by number; empty for other models.
    pub labels: Vec<String>,
}

/// Parameters by name, each with its extents.
pub fn named_weights(params: &Params) -> NamedWeights {
    let weight = |spec: &ParamSpec| {
        let mut data = vec![0.0; spec.range.len()];
        params.weight_of(spec).widen_into(&mut data);
        Weight { shape: shape_of(spec), data }
    };
    params.layout.specs().iter().map(|spec| (spec.name.clone(), weight(spec))).collect()
}

/// The extents of a parameter: rows and columns, or the length of a vector.
pub(crate) fn shape_of(spec: &ParamSpec) -> Vec<usize> {
    if spec.is_vector { vec![spec.cols] } else { vec![spec.rows, spec.cols] }
}

impl TrainedModel {
    /// The weights in the places of a model's layout.
    ///
    /// # Errors
    /// [`Problem::MissingTensor`] or [`Problem::WrongShape`] where the layout is another model's.
    pub fn params(&self, layout: &ParamLayout) -> Result<Params, Problem> {
        let mut params = Params::zeros(layout.clone());
        self.fill(&mut params, layout.specs().len())?;
        Ok(params)
    }

    /// Puts the weights in the places of the first `n_params` parameters.
    ///
    /// # Errors
    /// As [`TrainedModel::params`].
    pub fn fill(&self, params: &mut Params, n_params: usize) -> Result<(), Problem> {
        let Params { layout, values, .. } = params;
        for spec in &layout.specs()[..n_params] {
            let name = || spec.name.clone();
            let weight = self.tensors.get(&spec.name).ok_or_else(|| Problem::MissingTensor { name: name() })?;
            let expected = shape_of(spec);
            if weight.shape != expected {
                return Err(Problem::WrongShape { name: name(), expected, found: weight.shape.clone() });
            }
            values[spec.range.clone()].copy_from_slice(&weight.data);
        }
        Ok(())
    }
}
