//! Whether a model is as often right as it believes.

use crate::error::MetricError;

/// A bin of confidences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CalibrationBin {
    /// Predictions in it.
    pub n: usize,
    /// Their mean confidence; 0 without any.
    pub confidence: f64,
    /// The share of them that is right; 0 without any.
    pub accuracy: f64,
}

/// The expected calibration error, and the bins that it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The distance between confidence and accuracy, averaged over predictions, from 0 to 1.
    pub error: f64,
    /// The largest distance of a bin.
    pub max_error: f64,
    /// Equally wide bins over 0 to 1, from the least confident.
    pub bins: Vec<CalibrationBin>,
}

/// The expected calibration error (Naeini and others, 2015; Guo and others, 2017) in `n_bins` bins of equal width: each
/// bin's distance between mean confidence and accuracy, weighted by its share of the predictions. Bin b of B has the
/// confidences above (b - 1) / B up to b / B; a confidence of 0 is in the first.
///
/// # Errors
/// No predictions, not as many confidences as outcomes, a confidence that is no probability, or no bins.
pub fn calibration(confidences: &[f64], is_right: &[bool], n_bins: usize) -> Result<Calibration, MetricError> {
    MetricError::check_lengths(confidences.len(), is_right.len())?;
    if n_bins == 0 {
        return Err(MetricError::setting("the number of bins", 0, "1 or more"));
    }
    let mut bins = vec![CalibrationBin::default(); n_bins];
    for (idx, (&confidence, &is_right)) in confidences.iter().zip(is_right).enumerate() {
        if !(0.0..=1.0).contains(&confidence) {
            return Err(MetricError::Value { idx, value: confidence, wanted: "a probability" });
        }
        let bin = &mut bins[bin_of(confidence, n_bins)];
        bin.n += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(is_right));
    }
    let (mut error, mut max_error) = (0.0, 0.0_f64);
    for bin in bins.iter_mut().filter(|bin| bin.n > 0) {
        bin.confidence /= bin.n as f64;
        bin.accuracy /= bin.n as f64;
        let distance = (bin.confidence - bin.accuracy).abs();
        error += distance * bin.n as f64 / confidences.len() as f64;
        max_error = max_error.max(distance);
    }
    Ok(Calibration { error, max_error, bins })
}

/// The first bin whose upper end is not below; the ends are b / B as the nearest `f64`.
fn bin_of(confidence: f64, n_bins: usize) -> usize {
    let end = |bin: usize| (bin + 1) as f64 / n_bins as f64;
    let mut bin = ((confidence * n_bins as f64) as usize).min(n_bins - 1);
    while bin > 0 && confidence <= end(bin - 1) {
        bin -= 1;
    }
    while bin + 1 < n_bins && confidence > end(bin) {
        bin += 1;
    }
    bin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_has_its_upper_end() {
        let confidences = [0.0, 0.1, 0.3, 0.30000001, 0.7, 1.0];
        let calibration = calibration(&confidences, &[false, false, true, true, true, true], 10).unwrap();
        let counts: Vec<usize> = calibration.bins.iter().map(|bin| bin.n).collect();
        assert_eq!(counts, [2, 0, 1, 1, 0, 0, 1, 0, 0, 1]);
        assert!((calibration.max_error - 0.7).abs() < 1e-7);
        assert!(matches!(super::calibration(&[1.5], &[true], 10), Err(MetricError::Value { idx: 0, .. })));
        assert!(super::calibration(&[0.5], &[true], 0).is_err());
    }
}
