//! Scores of labels beside scikit-learn, and calibration beside its definition in numpy.

use serde::Deserialize;
use siskin_metrics::calibration::calibration;
use siskin_metrics::classification::{Average, ClassCounts, ClassScores, ZeroDivision, accuracy};

use super::{check, read};

#[derive(Deserialize)]
struct Numbers {
    labels: Vec<Labels>,
    calibrations: Vec<Calibration>,
}

#[derive(Deserialize)]
struct Labels {
    r#true: Vec<u32>,
    predicted: Vec<u32>,
    classes: Option<Vec<u32>>,
    zero_division: String,
    accuracy: f64,
    scores: Scores,
}

/// Precisions, recalls and F1, each of one average or of all classes; none where there is no number.
type Parts = [Vec<Option<f64>>; 3];

#[derive(Deserialize)]
struct Scores {
    r#macro: Parts,
    micro: Parts,
    weighted: Parts,
    classes: Parts,
}

#[derive(Deserialize)]
struct Calibration {
    confidences: Vec<f64>,
    right: Vec<bool>,
    n_bins: usize,
    error: f64,
    max_error: f64,
}

fn check_parts(ours: &[ClassScores], theirs: &Parts, what: &str) {
    let part: [fn(&ClassScores) -> f64; 3] = [|scores| scores.precision, |scores| scores.recall, |scores| scores.f1];
    for (part, theirs) in part.into_iter().zip(theirs) {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        for (ours, theirs) in ours.iter().map(part).zip(theirs) {
            match theirs {
                Some(theirs) => check(ours, *theirs, || what.to_owned()),
                None => assert!(ours.is_nan(), "{what}: {ours} should be no number"),
            }
        }
    }
}

#[test]
fn scores_of_labels_are_scikit_learns() {
    let cases = read::<Numbers>("numbers.json").labels;
    assert_eq!(cases.len(), 45);
    for case in cases {
        check(accuracy(&case.r#true, &case.predicted).unwrap(), case.accuracy, || "accuracy".into());
        let all = ClassCounts::new(&case.r#true, &case.predicted).unwrap();
        let counts = case.classes.as_ref().map_or_else(|| all.clone(), |classes| all.of_classes(classes).unwrap());
        let zero_division = match case.zero_division.as_str() {
            "zero" => ZeroDivision::Zero,
            "one" => ZeroDivision::One,
            _ => ZeroDivision::Nan,
        };
        let what = format!("{} examples, classes {:?}, {zero_division:?}", case.r#true.len(), case.classes);
        let by_class: Vec<ClassScores> = counts.by_class(zero_division).into_iter().map(|(_, scores)| scores).collect();
        check_parts(&by_class, &case.scores.classes, &what);
        let averages = [
            (Average::Macro, &case.scores.r#macro),
            (Average::Micro, &case.scores.micro),
            (Average::Weighted, &case.scores.weighted),
        ];
        for (average, theirs) in averages {
            check_parts(&[counts.average(average, zero_division)], theirs, &format!("{what}, {average:?}"));
        }
    }
}

#[test]
fn calibration_is_its_definition() {
    for case in read::<Numbers>("numbers.json").calibrations {
        let ours = calibration(&case.confidences, &case.right, case.n_bins).unwrap();
        check(ours.error, case.error, || format!("{} in {} bins", case.right.len(), case.n_bins));
        check(ours.max_error, case.max_error, || format!("{} in {} bins, most", case.right.len(), case.n_bins));
    }
}
