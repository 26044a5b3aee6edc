//! Scores of labels, as scikit-learn defines them, and of whole answers.

use std::collections::BTreeMap;

use crate::error::MetricError;

/// The share of predictions that are the true label.
///
/// # Errors
/// No predictions, or not as many as there are labels.
pub fn accuracy<T: PartialEq>(labels: &[T], predictions: &[T]) -> Result<f64, MetricError> {
    MetricError::check_lengths(predictions.len(), labels.len())?;
    let n_right = labels.iter().zip(predictions).filter(|(label, prediction)| label == prediction).count();
    Ok(n_right as f64 / labels.len() as f64)
}

/// The share of answers that are the reference, to the byte but for whitespace at both ends.
///
/// # Errors
/// No answers, or not as many as there are references.
pub fn exact_match<R: AsRef<str>, A: AsRef<str>>(references: &[R], answers: &[A]) -> Result<f64, MetricError> {
    MetricError::check_lengths(answers.len(), references.len())?;
    let is_match = |(reference, answer): &(&R, &A)| reference.as_ref().trim() == answer.as_ref().trim();
    Ok(references.iter().zip(answers).filter(is_match).count() as f64 / references.len() as f64)
}

/// What stands for a score that would be a division by zero: of a class that is never predicted, or never true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroDivision {
    /// 0.
    #[default]
    Zero,
    /// 1.
    One,
    /// Nothing: no number, and averages leave it out.
    Nan,
}

impl ZeroDivision {
    fn ratio(self, part: usize, all: usize) -> f64 {
        match self {
            _ if all > 0 => part as f64 / all as f64,
            Self::Zero => 0.0,
            Self::One => 1.0,
            Self::Nan => f64::NAN,
        }
    }
}

/// Scores of a class, or their average over classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScores {
    /// The share of the class' predictions that are right.
    pub precision: f64,
    /// The share of the class' examples that are found.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// How many examples are of the class: of all classes, how many there are.
    pub support: usize,
}

/// How classes are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// Each class counts alike.
    Macro,
    /// Each class counts as its examples.
    Weighted,
    /// Counts are summed over classes before they are divided.
    Micro,
}

/// What labels and predictions come to, class by class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCounts<T> {
    counts: BTreeMap<T, Counts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    n_right: usize,
    n_predicted: usize,
    n_true: usize,
}

impl Counts {
    fn scores(self, zero_division: ZeroDivision) -> ClassScores {
        let Self { n_right, n_predicted, n_true } = self;
        ClassScores {
            precision: zero_division.ratio(n_right, n_predicted),
            recall: zero_division.ratio(n_right, n_true),
            f1: zero_division.ratio(2 * n_right, n_predicted + n_true),
            support: n_true,
        }
    }
}

impl<T: Ord + Clone> ClassCounts<T> {
    /// Counts all classes that occur among labels or predictions.
    ///
    /// # Errors
    /// No predictions, or not as many as there are labels.
    pub fn new(labels: &[T], predictions: &[T]) -> Result<Self, MetricError> {
        MetricError::check_lengths(predictions.len(), labels.len())?;
        let mut counts: BTreeMap<T, Counts> = BTreeMap::new();
        let mut add = |class: &T, count: fn(&mut Counts)| match counts.get_mut(class) {
            Some(counts) => count(counts),
            None => count(counts.entry(class.clone()).or_default()),
        };
        for (label, prediction) in labels.iter().zip(predictions) {
            add(label, |counts| counts.n_true += 1);
            add(prediction, |counts| counts.n_predicted += 1);
            if label == prediction {
                add(label, |counts| counts.n_right += 1);
            }
        }
        Ok(Self { counts })
    }

    /// The same, of these classes only: those that did not occur have no examples, others are left out of every
    /// average.
    ///
    /// # Errors
    /// No classes.
    pub fn of_classes(&self, classes: &[T]) -> Result<Self, MetricError> {
        if classes.is_empty() {
            return Err(MetricError::Empty);
        }
        let count = |class: &T| (class.clone(), self.counts.get(class).copied().unwrap_or_default());
        Ok(Self { counts: classes.iter().map(count).collect() })
    }

    /// The scores of each class, in the order of the classes.
    pub fn by_class(&self, zero_division: ZeroDivision) -> Vec<(&T, ClassScores)> {
        self.counts.iter().map(|(class, counts)| (class, counts.scores(zero_division))).collect()
    }

    /// The scores of all classes together.
    pub fn average(&self, average: Average, zero_division: ZeroDivision) -> ClassScores {
        let sum = self.counts.values().fold(Counts::default(), |sum, counts| Counts {
            n_right: sum.n_right + counts.n_right,
            n_predicted: sum.n_predicted + counts.n_predicted,
            n_true: sum.n_true + counts.n_true,
        });
        if average == Average::Micro {
            return sum.scores(zero_division);
        }
        let scores: Vec<ClassScores> = self.counts.values().map(|counts| counts.scores(zero_division)).collect();
        let mean = |part: fn(&ClassScores) -> f64| {
            let weight = |scores: &ClassScores| if average == Average::Macro { 1.0 } else { scores.support as f64 };
            let numbers = || scores.iter().filter(|scores| !part(scores).is_nan());
            let weights: f64 = numbers().map(weight).sum();
            match numbers().next() {
                None => f64::NAN,
                // No class that has a score has an example: they count alike.
                Some(_) if weights == 0.0 => numbers().map(part).sum::<f64>() / numbers().count() as f64,
                Some(_) => numbers().map(|scores| weight(scores) * part(scores)).sum::<f64>() / weights,
            }
        };
        ClassScores {
            precision: mean(|scores| scores.precision),
            recall: mean(|scores| scores.recall),
            f1: mean(|scores| scores.f1),
            support: sum.n_true,
        }
    }
}

/// A mean, and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the sample (of n - 1) over the root of n; one value has none.
    pub standard_error: Option<f64>,
}

/// The mean of values with its standard error.
///
/// # Errors
/// No values.
pub fn mean(values: &[f64]) -> Result<Mean, MetricError> {
    if values.is_empty() {
        return Err(MetricError::Empty);
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Ok(Mean { mean, standard_error: (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_match_but_for_the_space_around_them() {
        assert_eq!(exact_match(&["a b", "c"], &[" a b\n", "C"]), Ok(0.5));
        assert_eq!(accuracy(&[1, 2, 3], &[1, 2, 4]), Ok(2.0 / 3.0));
        assert_eq!(accuracy::<u8>(&[], &[]), Err(MetricError::Empty));
        assert_eq!(mean(&[2.0]), Ok(Mean { mean: 2.0, standard_error: None }));
    }
}
