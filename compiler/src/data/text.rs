//! Plain text: read, split, cut into windows.

use super::DataError;
use siskin_runtime::TokenId;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Reads a UTF-8 text file.
///
/// # Errors
/// [`DataError::Read`] or [`DataError::NotUtf8`].
pub fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    utf8(path, bytes, (1, 0))
}

/// Bytes of a file that begin in a line, counted from 1 on, and at an offset.
fn utf8(path: &Path, bytes: Vec<u8>, (line, offset): (u64, usize)) -> Result<String, DataError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let n_before = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
        DataError::NotUtf8 { path: path.to_owned(), line: line + n_before as u64, offset: offset + valid }
    })
}

/// The lines of a UTF-8 file, read one after another, whatever its size.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    /// Lines and bytes read so far.
    n_lines: u64,
    n_bytes: usize,
}

impl Lines {
    /// Opens the file.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(1 << 16, file), n_lines: 0, n_bytes: 0 })
    }

    /// The next line with its line break, and its number from 1 on.
    pub fn next(&mut self) -> Result<Option<(String, u64)>, DataError> {
        let mut bytes = Vec::new();
        let n_bytes = self.file.read_until(b'\n', &mut bytes);
        if n_bytes.map_err(|source| DataError::Read { path: self.path.clone(), source })? == 0 {
            return Ok(None);
        }
        let start = (self.n_lines + 1, self.n_bytes);
        self.n_lines += 1;
        self.n_bytes += bytes.len();
        Ok(Some((utf8(&self.path, bytes, start)?, self.n_lines)))
    }
}

/// Splits off the first `train_fraction` of the characters (rounded down) for training; the rest is for validation.
pub fn split_text(text: &str, train_fraction: f64) -> (&str, &str) {
    let n_chars = text.chars().count();
    let n_train = (n_chars as f64 * train_fraction) as usize;
    let at = text.char_indices().nth(n_train).map_or(text.len(), |(at, _)| at);
    text.split_at(at)
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
        std::fs::write(&path, "a\nbç\n".bytes().chain(*b"c\xffd").collect::<Vec<u8>>()).unwrap();
        assert!(matches!(read_text(&path), Err(DataError::NotUtf8 { line: 3, offset: 7, .. })));
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.next().unwrap(), Some(("a\n".into(), 1)));
        assert_eq!(lines.next().unwrap(), Some(("bç\n".into(), 2)));
        assert!(matches!(lines.next(), Err(DataError::NotUtf8 { line: 3, offset: 7, .. })));
        assert!(lines.next().unwrap().is_none());
    }
}
