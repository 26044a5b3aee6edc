//! Masked language modelling (Devlin et al. 2018).

use crate::data::{Example, IGNORED};
use crate::tokenizer::TokenizerDef;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use siskin_runtime::TokenId;

/// What is masked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskedSection {
    /// Share of the tokens that the model has to tell.
    pub share: f64,
    /// Share of those that the mask token stands in for.
    pub mask_share: f64,
    /// Share of those that a random token stands in for; the rest stay as they are.
    pub random_share: f64,
    /// Whether all tokens of a word are told, or none.
    pub whole_words: bool,
}

impl Default for MaskedSection {
    fn default() -> Self {
        Self { share: 0.15, mask_share: 0.8, random_share: 0.1, whole_words: false }
    }
}

/// Which tokens go on with the word of the token before.
///
/// A token starts inside a word if it starts with a letter or digit of any script, or with a byte inside a character; so does what
/// follows one that ends so. Punctuation and spaces are words of their own, as for BERT's whole-word masking.
#[derive(Clone, Debug)]
pub struct WordPieces {
    starts_inside: Vec<bool>,
    ends_inside: Vec<bool>,
}

impl WordPieces {
    /// Of a tokenizer's vocabulary.
    pub fn new(tokenizer: &TokenizerDef) -> Self {
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80);
        let mut words = Self {
            starts_inside: tokenizer.pieces.iter().map(|piece| is_word(piece.first())).collect(),
            ends_inside: tokenizer.pieces.iter().map(|piece| is_word(piece.last())).collect(),
        };
        for special in &tokenizer.specials {
            words.starts_inside[special.id as usize] = false;
            words.ends_inside[special.id as usize] = false;
        }
        words
    }

    /// Of a vocabulary whose tokens are words of their own.
    #[cfg(test)]
    pub(super) fn of_single_tokens(vocab_size: usize) -> Self {
        Self { starts_inside: vec![false; vocab_size], ends_inside: vec![false; vocab_size] }
    }

    /// The words of a text, each a range of its tokens.
    fn of<'a>(&'a self, tokens: &'a [TokenId]) -> impl Iterator<Item = &'a [TokenId]> {
        tokens.chunk_by(|left, right| self.ends_inside[*left as usize] && self.starts_inside[*right as usize])
    }
}

/// Makes examples of windows of text.
#[derive(Clone, Debug)]
pub struct Masking {
    /// The recipe's settings.
    pub section: MaskedSection,
    /// The mask token.
    pub mask: TokenId,
    /// Random tokens are drawn from this one on: those before are special.
    pub first_plain: TokenId,
    /// One past the last token that may be drawn.
    pub vocab_size: TokenId,
    /// Where words start, for whole-word masking.
    pub words: WordPieces,
}

impl Masking {
    /// Frames a window with `bos` and `eos`, and hides part of it.
    ///
    /// Each token is chosen on its own with probability `share`, as in BERT's reference for dynamic masking; with whole words,
    /// words are drawn in random order until `share` of the tokens, rounded and at least one, is reached, leaving out words
    /// that would exceed it. What stands in for a chosen token is decided token by token.
    pub fn example(&self, window: &[TokenId], bos: TokenId, eos: TokenId, rng: &mut ChaCha8Rng) -> Example {
        let chosen = match self.section.whole_words {
            true => self.choose_words(window, rng),
            false => window.iter().map(|_| rng.random_bool(self.section.share)).collect(),
        };
        let MaskedSection { mask_share, random_share, .. } = self.section;
        let (mut inputs, mut targets) = (vec![bos], vec![IGNORED]);
        for (&token, chosen) in window.iter().zip(chosen) {
            if !chosen {
                inputs.push(token);
                targets.push(IGNORED);
                continue;
            }
            let way = rng.random::<f64>();
            inputs.push(if way < mask_share {
                self.mask
            } else if way < mask_share + random_share {
                rng.random_range(self.first_plain..self.vocab_size)
            } else {
                token
            });
            targets.push(token);
        }
        inputs.push(eos);
        targets.push(IGNORED);
        Example { inputs, targets, ..Example::default() }
    }

    fn choose_words(&self, window: &[TokenId], rng: &mut ChaCha8Rng) -> Vec<bool> {
        let mut start = 0;
        let mut words: Vec<_> = self
            .words
            .of(window)
            .map(|word| {
                start += word.len();
                start - word.len()..start
            })
            .collect();
        words.shuffle(rng);
        let wanted = ((window.len() as f64 * self.section.share).round_ties_even() as usize).max(1);
        let (mut chosen, mut n) = (vec![false; window.len()], 0);
        for word in words {
            if n + word.len() <= wanted {
                n += word.len();
                chosen[word].fill(true);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::example_rng;

    fn masking(whole_words: bool) -> Masking {
        // Token 10 + n continues a word if n is odd.
        let starts_inside: Vec<bool> = (0..110).map(|id| id >= 10 && id % 2 == 1).collect();
        let words = WordPieces { starts_inside, ends_inside: vec![true; 110] };
        let section = MaskedSection { whole_words, ..MaskedSection::default() };
        Masking { section, mask: 2, first_plain: 10, vocab_size: 110, words }
    }

    #[test]
    fn fifteen_percent_are_told_and_eighty_ten_ten_of_them_hidden() {
        let masking = masking(false);
        let window: Vec<TokenId> = (0..20_000).map(|i| 10 + i * 7 % 100).collect();
        let example = masking.example(&window, 0, 1, &mut example_rng(1, 0));
        assert_eq!((example.inputs[0], *example.inputs.last().unwrap()), (0, 1));
        assert_eq!((example.inputs.len(), example.targets.len()), (20_002, 20_002));
        let (mut told, mut masked, mut same, mut random) = (0.0, 0.0, 0.0, 0.0);
        for (i, token) in window.iter().enumerate() {
            let (input, target) = (example.inputs[i + 1], example.targets[i + 1]);
            if target == IGNORED {
                assert_eq!(input, *token);
                continue;
            }
            assert_eq!(target, *token);
            told += 1.0;
            match input {
                2 => masked += 1.0,
                input if input == *token => same += 1.0,
                input => {
                    assert!(input >= 10);
                    random += 1.0;
                }
            }
        }
        // Five standard deviations or more each.
        assert!(f64::abs(told / 20_000.0 - 0.15) < 0.013, "{told}");
        assert!(f64::abs(masked / told - 0.8) < 0.037, "{masked} of {told}");
        assert!(f64::abs(random / told - 0.1) < 0.028 && f64::abs(same / told - 0.1) < 0.028, "{random} and {same}");
    }

    #[test]
    fn whole_words_are_told_whole_up_to_the_share() {
        let masking = masking(true);
        let window: Vec<TokenId> = (0..200).map(|i| 10 + (i * 37 % 100)).collect();
        for idx in 0..50 {
            let example = masking.example(&window, 0, 1, &mut example_rng(3, idx));
            let told = |i: usize| example.targets[i + 1] != IGNORED;
            let n = (0..200).filter(|i| told(*i)).count();
            assert!((27..=30).contains(&n), "{n} tokens of 200 told");
            for (i, token) in window.iter().enumerate().skip(1) {
                let joined = masking.words.starts_inside[*token as usize];
                assert!(!joined || told(i) == told(i - 1), "the word at {i} was cut");
            }
        }
    }
}
