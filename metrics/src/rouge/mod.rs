//! ROUGE (Lin, 2004), as rouge-score 0.1.2 defines it: the Python package that replicates ROUGE-1.5.5.
//!
//! Text is lower-cased; what is neither a letter a to z nor a digit separates tokens; with the stemmer, tokens longer
//! than three are stemmed ([`stem`]). Of the target and the prediction, then,
//!
//! - **ROUGE-N**: the n-grams in both, each as often as in the one that has fewer;
//! - **ROUGE-L**: the longest common subsequence of their tokens;
//! - **ROUGE-Lsum**: sentences are lines. Of each of the target's, the tokens that lie on a longest common subsequence
//!   with any of the prediction's, each token no more often than in either text.
//!
//! Precision is that number over the prediction's, recall over the target's; F is their harmonic mean. Where there is
//! nothing to divide by, they are 0. The package's option to split lines into sentences, which needs a trained model,
//! is not offered.

mod aggregate;
mod lcs;
mod porter;

use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;

use crate::error::MetricError;
use crate::ngrams::{self, NgramTree, Numbering};

pub use aggregate::{Aggregate, aggregate};
pub use porter::stem;

/// Tokens of this length or less are not stemmed.
const N_LETTERS_TO_KEEP: usize = 3;

/// A kind of ROUGE. The names are the package's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RougeType {
    /// `rouge1` to `rouge9`: n-grams of this order.
    N(u8),
    /// `rougeL`: one longest common subsequence.
    L,
    /// `rougeLsum`: lines are sentences.
    Lsum,
}

impl fmt::Display for RougeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::N(n) => write!(f, "rouge{n}"),
            Self::L => f.write_str("rougeL"),
            Self::Lsum => f.write_str("rougeLsum"),
        }
    }
}

impl FromStr for RougeType {
    type Err = MetricError;

    fn from_str(name: &str) -> Result<Self, MetricError> {
        let found = match name.strip_prefix("rouge") {
            Some("L") => Some(Self::L),
            Some("Lsum") => Some(Self::Lsum),
            Some(n) => n.parse().ok().filter(|n| (1..=9).contains(n) && name.len() == 6).map(Self::N),
            None => None,
        };
        found.ok_or_else(|| MetricError::setting("the kind of ROUGE", name, "rouge1 to rouge9, rougeL or rougeLsum"))
    }
}

/// A score and its parts, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeScore {
    /// What of the prediction is in the target.
    pub precision: f64,
    /// What of the target is in the prediction.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

impl RougeScore {
    /// Of `n_hits` that both have.
    fn new(n_hits: u64, n_prediction: u64, n_target: u64) -> Self {
        let precision = n_hits as f64 / n_prediction.max(1) as f64;
        let recall = n_hits as f64 / n_target.max(1) as f64;
        let sum = precision + recall;
        Self { precision, recall, f1: if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 } }
    }
}

/// The kinds that are wanted, and how tokens are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rouge {
    types: Vec<RougeType>,
    use_stemmer: bool,
}

impl Rouge {
    /// Scores of these kinds, of tokens that are stemmed or not.
    ///
    /// # Errors
    /// No kind, or n-grams of an order that there is not.
    pub fn new(types: &[RougeType], use_stemmer: bool) -> Result<Self, MetricError> {
        const ALLOWED: &str = "rouge1 to rouge9, rougeL or rougeLsum";
        if types.is_empty() {
            return Err(MetricError::setting("the kind of ROUGE", "none", ALLOWED));
        }
        match types.iter().find(|kind| matches!(kind, RougeType::N(n) if !(1..=9).contains(n))) {
            Some(wrong) => Err(MetricError::setting("the kind of ROUGE", wrong, ALLOWED)),
            None => Ok(Self { types: types.to_vec(), use_stemmer }),
        }
    }

    /// The kinds.
    pub fn types(&self) -> &[RougeType] {
        &self.types
    }

    /// The scores of a prediction, one for each kind.
    pub fn score(&self, target: &str, prediction: &str) -> Vec<RougeScore> {
        self.score_in(&mut Memory::default(), target, prediction)
    }

    /// The scores of a prediction against several targets: for each kind, of the target with the best F, and of those
    /// the first.
    ///
    /// # Errors
    /// No target.
    pub fn score_multi<S: AsRef<str>>(&self, targets: &[S], prediction: &str) -> Result<Vec<RougeScore>, MetricError> {
        self.score_multi_in(&mut Memory::default(), targets, prediction)
            .ok_or(MetricError::NoReference { segment_idx: 0 })
    }

    /// The scores of each prediction, as [`Rouge::score_multi`]; `targets[i]` are those of `predictions[i]`.
    ///
    /// # Errors
    /// No predictions, one without a target, or lists of different lengths.
    pub fn scores<P, T, S>(&self, targets: &[T], predictions: &[P]) -> Result<Vec<Vec<RougeScore>>, MetricError>
    where
        P: AsRef<str> + Sync,
        T: AsRef<[S]> + Sync,
        S: AsRef<str>,
    {
        MetricError::check_lengths(predictions.len(), targets.len())?;
        let segments = targets.par_iter().zip(predictions).enumerate();
        let score = |memory: &mut Memory, (segment_idx, (targets, prediction)): (usize, (&T, &P))| {
            self.score_multi_in(memory, targets.as_ref(), prediction.as_ref())
                .ok_or(MetricError::NoReference { segment_idx })
        };
        segments.map_init(Memory::default, score).collect()
    }

    fn score_multi_in<S: AsRef<str>>(
        &self,
        memory: &mut Memory,
        targets: &[S],
        prediction: &str,
    ) -> Option<Vec<RougeScore>> {
        let scores = targets.iter().map(|target| self.score_in(memory, target.as_ref(), prediction));
        let better = |best: RougeScore, next: RougeScore| if next.f1 > best.f1 { next } else { best };
        scores
            .collect::<Vec<_>>()
            .into_iter()
            .reduce(|best, next| best.into_iter().zip(next).map(|(best, next)| better(best, next)).collect())
    }

    fn score_in(&self, memory: &mut Memory, target: &str, prediction: &str) -> Vec<RougeScore> {
        let (target_words, prediction_words) = (self.tokenize(target), self.tokenize(prediction));
        let mut numbering = Numbering::default();
        let target_lines = target_words.lines(&mut numbering);
        let prediction_lines = prediction_words.lines(&mut numbering);
        let (target, prediction) = (target_lines.concat(), prediction_lines.concat());
        let max_order =
            self.types.iter().map(|kind| if let RougeType::N(n) = kind { usize::from(*n) } else { 0 }).max();
        let mut matches = vec![0; max_order.unwrap_or(0)];
        if !matches.is_empty() {
            memory.tree.clear();
            memory.tree.add_reference(&target, matches.len());
            memory.tree.matches(&prediction, &mut matches);
        }
        let score = |kind: &RougeType| match *kind {
            RougeType::N(n) => {
                let n = usize::from(n);
                RougeScore::new(matches[n - 1], ngrams::count(prediction.len(), n), ngrams::count(target.len(), n))
            }
            RougeType::L => {
                let n_hits = lcs::length(&target, &prediction);
                RougeScore::new(n_hits, prediction.len() as u64, target.len() as u64)
            }
            RougeType::Lsum => {
                let n_hits = lcs::n_union_hits(&target_lines, &prediction_lines);
                RougeScore::new(n_hits, prediction.len() as u64, target.len() as u64)
            }
        };
        self.types.iter().map(score).collect()
    }

    fn tokenize(&self, text: &str) -> Words {
        let mut words = Words::of(text);
        if self.use_stemmer {
            words.stem();
        }
        words
    }
}

/// What scoring a segment works in, used again for the next.
#[derive(Default)]
struct Memory {
    tree: NgramTree,
}

/// A text's tokens, by line.
struct Words {
    /// Letters and digits, spaces between tokens, line ends between lines.
    text: String,
}

impl Words {
    /// Lower-cases, and puts a space for everything that is neither letter nor digit of ASCII. Of characters beyond it,
    /// two have such a letter in lower case: the sign of kelvins, and I with a dot.
    fn of(text: &str) -> Self {
        let mut words = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                'a'..='z' | '0'..='9' | '\n' => words.push(c),
                'A'..='Z' => words.push(c.to_ascii_lowercase()),
                _ if c.is_ascii() => words.push(' '),
                _ => words.extend(c.to_lowercase().map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' })),
            }
        }
        Self { text: words }
    }

    fn stem(&mut self) {
        let mut stemmed = String::with_capacity(self.text.len());
        for line in self.text.split('\n') {
            for word in line.split_ascii_whitespace() {
                if word.len() > N_LETTERS_TO_KEEP {
                    stemmed += &stem(word);
                } else {
                    stemmed += word;
                }
                stemmed.push(' ');
            }
            stemmed.push('\n');
        }
        self.text = stemmed;
    }

    /// The tokens' numbers, line by line.
    fn lines<'text>(&'text self, numbering: &mut Numbering<'text>) -> Vec<Vec<u32>> {
        self.text.split('\n').map(|line| numbering.numbers(line.split_ascii_whitespace())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in ["rouge1", "rouge9", "rougeL", "rougeLsum"] {
            assert_eq!(name.parse::<RougeType>().unwrap().to_string(), name);
        }
        for name in ["rouge0", "rouge10", "rouge+1", "rougel", "bleu"] {
            assert!(name.parse::<RougeType>().is_err(), "{name}");
        }
        assert!(Rouge::new(&[], false).is_err());
        assert!(Rouge::new(&[RougeType::N(0)], false).is_err());
    }

    #[test]
    fn characters_that_lower_to_ascii_are_letters() {
        let rouge = Rouge::new(&[RougeType::N(1)], false).unwrap();
        assert_eq!(rouge.score("5 k i s", "5\u{212a} \u{130}s")[0].recall, 0.5);
    }
}
