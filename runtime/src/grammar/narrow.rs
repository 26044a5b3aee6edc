//! The few tokens that may come next, found by their first bytes before any logit is computed.

use core::ops::Range;

use super::{GrammarState, Walk};
use crate::TokenId;

/// Most ranges of tokens, in the order of their bytes, that are told apart.
const RANGES_MAX: usize = 8;
/// Tokens of which one may come next for them to be few.
const TOKENS_PER_CANDIDATE: usize = 8;

/// Ranges of tokens in the order of their bytes.
pub(super) struct Candidates {
    ranges: [Range<usize>; RANGES_MAX],
    n_ranges: usize,
    n_tokens: usize,
}

impl Candidates {
    /// Adds a range; `None` where there are too many by now.
    fn add(&mut self, range: Range<usize>, n_texts: usize) -> Option<()> {
        if range.is_empty() {
            return Some(());
        }
        self.n_tokens += range.len();
        if self.n_tokens > n_texts / TOKENS_PER_CANDIDATE {
            return None;
        }
        let last = self.n_ranges.checked_sub(1).and_then(|last| self.ranges.get_mut(last));
        if let Some(last) = last.filter(|last| last.end == range.start) {
            last.end = range.end;
            return Some(());
        }
        *self.ranges.get_mut(self.n_ranges)? = range;
        self.n_ranges += 1;
        Some(())
    }
}

impl GrammarState<'_> {
    /// The tokens that begin with a byte which may come next, if they are few: others may not come.
    pub(super) fn candidates(&self) -> Option<Candidates> {
        let grammar = &self.grammar;
        let mut candidates = Candidates { ranges: [const { 0..0 }; RANGES_MAX], n_ranges: 0, n_tokens: 0 };
        let (mut state, mut depth) = (self.place.state, usize::from(self.place.depth));
        loop {
            for [low, high] in grammar.bytes_from(state) {
                let first = |byte: u16| grammar.first_text_from(&self.tokenizer, byte);
                candidates.add(first(low.into())..first(u16::from(high) + 1), grammar.n_texts())?;
            }
            // Where a rule may end, what follows it may come.
            if grammar.distance(state) != 0 || depth == 0 {
                return Some(candidates);
            }
            depth -= 1;
            state = self.place.stack.get(depth).copied().unwrap_or(0);
        }
    }

    /// Sets the logits of the candidates that may come next to 0, with `n_left` tokens left to draw, all others to minus infinity.
    pub(super) fn mark_candidates(&self, candidates: &Candidates, logits: &mut [f32], n_left: usize) {
        logits.fill(f32::NEG_INFINITY);
        let mut set = |token: TokenId, value: f32| {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = value;
            }
        };
        for range in candidates.ranges.iter().take(candidates.n_ranges) {
            let mut walk = Walk::from(&self.place);
            let mut n_taken = usize::MAX;
            for idx in range.clone() {
                let (token, n_shared) = self.grammar.text(idx);
                if n_shared > n_taken {
                    continue;
                }
                n_taken = usize::MAX;
                match walk.follow(&self.grammar, self.tokenizer.piece(token), n_shared) {
                    Ok(missing_bytes) if missing_bytes < n_left => set(token, 0.0),
                    Ok(_) => {}
                    Err(taken) => n_taken = taken,
                }
            }
        }
        if !self.is_whole() {
            self.end_tokens.iter().for_each(|&token| set(token, f32::NEG_INFINITY));
            return;
        }
        for token in self.grammar.others().filter(|token| self.end_tokens.contains(token)) {
            set(token, 0.0);
        }
    }
}
