//! Documents that are there more than once.
//!
//! Exact duplicates have the same words in the same order, however they are spaced. Near duplicates share most of their shingles,
//! runs of five words (Broder 1997): candidates are found by locality-sensitive hashing of their MinHash signatures and then
//! compared shingle by shingle, so that no document is dropped on an estimate.

use super::Document;
use super::shuffle::mix;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Words of a shingle.
const SHINGLE_WORDS: usize = 5;
/// Hash functions of a signature, in [`N_BANDS`] bands: a pair is compared if all of a band agrees.
const N_HASHES: usize = 128;
/// A pair that shares 0.8 of its shingles is missed with probability (1 - 0.8^4)^32 < 10^-7; one that shares 0.2 is compared with
/// probability 0.05.
const N_BANDS: usize = 32;

/// Near duplicates share at least this much of the shingles that either has (their Jaccard index).
pub const NEAR_DUPLICATE_SHARE: f64 = 0.8;

/// Which documents are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deduplication {
    /// None.
    #[default]
    Off,
    /// Those that an earlier one equals but for white space.
    Exact,
    /// Those too that share [`NEAR_DUPLICATE_SHARE`] of their shingles with an earlier one that stays. Case and punctuation do not
    /// count.
    Near,
}

/// A document that repeats another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicate {
    /// Its index.
    pub document: usize,
    /// The index of the earlier one, which is no duplicate itself.
    pub original: usize,
    /// Share of common shingles: 1 for an exact duplicate.
    pub similarity: f64,
    /// Whether only white space differs.
    pub is_exact: bool,
}

/// What was found, in the order of the documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duplicates {
    /// One for each document that repeats another.
    pub found: Vec<Duplicate>,
}

/// How much is there more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateCounts {
    /// Documents that equal an earlier one but for white space.
    pub n_exact: usize,
    /// Documents that are nearly an earlier one.
    pub n_near: usize,
    /// Bytes of text of both.
    pub n_bytes: usize,
}

impl Duplicates {
    /// Looks for documents that repeat an earlier one. Labels and targets must be the same: the same question with another answer
    /// is another document.
    pub fn find(documents: &[Document], rule: Deduplication) -> Self {
        let mut found = Vec::new();
        if rule == Deduplication::Off {
            return Self { found };
        }
        let mut exact: HashMap<[u8; 32], usize> = HashMap::new();
        let signatures: Vec<Signature> = match rule {
            Deduplication::Near => documents.par_iter().map(Signature::of).collect(),
            _ => Vec::new(),
        };
        let mut near = NearIndex::default();
        for (idx, document) in documents.iter().enumerate() {
            let original = *exact.entry(exact_key(document)).or_insert(idx);
            if original != idx {
                found.push(Duplicate { document: idx, original, similarity: 1.0, is_exact: true });
            } else if let Some(signature) = signatures.get(idx)
                && let Some((original, similarity)) = near.find_or_insert(documents, idx, signature)
            {
                found.push(Duplicate { document: idx, original, similarity, is_exact: false });
            }
        }
        // A copy of a near duplicate repeats what that one repeats.
        let mut originals: HashMap<usize, usize> = HashMap::new();
        for duplicate in &mut found {
            duplicate.original = originals.get(&duplicate.original).copied().unwrap_or(duplicate.original);
            originals.insert(duplicate.document, duplicate.original);
        }
        Self { found }
    }

    /// How many there are.
    pub fn counts(&self, documents: &[Document]) -> DuplicateCounts {
        let n_exact = self.found.iter().filter(|duplicate| duplicate.is_exact).count();
        let n_bytes = self.found.iter().map(|duplicate| documents[duplicate.document].n_bytes()).sum();
        DuplicateCounts { n_exact, n_near: self.found.len() - n_exact, n_bytes }
    }
}

/// Finds exact duplicates as documents go by, keeping 32 bytes of each.
#[derive(Debug, Default)]
pub struct SeenDocuments(HashSet<[u8; 32]>);

impl SeenDocuments {
    /// Whether a document equals one before it but for white space.
    pub fn repeats(&mut self, document: &Document) -> bool {
        !self.0.insert(exact_key(document))
    }
}

/// SHA-256 of the words of the text, the label and the target, spaces between words being one.
fn exact_key(document: &Document) -> [u8; 32] {
    let mut digest = Sha256::new();
    for (part, text) in
        [Some(&document.text), document.label.as_ref(), document.target.as_ref()].into_iter().zip(0_u8..)
    {
        digest.update([0xff, text]);
        for word in part.into_iter().flat_map(|text| text.split_whitespace()) {
            digest.update(word);
            digest.update(b" ");
        }
    }
    digest.finalize().into()
}

/// The documents that stay, by the bands of their signatures.
#[derive(Default)]
struct NearIndex {
    bands: HashMap<(usize, u64), Vec<usize>>,
}

impl NearIndex {
    /// The most similar document so far, the first of equal ones, and the share of common shingles; a document that is like none
    /// is kept for those that follow.
    fn find_or_insert(&mut self, documents: &[Document], idx: usize, signature: &Signature) -> Option<(usize, f64)> {
        let bands: Vec<(usize, u64)> = signature.bands().collect();
        let candidates: BTreeSet<usize> =
            bands.iter().filter_map(|band| self.bands.get(band)).flatten().copied().collect();
        let document = &documents[idx];
        let own = shingles(&document.text);
        let answer = |document: &Document| (document.label.clone(), document.target.clone());
        let mut best: Option<(usize, f64)> = None;
        for candidate in candidates {
            let similarity = similarity(&own, &shingles(&documents[candidate].text));
            let is_like = similarity >= NEAR_DUPLICATE_SHARE && answer(document) == answer(&documents[candidate]);
            if is_like && best.is_none_or(|(_, most)| similarity > most) {
                best = Some((candidate, similarity));
            }
        }
        if best.is_none() && !own.is_empty() {
            bands.into_iter().for_each(|band| self.bands.entry(band).or_default().push(idx));
        }
        best
    }
}

/// The smallest value of each hash function over a document's shingles.
struct Signature([u32; N_HASHES]);

impl Signature {
    fn of(document: &Document) -> Self {
        // Multiply-shift with odd multipliers: universal enough for minima, and a single product each.
        let functions: [(u64, u64); N_HASHES] = std::array::from_fn(|i| (mix(2 * i as u64) | 1, mix(2 * i as u64 + 1)));
        let mut minima = [u32::MAX; N_HASHES];
        for shingle in shingles(&document.text) {
            for (minimum, (factor, offset)) in minima.iter_mut().zip(&functions) {
                let hash = shingle.wrapping_mul(*factor).wrapping_add(*offset) >> 32;
                *minimum = (*minimum).min(hash as u32);
            }
        }
        Self(minima)
    }

    fn bands(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let bands = self.0.chunks_exact(N_HASHES / N_BANDS).enumerate();
        bands.map(|(band, minima)| (band, minima.iter().fold(0, |hash, minimum| mix(hash ^ u64::from(*minimum)))))
    }
}

/// Hashes of a text's shingles, sorted, each once; of a text of fewer words, one of all. None of a text without words.
fn shingles(text: &str) -> Vec<u64> {
    let words: Vec<u64> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(word_hash).collect();
    let mut shingles: Vec<u64> = words
        .windows(SHINGLE_WORDS.min(words.len()).max(1))
        .map(|words| words.iter().fold(0, |hash, word| mix(hash ^ word)))
        .collect();
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// FNV-1a over the characters in lower case.
fn word_hash(word: &str) -> u64 {
    let chars = word.chars().flat_map(char::to_lowercase);
    chars.fold(0xcbf2_9ce4_8422_2325, |hash, c| (hash ^ u64::from(c)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Share of the shingles of either that both have. Both are sorted.
fn similarity(left: &[u64], right: &[u64]) -> f64 {
    let n_common = left.iter().filter(|shingle| right.binary_search(shingle).is_ok()).count();
    n_common as f64 / (left.len() + right.len() - n_common).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Origin;
    use proptest::prelude::*;
    use std::path::Path;

    fn document(text: &str) -> Document {
        let origin = Origin { path: Path::new("a.txt").into(), line: 1 };
        Document { text: text.to_owned(), label: None, target: None, origin }
    }

    fn documents(texts: &[&str]) -> Vec<Document> {
        texts.iter().map(|text| document(text)).collect()
    }

    /// The duplicate, its original, and whether it is exact.
    fn found(documents: &[Document], rule: Deduplication) -> Vec<(usize, usize, bool)> {
        let duplicates = Duplicates::find(documents, rule).found;
        duplicates.iter().map(|duplicate| (duplicate.document, duplicate.original, duplicate.is_exact)).collect()
    }

    #[test]
    fn white_space_does_not_count_and_all_else_does() {
        let documents = documents(&["a  b\nc", "a b C", " a b c ", "ab c", "a b c", "a b C\n"]);
        assert_eq!(found(&documents, Deduplication::Exact), [(2, 0, true), (4, 0, true), (5, 1, true)]);
        assert_eq!(found(&documents, Deduplication::Off), []);
        let duplicates = Duplicates::find(&documents, Deduplication::Exact);
        assert_eq!(duplicates.counts(&documents), DuplicateCounts { n_exact: 3, n_near: 0, n_bytes: 18 });
    }

    #[test]
    fn another_answer_makes_another_document() {
        let mut documents = documents(&["what is it", "what is it", "what is it", "What is it?"]);
        for (document, label) in documents.iter_mut().zip(["a", "b", "a", "b"]) {
            document.label = Some(label.to_owned());
        }
        assert_eq!(found(&documents, Deduplication::Near), [(2, 0, true), (3, 1, false)]);
    }

    #[test]
    fn similarity_is_counted_by_hand() {
        // Shingles of the first: 1-5, 2-6, 3-7; of the second: 1-5, 2-6, 6-8. Two of four are common.
        let (left, right) = (shingles("a b c d e f g"), shingles("A, b c-d e: f h"));
        assert_eq!((left.len(), right.len()), (3, 3));
        assert_eq!(similarity(&left, &right), 0.5);
        assert_eq!((shingles("A b!"), shingles("?! \n")), (shingles("a B"), Vec::new()));
        assert_eq!(similarity(&[], &[]), 0.0);
    }

    /// `n` words that no other seed gives.
    fn words(seed: u64, n: u64) -> Vec<String> {
        (0..n).map(|i| format!("w{}", mix(seed << 32 | i))).collect()
    }

    #[test]
    fn near_duplicates_are_found_down_to_the_threshold() {
        // Changing word i of n changes up to five shingles: the share is (n - 4 - 5) / (n - 4 + 5).
        let base = words(1, 104);
        let changed = |places: &[usize]| {
            let mut words = base.clone();
            places.iter().for_each(|at| words[*at] = "other".into());
            words.join(" ")
        };
        let (one, two, three) = (changed(&[50]), changed(&[20, 70]), changed(&[20, 50, 80]));
        let documents = documents(&[&base.join(" "), &one, &two, &three, &words(2, 104).join(" "), &two]);
        // 95/105 and 90/110 are above 0.8, 85/115 is below.
        assert_eq!(found(&documents, Deduplication::Near), [(1, 0, false), (2, 0, false), (5, 0, true)]);
        let similarity = Duplicates::find(&documents, Deduplication::Near).found[0].similarity;
        assert_eq!(similarity, 95.0 / 105.0);
    }

    proptest! {
        /// What hashing finds is what comparing every pair finds.
        #[test]
        fn hashing_misses_nothing(seeds in prop::collection::vec((0_u64..4, 0_usize..40, 0_usize..40), 1..12)) {
            let texts: Vec<String> = seeds
                .iter()
                .map(|(seed, from, changed)| {
                    let mut words = words(*seed, 60);
                    words[*changed] = "other".into();
                    words[from / 8..].join(" ")
                })
                .collect();
            let documents: Vec<Document> = texts.iter().map(|text| document(text)).collect();
            let found = Duplicates::find(&documents, Deduplication::Near).found;
            let is_found = |idx: usize| found.iter().any(|duplicate| duplicate.document == idx);
            for (idx, text) in texts.iter().enumerate() {
                let stays = (0..idx).filter(|idx| !is_found(*idx));
                let most = stays.map(|other| similarity(&shingles(text), &shingles(&texts[other]))).fold(0.0, f64::max);
                prop_assert_eq!(is_found(idx), most >= NEAR_DUPLICATE_SHARE, "{} {}", idx, most);
            }
        }
    }
}
