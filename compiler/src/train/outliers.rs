//! Steps whose gradient is far larger than the last ones': a bad batch, or the beginning of a loss spike.
//!
//! The bound is a factor times the median of the last norms, which a few outliers do not move.

use super::exact::Exact;
use crate::recipe::TrainSection;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Steps that may be left out one after the other: a run whose gradients stay large must go on.
const IN_A_ROW_MAX: u64 = 3;

/// What is remembered of past norms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outliers {
    /// Steps that were left out.
    pub n_skipped: u64,
    n_in_a_row: u64,
    /// The last norms, those of steps left out too: a lasting change moves the median.
    norms: VecDeque<Exact>,
}

/// Why a step is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Skip {
    /// The most that its norm could have been; `None` where it is not a number and nothing is known of others.
    pub bound: Option<f64>,
}

impl Outliers {
    /// Hears the norm of a step's gradient before clipping, and says whether to leave the step out.
    pub fn judge(&mut self, settings: &TrainSection, norm: f64) -> Option<Skip> {
        if settings.skip_outliers == 0.0 {
            return None;
        }
        let is_known = self.norms.len() >= settings.skip_window.div_ceil(2);
        let bound = is_known.then(|| settings.skip_outliers * self.median());
        if norm.is_finite() {
            self.norms.push_back(Exact(norm));
            while self.norms.len() > settings.skip_window {
                self.norms.pop_front();
            }
        }
        let is_outlier = !norm.is_finite() || bound.is_some_and(|bound| norm > bound);
        if !is_outlier || self.n_in_a_row == IN_A_ROW_MAX {
            self.n_in_a_row = 0;
            return None;
        }
        self.n_in_a_row += 1;
        self.n_skipped += 1;
        Some(Skip { bound })
    }

    /// The middle one, or the larger of the two.
    fn median(&self) -> f64 {
        let mut norms: Vec<f64> = self.norms.iter().map(|norm| norm.0).collect();
        norms.sort_by(f64::total_cmp);
        norms[norms.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(outliers: &mut Outliers, norms: &[f64]) -> Vec<bool> {
        let settings = toml::from_str("steps = 9\nbatch_size = 1\nskip_outliers = 3.0\nskip_window = 8").unwrap();
        norms.iter().map(|norm| outliers.judge(&settings, *norm).is_some()).collect()
    }

    #[test]
    fn only_what_is_far_above_the_median_is_left_out() {
        let mut outliers = Outliers::default();
        // Before half a window nothing is known.
        assert_eq!(skipped(&mut outliers, &[1.0, 50.0, 1.2, 0.8]), [false; 4]);
        assert_eq!(skipped(&mut outliers, &[1.1, 3.2, 3.7, 1.0, 90.0]), [false, false, true, false, true]);
        assert_eq!(outliers.n_skipped, 2);
    }

    #[test]
    fn a_run_whose_gradients_stay_large_goes_on() {
        let mut outliers = Outliers::default();
        skipped(&mut outliers, &[1.0; 8]);
        let large = skipped(&mut outliers, &[100.0; 12]);
        assert_eq!(large[..4], [true, true, true, false]);
        assert!(large[5..].iter().all(|skipped| !skipped), "the median has moved: {large:?}");
    }

    #[test]
    fn what_is_not_a_number_is_left_out_but_not_for_ever() {
        let mut outliers = Outliers::default();
        assert_eq!(skipped(&mut outliers, &[f64::NAN, f64::INFINITY, f64::NAN, f64::NAN]), [true, true, true, false]);
        assert!(outliers.norms.is_empty());
    }
}
