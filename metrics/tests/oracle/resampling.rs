//! Draws, intervals and tests beside numpy, scipy and sacrebleu.

use serde::Deserialize;
use siskin_metrics::bleu::Bleu;
use siskin_metrics::bootstrap::{corpus_interval, mean_interval, percentile};
use siskin_metrics::chrf::Chrf;
use siskin_metrics::classification::mean;
use siskin_metrics::draw::Draw;
use siskin_metrics::significance::{mcnemar, paired_bootstrap};
use siskin_metrics::{CorpusMetric, Resampling};

use super::sacrebleu::Wmt17;
use super::{check, read};

#[derive(Deserialize)]
struct Numbers {
    draws: Vec<Drawn>,
    mean: MeanCase,
    mcnemar: Vec<McNemarCase>,
}

#[derive(Deserialize)]
struct Drawn {
    seed: u64,
    n: usize,
    drawn: Vec<usize>,
}

#[derive(Deserialize)]
struct MeanCase {
    values: Vec<f64>,
    percentiles: Vec<[f64; 2]>,
    seed: u64,
    n_samples: usize,
    ends: [f64; 2],
    mean: f64,
    standard_error: f64,
}

#[derive(Deserialize)]
struct McNemarCase {
    only_first: usize,
    only_second: usize,
    p_value: f64,
}

#[test]
fn draws_are_numpys() {
    for Drawn { seed, n, drawn } in read::<Numbers>("numbers.json").draws {
        let mut draw = Draw::new(seed);
        let ours: Vec<usize> = drawn.iter().map(|_| draw.below(n)).collect();
        assert_eq!(ours, drawn, "below {n} from seed {seed}");
    }
}

#[test]
fn means_and_their_intervals_are_numpys() {
    let case = read::<Numbers>("numbers.json").mean;
    let mut sorted = case.values.clone();
    sorted.sort_by(f64::total_cmp);
    for [share, theirs] in case.percentiles {
        check(percentile(&sorted, share), theirs, || format!("percentile {share}"));
    }
    let resampling = Resampling { n_samples: case.n_samples, seed: case.seed };
    let interval = mean_interval(&case.values, 0.95, resampling).unwrap();
    check(interval.low, case.ends[0], || "the lower end".into());
    check(interval.high, case.ends[1], || "the upper end".into());
    let ours = mean(&case.values).unwrap();
    check(ours.mean, case.mean, || "the mean".into());
    check(ours.standard_error.unwrap(), case.standard_error, || "the standard error".into());
}

#[test]
fn mcnemars_test_is_scipys_binomial_test() {
    for McNemarCase { only_first, only_second, p_value } in read::<Numbers>("numbers.json").mcnemar {
        let first: Vec<bool> = (0..only_first + only_second + 10).map(|idx| idx < only_first).collect();
        let second: Vec<bool> =
            (0..first.len()).map(|idx| (only_first..only_first + only_second).contains(&idx)).collect();
        let test = mcnemar(&first, &second).unwrap();
        assert_eq!((test.n_only_first, test.n_only_second), (only_first, only_second));
        check(test.p_value, p_value, || format!("{only_first} against {only_second}"));
    }
}

#[derive(Deserialize)]
struct Resamples {
    n_samples: usize,
    seed: u64,
    baseline: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    metric: String,
    system: String,
    exact: Exact,
    shipped: Shipped,
}

#[derive(Deserialize)]
struct Exact {
    difference: f64,
    p_value: f64,
    mean: f64,
    half_width: f64,
}

#[derive(Deserialize)]
struct Shipped {
    p_value: f64,
    mean: f64,
    half_width: f64,
}

/// sacrebleu itself computes resamples in single precision: with it, the same figures to as many digits.
#[test]
fn paired_tests_are_sacrebleus() {
    let resamples: Resamples = read("resampling.json");
    let wmt17: Wmt17 = read("wmt17.json");
    let resampling = Resampling { n_samples: resamples.n_samples, seed: resamples.seed };
    assert_eq!(resamples.cases.len(), 4);
    for case in &resamples.cases {
        match case.metric.as_str() {
            "BLEU" => check_case(&Bleu::default(), &wmt17, &resamples.baseline, case, resampling),
            "chrF" => check_case(&Chrf::default(), &wmt17, &resamples.baseline, case, resampling),
            other => panic!("no metric {other}"),
        }
    }
}

fn check_case(metric: &impl CorpusMetric, wmt17: &Wmt17, baseline: &str, case: &Case, resampling: Resampling) {
    let references: Vec<[&str; 1]> = wmt17.references.iter().map(|reference| [reference.as_str()]).collect();
    let statistics = |name: &str| {
        let system = wmt17.systems.iter().find(|system| system.name == name).unwrap();
        metric.statistics(&system.hypotheses, &references).unwrap()
    };
    let (baseline, system) = (statistics(baseline), statistics(&case.system));
    let test = paired_bootstrap(metric, &baseline, &system, resampling).unwrap();
    let what = || format!("{} of {}", case.metric, case.system);
    check(test.difference, case.exact.difference, what);
    check(test.p_value, case.exact.p_value, what);
    check(test.system.mean, case.exact.mean, what);
    check(test.system.half_width, case.exact.half_width, what);
    assert_eq!(corpus_interval(metric, &system, resampling).unwrap(), test.system);
    assert!((test.p_value - case.shipped.p_value).abs() < 0.02, "{}", what());
    assert!((test.system.mean - case.shipped.mean).abs() < 1e-4, "{}", what());
    assert!((test.system.half_width - case.shipped.half_width).abs() < 1e-4, "{}", what());
}
