//! What counting alone tells about masked tokens: the baselines that a masked language model has to beat.

use crate::data::{Example, IGNORED};
use serde::Serialize;
use siskin_runtime::TokenId;
use std::collections::BTreeMap;

/// Share of the masked tokens that a rule tells right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MaskedBaselines {
    /// Always the most frequent token.
    pub unigram: f64,
    /// The token that most often follows the one before it in the training part.
    pub bigram: f64,
}

/// Counts `train` and tells the targets of `validation`; ties go to the lower id. Where the token before is itself one to be told, the
/// bigram rule reads what stands in the input, as a model does, and falls back to the unigram's for what never came in training.
pub fn masked_baselines(train: impl IntoIterator<Item = TokenId>, validation: &[Example]) -> MaskedBaselines {
    let most_frequent = |counts: &BTreeMap<TokenId, u64>| {
        counts.iter().max_by_key(|(token, count)| (**count, std::cmp::Reverse(**token))).map(|(token, _)| *token)
    };
    let mut unigrams: BTreeMap<TokenId, u64> = BTreeMap::new();
    let mut bigrams: BTreeMap<TokenId, BTreeMap<TokenId, u64>> = BTreeMap::new();
    let mut before = None;
    for token in train {
        *unigrams.entry(token).or_default() += 1;
        if let Some(before) = before.replace(token) {
            *bigrams.entry(before).or_default().entry(token).or_default() += 1;
        }
    }
    let unigram = most_frequent(&unigrams);
    let after: BTreeMap<TokenId, TokenId> =
        bigrams.iter().filter_map(|(token, counts)| Some((*token, most_frequent(counts)?))).collect();
    let (mut n, mut unigram_right, mut bigram_right) = (0_u64, 0_u64, 0_u64);
    for example in validation {
        for (i, &target) in example.targets.iter().enumerate().filter(|(_, target)| **target != IGNORED) {
            let before = i.checked_sub(1).map(|before| example.inputs[before]);
            let told = before.and_then(|before| after.get(&before).copied()).or(unigram);
            n += 1;
            unigram_right += u64::from(unigram == Some(target));
            bigram_right += u64::from(told == Some(target));
        }
    }
    let share = |right: u64| right as f64 / n.max(1) as f64;
    MaskedBaselines { unigram: share(unigram_right), bigram: share(bigram_right) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_tell_the_most_frequent() {
        // 5 is the most frequent token; 8 always follows 7.
        let train = [5, 5, 7, 8, 5, 7, 8, 5];
        let masked = |inputs: [TokenId; 3], target| Example {
            inputs: inputs.to_vec(),
            targets: vec![IGNORED, target, IGNORED],
            ..Example::default()
        };
        let validation = [masked([7, 2, 5], 8), masked([2, 2, 5], 5), masked([5, 2, 5], 5), masked([7, 2, 2], 5)];
        let baselines = masked_baselines(train, &validation);
        assert_eq!(baselines, MaskedBaselines { unigram: 0.75, bigram: 0.5 });
    }
}
