//! Longest common subsequences, 64 tokens of the target at a time (Hyyrö, 2004).
//!
//! Row i and column j of the usual table hold the length for the target's first i and the prediction's first j tokens.
//! A column is kept as one bit for each i: clear where the table grows from i - 1 to i. The next column follows from
//! additions, whose carries do what the table's recurrence does.

use rustc_hash::FxHashMap;

/// Where tokens are in a target: a list of places for each token.
struct Places {
    places: FxHashMap<u32, Vec<usize>>,
    n_tokens: usize,
}

impl Places {
    fn of(tokens: &[u32]) -> Self {
        let mut places: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
        for (place, &token) in tokens.iter().enumerate() {
            places.entry(token).or_default().push(place);
        }
        Self { places, n_tokens: tokens.len() }
    }

    /// The column of no tokens: it grows nowhere.
    fn first_column(&self) -> Vec<u64> {
        vec![!0; self.n_tokens.div_ceil(64)]
    }

    /// From a column to the one after `token`. `mask` is all zeros, and will be again.
    fn next_column(&self, column: &mut [u64], mask: &mut [u64], token: u32) {
        let Some(places) = self.places.get(&token) else { return };
        for place in places {
            mask[place / 64] |= 1 << (place % 64);
        }
        let mut carry = false;
        for (bits, mask) in column.iter_mut().zip(mask) {
            let matches = *bits & *mask;
            let (sum, first) = bits.overflowing_add(matches);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            *bits = sum | (*bits - matches);
            *mask = 0;
        }
    }

    fn grows(&self, column: &[u64], place: usize) -> bool {
        column[place / 64] >> (place % 64) & 1 == 0
    }
}

/// The length of a longest common subsequence.
pub(super) fn length(target: &[u32], prediction: &[u32]) -> u64 {
    let places = Places::of(target);
    let mut column = places.first_column();
    let mut mask = vec![0; column.len()];
    for &token in prediction {
        places.next_column(&mut column, &mut mask, token);
    }
    (0..target.len()).filter(|&place| places.grows(&column, place)).count() as u64
}

/// Marks the places of the target that lie on a longest common subsequence: of several, the one that is found from the
/// ends, where a target's token that matches is taken at once, and the target is shortened before the prediction where
/// either would do.
fn mark_one(places: &Places, target: &[u32], prediction: &[u32], marks: &mut [bool]) {
    let n_words = places.first_column().len();
    let mut mask = vec![0; n_words];
    let mut columns = Vec::with_capacity(n_words * prediction.len());
    let mut column = places.first_column();
    for &token in prediction {
        places.next_column(&mut column, &mut mask, token);
        columns.extend_from_slice(&column);
    }
    let (mut rows, mut cols) = (target.len(), prediction.len());
    while rows > 0 && cols > 0 {
        if target[rows - 1] == prediction[cols - 1] {
            marks[rows - 1] = true;
            rows -= 1;
            cols -= 1;
        } else if places.grows(&columns[(cols - 1) * n_words..][..n_words], rows - 1) {
            cols -= 1;
        } else {
            rows -= 1;
        }
    }
}

/// The hits of ROUGE-Lsum: of each line of the target, the tokens on a longest common subsequence with any line of the
/// prediction, each token no more often than in either text.
pub(super) fn n_union_hits(target: &[Vec<u32>], prediction: &[Vec<u32>]) -> u64 {
    let count = |lines: &[Vec<u32>]| {
        let mut counts: FxHashMap<u32, usize> = FxHashMap::default();
        lines.iter().flatten().for_each(|&token| *counts.entry(token).or_default() += 1);
        counts
    };
    let (in_target, in_prediction) = (count(target), count(prediction));
    let mut hits: FxHashMap<u32, usize> = FxHashMap::default();
    for line in target.iter().filter(|line| !line.is_empty()) {
        let places = Places::of(line);
        let mut marks = vec![false; line.len()];
        for other in prediction {
            mark_one(&places, line, other, &mut marks);
        }
        for (&token, _) in line.iter().zip(marks).filter(|(_, is_marked)| *is_marked) {
            *hits.entry(token).or_default() += 1;
        }
    }
    let allowed = |token: &u32| {
        let most = |counts: &FxHashMap<u32, usize>| counts.get(token).copied().unwrap_or(0);
        most(&in_target).min(most(&in_prediction))
    };
    hits.iter().map(|(token, &n)| n.min(allowed(token)) as u64).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The table that everybody knows.
    fn table(target: &[u32], prediction: &[u32]) -> Vec<Vec<u64>> {
        let mut table = vec![vec![0; prediction.len() + 1]; target.len() + 1];
        for i in 0..target.len() {
            for j in 0..prediction.len() {
                table[i + 1][j + 1] = match target[i] == prediction[j] {
                    true => table[i][j] + 1,
                    false => table[i][j + 1].max(table[i + 1][j]),
                };
            }
        }
        table
    }

    proptest! {
        #[test]
        fn columns_of_bits_are_the_tables(
            target in proptest::collection::vec(0..5_u32, 0..200),
            prediction in proptest::collection::vec(0..6_u32, 0..150),
        ) {
            let table = table(&target, &prediction);
            prop_assert_eq!(length(&target, &prediction), table[target.len()][prediction.len()]);
            let mut marks = vec![false; target.len()];
            mark_one(&Places::of(&target), &target, &prediction, &mut marks);
            let (mut i, mut j) = (target.len(), prediction.len());
            let mut expected = vec![false; target.len()];
            while i > 0 && j > 0 {
                if target[i - 1] == prediction[j - 1] {
                    expected[i - 1] = true;
                    (i, j) = (i - 1, j - 1);
                } else if table[i][j - 1] > table[i - 1][j] {
                    j -= 1;
                } else {
                    i -= 1;
                }
            }
            prop_assert_eq!(marks, expected);
        }
    }
}
