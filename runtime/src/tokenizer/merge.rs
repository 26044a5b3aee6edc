//! Byte-pair merging in place.

use super::Tokenizer;
use crate::TokenId;

/// What two neighbouring tokens become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Merges happen in ascending rank, and from left to right where ranks are equal.
    pub rank: u32,
    /// The token that replaces the two.
    pub result: TokenId,
}

impl Tokenizer<'_> {
    /// The merge of `left` followed by `right`, if the vocabulary has it.
    pub fn merge(&self, left: TokenId, right: TokenId) -> Option<Merge> {
        let left = left as usize;
        if left >= self.vocab_size() {
            return None;
        }
        let tables = self.tables();
        let (lo, hi) = (tables.merge_starts.get(left) as usize, tables.merge_starts.get(left + 1) as usize);
        let idx = tables.merge_rights.find(right, lo, hi)?;
        let result = tables.merge_results.get(idx);
        let rank = tables.merge_ranks.map_or(result, |ranks| ranks.get(idx));
        Some(Merge { rank, result })
    }

    /// Merges the tokens of one pre-token until no pair is left to merge; returns how many remain, at the front.
    ///
    /// ```text
    /// while a pair can merge:
    ///     rank = the lowest of any pair's
    ///     merge the pairs of that rank, from left to right,
    ///         but stop when a merge makes a pair that must go before the next one of this rank
    /// ```
    /// This is the order of a priority queue over (rank, position) without the queue: `O(n)` look-ups for each distinct rank.
    pub fn merge_all(&self, tokens: &mut [TokenId]) -> usize {
        let mut n = tokens.len();
        while let Some(rank) = self.lowest_rank(&tokens[..n]) {
            n = self.merge_rank(&mut tokens[..n], rank);
        }
        n
    }

    fn rank(&self, left: TokenId, right: TokenId) -> Option<u32> {
        self.merge(left, right).map(|merge| merge.rank)
    }

    fn lowest_rank(&self, tokens: &[TokenId]) -> Option<u32> {
        tokens.windows(2).filter_map(|pair| self.rank(pair[0], pair[1])).min()
    }

    /// Merges the pairs of `rank` in `tokens` and closes the gaps; returns how many tokens remain.
    fn merge_rank(&self, tokens: &mut [TokenId], rank: u32) -> usize {
        let comes_first = |left, right| self.rank(left, right).is_some_and(|r| r <= rank);
        let (mut read, mut write, mut stopped) = (0, 0, false);
        while read < tokens.len() {
            let merge = match tokens.get(read + 1) {
                Some(&right) if !stopped => self.merge(tokens[read], right).filter(|merge| merge.rank == rank),
                _ => None,
            };
            if let Some(Merge { result, .. }) = merge {
                read += 2;
                stopped = write > 0 && comes_first(tokens[write - 1], result)
                    || read < tokens.len() && comes_first(result, tokens[read]);
                tokens[write] = result;
            } else {
                tokens[write] = tokens[read];
                read += 1;
            }
            write += 1;
        }
        write
    }
}
