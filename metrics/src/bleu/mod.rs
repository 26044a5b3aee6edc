//! BLEU (Papineni and others, 2002), as sacrebleu 2.6.0 defines it.
//!
//! For n from 1 to 4, the precision p_n is the share of the hypotheses' n-grams that a reference of the same segment
//! has, each counted at most as often as the reference that has most of it. With the hypotheses' tokens c and, summed
//! over segments, the tokens r of the reference that is nearest in length (of two, the shorter),
//!
//! ```text
//! BLEU = 100 * BP * exp(mean of ln p_n),   BP = exp(1 - r / c) if c < r, else 1
//! ```
//!
//! Counts are summed over the corpus before anything is divided, so a corpus' score is no mean of its sentences'. What
//! is to be done with an order that has no match is the [`Smoothing`]; without any match at all, the score is 0
//! whatever the smoothing.

mod score;
mod tokenizer;

use std::borrow::Cow;

use crate::SACREBLEU_VERSION;
use crate::corpus::{CorpusMetric, CountMemory, NumReferences, Resampling, case, signature_start, yes_or_no};
use crate::error::MetricError;
use crate::ngrams::{self, Numbering};
use crate::text;

pub use score::{BleuScore, Smoothing};
pub use tokenizer::Tokenizer;

/// From so many hypotheses that end in a tokenised period on, a corpus looks tokenised already.
const N_TOKENIZED_TO_WARN: usize = 100;

/// The metric's settings. Those of `Default` are sacrebleu's: tokeniser 13a, mixed case, smoothing `exp`, order 4.
#[derive(Clone, Debug, PartialEq)]
pub struct Bleu {
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
    /// What stands for the precision of an order without a match.
    pub smoothing: Smoothing,
    /// Letters are compared without their case.
    pub lowercase: bool,
    /// Nobody is to be told of hypotheses that look tokenised.
    pub force: bool,
    /// The longest n-grams.
    pub max_ngram_order: usize,
    /// Orders longer than the hypothesis are left out of the mean. Wanted for sentences; for a corpus it changes
    /// nothing.
    pub effective_order: bool,
}

impl Default for Bleu {
    fn default() -> Self {
        Self {
            tokenizer: Tokenizer::V13a,
            smoothing: Smoothing::Exp,
            lowercase: false,
            force: false,
            max_ngram_order: 4,
            effective_order: false,
        }
    }
}

impl Bleu {
    /// The settings for single sentences: orders longer than the hypothesis are left out.
    pub fn for_sentences() -> Self {
        Self { effective_order: true, ..Self::default() }
    }

    /// Whether the hypotheses look as if they had been tokenised before, which would cost them points: a hundred or
    /// more end in a period that stands alone, and `force` is not set.
    pub fn looks_tokenized<H: AsRef<str>>(&self, hypotheses: &[H]) -> bool {
        let ends = hypotheses.iter().filter(|hypothesis| hypothesis.as_ref().ends_with(" ."));
        !self.force && ends.take(N_TOKENIZED_TO_WARN).count() == N_TOKENIZED_TO_WARN
    }

    /// All that another needs to compute the same figure, in one line, as sacrebleu writes it.
    pub fn signature(&self, n_references: NumReferences, resampling: Option<Resampling>) -> String {
        format!(
            "{}|case:{}|eff:{}|tok:{}|smooth:{}|version:{SACREBLEU_VERSION}",
            signature_start(n_references, resampling),
            case(self.lowercase),
            yes_or_no(self.effective_order),
            self.tokenizer,
            self.smoothing,
        )
    }

    fn tokenize(&self, segment: &str) -> String {
        let segment = if self.lowercase { Cow::Owned(segment.to_lowercase()) } else { Cow::Borrowed(segment) };
        self.tokenizer.tokenize(segment.trim_end_matches(text::is_space))
    }
}

impl CorpusMetric for Bleu {
    type Score = BleuScore;

    fn n_counts(&self) -> usize {
        2 + 2 * self.max_ngram_order
    }

    fn count_segment(&self, memory: &mut CountMemory, hypothesis: &str, references: &[&str], counts: &mut [u64]) {
        let hypothesis = self.tokenize(hypothesis);
        let references: Vec<String> = references.iter().map(|reference| self.tokenize(reference)).collect();
        let tree = &mut memory.tree;
        tree.clear();
        let mut numbering = Numbering::default();
        let mut reference_lens = Vec::with_capacity(references.len());
        for reference in &references {
            let symbols = numbering.numbers(text::words(reference));
            tree.add_reference(&symbols, self.max_ngram_order);
            reference_lens.push(symbols.len());
        }
        let symbols = numbering.numbers(text::words(&hypothesis));
        let nearest = reference_lens.into_iter().min_by_key(|&len| (len.abs_diff(symbols.len()), len));
        let (lengths, by_order) = counts.split_at_mut(2);
        lengths.copy_from_slice(&[symbols.len() as u64, nearest.unwrap_or(0) as u64]);
        let (matches, totals) = by_order.split_at_mut(self.max_ngram_order);
        tree.matches(&symbols, matches);
        for (order_idx, total) in totals.iter_mut().enumerate() {
            *total = ngrams::count(symbols.len(), order_idx + 1);
        }
    }

    fn score_of_counts(&self, counts: &[u64]) -> f64 {
        self.score(counts).score
    }

    /// Counts are the tokens of the hypotheses and of the references, then, by order, matches and n-grams.
    fn score(&self, counts: &[u64]) -> BleuScore {
        let (lengths, by_order) = counts.split_at(2);
        let (matches, totals) = by_order.split_at(self.max_ngram_order);
        BleuScore::new(matches, totals, [lengths[0], lengths[1]], self.smoothing, self.effective_order)
    }

    fn check(&self) -> Result<(), MetricError> {
        if self.max_ngram_order == 0 {
            return Err(MetricError::setting("the longest n-gram", 0, "one token at least"));
        }
        self.smoothing.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_paper() {
        let bleu = Bleu { smoothing: Smoothing::None, max_ngram_order: 2, ..Bleu::default() };
        let references = ["the cat is on the mat", "there is a cat on the mat"];
        let score = bleu.sentence("the the the the the the the", &references).unwrap();
        assert_eq!((&score.counts[..], &score.totals[..]), (&[2.0, 0.0][..], &[7.0, 6.0][..]));
        assert_eq!((score.hypothesis_len, score.reference_len), (7, 7));
    }

    #[test]
    fn what_cannot_be_scored_is_said() {
        let bleu = Bleu::default();
        let none: [&str; 0] = [];
        assert_eq!(bleu.corpus(&none, &[] as &[[&str; 1]]), Err(MetricError::Empty));
        assert_eq!(bleu.corpus(&["a", "b"], &[["a"]]), Err(MetricError::Lengths { n_predictions: 2, n_references: 1 }));
        let references = [vec!["a"], vec![]];
        assert_eq!(bleu.corpus(&["a", "b"], &references), Err(MetricError::NoReference { segment_idx: 1 }));
        assert_eq!(bleu.sentence("a", &none), Err(MetricError::NoReference { segment_idx: 0 }));
        for wrong in [
            Bleu { max_ngram_order: 0, ..Bleu::default() },
            Bleu { smoothing: Smoothing::Floor(-1.0), ..Bleu::default() },
            Bleu { smoothing: Smoothing::AddK(f64::NAN), ..Bleu::default() },
        ] {
            assert!(matches!(wrong.sentence("a", &["a"]), Err(MetricError::Setting { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_corpus_looks_tokenised_from_a_hundred_lone_periods_on() {
        let hypotheses = vec!["that is it ."; 100];
        assert!(Bleu::default().looks_tokenized(&hypotheses));
        assert!(!Bleu::default().looks_tokenized(&hypotheses[1..]));
        assert!(!Bleu { force: true, ..Bleu::default() }.looks_tokenized(&hypotheses));
    }
}
