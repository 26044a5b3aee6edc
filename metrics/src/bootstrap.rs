//! Intervals by resampling (Efron, 1979): what the figure would be on other segments of the same kind.
//!
//! A resample draws as many segments as there are, with replacement, by numpy's generator ([`crate::draw`]). An
//! interval is between percentiles of the resamples' figures. Percentiles are numpy's default: linear between the two
//! nearest values.

use rayon::prelude::*;

use crate::corpus::{CorpusMetric, Resampling, SegmentStatistics};
use crate::draw::Draw;
use crate::error::MetricError;

/// Resamples that are drawn before any is evaluated, so that draws are in one order and the memory for them has a
/// bound.
const N_DRAWN_AT_ONCE: usize = 64;

/// A figure and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The figure itself, of the segments as they are.
    pub value: f64,
    /// The upper end.
    pub high: f64,
}

/// The mean of values and its interval: percentiles of the resamples' means.
///
/// # Errors
/// No values, one that is not finite, no resamples, or a confidence that is not from 0 to 1.
pub fn mean_interval(values: &[f64], confidence: f64, resampling: Resampling) -> Result<Interval, MetricError> {
    let is_finite = |(idx, &value): (usize, &f64)| {
        if value.is_finite() { Ok(()) } else { Err(MetricError::Value { idx, value, wanted: "a finite number" }) }
    };
    values.iter().enumerate().try_for_each(is_finite)?;
    let mean = |idxs: &[usize]| idxs.iter().map(|&idx| values[idx]).sum::<f64>() / idxs.len() as f64;
    interval_of(values.len(), mean, confidence, resampling)
}

/// Any figure of `n` segments, and its interval: `figure` gets the segments' numbers, each as often as it was drawn.
///
/// # Errors
/// No segments, no resamples, or a confidence that is not from 0 to 1.
pub fn interval_of(
    n: usize,
    figure: impl Fn(&[usize]) -> f64 + Sync,
    confidence: f64,
    resampling: Resampling,
) -> Result<Interval, MetricError> {
    let [low, _, high] = levels(confidence)?;
    let mut figures = resampled(n, resampling, &figure)?;
    figures.sort_by(f64::total_cmp);
    let all: Vec<usize> = (0..n).collect();
    Ok(Interval { low: percentile(&figures, low), value: figure(&all), high: percentile(&figures, high) })
}

/// What resamples say of a corpus' score, as sacrebleu reports it: mean plus or minus half of the interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CorpusInterval {
    /// The mean score of the resamples.
    pub mean: f64,
    /// Half of what lies between the scores that a fortieth of the resamples is below, and above: 95% lie between.
    pub half_width: f64,
}

/// The interval of a corpus' BLEU or chrF, as sacrebleu's `corpus_score(n_bootstrap=...)`, from the same draws;
/// sacrebleu's seed is 12345 where nothing else is said. Here counts are whole numbers and scores double, where
/// sacrebleu has single precision.
///
/// # Errors
/// No resamples.
pub fn corpus_interval(
    metric: &impl CorpusMetric,
    statistics: &SegmentStatistics,
    resampling: Resampling,
) -> Result<CorpusInterval, MetricError> {
    let score = |idxs: &[usize]| metric.score_of_counts(&statistics.sum_of(idxs.iter().copied()));
    Ok(CorpusInterval::of(resampled(statistics.n_segments(), resampling, &score)?))
}

impl CorpusInterval {
    pub(crate) fn of(mut scores: Vec<f64>) -> Self {
        let n = scores.len();
        let mean = scores.iter().sum::<f64>() / n as f64;
        scores.sort_by(f64::total_cmp);
        Self { mean, half_width: 0.5 * (scores[n - n / 40 - 1] - scores[n / 40]) }
    }
}

/// The figure of each resample of `n` segments, in the order of the draws.
pub(crate) fn resampled<T: Send>(
    n: usize,
    Resampling { n_samples, seed }: Resampling,
    figure: &(impl Fn(&[usize]) -> T + Sync),
) -> Result<Vec<T>, MetricError> {
    if n == 0 {
        return Err(MetricError::Empty);
    }
    if n_samples == 0 {
        return Err(MetricError::setting("the number of resamples", 0, "1 or more"));
    }
    let mut draw = Draw::new(seed);
    let mut figures = Vec::with_capacity(n_samples);
    while figures.len() < n_samples {
        let n_drawn = N_DRAWN_AT_ONCE.min(n_samples - figures.len());
        let drawn: Vec<Vec<usize>> = (0..n_drawn).map(|_| draw.resample(n)).collect();
        figures.par_extend(drawn.par_iter().map(|idxs| figure(idxs)));
    }
    Ok(figures)
}

/// The mean row of each resample.
pub(crate) fn resampled_means<const N: usize>(
    rows: &[[f64; N]],
    resampling: Resampling,
) -> Result<Vec<[f64; N]>, MetricError> {
    let mean = |idxs: &[usize]| {
        let mut sums = [0.0; N];
        for &idx in idxs {
            sums.iter_mut().zip(rows[idx]).for_each(|(sum, value)| *sum += value);
        }
        sums.map(|sum| sum / idxs.len() as f64)
    };
    resampled(rows.len(), resampling, &mean)
}

/// The lower end, the middle and the upper end of a confidence, as shares of the resamples.
pub(crate) fn levels(confidence: f64) -> Result<[f64; 3], MetricError> {
    if !(0.0..=1.0).contains(&confidence) {
        return Err(MetricError::setting("the confidence", confidence, "a share from 0 to 1, such as 0.95"));
    }
    let delta = (1.0 - confidence) / 2.0;
    Ok([delta, 0.5, 1.0 - delta])
}

/// The value that a share of sorted values lies below, of which there is one at least: between two by the distance to
/// each.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    let distance = place - place.floor();
    if distance < 0.5 { low + (high - low) * distance } else { high - (high - low) * (1.0 - distance) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_resampled_is_said() {
        let resampling = Resampling { n_samples: 10, seed: 1 };
        assert_eq!(mean_interval(&[], 0.95, resampling), Err(MetricError::Empty));
        let none = Resampling { n_samples: 0, seed: 1 };
        assert!(matches!(mean_interval(&[1.0], 0.95, none), Err(MetricError::Setting { .. })));
        assert!(matches!(mean_interval(&[1.0], 1.5, resampling), Err(MetricError::Setting { .. })));
        assert!(matches!(mean_interval(&[1.0, f64::NAN], 0.5, resampling), Err(MetricError::Value { idx: 1, .. })));
        let interval = mean_interval(&[0.5], 0.95, resampling).unwrap();
        assert_eq!(interval, Interval { low: 0.5, value: 0.5, high: 0.5 });
    }
}
