//! From a text file to training samples: read, split, cut into windows.

mod example;

pub use example::{Example, IGNORED};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_runtime::TokenId;
use std::path::{Path, PathBuf};

/// Why a text cannot be trained on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error("cannot read the text {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not UTF-8.
    #[error("{} is not UTF-8: the byte at offset {offset} starts no character", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where the first bad sequence starts.
        offset: usize,
    },
    /// A part of the text is too short.
    #[error(
        "the {part} part of the text has {n_tokens} tokens, but {needed} are needed: use more text or a shorter context"
    )]
    TooShort {
        /// Which part.
        part: &'static str,
        /// Tokens it has.
        n_tokens: usize,
        /// Tokens it must have.
        needed: usize,
    },
}

/// Reads a UTF-8 text file.
///
/// # Errors
/// [`DataError::Read`] or [`DataError::NotUtf8`].
pub fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    String::from_utf8(bytes)
        .map_err(|error| DataError::NotUtf8 { path: path.to_owned(), offset: error.utf8_error().valid_up_to() })
}

/// Splits off the first `train_fraction` of the characters (rounded down) for training; the rest is for validation.
pub fn split_text(text: &str, train_fraction: f64) -> (&str, &str) {
    let n_chars = text.chars().count();
    let n_train = (n_chars as f64 * train_fraction) as usize;
    let at = text.char_indices().nth(n_train).map_or(text.len(), |(at, _)| at);
    text.split_at(at)
}

/// The tokens of a training text, from which windows are drawn.
#[derive(Clone, Debug)]
pub struct TokenStream {
    tokens: Vec<TokenId>,
    window: usize,
}

impl TokenStream {
    /// A stream that yields windows of `window` inputs, each with its targets one token later.
    ///
    /// # Errors
    /// [`DataError::TooShort`] if there is no whole window.
    pub fn new(tokens: Vec<TokenId>, window: usize) -> Result<Self, DataError> {
        match tokens.len() > window {
            true => Ok(Self { tokens, window }),
            false => Err(DataError::TooShort { part: "training", n_tokens: tokens.len(), needed: window + 1 }),
        }
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The `n` windows of a batch, at random places: `(inputs, targets)` each.
    ///
    /// The places depend on `seed` and `batch_idx` alone, so nothing about past batches needs to be remembered.
    pub fn batch(&self, seed: u64, batch_idx: u64, n: usize) -> Vec<(&[TokenId], &[TokenId])> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(batch_idx);
        let places = self.tokens.len() - self.window;
        let starts = (0..n).map(|_| rng.random_range(0..places as u64) as usize);
        starts.map(|at| (&self.tokens[at..at + self.window], &self.tokens[at + 1..at + 1 + self.window])).collect()
    }
}

/// Windows that predict every token but the first exactly once: each starts at the last target of the one before.
pub fn evaluation_windows(tokens: &[TokenId], window: usize) -> impl Iterator<Item = (&[TokenId], &[TokenId])> {
    let n_targets = tokens.len().saturating_sub(1);
    (0..n_targets).step_by(window).map(move |at| {
        let len = window.min(n_targets - at);
        (&tokens[at..at + len], &tokens[at + 1..at + 1 + len])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_counts_characters_and_rounds_down() {
        assert_eq!(split_text("aé漢𝄞b", 0.7), ("aé漢", "𝄞b"));
        assert_eq!(split_text("ab", 1.0), ("ab", ""));
        assert_eq!(split_text("", 0.5), ("", ""));
    }

    #[test]
    fn a_batch_depends_on_its_number_alone() {
        let stream = TokenStream::new((0..100).collect(), 7).unwrap();
        let first = stream.batch(1, 5, 4);
        stream.batch(1, 6, 9);
        assert_eq!(stream.batch(1, 5, 4), first);
        assert_ne!(stream.batch(1, 6, 4), first);
        assert_ne!(stream.batch(2, 5, 4), first);
        for (inputs, targets) in first {
            assert_eq!(inputs.len(), 7);
            assert!(inputs.iter().zip(targets).all(|(input, target)| input + 1 == *target));
        }
    }

    #[test]
    fn every_window_of_a_stream_can_be_drawn() {
        let stream = TokenStream::new((0..9).collect(), 7).unwrap();
        let starts: Vec<u32> = (0..40).map(|i| stream.batch(0, i, 1)[0].0[0]).collect();
        assert!(starts.contains(&0) && starts.contains(&1));
        assert!(TokenStream::new((0..7).collect(), 7).is_err());
    }

    #[test]
    fn evaluation_predicts_each_token_once() {
        let tokens: Vec<u32> = (0..11).collect();
        for window in [1, 3, 5, 10, 20] {
            let targets: Vec<u32> = evaluation_windows(&tokens, window).flat_map(|(_, t)| t.to_vec()).collect();
            assert_eq!(targets, (1..11).collect::<Vec<u32>>());
        }
        assert_eq!(evaluation_windows(&tokens[..1], 4).count(), 0);
    }

    #[test]
    fn bad_bytes_are_located() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, b"abc\xffd").unwrap();
        assert!(matches!(read_text(&path), Err(DataError::NotUtf8 { offset: 3, .. })));
    }
}
