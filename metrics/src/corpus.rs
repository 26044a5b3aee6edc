//! Counts of the segments of a corpus, from which BLEU and chrF follow: of the whole corpus, of any part, and of
//! resamples.

use std::fmt;

use rayon::prelude::*;

use crate::error::MetricError;
use crate::ngrams::NgramTree;

/// A metric whose score follows from sums of counts over segments.
pub trait CorpusMetric: Sync {
    /// A score with its parts.
    type Score;

    /// How many counts a segment has.
    fn n_counts(&self) -> usize;

    /// Counts a hypothesis against its references, of which there is one at least, into `counts`, `(n_counts,)`.
    fn count_segment(&self, memory: &mut CountMemory, hypothesis: &str, references: &[&str], counts: &mut [u64]);

    /// The score, of 100, of one segment's counts or of their sum over many, `(n_counts,)`.
    fn score_of_counts(&self, counts: &[u64]) -> f64;

    /// The same with its parts.
    fn score(&self, counts: &[u64]) -> Self::Score;

    /// Checks the settings.
    ///
    /// # Errors
    /// The setting that the metric does not have.
    fn check(&self) -> Result<(), MetricError>;

    /// The score of a corpus; `references[i]` are those of `hypotheses[i]`.
    ///
    /// # Errors
    /// As [`CorpusMetric::statistics`].
    fn corpus<H, R, S>(&self, hypotheses: &[H], references: &[R]) -> Result<Self::Score, MetricError>
    where
        H: AsRef<str> + Sync,
        R: AsRef<[S]> + Sync,
        S: AsRef<str>,
        Self: Sized,
    {
        Ok(self.score(&self.statistics(hypotheses, references)?.sum()))
    }

    /// The score of one hypothesis.
    ///
    /// # Errors
    /// As [`CorpusMetric::statistics`].
    fn sentence<S: AsRef<str>>(&self, hypothesis: &str, references: &[S]) -> Result<Self::Score, MetricError>
    where
        Self: Sized,
    {
        self.check()?;
        if references.is_empty() {
            return Err(MetricError::NoReference { segment_idx: 0 });
        }
        let references: Vec<&str> = references.iter().map(AsRef::as_ref).collect();
        let mut counts = vec![0; self.n_counts()];
        self.count_segment(&mut CountMemory::default(), hypothesis, &references, &mut counts);
        Ok(self.score(&counts))
    }

    /// The score, of 100, of every segment by itself.
    fn sentences(&self, statistics: &SegmentStatistics) -> Vec<f64> {
        statistics.segments().map(|counts| self.score_of_counts(counts)).collect()
    }

    /// Counts every segment; `references[i]` are those of `hypotheses[i]`, not necessarily as many for each.
    ///
    /// # Errors
    /// Settings that are none, no segments, a segment without references, or lists of different lengths.
    fn statistics<H, R, S>(&self, hypotheses: &[H], references: &[R]) -> Result<SegmentStatistics, MetricError>
    where
        H: AsRef<str> + Sync,
        R: AsRef<[S]> + Sync,
        S: AsRef<str>,
        Self: Sized,
    {
        self.check()?;
        MetricError::check_lengths(hypotheses.len(), references.len())?;
        let n_references = NumReferences::of(references.iter().map(|references| references.as_ref().len()))?;
        let n_counts = self.n_counts();
        let mut counts = vec![0; n_counts * hypotheses.len()];
        counts.par_chunks_mut(n_counts).zip(hypotheses).zip(references).for_each_init(
            CountMemory::default,
            |memory, ((counts, hypothesis), references)| {
                let references: Vec<&str> = references.as_ref().iter().map(AsRef::as_ref).collect();
                self.count_segment(memory, hypothesis.as_ref(), &references, counts);
            },
        );
        Ok(SegmentStatistics { n_counts, counts, n_references })
    }
}

/// What counting a segment works in, used again for the next.
#[derive(Default)]
pub struct CountMemory {
    pub(crate) tree: NgramTree,
}

/// How many references the segments have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumReferences {
    /// All as many.
    Each(usize),
    /// Not all as many.
    Various,
}

impl NumReferences {
    fn of(numbers: impl Iterator<Item = usize>) -> Result<Self, MetricError> {
        let mut all = None;
        for (segment_idx, number) in numbers.enumerate() {
            if number == 0 {
                return Err(MetricError::NoReference { segment_idx });
            }
            all = match all {
                None => Some(Self::Each(number)),
                Some(Self::Each(other)) if other == number => all,
                Some(_) => Some(Self::Various),
            };
        }
        all.ok_or(MetricError::Empty)
    }
}

impl fmt::Display for NumReferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Each(number) => write!(f, "{number}"),
            Self::Various => f.write_str("var"),
        }
    }
}

/// The counts of each segment of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentStatistics {
    n_counts: usize,
    /// `(segments, n_counts)`
    counts: Vec<u64>,
    n_references: NumReferences,
}

impl SegmentStatistics {
    /// How many segments there are: one at least.
    pub fn n_segments(&self) -> usize {
        self.counts.len() / self.n_counts
    }

    /// How many references the segments have.
    pub fn n_references(&self) -> NumReferences {
        self.n_references
    }

    /// The counts of each segment, `(n_counts,)`.
    pub fn segments(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks_exact(self.n_counts)
    }

    /// The counts of the whole corpus, `(n_counts,)`.
    pub fn sum(&self) -> Vec<u64> {
        self.sum_of(0..self.n_segments())
    }

    /// The summed counts of the segments with these numbers, each as often as it is named, `(n_counts,)`.
    ///
    /// # Panics
    /// If there is no segment of a number.
    pub fn sum_of(&self, segment_idxs: impl IntoIterator<Item = usize>) -> Vec<u64> {
        let mut sums = vec![0; self.n_counts];
        for idx in segment_idxs {
            let counts = &self.counts[idx * self.n_counts..][..self.n_counts];
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

/// What a signature tells of resampling: the number of resamples and the seed of their draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// How many resamples.
    pub n_samples: usize,
    /// What their draws begin with.
    pub seed: u64,
}

/// The start of a signature, up to what the metric tells of itself.
pub(crate) fn signature_start(n_references: NumReferences, resampling: Option<Resampling>) -> String {
    match resampling {
        None => format!("nrefs:{n_references}"),
        Some(Resampling { n_samples, seed }) => format!("nrefs:{n_references}|bs:{n_samples}|seed:{seed}"),
    }
}

/// How signatures say yes and no.
pub(crate) fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// How signatures say whether the case of letters counts.
pub(crate) fn case(lowercase: bool) -> &'static str {
    if lowercase { "lc" } else { "mixed" }
}
