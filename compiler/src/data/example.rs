//! One sequence with what a model should say about it.

use siskin_runtime::TokenId;

/// A target that is not trained on.
pub const IGNORED: TokenId = TokenId::MAX;

/// One sequence. Sequences of any lengths make a batch: there is no padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// What a decoder-only model or an encoder reads.
    pub inputs: Vec<TokenId>,
    /// Positions at the start of `inputs` that all see each other, for a prefix language model; 0 for the others.
    pub prefix_len: usize,
    /// What the decoder of an encoder-decoder reads; empty for the others.
    pub decoder_inputs: Vec<TokenId>,
    /// What to say, or [`IGNORED`]: at each position of `inputs`, or of `decoder_inputs` if there is a decoder; a single label
    /// for a classifier.
    pub targets: Vec<TokenId>,
}

impl Example {
    /// A sequence for a causal language model: `targets[i]` follows `inputs[i]`.
    pub fn causal(inputs: &[TokenId], targets: &[TokenId]) -> Self {
        Self { inputs: inputs.to_vec(), targets: targets.to_vec(), ..Self::default() }
    }

    /// Tokens that the model reads.
    pub fn n_tokens(&self) -> usize {
        self.inputs.len() + self.decoder_inputs.len()
    }

    /// Positions that it takes: the longer of what is read and what a decoder tells.
    pub fn n_positions(&self) -> usize {
        self.inputs.len().max(self.decoder_inputs.len())
    }

    /// Targets that are trained on.
    pub fn n_targets(&self) -> usize {
        self.targets.iter().filter(|target| **target != IGNORED).count()
    }
}

/// One sequence is a row of its own, where rows of several are taken.
impl AsRef<[Example]> for Example {
    fn as_ref(&self) -> &[Example] {
        std::slice::from_ref(self)
    }
}
