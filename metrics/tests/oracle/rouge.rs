//! ROUGE beside rouge-score, and the stemmer beside NLTK's.

use serde::Deserialize;
use siskin_metrics::Resampling;
use siskin_metrics::rouge::{Rouge, RougeScore, RougeType, aggregate, stem};

use super::{Pair, check, read};

#[derive(Deserialize)]
struct Scored {
    types: Vec<String>,
    pairs: Vec<Pair>,
    plain: Vec<Vec<[f64; 3]>>,
    stemmed: Vec<Vec<[f64; 3]>>,
    plain_multi: Vec<Vec<[f64; 3]>>,
    stemmed_multi: Vec<Vec<[f64; 3]>>,
    aggregates: Vec<Aggregates>,
}

#[derive(Deserialize)]
struct Aggregates {
    seed: u64,
    confidence: f64,
    n_samples: usize,
    r#type: String,
    ends: [[f64; 3]; 3],
}

fn check_score(ours: RougeScore, theirs: [f64; 3], what: impl Fn() -> String) {
    let ours = [ours.precision, ours.recall, ours.f1];
    ours.into_iter().zip(theirs).for_each(|(ours, theirs)| check(ours, theirs, &what));
}

#[test]
fn random_pairs_have_rouge_scores_scores() {
    let scored: Scored = read("rouge.json");
    assert_eq!((scored.pairs.len(), scored.types.len()), (1000, 11));
    let types: Vec<RougeType> = scored.types.iter().map(|name| name.parse().unwrap()).collect();
    let predictions: Vec<&str> = scored.pairs.iter().map(|pair| pair.hypothesis.as_str()).collect();
    let all: Vec<&[String]> = scored.pairs.iter().map(|pair| pair.references.as_slice()).collect();
    let firsts: Vec<&[String]> = all.iter().map(|targets| &targets[..1]).collect();
    let runs = [
        (false, &firsts, &scored.plain),
        (true, &firsts, &scored.stemmed),
        (false, &all, &scored.plain_multi),
        (true, &all, &scored.stemmed_multi),
    ];
    for (use_stemmer, targets, theirs) in runs {
        let rouge = Rouge::new(&types, use_stemmer).unwrap();
        let ours = rouge.scores(targets, &predictions).unwrap();
        for (idx, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            for ((ours, &theirs), kind) in ours.iter().zip(theirs).zip(&types) {
                check_score(*ours, theirs, || {
                    format!("{kind}, pair {idx}, stemmer {use_stemmer}: {:?}", predictions[idx])
                });
            }
        }
        assert_eq!(rouge.score_multi(targets[7], predictions[7]).unwrap(), ours[7]);
    }
    check_aggregates(&scored, &types);
}

fn check_aggregates(scored: &Scored, types: &[RougeType]) {
    for entry in &scored.aggregates {
        let kind = types.iter().position(|kind| kind.to_string() == entry.r#type).unwrap();
        let score = |[precision, recall, f1]: [f64; 3]| RougeScore { precision, recall, f1 };
        let scores: Vec<RougeScore> = scored.plain.iter().map(|row| score(row[kind])).collect();
        let resampling = Resampling { n_samples: entry.n_samples, seed: entry.seed };
        let ours = aggregate(&scores, entry.confidence, resampling).unwrap();
        for (ours, theirs) in [ours.low, ours.mid, ours.high].into_iter().zip(entry.ends) {
            check_score(ours, theirs, || format!("{} of seed {}", entry.r#type, entry.seed));
        }
    }
}

#[test]
fn words_have_nltks_stems() {
    let stems: Vec<(String, String)> = read("stems.json");
    assert!(stems.len() > 40_000, "{} words", stems.len());
    for (word, theirs) in stems {
        assert_eq!(stem(&word), theirs, "{word}");
    }
}
