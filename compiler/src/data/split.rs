//! Which documents are held out, decided for each alone.

use super::Document;
use sha2::{Digest, Sha256};

/// Parts documents into those to train on and those to validate on, by a hash of their texts.
///
/// Adding or removing documents moves no other from one part to the other, and neither does raising the fraction move one out of
/// the training part. Texts that differ in white space alone go to the same part, so that no copy of a held-out text is trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DocumentSplit {
    /// Expected share of the documents to train on, from 0 to 1.
    pub train_fraction: f64,
    /// Another seed holds out others.
    pub seed: u64,
}

impl DocumentSplit {
    /// Whether a document is trained on.
    pub fn is_train(&self, document: &Document) -> bool {
        let mut digest = Sha256::new().chain_update(self.seed.to_le_bytes());
        for word in document.text.split_whitespace() {
            digest.update(word);
            digest.update(b" ");
        }
        let digest: [u8; 32] = digest.finalize().into();
        let [a, b, c, d, e, f, g, ..] = digest;
        // 53 bits are a float's, so that the comparison is exact: from 0 up to but not 1.
        let place = (u64::from_le_bytes([a, b, c, d, e, f, g, 0]) >> 3) as f64 / (1_u64 << 53) as f64;
        place < self.train_fraction
    }

    /// The documents to train on and those to validate on, each in their order.
    pub fn split(&self, documents: Vec<Document>) -> (Vec<Document>, Vec<Document>) {
        documents.into_iter().partition(|document| self.is_train(document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Origin;
    use std::path::Path;

    fn documents(n: usize) -> Vec<Document> {
        let origin = Origin { path: Path::new("a.txt").into(), line: 1 };
        let document = |i| Document { text: format!("the {i}th"), label: None, target: None, origin: origin.clone() };
        (0..n).map(document).collect()
    }

    #[test]
    fn the_share_is_met_and_the_ends_are_all_or_nothing() {
        let split = |train_fraction, seed| DocumentSplit { train_fraction, seed }.split(documents(4000)).0.len();
        // Five standard deviations of a binomial distribution are 95.
        for seed in 0..4 {
            assert!(split(0.9, seed).abs_diff(3600) < 95, "{} of 4000", split(0.9, seed));
        }
        assert_eq!((split(0.0, 1), split(1.0, 1)), (0, 4000));
    }

    #[test]
    fn a_document_stays_where_it_is() {
        let split = DocumentSplit { train_fraction: 0.5, seed: 7 };
        let all = documents(300);
        let few: Vec<Document> = all.iter().skip(100).step_by(3).cloned().collect();
        let wider = DocumentSplit { train_fraction: 0.7, ..split };
        let (train, validation) = split.split(all);
        let (few_train, few_validation) = split.split(few);
        assert!(few_train.iter().all(|document| train.contains(document)));
        assert!(few_validation.iter().all(|document| validation.contains(document)));
        assert!(train.iter().all(|document| wider.is_train(document)));
        let other = DocumentSplit { seed: 8, ..split };
        assert!(train.iter().any(|document| !other.is_train(document)));
        for document in train.iter().take(20) {
            let spaced = Document { text: document.text.replace(' ', "\n  "), ..document.clone() };
            assert!(split.is_train(&spaced));
        }
    }
}
