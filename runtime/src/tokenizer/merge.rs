//! Byte-pair merging in place.

use super::Tokenizer;
use crate::TokenId;
use crate::cut::Cut;

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
        while let Some(rank) = self.lowest_rank(tokens.cut(..n)) {
            n = self.merge_rank(tokens.cut_mut(..n), rank);
        }
        n
    }

    fn rank(&self, left: TokenId, right: TokenId) -> Option<u32> {
        self.merge(left, right).map(|merge| merge.rank)
    }

    fn lowest_rank(&self, tokens: &[TokenId]) -> Option<u32> {
        tokens.array_windows().filter_map(|&[left, right]| self.rank(left, right)).min()
    }

    /// Merges the pairs of `rank` in `tokens` and closes the gaps; returns how many tokens remain.
    fn merge_rank(&self, tokens: &mut [TokenId], rank: u32) -> usize {
        let comes_first = |left, right| self.rank(left, right).is_some_and(|r| r <= rank);
        let (mut read, mut write, mut stopped) = (0, 0_usize, false);
        while let Some(&left) = tokens.get(read) {
            let merge = match tokens.get(read + 1) {
                Some(&right) if !stopped => self.merge(left, right).filter(|merge| merge.rank == rank),
                _ => None,
            };
            let mut token = left;
            read += 1;
            if let Some(Merge { result, .. }) = merge {
                token = result;
                read += 1;
                let before = tokens.get(write.wrapping_sub(1));
                stopped = before.is_some_and(|&before| comes_first(before, result))
                    || tokens.get(read).is_some_and(|&next| comes_first(result, next));
            }
            // It lies behind what was read.
            if let Some(slot) = tokens.get_mut(write) {
                *slot = token;
            }
            write += 1;
        }
        write
    }
}
