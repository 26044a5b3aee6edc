//! Recurrent baselines: a GRU language model, and a GRU encoder-decoder whose decoder starts from the encoder's last states
//! (Sutskever et al. 2014).

use super::architecture::{Architecture, ArchitectureError, Kind};
use super::random::normal;
use super::{LossOptions, LossSums, Model};
use crate::data::{Example, IGNORED};
use crate::peft::{PeftConfig, PeftError, names::matching_params};
use crate::tensor::ops::{Activation, CrossEntropy};
use crate::tensor::{Graph, ParamId, ParamLayout, Params, Segments, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_runtime::TokenId;

/// A recurrent model: which parameter goes where. Weights are named as PyTorch's `GRU` names its own.
#[derive(Clone, Debug)]
pub struct Gru {
    architecture: Architecture,
    layout: ParamLayout,
    embedding: ParamId,
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    head: ParamId,
}

#[derive(Clone, Copy, Debug)]
struct Layer {
    input_weight: ParamId,
    input_bias: ParamId,
    state_weight: ParamId,
    state_bias: ParamId,
}

impl Gru {
    /// Lays out the parameters of a recurrent model.
    ///
    /// # Errors
    /// What [`Architecture::validate`] finds; an encoder and a decoder of different depths; a tied head on an embedding of another
    /// width.
    ///
    /// # Panics
    /// If the architecture is not recurrent.
    pub fn new(architecture: &Architecture) -> Result<Self, ArchitectureError> {
        assert!(architecture.family.is_recurrent(), "a recurrent model");
        architecture.validate()?;
        let a = architecture;
        let family = a.family.name();
        if a.family.kind() == Kind::EncoderDecoder && a.n_encoder_layers != a.n_decoder_layers {
            return Err(ArchitectureError::Unsuited { family, what: "an encoder of another depth than its decoder" });
        }
        if a.tied_head && a.embedding_dim != a.dim {
            return Err(ArchitectureError::Unsuited { family, what: "a tied head on an embedding of another width" });
        }
        let mut layout = ParamLayout::default();
        let embedding = layout.matrix("embedding.weight", a.vocab_size, a.embedding_dim);
        let mut stack = |name: &str, n_layers: usize| -> Vec<Layer> {
            let layer = |idx: usize| {
                let inputs = if idx == 0 { a.embedding_dim } else { a.dim };
                Layer {
                    input_weight: layout.matrix(format!("{name}.weight_ih_l{idx}"), 3 * a.dim, inputs),
                    state_weight: layout.matrix(format!("{name}.weight_hh_l{idx}"), 3 * a.dim, a.dim),
                    input_bias: layout.vector(format!("{name}.bias_ih_l{idx}"), 3 * a.dim),
                    state_bias: layout.vector(format!("{name}.bias_hh_l{idx}"), 3 * a.dim),
                }
            };
            (0..n_layers).map(layer).collect()
        };
        let encoder = stack("encoder", a.n_encoder_layers);
        let decoder = stack("decoder", a.n_decoder_layers);
        let head = if a.tied_head { embedding } else { layout.matrix("head.weight", a.vocab_size, a.dim) };
        Ok(Self { architecture: a.clone(), layout, embedding, encoder, decoder, head })
    }

    /// Freezes what `peft` does not train.
    ///
    /// # Errors
    /// [`PeftError`]: what is to be trained is not there, or would lie beside the model.
    pub fn adapt(&mut self, peft: &PeftConfig) -> Result<(), PeftError> {
        let PeftConfig::Selective(config) = peft else {
            let (kind, family) = (peft.name(), self.architecture.family.name());
            return Err(PeftError::Unsuited(format!("{kind} is for transformers, and this model is a {family}")));
        };
        let is_trained = matching_params(&config.params, &self.layout)?;
        self.layout.freeze_listed(&is_trained);
        Ok(())
    }

    /// The states of the decoder's last layer: a row for each input, or for each decoder input where there is an encoder.
    fn hidden(&self, graph: &mut Graph<'_>, examples: &[Example], dropout: f32) -> Var {
        let inputs = examples.iter().map(|example| example.inputs.as_slice());
        if self.encoder.is_empty() {
            return self.stack(graph, &self.decoder, inputs, &[], dropout).0;
        }
        let (_, states) = self.stack(graph, &self.encoder, inputs, &[], dropout);
        let outputs = examples.iter().map(|example| example.decoder_inputs.as_slice());
        self.stack(graph, &self.decoder, outputs, &states, dropout).0
    }

    /// Runs a stack over some sequences: all states of its last layer, and each layer's last states.
    fn stack<'e>(
        &self,
        graph: &mut Graph<'_>,
        layers: &[Layer],
        sequences: impl Iterator<Item = &'e [TokenId]> + Clone,
        initial: &[Var],
        dropout: f32,
    ) -> (Var, Vec<Var>) {
        let segments = Segments::new(sequences.clone().map(<[TokenId]>::len));
        let (longest, room) = (segments.max_len(), self.architecture.context_len);
        assert!(longest <= room, "a sequence of {longest} tokens, but the context holds {room}");
        let tokens: Vec<TokenId> = sequences.flatten().copied().collect();
        let last_rows: Vec<usize> = segments.iter().map(|rows| rows.end.saturating_sub(1)).collect();
        let mut x = graph.embedding(&tokens, self.embedding);
        let mut states = Vec::with_capacity(layers.len());
        for (idx, layer) in layers.iter().enumerate() {
            x = graph.section(Some(x), |graph| {
                let x = graph.dropout(x, dropout);
                let gates = graph.linear(x, layer.input_weight, Some(layer.input_bias), Activation::None);
                let initial = initial.get(idx).copied();
                let states = graph.gru(gates, layer.state_weight, layer.state_bias, &segments, initial);
                // The way back goes by the gates as they turned out.
                graph.release(gates);
                states
            });
            states.push(graph.gather_rows(x, &last_rows));
        }
        (graph.dropout(x, dropout), states)
    }
}

impl Model for Gru {
    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Recurrent weights uniform within `1 / sqrt(dim)`, as PyTorch's; embedding and head normal with that deviation; biases zero.
    fn init(&self, seed: u64) -> Params {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut params = Params::zeros(self.layout.clone());
        let bound = 1.0 / (self.architecture.dim as f64).sqrt();
        for spec in self.layout.specs().iter().filter(|spec| !spec.is_vector) {
            let is_table = spec.name.ends_with(".weight");
            for value in &mut params.values[spec.range.clone()] {
                *value = if is_table { normal(&mut rng) * bound } else { rng.random_range(-bound..bound) } as f32;
            }
        }
        params
    }

    fn logits(&self, graph: &mut Graph<'_>, examples: &[Example]) -> Var {
        let hidden = self.hidden(graph, examples, 0.0);
        graph.linear(hidden, self.head, None, Activation::None)
    }

    fn loss(&self, graph: &mut Graph<'_>, examples: &[Example], options: LossOptions) -> (Var, LossSums) {
        let mut x = self.hidden(graph, examples, options.dropout);
        let targets = examples.iter().flat_map(|example| &example.targets).copied().enumerate();
        let (rows, targets): (Vec<usize>, Vec<TokenId>) = targets.filter(|(_, target)| *target != IGNORED).unzip();
        if rows.len() < graph.shape(x).0 {
            x = graph.gather_rows(x, &rows);
        }
        let loss = CrossEntropy { weight: options.weight, label_smoothing: options.label_smoothing };
        graph.linear_cross_entropy(x, self.head, None, &targets, loss)
    }
}
