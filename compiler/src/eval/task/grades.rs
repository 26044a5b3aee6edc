//! What answers are worth: figures of `siskin-metrics`, each with an interval, and the score of each question.

use std::collections::BTreeMap;

use serde::Serialize;
use siskin_metrics::bleu::Bleu;
use siskin_metrics::bootstrap::{corpus_interval, interval_of, mean_interval};
use siskin_metrics::calibration::calibration;
use siskin_metrics::chrf::Chrf;
use siskin_metrics::classification::{Average, ClassCounts, ZeroDivision};
use siskin_metrics::rouge::{Rouge, RougeType};
use siskin_metrics::{CorpusMetric, MetricError, Resampling, SegmentStatistics};

use super::{Answer, Expected};

/// Share of resamples that lies in an interval.
const CONFIDENCE: f64 = 0.95;
/// sacrebleu's defaults, and used for all.
const RESAMPLING: Resampling = Resampling { n_samples: 1000, seed: 12345 };
/// Bins of the calibration error.
const N_BINS: usize = 10;

/// The metrics of texts, in the order in which they are told.
pub const TEXT_METRICS: [&str; 8] =
    ["exact_match", "json_match", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "rougeLsum"];

/// A metric's value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The metric.
    pub metric: String,
    /// Of all questions.
    pub value: f64,
    /// The lower end of the 95% interval, by resampling questions; none for a figure that has no interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Its upper end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// What exactly was computed, in the reference's own words, where it has such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What answers are worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Grades {
    /// The figures of all questions.
    pub figures: Vec<Figure>,
    /// Each question's score by the first figure: 1 where it was answered right, 0 where not, or what lies between.
    pub scores: Vec<f64>,
}

/// Why answers have no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GradeError {
    /// There is no such metric of texts.
    #[error("there is no metric {name}; of texts there are {}", TEXT_METRICS.join(", "))]
    UnknownMetric {
        /// The name.
        name: String,
    },
    /// The metric cannot be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

/// Grades answers to questions of one kind. `metrics` are names of [`TEXT_METRICS`], for questions that expect texts; the first of them
/// gives each question's score.
///
/// - **Choices**: `acc`, the share whose likeliest choice is the right one; `acc_norm`, by likelihood over the choice's characters, and
///   `acc_bytes`, over its bytes, as lm-evaluation-harness has them.
/// - **Labels**: `accuracy`, `f1_macro`, `f1_micro`, `f1_weighted` and `f1_LABEL` as scikit-learn's, with 0 where nothing divides;
///   `ece`, the expected calibration error over ten bins.
/// - **Texts**: `exact_match` without white space at the ends, `json_match` of the values that both texts spell, and BLEU, chrF and
///   ROUGE's F as the packages have them.
///
/// # Errors
/// [`GradeError`].
pub fn grades(expected: &[&Expected], answers: &[Answer], metrics: &[&str]) -> Result<Grades, GradeError> {
    match expected.first() {
        Some(Expected::Choice { .. }) => choices(expected, answers),
        Some(Expected::Label(_)) => labels(expected, answers),
        _ => texts(expected, answers, metrics),
    }
}

/// The mean of each question's score.
fn mean(metric: &str, scores: &[f64]) -> Result<Figure, MetricError> {
    let interval = mean_interval(scores, CONFIDENCE, RESAMPLING)?;
    let (low, high) = (Some(interval.low), Some(interval.high));
    Ok(Figure { metric: metric.to_owned(), value: interval.value, low, high, signature: None })
}

fn is_right(is_right: bool) -> f64 {
    f64::from(u8::from(is_right))
}

/// What a choice's likelihood is divided by.
type Length = fn(&str) -> usize;

fn choices(expected: &[&Expected], answers: &[Answer]) -> Result<Grades, GradeError> {
    let length_of: [(&str, Length); 3] =
        [("acc", |_| 1), ("acc_norm", |choice| choice.chars().count()), ("acc_bytes", str::len)];
    let score = |length: Length| -> Vec<f64> {
        let one = |(expected, answer): (&&Expected, &Answer)| match (expected, answer) {
            (Expected::Choice { choices, answer }, Answer::Choice(likelihoods)) => {
                let lengths = choices.iter().map(|choice| length(choice) as f64);
                is_right(Answer::best_choice(likelihoods, lengths) == Some(*answer))
            }
            _ => 0.0,
        };
        expected.iter().zip(answers).map(one).collect()
    };
    let scores = length_of.map(|(name, length)| (name, score(length)));
    let figures: Result<Vec<Figure>, MetricError> = scores.iter().map(|(name, scores)| mean(name, scores)).collect();
    let [(_, scores), ..] = scores;
    Ok(Grades { figures: figures?, scores })
}

fn labels(expected: &[&Expected], answers: &[Answer]) -> Result<Grades, GradeError> {
    let truth: Vec<&str> = expected.iter().map(|expected| expected.text()).collect();
    let (predicted, confidences): (Vec<&str>, Vec<f64>) = answers
        .iter()
        .map(|answer| match answer {
            Answer::Label { label, probability } => (label.as_str(), *probability),
            _ => ("", 0.0),
        })
        .unzip();
    let right: Vec<bool> = truth.iter().zip(&predicted).map(|(truth, predicted)| truth == predicted).collect();
    let scores: Vec<f64> = right.iter().map(|&right| is_right(right)).collect();
    let mut figures = vec![mean("accuracy", &scores)?];
    let zero = ZeroDivision::Zero;
    for (name, average) in
        [("f1_macro", Average::Macro), ("f1_micro", Average::Micro), ("f1_weighted", Average::Weighted)]
    {
        let f1 = |idxs: &[usize]| {
            let of = |labels: &[&str]| idxs.iter().map(|&idx| labels[idx].to_owned()).collect::<Vec<String>>();
            let counts = ClassCounts::new(&of(&truth), &of(&predicted));
            counts.map_or(f64::NAN, |counts| counts.average(average, zero).f1)
        };
        let interval = interval_of(truth.len(), f1, CONFIDENCE, RESAMPLING)?;
        let (low, high) = (Some(interval.low), Some(interval.high));
        figures.push(Figure { metric: name.to_owned(), value: interval.value, low, high, signature: None });
    }
    for (label, scores) in ClassCounts::new(&truth, &predicted)?.by_class(zero) {
        figures.push(Figure {
            metric: format!("f1_{label}"),
            value: scores.f1,
            low: None,
            high: None,
            signature: None,
        });
    }
    let error = calibration(&confidences, &right, N_BINS)?.error;
    figures.push(Figure { metric: "ece".to_owned(), value: error, low: None, high: None, signature: None });
    Ok(Grades { figures, scores })
}

fn texts(expected: &[&Expected], answers: &[Answer], metrics: &[&str]) -> Result<Grades, GradeError> {
    let references: Vec<&[String]> = expected
        .iter()
        .map(|expected| match expected {
            Expected::Text(references) => references.as_slice(),
            _ => &[],
        })
        .collect();
    let said: Vec<&str> = answers
        .iter()
        .map(|answer| match answer {
            Answer::Text { text, .. } => text.as_str(),
            _ => "",
        })
        .collect();
    let mut figures = Vec::new();
    let mut by_question: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (metric_idx, &metric) in metrics.iter().enumerate() {
        let (figure, scores) = text_metric(metric, &said, &references)?;
        figures.push(figure);
        by_question.insert(metric_idx, scores);
    }
    Ok(Grades { figures, scores: by_question.remove(&0).unwrap_or_default() })
}

/// A metric of all texts, and of each.
fn text_metric(metric: &str, said: &[&str], references: &[&[String]]) -> Result<(Figure, Vec<f64>), GradeError> {
    let each = |is_same: &dyn Fn(&str, &str) -> bool| -> Result<(Figure, Vec<f64>), GradeError> {
        let one = |(said, references): (&&str, &&[String])| {
            is_right(references.iter().any(|reference| is_same(said, reference)))
        };
        let scores: Vec<f64> = said.iter().zip(references).map(one).collect();
        Ok((mean(metric, &scores)?, scores))
    };
    match metric {
        "exact_match" => each(&|said, reference| said.trim() == reference.trim()),
        "json_match" => each(&|said, reference| match (spelled(said), spelled(reference)) {
            (Some(said), Some(reference)) => said == reference,
            _ => false,
        }),
        "bleu" => {
            let (bleu, sentences) = (Bleu::default(), Bleu::for_sentences());
            let statistics = bleu.statistics(said, references)?;
            let signature = bleu.signature(statistics.n_references(), Some(RESAMPLING));
            let scores = sentences.sentences(&sentences.statistics(said, references)?);
            Ok((corpus(metric, &bleu, &statistics, signature)?, scores))
        }
        "chrf" => {
            let chrf = Chrf::default();
            let statistics = chrf.statistics(said, references)?;
            let signature = chrf.signature(statistics.n_references(), Some(RESAMPLING));
            Ok((corpus(metric, &chrf, &statistics, signature)?, chrf.sentences(&statistics)))
        }
        name if TEXT_METRICS.contains(&name) => {
            let kind: RougeType = name.parse()?;
            let rouge = Rouge::new(&[kind], false)?;
            let scores = rouge.scores(references, said)?;
            let scores: Vec<f64> = scores.iter().filter_map(|kinds| Some(kinds.first()?.f1)).collect();
            Ok((mean(metric, &scores)?, scores))
        }
        name => Err(GradeError::UnknownMetric { name: name.to_owned() }),
    }
}

/// The value that a text spells.
fn spelled(text: &str) -> Option<serde_json::Value> {
    serde_json::from_str(text.trim()).ok()
}

/// A corpus' score, of 100. The interval is sacrebleu's: about the mean of the resamples.
fn corpus(
    metric: &str,
    definition: &impl CorpusMetric,
    statistics: &SegmentStatistics,
    signature: String,
) -> Result<Figure, MetricError> {
    let value = definition.score_of_counts(&statistics.sum());
    let interval = corpus_interval(definition, statistics, RESAMPLING)?;
    let (low, high) = (Some(interval.mean - interval.half_width), Some(interval.mean + interval.half_width));
    Ok(Figure { metric: metric.to_owned(), value, low, high, signature: Some(signature) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(grades: &Grades, metric: &str) -> f64 {
        grades.figures.iter().find(|figure| figure.metric == metric).expect("the metric").value
    }

    #[test]
    fn choices_are_told_by_likelihood_and_by_likelihood_a_character() {
        let choice = |answer| Expected::Choice { choices: vec!["ab".into(), "abcdefgh".into()], answer };
        let (first, second) = (choice(0), choice(1));
        // -3 over 2 characters is less likely than -4 over 8.
        let answers = [Answer::Choice(vec![-3.0, -4.0]), Answer::Choice(vec![-3.0, -4.0])];
        let grades = grades(&[&first, &second], &answers, &[]).unwrap();
        assert_eq!((value(&grades, "acc"), value(&grades, "acc_norm")), (0.5, 0.5));
        assert_eq!(grades.scores, [1.0, 0.0]);
        let only = super::grades(&[&second], &answers[..1], &[]).unwrap();
        assert_eq!((value(&only, "acc"), value(&only, "acc_norm"), value(&only, "acc_bytes")), (0.0, 1.0, 1.0));
    }

    #[test]
    fn labels_have_accuracy_f1_and_calibration() {
        let expected = ["a", "a", "b", "b"].map(|label| Expected::Label(label.into()));
        let expected: Vec<&Expected> = expected.iter().collect();
        let answers = ["a", "b", "b", "b"].map(|label| Answer::Label { label: label.into(), probability: 1.0 });
        let grades = grades(&expected, &answers, &[]).unwrap();
        assert_eq!((value(&grades, "accuracy"), value(&grades, "f1_micro")), (0.75, 0.75));
        assert!((value(&grades, "f1_a") - 2.0 / 3.0).abs() < 1e-12 && (value(&grades, "f1_b") - 0.8).abs() < 1e-12);
        assert!((value(&grades, "f1_macro") - (2.0 / 3.0 + 0.8) / 2.0).abs() < 1e-12);
        assert!((value(&grades, "ece") - 0.25).abs() < 1e-12);
    }

    #[test]
    fn texts_are_matched_and_compared() {
        let expected =
            [r#"{"a": 1, "b": 2}"#, "the cat sat"].map(|text| Expected::Text(vec![text.into(), "no".into()]));
        let expected: Vec<&Expected> = expected.iter().collect();
        let answers =
            [r#"{"b":2,"a":1}"#, " the cat sat\n"].map(|text| Answer::Text { text: text.into(), n_tokens: 3 });
        let grades = grades(&expected, &answers, &TEXT_METRICS).unwrap();
        assert_eq!((value(&grades, "exact_match"), value(&grades, "json_match")), (0.5, 0.5));
        assert_eq!(grades.scores, [0.0, 1.0]);
        assert!(value(&grades, "bleu") > 0.0 && value(&grades, "chrf") > 50.0 && value(&grades, "rougeL") > 0.5);
        let bleu = grades.figures.iter().find(|figure| figure.metric == "bleu").unwrap();
        assert!(bleu.signature.as_ref().is_some_and(|signature| signature.contains("tok:13a")), "{bleu:?}");
        let error = super::grades(&expected, &answers, &["meteor"]).unwrap_err().to_string();
        assert!(error.contains("meteor") && error.contains("rougeL"), "{error}");
    }
}
