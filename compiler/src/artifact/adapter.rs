//! What was trained beside a model: low-rank updates of its projections, or embeddings that go before every prompt.

use siskin_runtime::ModelConfig;

use super::{Checkpoint, Problem, Weight, names};

/// A projection of a Llama's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Projection {
    /// Of queries.
    Q,
    /// Of keys.
    K,
    /// Of values.
    V,
    /// Of attention's output.
    O,
    /// Through SiLU.
    Gate,
    /// Beside the gate.
    Up,
    /// Back to the stream.
    Down,
}

impl Projection {
    /// Every projection, in the order in which a layer uses them.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The name within a layer, as Hugging Face has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => names::Q_PROJ,
            Self::K => names::K_PROJ,
            Self::V => names::V_PROJ,
            Self::O => names::O_PROJ,
            Self::Gate => names::GATE_PROJ,
            Self::Up => names::UP_PROJ,
            Self::Down => names::DOWN_PROJ,
        }
    }

    /// Outputs and inputs.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        match self {
            Self::Q => (config.q_dim(), config.dim),
            Self::K | Self::V => (config.kv_dim(), config.dim),
            Self::O => (config.dim, config.q_dim()),
            Self::Gate | Self::Up => (config.hidden_dim, config.dim),
            Self::Down => (config.dim, config.hidden_dim),
        }
    }
}

/// A low-rank update `b . a` of one projection, the training's factor included.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRankPair {
    /// The layer.
    pub layer_idx: usize,
    /// The projection.
    pub projection: Projection,
    /// `[rank, inputs]`.
    pub a: Weight,
    /// `[outputs, rank]`, scaled.
    pub b: Weight,
}

/// An adapter of a Llama, in `f32`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapter {
    /// At most one a layer and projection.
    pub pairs: Vec<LowRankPair>,
    /// Embeddings before every prompt, `[n_virtual, dim]`.
    pub prompt: Option<Weight>,
}

impl Adapter {
    /// Checks that every matrix has the shape that a model of this shape asks for, and is finite.
    ///
    /// # Errors
    /// The first [`Problem`].
    pub fn validate(&self, config: &ModelConfig) -> Result<(), Problem> {
        for pair in &self.pairs {
            let name = |matrix: &str| format!("{}.lora_{matrix}", names::layer(pair.layer_idx, pair.projection.name()));
            let (outputs, inputs) = pair.projection.shape(config);
            if pair.layer_idx >= config.n_layers {
                return Err(Problem::UnexpectedTensor { name: name("A") });
            }
            let rank = pair.a.shape.first().copied().unwrap_or(0);
            check(&pair.a, [rank.max(1), inputs], name("A"))?;
            check(&pair.b, [outputs, rank], name("B"))?;
        }
        match &self.prompt {
            None => Ok(()),
            Some(prompt) => {
                let n_virtual = prompt.shape.first().copied().unwrap_or(0);
                check(prompt, [n_virtual.max(1), config.dim], "prompt_embeddings".to_owned())
            }
        }
    }

    /// Adds the low-rank updates to the weights of `checkpoint`, for which [`Adapter::validate`] found nothing: the model that the adapter
    /// makes of it, but for a soft prompt.
    pub fn merge_into(&self, checkpoint: &mut Checkpoint) {
        for pair in &self.pairs {
            let name = names::layer(pair.layer_idx, pair.projection.name());
            let Some(weight) = checkpoint.tensors.get_mut(&name) else { continue };
            let (rank, inputs) = (pair.a.shape[0], pair.a.shape[1]);
            for (row, b) in weight.data.chunks_mut(inputs).zip(pair.b.data.chunks(rank)) {
                for (b, a) in b.iter().zip(pair.a.data.chunks(inputs)) {
                    row.iter_mut().zip(a).for_each(|(w, a)| *w += b * a);
                }
            }
        }
    }
}

fn check(weight: &Weight, expected: [usize; 2], name: String) -> Result<(), Problem> {
    if weight.shape != expected {
        return Err(Problem::WrongShape { name, expected: expected.to_vec(), found: weight.shape.clone() });
    }
    match weight.data.iter().position(|value| !value.is_finite()) {
        Some(element_idx) => Err(Problem::NotFinite { name, element_idx }),
        None => Ok(()),
    }
}
