//! Intervals of mean scores, as rouge-score's `BootstrapAggregator`.

use super::RougeScore;
use crate::bootstrap;
use crate::corpus::Resampling;
use crate::error::MetricError;

/// A score's middle and its interval. Precision, recall and F are ordered each by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aggregate {
    /// The lower end.
    pub low: RougeScore,
    /// The median of the resamples' means.
    pub mid: RougeScore,
    /// The upper end.
    pub high: RougeScore,
}

/// The median and the interval of the mean over segments of one kind of ROUGE: of `resampling.n_samples` resamples the
/// means, of those the percentiles. The package's settings are a confidence of 0.95 and 1,000 resamples.
///
/// The package draws from numpy's global generator, which it does not seed. Here each call draws from
/// `default_rng(resampling.seed)` instead ([`crate::draw`]): the same scores and seed give the same figures.
///
/// # Errors
/// No scores, no resamples, or a confidence that is not from 0 to 1.
pub fn aggregate(scores: &[RougeScore], confidence: f64, resampling: Resampling) -> Result<Aggregate, MetricError> {
    let levels = bootstrap::levels(confidence)?;
    let rows: Vec<[f64; 3]> = scores.iter().map(|score| [score.precision, score.recall, score.f1]).collect();
    let means = bootstrap::resampled_means(&rows, resampling)?;
    let at = |level: f64| {
        let [precision, recall, f1] = [0, 1, 2].map(|part| {
            let mut values: Vec<f64> = means.iter().map(|mean| mean[part]).collect();
            values.sort_by(f64::total_cmp);
            bootstrap::percentile(&values, level)
        });
        RougeScore { precision, recall, f1 }
    };
    Ok(Aggregate { low: at(levels[0]), mid: at(levels[1]), high: at(levels[2]) })
}
