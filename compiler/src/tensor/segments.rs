//! Where each sequence of a batch lies among its rows.

use std::ops::Range;
use std::sync::Arc;

/// Sequences one after another, with nothing between them: row bounds from 0 to the number of rows.
///
/// Packing, ragged lengths and document masks are all this: positions restart in each segment and attention stays within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments(Arc<[usize]>);

impl Segments {
    /// Sequences of these lengths; a length may be zero.
    pub fn new(lens: impl IntoIterator<Item = usize>) -> Self {
        let mut end = 0;
        let ends = lens.into_iter().map(|len| {
            end += len;
            end
        });
        Self(std::iter::once(0).chain(ends).collect())
    }

    /// `n` sequences of `len` rows.
    pub fn uniform(n: usize, len: usize) -> Self {
        Self::new(std::iter::repeat_n(len, n))
    }

    /// The rows of each sequence, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.0.windows(2).map(|bounds| bounds[0]..bounds[1])
    }

    /// The rows of one sequence.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn rows(&self, idx: usize) -> Range<usize> {
        self.0[idx]..self.0[idx + 1]
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of all sequences.
    pub fn n_rows(&self) -> usize {
        self.0[self.len()]
    }

    /// Rows of the longest sequence; 0 if there is none.
    pub fn max_len(&self) -> usize {
        self.iter().map(|rows| rows.len()).max().unwrap_or(0)
    }
}
