//! Trainable models: parameters by Hugging Face name, their first values, and the graph of a forward pass.
//!
//! An [`Architecture`] says what a model is made of; [`build`] makes the [`Model`] for it.

pub mod architecture;
pub mod gru;
pub(crate) mod names;
mod random;
pub mod transformer;

pub use architecture::{
    Architecture, ArchitectureError, Family, FeedForward, Head, Kind, NormKind, NormPlace, Positions,
};
pub use gru::Gru;
pub use transformer::Transformer;

pub use crate::tensor::ops::LossSums;

use crate::data::Example;
use crate::peft::{PeftConfig, PeftError};
use crate::tensor::{Dtype, Graph, ParamGrads, ParamLayout, Params, Tape, Var};
use siskin_runtime::TokenId;

/// Something that can be trained: named parameters, and a loss over examples.
pub trait Model: Send + Sync {
    /// What it is made of.
    fn architecture(&self) -> &Architecture;

    /// Names, shapes and places of the parameters.
    fn layout(&self) -> &ParamLayout;

    /// How many of the layout's parameters, from the first on, are the model's own; what is trained beside it follows.
    fn n_own_params(&self) -> usize {
        self.layout().specs().len()
    }

    /// Positions of the context that what is trained beside the model takes from every text.
    fn n_virtual_tokens(&self) -> usize {
        0
    }

    /// First values.
    fn init(&self, seed: u64) -> Params;

    /// Fills what is trained beside the model, whose own values are there already; `text` is what a soft prompt may begin as.
    fn init_beside(&self, _params: &mut Params, _seed: u64, _text: &[TokenId]) {}

    /// The logits of each position that the model says something about: inputs, or decoder inputs if there is a decoder
    /// beside an encoder, or one row an example for a classifier. Nothing is dropped.
    ///
    /// # Panics
    /// As [`Model::loss`], or if the model has no head.
    fn logits(&self, graph: &mut Graph<'_>, examples: &[Example]) -> Var;

    /// Puts the loss of some examples on the tape: the variable to go back from, whose gradient is that of `options.weight` times the
    /// summed loss, and what the summed loss is made of.
    ///
    /// # Panics
    /// If an example does not suit the model: a token outside its vocabulary, more positions than its context, too few targets.
    fn loss(&self, graph: &mut Graph<'_>, examples: &[Example], options: LossOptions) -> (Var, LossSums);

    /// Adds the gradient of [`Model::loss`] to those of the pass, and returns the sums.
    ///
    /// # Panics
    /// As [`Model::loss`].
    fn accumulate(&self, pass: Pass<'_>, examples: &[Example], options: LossOptions) -> LossSums {
        accumulate_at_once(self, pass, examples, options)
    }
}

/// What a pass forward and back works with.
pub struct Pass<'a> {
    /// Memory.
    pub tape: &'a mut Tape,
    /// The parameters.
    pub params: &'a Params,
    /// Where their gradients are added.
    pub grads: &'a mut ParamGrads,
    /// Decides which activations are dropped.
    pub dropout_key: u64,
}

impl Pass<'_> {
    /// Runs a part of the pass on an empty tape.
    fn run<T>(&mut self, dropout_key: u64, part: impl FnOnce(&mut Graph<'_>) -> T) -> T {
        let mut graph = self.tape.record(self.params, self.grads);
        graph.seed_dropout(dropout_key);
        part(&mut graph)
    }
}

/// Forward, then back, with all activations kept.
fn accumulate_at_once(
    model: &(impl Model + ?Sized),
    mut pass: Pass<'_>,
    examples: &[Example],
    options: LossOptions,
) -> LossSums {
    pass.run(pass.dropout_key, |graph| {
        graph.store_sections_as(options.activations_dtype);
        let (loss, sums) = model.loss(graph, examples, options);
        graph.backward(loss, &[1.0]);
        sums
    })
}

/// How a loss is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// Multiplies the gradient: one over the number of targets of the whole step.
    pub weight: f32,
    /// Share of a target's probability that is spread over the vocabulary.
    pub label_smoothing: f32,
    /// Share of activations that are dropped.
    pub dropout: f32,
    /// Keep what goes into each layer only, and run each layer again on the way back. Models without layers to speak of, the recurrent
    /// ones, keep everything all the same.
    pub recompute_activations: bool,
    /// What is kept for the way back is stored as this; but for statistics of norms and attention, which are few and sensitive.
    pub activations_dtype: Dtype,
}

impl LossOptions {
    /// The plain negative log-likelihood times `weight`.
    pub fn plain(weight: f32) -> Self {
        Self { weight, label_smoothing: 0.0, dropout: 0.0, recompute_activations: false, activations_dtype: Dtype::F32 }
    }
}

/// Lays out the model of an architecture.
///
/// # Errors
/// What [`Architecture::validate`] finds.
pub fn build(architecture: &Architecture) -> Result<Box<dyn Model>, ArchitectureError> {
    match architecture.family.is_recurrent() {
        true => Ok(Box::new(Gru::new(architecture)?)),
        false => Ok(Box::new(Transformer::new(architecture)?)),
    }
}

/// Why an architecture and a `[peft]` make no model.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The architecture's parts do not go together.
    #[error("[model]: {0}")]
    Architecture(#[from] ArchitectureError),
    /// What is to be trained is not there, or cannot be.
    #[error("[peft]: {0}")]
    Peft(#[from] PeftError),
}

/// Lays out the model of an architecture of which only what `peft` says is trained; all of it where that says nothing.
///
/// # Errors
/// [`BuildError`]: what [`Architecture::validate`] finds, or what `peft` cannot mean in this model.
pub fn build_for(architecture: &Architecture, peft: Option<&PeftConfig>) -> Result<Box<dyn Model>, BuildError> {
    if architecture.family.is_recurrent() {
        let mut model = Gru::new(architecture)?;
        peft.map_or(Ok(()), |peft| model.adapt(peft))?;
        return Ok(Box::new(model));
    }
    let mut model = Transformer::new(architecture)?;
    peft.map_or(Ok(()), |peft| model.adapt(peft))?;
    Ok(Box::new(model))
}

#[cfg(test)]
mod tests;
