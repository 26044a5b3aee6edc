//! chrF (Popović, 2015) and chrF++ (2017), as sacrebleu 2.6.0 defines them.
//!
//! For each order of character n-grams, 1 to 6, and of word n-grams, none or 1 to 2 (chrF++), precision and recall of
//! the hypothesis against the reference. Their means over the orders that both have, P and R, give, of 100,
//!
//! ```text
//! chrF = (1 + beta^2) P R / (beta^2 P + R)
//! ```
//!
//! Of several references of a segment, the one with the best score counts. A corpus' score is of the summed counts.

use std::borrow::Cow;

use crate::SACREBLEU_VERSION;
use crate::corpus::{CorpusMetric, CountMemory, NumReferences, Resampling, case, signature_start, yes_or_no};
use crate::error::MetricError;
use crate::ngrams::{self, NgramTree, Numbering};
use crate::text;

/// What stands for a precision or recall of nothing where small numbers smooth.
const EPSILON: f64 = 1e-16;

/// The metric's settings. Those of `Default` are sacrebleu's: characters up to 6, no words, beta 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chrf {
    /// The longest character n-grams.
    pub char_order: usize,
    /// The longest word n-grams; 0 for none, 2 for chrF++.
    pub word_order: usize,
    /// How many times more recall weighs than precision.
    pub beta: u32,
    /// Letters are compared without their case.
    pub lowercase: bool,
    /// Whitespace is among the characters.
    pub whitespace: bool,
    /// The mean is of each order's score, with small numbers for nothing, as in chrF++.py, NLTK and Moses.
    pub eps_smoothing: bool,
}

impl Default for Chrf {
    fn default() -> Self {
        Self { char_order: 6, word_order: 0, beta: 2, lowercase: false, whitespace: false, eps_smoothing: false }
    }
}

impl Chrf {
    /// The settings of chrF++: words and their pairs count too.
    pub fn plus_plus() -> Self {
        Self { word_order: 2, ..Self::default() }
    }

    /// The metric's name with these settings: chrF2, chrF2++.
    pub fn name(&self) -> String {
        format!("chrF{}{}", self.beta, "+".repeat(self.word_order))
    }

    /// All that another needs to compute the same figure, in one line, as sacrebleu writes it.
    pub fn signature(&self, n_references: NumReferences, resampling: Option<Resampling>) -> String {
        format!(
            "{}|case:{}|eff:{}|nc:{}|nw:{}|space:{}|version:{SACREBLEU_VERSION}",
            signature_start(n_references, resampling),
            case(self.lowercase),
            yes_or_no(!self.eps_smoothing),
            self.char_order,
            self.word_order,
            yes_or_no(self.whitespace),
        )
    }

    /// The characters that are compared, as numbers.
    fn characters(&self, text: &str) -> Vec<u32> {
        text.chars().filter(|&c| self.whitespace || !text::is_space(c)).map(u32::from).collect()
    }

    fn cased<'text>(&self, text: &'text str) -> Cow<'text, str> {
        if self.lowercase { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) }
    }
}

impl CorpusMetric for Chrf {
    type Score = f64;

    fn n_counts(&self) -> usize {
        3 * (self.char_order + self.word_order)
    }

    /// Counts are, by order, n-grams of the hypothesis, of the reference, and matches.
    fn count_segment(&self, memory: &mut CountMemory, hypothesis: &str, references: &[&str], counts: &mut [u64]) {
        let hypothesis = self.cased(hypothesis);
        let references: Vec<Cow<'_, str>> = references.iter().map(|reference| self.cased(reference)).collect();
        let mut numbering = Numbering::default();
        let characters = self.characters(&hypothesis);
        let words = if self.word_order > 0 { numbering.numbers(words(&hypothesis)) } else { Vec::new() };
        let mut best = f64::NEG_INFINITY;
        let mut candidate = vec![0; counts.len()];
        for reference in &references {
            let (of_characters, of_words) = candidate.split_at_mut(3 * self.char_order);
            count(&mut memory.tree, &characters, &self.characters(reference), of_characters);
            if self.word_order > 0 {
                count(&mut memory.tree, &words, &numbering.numbers(self::words(reference)), of_words);
            }
            let score = self.score_of_counts(&candidate);
            if score > best {
                best = score;
                counts.copy_from_slice(&candidate);
            }
        }
    }

    fn score(&self, counts: &[u64]) -> f64 {
        self.score_of_counts(counts)
    }

    fn score_of_counts(&self, counts: &[u64]) -> f64 {
        let factor = f64::from(self.beta).powi(2);
        let f_score = |precision: f64, recall: f64| (1.0 + factor) * precision * recall / (factor * precision + recall);
        let ratio = |part: u64, all: u64| if all > 0 { part as f64 / all as f64 } else { EPSILON };
        let (mut sum, mut precisions, mut recalls, mut n_orders) = (0.0, 0.0, 0.0, 0);
        for of_order in counts.chunks_exact(3) {
            let [n_hypothesis, n_reference, n_matches] = [of_order[0], of_order[1], of_order[2]];
            let (precision, recall) = (ratio(n_matches, n_hypothesis), ratio(n_matches, n_reference));
            sum += if factor * precision + recall > 0.0 { f_score(precision, recall) } else { EPSILON };
            if n_hypothesis > 0 && n_reference > 0 {
                precisions += precision;
                recalls += recall;
                n_orders += 1;
            }
        }
        if self.eps_smoothing {
            return 100.0 * sum / (self.char_order + self.word_order) as f64;
        }
        let mean = |sum: f64| if n_orders == 0 { 0.0 } else { sum / f64::from(n_orders) };
        let (precision, recall) = (mean(precisions), mean(recalls));
        if precision + recall > 0.0 { 100.0 * f_score(precision, recall) } else { 0.0 }
    }

    fn check(&self) -> Result<(), MetricError> {
        if self.char_order + self.word_order == 0 {
            return Err(MetricError::setting("the longest n-gram", 0, "one character or word at least"));
        }
        if self.beta == 0 {
            return Err(MetricError::setting("beta", 0, "a whole number from 1 on"));
        }
        Ok(())
    }
}

/// Counts one reference, `(3 * orders,)`. A hypothesis has no n-grams of an order that the reference has none of.
fn count(tree: &mut NgramTree, hypothesis: &[u32], reference: &[u32], counts: &mut [u64]) {
    let mut matches = vec![0; counts.len() / 3];
    tree.clear();
    tree.add_reference(reference, matches.len());
    tree.matches(hypothesis, &mut matches);
    for (order_idx, (counts, n_matches)) in counts.chunks_exact_mut(3).zip(matches).enumerate() {
        let n_reference = ngrams::count(reference.len(), order_idx + 1);
        let n_hypothesis = if n_reference > 0 { ngrams::count(hypothesis.len(), order_idx + 1) } else { 0 };
        counts.copy_from_slice(&[n_hypothesis, n_reference, n_matches]);
    }
}

/// Words, with one mark of ASCII punctuation cut off: at the end, or else at the start.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text::words(text).flat_map(|word| {
        let is_mark = |c: char| c.is_ascii_punctuation();
        let is_single = word.chars().nth(1).is_none();
        let at = match () {
            () if is_single => word.len(),
            () if word.ends_with(is_mark) => word.len() - 1,
            () if word.starts_with(is_mark) => 1,
            () => word.len(),
        };
        let (start, end) = word.split_at(at);
        [start, end].into_iter().filter(|part| !part.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_is_cut_off_a_word() {
        let text = "(hi) \"no . ¿qué? ab... é";
        assert_eq!(words(text).collect::<Vec<_>>(), ["(hi", ")", "\"", "no", ".", "¿qué", "?", "ab..", ".", "é"]);
    }

    #[test]
    fn settings_are_checked() {
        for wrong in [Chrf { char_order: 0, ..Chrf::default() }, Chrf { beta: 0, ..Chrf::default() }] {
            assert!(matches!(wrong.sentence("a", &["a"]), Err(MetricError::Setting { .. })), "{wrong:?}");
        }
        assert_eq!(Chrf::plus_plus().name(), "chrF2++");
        assert_eq!(Chrf::default().sentence("a b", &["ab"]), Ok(100.0));
        let none: [&str; 0] = [];
        assert_eq!(Chrf::default().sentence("a", &none), Err(MetricError::NoReference { segment_idx: 0 }));
    }
}
