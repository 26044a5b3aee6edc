//! Whether one system is better than another, or only luckier: tests on the same segments.

use crate::bootstrap::{CorpusInterval, resampled};
use crate::corpus::{CorpusMetric, Resampling, SegmentStatistics};
use crate::error::MetricError;

/// What paired resamples say of a system beside a baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedBootstrap {
    /// The system's figure less the baseline's.
    pub difference: f64,
    /// How probable a difference so large would be between systems that do not differ, either way.
    pub p_value: f64,
    /// What the resamples say of the system itself.
    pub system: CorpusInterval,
}

/// Paired bootstrap resampling (Koehn, 2004) of a corpus' BLEU or chrF, as sacrebleu's `PairedTest(test_type="bs")`,
/// from the same draws: both are scored on the same resamples, and the differences, about their mean, are those of
/// chance.
///
/// # Errors
/// No resamples, or statistics of different corpora.
pub fn paired_bootstrap(
    metric: &impl CorpusMetric,
    baseline: &SegmentStatistics,
    system: &SegmentStatistics,
    resampling: Resampling,
) -> Result<PairedBootstrap, MetricError> {
    MetricError::check_lengths(system.n_segments(), baseline.n_segments())?;
    let score = |statistics: &SegmentStatistics, idxs: &[usize]| {
        metric.score_of_counts(&statistics.sum_of(idxs.iter().copied()))
    };
    paired(system.n_segments(), |idxs| [score(system, idxs), score(baseline, idxs)], resampling)
}

/// The same test for means, such as accuracy: `system[i]` and `baseline[i]` are the scores of the same segment.
///
/// # Errors
/// No resamples, no scores, or not as many of both.
pub fn paired_bootstrap_of_means(
    baseline: &[f64],
    system: &[f64],
    resampling: Resampling,
) -> Result<PairedBootstrap, MetricError> {
    MetricError::check_lengths(system.len(), baseline.len())?;
    let mean = |values: &[f64], idxs: &[usize]| idxs.iter().map(|&idx| values[idx]).sum::<f64>() / idxs.len() as f64;
    paired(system.len(), |idxs| [mean(system, idxs), mean(baseline, idxs)], resampling)
}

/// `figures` gives the system's and the baseline's figure of segments by number.
fn paired(
    n: usize,
    figures: impl Fn(&[usize]) -> [f64; 2] + Sync,
    resampling: Resampling,
) -> Result<PairedBootstrap, MetricError> {
    let all: Vec<usize> = (0..n).collect();
    let difference_of = |[system, baseline]: [f64; 2]| system - baseline;
    let difference = difference_of(figures(&all));
    let samples = resampled(n, resampling, &figures)?;
    let differences: Vec<f64> = samples.iter().map(|&sample| difference_of(sample).abs()).collect();
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    let n_larger = differences.iter().filter(|&&sample| sample - mean > difference.abs()).count();
    Ok(PairedBootstrap {
        difference,
        p_value: (n_larger + 1) as f64 / (differences.len() + 1) as f64,
        system: CorpusInterval::of(samples.into_iter().map(|[system, _]| system).collect()),
    })
}

/// McNemar's exact test of two classifiers on the same examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct McNemar {
    /// Examples that only the first has right.
    pub n_only_first: usize,
    /// Examples that only the second has right.
    pub n_only_second: usize,
    /// How probable so uneven a split would be between classifiers that do not differ, either way.
    pub p_value: f64,
}

/// McNemar's exact test (1947): of the examples that only one of them has right, each is either's with probability 1/2,
/// so the p-value is that of a binomial test.
///
/// # Errors
/// No examples, or not as many of both.
pub fn mcnemar(first_is_right: &[bool], second_is_right: &[bool]) -> Result<McNemar, MetricError> {
    MetricError::check_lengths(first_is_right.len(), second_is_right.len())?;
    let pairs = || first_is_right.iter().zip(second_is_right);
    let n_only_first = pairs().filter(|&(&first, &second)| first && !second).count();
    let n_only_second = pairs().filter(|&(&first, &second)| !first && second).count();
    let p_value = two_sided_binomial(n_only_first.min(n_only_second), n_only_first + n_only_second);
    Ok(McNemar { n_only_first, n_only_second, p_value })
}

/// Twice the probability of at most `k` heads in `n` throws of a coin, at most 1.
fn two_sided_binomial(k: usize, n: usize) -> f64 {
    let mut ln_term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for heads in 0..=k {
        sum += ln_term.exp();
        ln_term += ((n - heads) as f64 / (heads + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifiers_that_never_part_do_not_differ() {
        assert_eq!(mcnemar(&[true, false], &[true, false]).unwrap().p_value, 1.0);
        let tests = mcnemar(&[true; 5], &[false; 5]).unwrap();
        assert_eq!((tests.n_only_first, tests.n_only_second), (5, 0));
        assert!((tests.p_value - 0.0625).abs() < 1e-12);
    }

    #[test]
    fn a_system_against_itself_is_no_better() {
        let values = [0.0, 1.0, 1.0, 0.0];
        let resampling = Resampling { n_samples: 100, seed: 7 };
        let test = paired_bootstrap_of_means(&values, &values, resampling).unwrap();
        assert_eq!(test.difference, 0.0);
        assert!(test.p_value < 0.05, "no sample differs by more than nothing: {}", test.p_value);
    }
}
