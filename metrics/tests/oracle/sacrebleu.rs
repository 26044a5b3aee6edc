//! BLEU and chrF beside sacrebleu: the systems of WMT17, and random pairs with every setting.

use serde::Deserialize;
use siskin_metrics::bleu::{Bleu, BleuScore, Smoothing};
use siskin_metrics::chrf::Chrf;
use siskin_metrics::{CorpusMetric as _, NumReferences};

use super::{Pair, check, read};

#[derive(Deserialize)]
pub struct BleuSettings {
    tokenize: String,
    smooth_method: String,
    smooth_value: Option<f64>,
    lowercase: bool,
    effective_order: bool,
    max_ngram_order: usize,
}

impl BleuSettings {
    fn bleu(&self) -> Bleu {
        let smoothing = match (self.smooth_method.as_str(), self.smooth_value) {
            ("exp", None) => Smoothing::Exp,
            ("none", None) => Smoothing::None,
            ("floor", None) => Smoothing::DEFAULT_FLOOR,
            ("floor", Some(value)) => Smoothing::Floor(value),
            ("add-k", None) => Smoothing::DEFAULT_ADD_K,
            ("add-k", Some(value)) => Smoothing::AddK(value),
            other => panic!("no smoothing {other:?}"),
        };
        Bleu {
            tokenizer: self.tokenize.parse().unwrap(),
            smoothing,
            lowercase: self.lowercase,
            force: false,
            max_ngram_order: self.max_ngram_order,
            effective_order: self.effective_order,
        }
    }
}

#[derive(Deserialize)]
struct BleuParts {
    score: f64,
    counts: Vec<f64>,
    totals: Vec<f64>,
    precisions: Vec<f64>,
    bp: f64,
    sys_len: u64,
    ref_len: u64,
    line: String,
}

impl BleuParts {
    fn check(&self, ours: &BleuScore, what: &str) {
        assert_eq!((ours.hypothesis_len, ours.reference_len), (self.sys_len, self.ref_len), "{what}");
        check(ours.score, self.score, || what.to_owned());
        check(ours.brevity_penalty, self.bp, || format!("{what}: brevity penalty"));
        let parts = [
            (&ours.counts, &self.counts, "counts"),
            (&ours.totals, &self.totals, "totals"),
            (&ours.precisions, &self.precisions, "precisions"),
        ];
        for (ours, theirs, name) in parts {
            assert_eq!(ours.len(), theirs.len(), "{what}: {name}");
            ours.iter().zip(theirs).for_each(|(&ours, &theirs)| check(ours, theirs, || format!("{what}: {name}")));
        }
        assert_eq!(ours.to_string(), self.line, "{what}");
    }
}

#[derive(Deserialize)]
struct Pairs {
    pairs: Vec<Pair>,
    bleu: Vec<BleuEntry>,
    chrf: Vec<ChrfEntry>,
}

#[derive(Deserialize)]
struct BleuEntry {
    settings: BleuSettings,
    signature: String,
    corpus: BleuParts,
    sentences: Vec<f64>,
}

#[derive(Deserialize)]
struct ChrfEntry {
    settings: ChrfSettings,
    signature: String,
    name: String,
    corpus: f64,
    sentences: Vec<f64>,
}

#[derive(Deserialize)]
struct ChrfSettings {
    char_order: usize,
    word_order: usize,
    beta: u32,
    lowercase: bool,
    whitespace: bool,
    eps_smoothing: bool,
}

#[test]
fn random_pairs_have_sacrebleus_scores() {
    let Pairs { pairs, bleu, chrf } = read("pairs.json");
    assert_eq!(pairs.len(), 1000);
    let hypotheses: Vec<&str> = pairs.iter().map(|pair| pair.hypothesis.as_str()).collect();
    let references: Vec<&[String]> = pairs.iter().map(|pair| pair.references.as_slice()).collect();
    assert!(bleu.len() > 60, "every tokeniser and smoothing");
    for entry in bleu {
        let metric = entry.settings.bleu();
        let statistics = metric.statistics(&hypotheses, &references).unwrap();
        assert_eq!(metric.signature(statistics.n_references(), None), entry.signature);
        let ours = metric.corpus(&hypotheses, &references).unwrap();
        entry.corpus.check(&ours, &entry.signature);
        for (idx, (ours, theirs)) in metric.sentences(&statistics).into_iter().zip(entry.sentences).enumerate() {
            check(ours, theirs, || format!("{}, pair {idx}: {:?}", entry.signature, hypotheses[idx]));
        }
        let last = metric.sentence(hypotheses[999], references[999]).unwrap().score;
        assert_eq!(last, metric.sentences(&statistics)[999]);
    }
    for entry in chrf {
        let ChrfSettings { char_order, word_order, beta, lowercase, whitespace, eps_smoothing } = entry.settings;
        let metric = Chrf { char_order, word_order, beta, lowercase, whitespace, eps_smoothing };
        let statistics = metric.statistics(&hypotheses, &references).unwrap();
        assert_eq!(metric.signature(statistics.n_references(), None), entry.signature);
        assert_eq!(metric.name(), entry.name);
        check(metric.corpus(&hypotheses, &references).unwrap(), entry.corpus, || entry.signature.clone());
        for (idx, (ours, theirs)) in metric.sentences(&statistics).into_iter().zip(entry.sentences).enumerate() {
            check(ours, theirs, || format!("{}, pair {idx}: {:?}", entry.signature, hypotheses[idx]));
        }
    }
}

/// The systems of WMT17 and their only reference.
#[derive(Deserialize)]
pub struct Wmt17 {
    pub references: Vec<String>,
    pub systems: Vec<System>,
    scores: Vec<SystemScore>,
}

#[derive(Deserialize)]
pub struct System {
    pub name: String,
    pub hypotheses: Vec<String>,
}

#[derive(Deserialize)]
struct SystemScore {
    system: String,
    settings: BleuSettings,
    signature: String,
    corpus: BleuParts,
}

#[test]
fn the_systems_of_wmt17_have_sacrebleus_scores() {
    let Wmt17 { references, systems, scores } = read("wmt17.json");
    assert_eq!((systems.len(), scores.len()), (16, 16 * 5 * 6));
    let references: Vec<[&str; 1]> = references.iter().map(|reference| [reference.as_str()]).collect();
    for entry in scores {
        let metric = entry.settings.bleu();
        assert_eq!(metric.signature(NumReferences::Each(1), None), entry.signature);
        let system = systems.iter().find(|system| system.name == entry.system).unwrap();
        let ours = metric.corpus(&system.hypotheses, &references).unwrap();
        entry.corpus.check(&ours, &format!("{}, {}", entry.system, entry.signature));
    }
}

#[derive(Deserialize)]
struct Unicode {
    classes: std::collections::BTreeMap<String, Vec<[u32; 2]>>,
    spaces: Vec<u32>,
}

/// `intl` sets punctuation and symbols apart, and a mark after a number only where no number follows.
#[test]
fn every_character_is_of_the_references_class() {
    let Unicode { classes, spaces } = read("unicode.json");
    let tokenizer = siskin_metrics::bleu::Tokenizer::International;
    let is_in = |name: &str, c: char| classes[name].iter().any(|&[low, high]| (low..=high).contains(&u32::from(c)));
    for c in '\0'..=char::MAX {
        if spaces.contains(&u32::from(c)) {
            assert_eq!(tokenizer.tokens(&format!("a{c}b")), ["a", "b"], "{c:?}");
            continue;
        }
        // A comma parts from what is no number; punctuation and symbols part from the letter before.
        let is_number = tokenizer.tokens(&format!("1,{c}")).len() == 1;
        let is_apart = tokenizer.tokens(&format!("a{c}a")).len() == 3;
        let is_symbol = is_apart && tokenizer.tokens(&format!("1{c}1")).len() == 3;
        assert_eq!(is_number, is_in("N", c), "{c:?}");
        assert_eq!(is_apart, is_in("P", c) || is_in("S", c), "{c:?}");
        assert_eq!(is_symbol, is_in("S", c), "{c:?}");
    }
}
