//! Scores of generated text and of predicted labels, equal to the implementations that people compare with.
//!
//! A figure is of use only beside other figures, so a metric here is not "like" its reference: it is the reference's
//! definition, quirks included, and the tests hold it to 1e-9 against that very package.
//!
//! | module | what | equal to |
//! | --- | --- | --- |
//! | [`bleu`] | BLEU of corpora and sentences | sacrebleu 2.6.0 |
//! | [`chrf`] | chrF and chrF++ | sacrebleu 2.6.0 |
//! | [`rouge`] | ROUGE-1 to 9, L, Lsum, with and without stemming | rouge-score 0.1.2 |
//! | [`classification`] | accuracy, exact match, precision, recall, F1 | scikit-learn |
//! | [`calibration`] | expected calibration error | its definition, written out in numpy |
//! | [`bootstrap`], [`significance`] | intervals, paired tests | numpy's draws and percentiles, scipy's binomial test |
//!
//! Everything is a pure function over strings, labels and numbers: nothing is read, printed or kept. Corpora are shared
//! among threads, and no result depends on how many there are. What is random takes a seed ([`draw`]).
//!
//! The references take letters' cases and the classes of characters from the Unicode of their Python and of its `regex`
//! package. Here they are those of Rust's standard library and of `unicode-properties`; the tests compare the classes
//! of all characters.

pub mod bleu;
pub mod bootstrap;
pub mod calibration;
pub mod chrf;
pub mod classification;
mod corpus;
pub mod draw;
mod error;
mod ngrams;
pub mod rouge;
pub mod significance;
mod text;

pub use corpus::{CorpusMetric, CountMemory, NumReferences, Resampling, SegmentStatistics};
pub use error::MetricError;

/// Whose definitions of BLEU and chrF these are: the version in their signatures.
pub const SACREBLEU_VERSION: &str = "2.6.0";
