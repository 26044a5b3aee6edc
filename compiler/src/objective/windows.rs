//! Examples made of windows of a long text.

use super::{Masking, SpanCorruption};
use crate::data::{DataError, Example, ExampleSource, IGNORED, TokenStore, evaluation_windows, example_rng};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use siskin_runtime::TokenId;

/// Seed of what is random about validation examples: they are the same in every run and at every evaluation.
pub(super) const VALIDATION_SEED: u64 = 0x7661_6c69_6461_7465;

/// What becomes of a window.
#[derive(Clone, Debug)]
pub enum Noise {
    /// Each token is told from those before it.
    Causal,
    /// As causal, but a random part at the start is read in both directions and not told (Raffel et al. 2019).
    Prefix,
    /// Some tokens are hidden and told from those on both sides.
    Masked(Masking),
    /// Pieces are cut out and told by a decoder.
    SpanCorruption(SpanCorruption),
}

/// Tokens that frame what a model reads and tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Begins a text, and what a decoder reads.
    pub bos: TokenId,
    /// Ends a text.
    pub eos: TokenId,
}

impl Noise {
    /// Tokens of the longest window for a model with `context_len` positions.
    pub fn window(&self, context_len: usize) -> usize {
        match self {
            Self::Causal | Self::Prefix => context_len + 1,
            Self::Masked(_) => context_len.saturating_sub(2).max(1),
            Self::SpanCorruption(corruption) => corruption.section.lengths(context_len).window,
        }
    }

    /// Fewest tokens of a window that an example can be made of.
    pub fn window_min(&self) -> usize {
        match self {
            Self::Masked(_) => 1,
            Self::Causal | Self::Prefix | Self::SpanCorruption(_) => 2,
        }
    }

    /// Tokens that a window shares with the next, for each to be told once: a causal model's last target is its next first input.
    pub fn overlap(&self) -> usize {
        match self {
            Self::Causal | Self::Prefix => 1,
            Self::Masked(_) | Self::SpanCorruption(_) => 0,
        }
    }

    /// Positions that the example of a window takes: the longer of what is read and what is told.
    pub fn positions(&self, window: usize) -> usize {
        match self {
            Self::Causal | Self::Prefix => window - 1,
            Self::Masked(_) => window + 2,
            Self::SpanCorruption(corruption) => {
                let lengths = corruption.section.lengths_of(window);
                lengths.inputs.max(lengths.targets)
            }
        }
    }

    /// Makes the example of a window of at least [`Noise::window_min`] tokens.
    pub fn example(&self, window: &[TokenId], frame: Frame, rng: &mut ChaCha8Rng) -> Example {
        let Frame { bos, eos } = frame;
        match self {
            Self::Causal => causal(window),
            Self::Prefix => {
                let mut example = causal(window);
                // At least one token is told, and at least one is read first.
                example.prefix_len = rng.random_range(1..example.inputs.len().max(2));
                example.targets[..example.prefix_len - 1].fill(IGNORED);
                example
            }
            Self::Masked(masking) => masking.example(window, bos, eos, rng),
            Self::SpanCorruption(corruption) => corruption.example(window, bos, eos, rng),
        }
    }
}

/// Windows at random places of a token stream.
#[derive(Debug)]
pub struct Windows {
    tokens: TokenStore,
    window: usize,
    noise: Noise,
    frame: Frame,
    validation: Vec<Example>,
}

impl Windows {
    /// Windows for a model with `context_len` positions, of a training part and a validation part; a stretch of the
    /// validation part that is too short for an example is left out.
    ///
    /// # Errors
    /// [`DataError::TooShort`] if the training part does not have one whole window.
    pub fn new(
        (tokens, validation): (TokenStore, &[TokenId]),
        context_len: usize,
        noise: Noise,
        frame: Frame,
    ) -> Result<Self, DataError> {
        let window = noise.window(context_len);
        let n_tokens = tokens.n_tokens();
        if n_tokens < window {
            return Err(DataError::TooShort { part: "training", n_tokens, needed: window });
        }
        let mut windows = Self { tokens, window, noise, frame, validation: Vec::new() };
        windows.validation = windows.validation_of(validation);
        Ok(windows)
    }

    fn validation_of(&self, tokens: &[TokenId]) -> Vec<Example> {
        let stretches: Vec<&[TokenId]> = match &self.noise {
            Noise::Causal => {
                let windows = evaluation_windows(tokens, self.window - 1);
                return windows.map(|(inputs, targets)| Example::causal(inputs, targets)).collect();
            }
            Noise::Prefix => tokens.chunks(self.window).filter(|part| part.len() > 2).collect(),
            Noise::Masked(_) => tokens.chunks(self.window).collect(),
            Noise::SpanCorruption(_) => tokens.chunks(self.window).filter(|part| part.len() > 1).collect(),
        };
        let examples = stretches.into_iter().zip(0..);
        examples
            .map(|(part, idx)| self.noise.example(part, self.frame, &mut example_rng(VALIDATION_SEED, idx)))
            .collect()
    }
}

impl Windows {
    /// The training part.
    pub fn tokens(&self) -> &TokenStore {
        &self.tokens
    }
}

impl ExampleSource for Windows {
    fn examples(&self, seed: u64, idx: u64) -> Vec<Example> {
        let mut rng = example_rng(seed, idx);
        let places = self.tokens.n_tokens() - self.window + 1;
        let at = rng.random_range(0..places as u64) as usize;
        vec![self.noise.example(&self.tokens.tokens(at..at + self.window), self.frame, &mut rng)]
    }

    fn n_train_tokens(&self) -> usize {
        self.tokens.n_tokens()
    }

    fn validation(&self) -> &[Example] {
        &self.validation
    }

    fn capacity(&self) -> usize {
        self.noise.positions(self.window)
    }

    fn passes(&self, n: u64) -> f64 {
        n as f64 * (self.window - self.noise.overlap()) as f64 / self.tokens.n_tokens() as f64
    }

    fn document_lens(&self) -> Vec<usize> {
        self.tokens.document_lens()
    }
}

fn causal(window: &[TokenId]) -> Example {
    Example::causal(&window[..window.len() - 1], &window[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(n: TokenId, noise: Noise) -> Windows {
        let validation: Vec<TokenId> = (500..523).collect();
        let tokens = TokenStore::of_one((10..10 + n).collect());
        Windows::new((tokens, &validation), 7, noise, Frame { bos: 0, eos: 1 }).unwrap()
    }

    #[test]
    fn an_example_depends_on_its_number_alone_and_every_place_is_drawn() {
        let source = windows(10, Noise::Causal);
        let mut starts = std::collections::BTreeSet::new();
        for idx in 0..60 {
            let example = source.examples(1, idx).remove(0);
            assert_eq!(source.examples(1, idx), std::slice::from_ref(&example));
            assert_eq!(example.inputs.len(), 7);
            assert!(example.inputs.iter().zip(&example.targets).all(|(input, target)| input + 1 == *target));
            starts.insert(example.inputs[0]);
        }
        assert_eq!(starts, [10, 11, 12].into());
        assert!((0..60).any(|idx| source.examples(1, idx) != source.examples(2, idx)));
        let tokens = TokenStore::of_one((0..7).collect());
        assert!(Windows::new((tokens, &[]), 7, Noise::Causal, Frame { bos: 0, eos: 1 }).is_err());
    }

    #[test]
    fn a_prefix_is_read_and_the_rest_is_told() {
        let source = windows(40, Noise::Prefix);
        let mut lens = std::collections::BTreeSet::new();
        for idx in 0..200 {
            let Example { inputs, prefix_len, targets, .. } = source.examples(1, idx).remove(0);
            lens.insert(prefix_len);
            for (i, target) in targets.iter().enumerate() {
                assert_eq!(*target == IGNORED, i + 1 < prefix_len, "{prefix_len} {i}");
                assert!(*target == IGNORED || *target == inputs[i] + 1);
            }
        }
        assert_eq!(lens, (1..7).collect());
        assert_eq!(source.validation().len(), 3);
    }

    #[test]
    fn a_causal_validation_part_tells_every_token_but_the_first() {
        let targets: Vec<TokenId> =
            windows(40, Noise::Causal).validation().iter().flat_map(|example| example.targets.clone()).collect();
        assert_eq!(targets, (501..523).collect::<Vec<TokenId>>());
    }
}
