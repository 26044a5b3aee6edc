//! Span corruption with sentinels (Raffel et al. 2019).

use crate::data::Example;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use siskin_runtime::TokenId;

/// How much is cut out, in how long pieces.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpanSection {
    /// Share of the tokens that are cut out.
    pub noise_density: f64,
    /// Mean tokens of a cut.
    pub mean_span_length: f64,
}

impl Default for SpanSection {
    fn default() -> Self {
        Self { noise_density: 0.15, mean_span_length: 3.0 }
    }
}

/// Tokens of a window and of what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLengths {
    /// Tokens of text.
    pub window: usize,
    /// Tokens that the encoder reads: the rest of the text, a sentinel a cut, the end.
    pub inputs: usize,
    /// Tokens that the decoder tells: the cuts, a sentinel before each, the end.
    pub targets: usize,
}

impl SpanSection {
    /// Tokens cut out of a window, and the number of cuts; both at least 1, and at least one token stays.
    pub fn cuts(&self, window: usize) -> (usize, usize) {
        let n_noise = (window as f64 * self.noise_density).round_ties_even() as usize;
        let n_noise = n_noise.clamp(1, window.saturating_sub(1).max(1));
        let n_spans = (n_noise as f64 / self.mean_span_length).round_ties_even() as usize;
        (n_noise, n_spans.clamp(1, n_noise).min(window.saturating_sub(n_noise).max(1)))
    }

    /// What becomes of a window of `window` tokens.
    pub fn lengths_of(&self, window: usize) -> SpanLengths {
        let (n_noise, n_spans) = self.cuts(window);
        SpanLengths { window, inputs: window - n_noise + n_spans + 1, targets: n_noise + n_spans + 1 }
    }

    /// The longest window of which neither the encoder's input nor the decoder's is longer than `len_max`.
    ///
    /// The same window as by the reference's `compute_input_and_target_lengths`, wherever that one's fits.
    pub fn lengths(&self, len_max: usize) -> SpanLengths {
        let fits = |lengths: &SpanLengths| lengths.inputs <= len_max && lengths.targets <= len_max;
        (2..).map(|window| self.lengths_of(window)).take_while(fits).last().unwrap_or(self.lengths_of(2))
    }
}

/// Makes examples of windows of text.
#[derive(Clone, Copy, Debug)]
pub struct SpanCorruption {
    /// The recipe's settings.
    pub section: SpanSection,
    /// The first cut's sentinel; those of later cuts have the ids after it.
    pub first_sentinel: TokenId,
}

impl SpanCorruption {
    /// Cuts pieces out of a window of at least two tokens: the encoder reads the rest with a sentinel in each gap, and `eos`; the
    /// decoder, which reads `bos` first, tells each sentinel and what was in its gap, and `eos`.
    pub fn example(&self, window: &[TokenId], bos: TokenId, eos: TokenId, rng: &mut ChaCha8Rng) -> Example {
        let (n_noise, n_spans) = self.section.cuts(window.len());
        let kept = random_parts(window.len() - n_noise, n_spans, rng);
        let cut = random_parts(n_noise, n_spans, rng);
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        let mut rest = window;
        for ((kept, cut), sentinel) in kept.into_iter().zip(cut).zip(self.first_sentinel..) {
            let (text, after) = rest.split_at(kept);
            let (noise, after) = after.split_at(cut);
            inputs.extend_from_slice(text);
            inputs.push(sentinel);
            targets.push(sentinel);
            targets.extend_from_slice(noise);
            rest = after;
        }
        inputs.extend_from_slice(rest);
        inputs.push(eos);
        targets.push(eos);
        let decoder_inputs = std::iter::once(bos).chain(targets.iter().copied()).take(targets.len()).collect();
        Example { inputs, prefix_len: 0, decoder_inputs, targets }
    }
}

/// Cuts `n` into `n_parts` positive parts (fewer if `n` has not as many), all ways with the same probability.
fn random_parts(n: usize, n_parts: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut is_border: Vec<bool> = (1..n).map(|i| i < n_parts).collect();
    is_border.shuffle(rng);
    let borders = is_border.iter().enumerate().filter(|(_, is_border)| **is_border).map(|(i, _)| i + 1);
    let ends: Vec<usize> = borders.chain([n]).collect();
    ends.iter().scan(0, |start, &end| Some(end - std::mem::replace(start, end))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::example_rng;

    #[test]
    fn lengths_are_the_references() {
        // T5's own numbers: inputs of 512 come from 568 tokens and give targets of 114.
        let lengths = SpanSection::default().lengths(512);
        assert_eq!(lengths, SpanLengths { window: 568, inputs: 512, targets: 114 });
        // More, from the reference's functions run on their own.
        for (density, mean, inputs, window, targets) in [
            (0.15, 3.0, 128, 141, 29),
            (0.15, 3.0, 1024, 1137, 229),
            (0.5, 3.0, 64, 94, 64),
            (0.3, 8.0, 256, 346, 118),
            (0.15, 3.0, 64, 70, 14),
            (0.5, 2.0, 100, 132, 100),
            (0.5, 4.0, 81, 128, 81),
            (0.5, 1.5, 33, 38, 33),
        ] {
            let lengths = SpanSection { noise_density: density, mean_span_length: mean }.lengths(inputs);
            assert_eq!((lengths.window, lengths.targets), (window, targets), "{density} {mean} {inputs}");
        }
    }

    #[test]
    fn an_example_holds_the_whole_window_and_has_the_promised_lengths() {
        let (first_sentinel, bos, eos) = (900, 0, 1);
        for (n, idx) in (2..80).chain([568, 568, 568]).zip(0..) {
            let section = SpanSection::default();
            let window: Vec<TokenId> = (0..n as TokenId).map(|i| 10 + i).collect();
            let corruption = SpanCorruption { section, first_sentinel };
            let example = corruption.example(&window, bos, eos, &mut example_rng(5, idx));
            let lengths = section.lengths_of(n);
            assert_eq!((example.inputs.len(), example.targets.len()), (lengths.inputs, lengths.targets), "{n}");
            assert_eq!(example.decoder_inputs[0], bos);
            assert_eq!(example.decoder_inputs[1..], example.targets[..lengths.targets - 1]);
            // Put each gap's tokens back where its sentinel stands.
            let mut restored = Vec::new();
            for &token in &example.inputs[..lengths.inputs - 1] {
                if token < first_sentinel {
                    restored.push(token);
                    continue;
                }
                let at = example.targets.iter().position(|target| *target == token).unwrap();
                let gap =
                    example.targets[at + 1..].iter().take_while(|token| **token < first_sentinel && **token != eos);
                restored.extend(gap);
            }
            assert_eq!(restored, window);
        }
    }

    #[test]
    fn parts_are_positive_and_every_cut_is_possible() {
        let mut seen = std::collections::BTreeSet::new();
        for idx in 0..400 {
            let parts = random_parts(6, 3, &mut example_rng(1, idx));
            assert!(parts.len() == 3 && parts.iter().sum::<usize>() == 6 && parts.iter().all(|part| *part > 0));
            seen.insert(parts);
        }
        assert_eq!(seen.len(), 10, "five places for two borders");
    }
}
