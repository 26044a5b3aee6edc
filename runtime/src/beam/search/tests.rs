//! The search against Hugging Face's, against all texts that there are, and against greedy choice.

extern crate std;

use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::*;
use crate::sampler::most_probable;

/// What a search did.
struct Run {
    tokens: Vec<TokenId>,
    score: f32,
}

/// Searches with any model: `logits` after a text. Checks at every step that what a cache would hold is each running text.
fn search(options: BeamOptions, mut logits: impl FnMut(&[TokenId]) -> Vec<f32>) -> Run {
    let n = options.n_beams;
    let mut nodes = vec![u32::MAX; options.max_new_tokens * n];
    let mut records = vec![[u32::MAX; 4]; 4 * n];
    let mut memory = Memory { nodes: &mut nodes, records: &mut records };
    let mut search = Search::new(options, &mut memory);
    // The tokens that a beam's cache has; none where it has not even the prompt.
    let mut caches: Vec<Option<Vec<TokenId>>> = vec![None; n];
    caches[0] = Some(Vec::new());
    loop {
        let used = search.n_beams_used(&memory);
        for (beam, cache) in caches.iter_mut().enumerate().take(used) {
            let Some((rank, last)) = search.in_beam(&memory, beam) else { continue };
            let cache = cache.as_mut().expect("a beam that runs was given a cache");
            if search.n_tokens() > 0 {
                cache.push(last);
            }
            let mut traced = vec![0; search.n_tokens()];
            search.trace(&memory, beam, &mut traced);
            assert_eq!(*cache, traced, "the cache of beam {beam}");
            search.offer(&mut memory, rank, &logits(cache));
        }
        let is_last = search.n_tokens() + 1 == options.max_new_tokens;
        let goes_on = search.advance(&mut memory, is_last, |Branch { from, to, n_shared }| {
            let (source, target) = (caches[from].clone().expect("a source"), caches[to].take());
            assert_eq!(n_shared.is_some(), target.is_some());
            let kept = n_shared.unwrap_or(0);
            if let Some(target) = target {
                assert_eq!(target[..kept], source[..kept], "tokens that are said to be shared");
            }
            caches[to] = Some(source);
        });
        if !goes_on {
            break;
        }
    }
    let mut tokens = vec![0; options.max_new_tokens];
    let (n_tokens, score) = search.best(&memory, &mut tokens).expect("a text");
    tokens.truncate(n_tokens);
    Run { tokens, score }
}

fn options(n_beams: usize, length_penalty: f32, early_stopping: EarlyStopping, max_new_tokens: usize) -> BeamOptions {
    BeamOptions { n_beams, length_penalty, early_stopping, end_token: Some(END), max_new_tokens }
}

const END: TokenId = 1;
const STOPS: [EarlyStopping; 3] = [EarlyStopping::Likely, EarlyStopping::Full, EarlyStopping::Never];

#[test]
fn it_finds_what_hugging_face_finds() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/golden/beams.json")).expect("JSON");
    let tokens = |list: &Value| -> Vec<TokenId> {
        list.as_array().expect("a list").iter().map(|token| token.as_u64().expect("a token") as TokenId).collect()
    };
    let mut n_searches = 0;
    for model in golden.as_array().expect("models") {
        let unit = model["unit"].as_f64().expect("a unit") as f32;
        let predictions: HashMap<Vec<TokenId>, Vec<f32>> = model["predictions"]
            .as_array()
            .expect("predictions")
            .iter()
            .map(|entry| {
                let logits = entry["logits"].as_array().expect("logits").iter();
                let logits = logits.map(|units| units.as_f64().expect("a number") as f32 / unit);
                (tokens(&entry["after"]), logits.collect())
            })
            .collect();
        for wanted in model["searches"].as_array().expect("searches") {
            let count = |key: &str| wanted[key].as_u64().expect("a count") as usize;
            let options = BeamOptions {
                n_beams: count("n_beams"),
                length_penalty: wanted["length_penalty"].as_f64().expect("a number") as f32,
                early_stopping: match wanted["early_stopping"].as_str() {
                    Some("likely") => EarlyStopping::Likely,
                    Some("full") => EarlyStopping::Full,
                    _ => EarlyStopping::Never,
                },
                end_token: model["end"].as_u64().map(|end| end as TokenId),
                max_new_tokens: count("max_new_tokens"),
            };
            let found = search(options, |text| predictions[text].clone());
            assert_eq!(found.tokens, tokens(&wanted["tokens"]), "{} {wanted}", model["name"]);
            if let Some(score) = wanted["score"].as_f64() {
                let off = (f64::from(found.score) - score).abs() / score.abs().max(1.0);
                assert!(off < 2e-6, "{} {wanted}: {}", model["name"], found.score);
            }
            n_searches += 1;
        }
    }
    assert!(n_searches >= 100, "{n_searches}");
}

/// A model of `vocab_size` tokens whose logits after a text are random, always the same.
fn random_model(seed: u64, vocab_size: usize) -> impl Fn(&[TokenId]) -> Vec<f32> {
    move |text| {
        let digest = text.iter().fold(seed, |hash, &token| (hash ^ u64::from(token + 1)).wrapping_mul(0x100_0000_01b3));
        let mut rng = ChaCha8Rng::seed_from_u64(digest);
        (0..vocab_size).map(|_| rng.random_range(-3.0..3.0)).collect()
    }
}

/// The score of a text by `f64`.
fn score(text: &[TokenId], length_penalty: f32, logits: &impl Fn(&[TokenId]) -> Vec<f32>) -> f64 {
    let sum: f64 = (0..text.len())
        .map(|i| {
            let logits: Vec<f64> = logits(&text[..i]).into_iter().map(f64::from).collect();
            logits[text[i] as usize] - logits.iter().map(|logit| logit.exp()).sum::<f64>().ln()
        })
        .sum();
    sum / (text.len() as f64).powf(length_penalty.into())
}

/// Every text that ends, or has the most tokens.
fn all_texts(vocab_size: usize, max_new_tokens: usize) -> Vec<Vec<TokenId>> {
    let (mut whole, mut open) = (Vec::new(), vec![Vec::new()]);
    for length in 1..=max_new_tokens {
        let longer = |text: Vec<TokenId>| {
            (0..vocab_size as TokenId).map(move |token| {
                let mut text = text.clone();
                text.push(token);
                text
            })
        };
        let is_whole = |text: &Vec<TokenId>| length == max_new_tokens || text.last() == Some(&END);
        let (ended, going) = open.into_iter().flat_map(longer).partition(is_whole);
        open = going;
        whole.extend::<Vec<_>>(ended);
    }
    whole
}

#[test]
fn with_room_for_all_texts_it_finds_the_best_of_all() {
    let (vocab_size, max_new_tokens) = (3, 5);
    let texts = all_texts(vocab_size, max_new_tokens);
    assert_eq!(texts.len(), 1 + 2 + 4 + 8 + 48);
    for seed in 0..40 {
        let model = random_model(seed, vocab_size);
        for length_penalty in [-0.5, 0.0, 0.7, 1.0, 3.0] {
            let best = texts.iter().map(|text| score(text, length_penalty, &model)).fold(f64::MIN, f64::max);
            let found = search(options(BEAMS_MAX, length_penalty, EarlyStopping::Never, max_new_tokens), &model);
            assert!((f64::from(found.score) - best).abs() < 1e-5, "seed {seed}, penalty {length_penalty}");
            assert!((score(&found.tokens, length_penalty, &model) - best).abs() < 1e-5, "seed {seed}");
        }
    }
}

/// What is most probable, token by token.
fn greedy(max_new_tokens: usize, logits: &impl Fn(&[TokenId]) -> Vec<f32>) -> Vec<TokenId> {
    let mut text = Vec::new();
    while text.len() < max_new_tokens && text.last() != Some(&END) {
        let next = most_probable(&logits(&text));
        text.push(next);
    }
    text
}

#[test]
fn one_beam_is_greedy_and_two_tokens_are_never_worse() {
    let mut n_better = 0;
    for seed in 0..200 {
        let model = random_model(seed, 6);
        for (length_penalty, early_stopping) in [(0.0, STOPS[2]), (1.0, STOPS[0]), (0.5, STOPS[1])] {
            let found = search(options(1, length_penalty, early_stopping, 7), &model);
            assert_eq!(found.tokens, greedy(7, &model), "seed {seed}");
            for n_beams in [2, 3, 8] {
                // The greedy first token cannot fall out before the second is drawn.
                let found = search(options(n_beams, length_penalty, early_stopping, 2), &model);
                let floor = score(&greedy(2, &model), length_penalty, &model);
                assert!(f64::from(found.score) > floor - 1e-5, "seed {seed}, {n_beams} beams");
                n_better += usize::from(f64::from(found.score) > floor + 1e-3);
            }
        }
    }
    assert!(n_better > 100, "{n_better}");
}

#[test]
fn equals_go_to_the_lower_beam_and_token() {
    let even = |_: &[TokenId]| vec![0.0; 4];
    let found = search(options(2, 1.0, EarlyStopping::Full, 3), even);
    // The text of one token and that of two both score the logarithm of a fourth.
    assert_eq!((found.tokens, found.score.to_bits()), (vec![END], (-math::ln(4.0)).to_bits()));
    let found = search(options(3, 0.0, EarlyStopping::Never, 1), even);
    assert_eq!(found.tokens, [0]);
}

#[test]
fn what_is_no_number_is_never_drawn() {
    let odd = |text: &[TokenId]| match text.len() {
        0 => vec![f32::NAN, f32::NEG_INFINITY, 1.0, f32::NAN],
        1 => vec![f32::NEG_INFINITY, f32::INFINITY, 1.0, 2.0],
        _ => vec![f32::NAN; 4],
    };
    let found = search(options(3, 1.0, EarlyStopping::Never, 3), odd);
    assert_eq!((found.tokens, found.score), (vec![2, 1], 0.0));
}

#[test]
fn powers_are_those_of_f64() {
    for base in [1.0f32, 2.0, 3.0, 17.0, 400.0, 65536.0] {
        for exponent in [-4.0f32, -1.5, -1.0, -0.2, 0.0, 0.3, 0.6, 1.0, 1.9, 2.0, 3.99, 4.0] {
            let wanted = f64::from(base).powf(exponent.into());
            let off = (f64::from(power(base, exponent)) - wanted).abs() / wanted;
            assert!(off < 3e-6, "{base}^{exponent} is off by {off}");
        }
    }
}
