//! Grammar-constrained output: which tokens keep the text inside a grammar, walked byte by byte in fixed memory.
//!
//! The compiler turns a grammar into a pushdown automaton over bytes that decides by one byte at a time, and stores it as a section of
//! the packed file (`section` reads it, FORMAT.md has the bytes). A state has edges for ranges of bytes; an edge takes the byte, or
//! calls a rule that begins with it and notes where to go on. Where no edge fits and the rule may end, the walk returns to the caller.
//!
//! Every state knows how many bytes the shortest way to the end of its rule takes. As each byte of such a way is a token of its own, a
//! token is allowed only if what is missing after it fits the tokens that are left: so a text is always whole when it ends. Likewise
//! a state knows how much stack its shortest way needs, and is not entered where there is less.

mod narrow;
mod section;

pub use section::{Grammar, GrammarError, layout};

use crate::TokenId;
use crate::sampler::{Advance, Constraint};
use crate::tokenizer::Tokenizer;
use section::Edge;

/// Calls that can be under way at a time: how deep a recursive grammar nests.
pub const STACK_MAX: usize = 32;

/// More than the calls and returns that come before one byte is taken, however the section was damaged.
const MOVES_MAX: usize = 4 * STACK_MAX;

/// A place in the automaton.
#[derive(Clone, Copy, Debug)]
struct Place {
    state: u16,
    depth: u8,
    /// Bytes of the shortest ways to the end, summed over the stack.
    pending_bytes: u32,
    stack: [u16; STACK_MAX],
}

impl Place {
    const START: Self = Self { state: 0, depth: 0, pending_bytes: 0, stack: [0; STACK_MAX] };

    fn push(&mut self, grammar: &Grammar<'_>, state: u16) -> bool {
        if !grammar.is_room(state, usize::from(self.depth)) {
            return false;
        }
        let Some(slot) = self.stack.get_mut(usize::from(self.depth)) else { return false };
        *slot = state;
        self.depth += 1;
        self.pending_bytes += u32::from(grammar.distance(state));
        true
    }

    fn pop(&mut self, grammar: &Grammar<'_>) -> bool {
        let Some(depth) = self.depth.checked_sub(1) else { return false };
        self.depth = depth;
        self.state = self.stack.get(usize::from(depth)).copied().unwrap_or(0);
        self.pending_bytes = self.pending_bytes.saturating_sub(u32::from(grammar.distance(self.state)));
        true
    }

    /// Takes one byte, after whatever calls and returns lead to it. False if the grammar refuses it; the place is then of no use.
    fn take(&mut self, grammar: &Grammar<'_>, byte: u8) -> bool {
        for _ in 0..MOVES_MAX {
            match grammar.edge(self.state, byte) {
                Some(Edge::Byte { target }) => {
                    self.state = target;
                    return grammar.is_room(target, usize::from(self.depth));
                }
                Some(Edge::Call { start, back_to }) => {
                    if back_to.is_some_and(|state| !self.push(grammar, state)) {
                        return false;
                    }
                    self.state = start;
                }
                None => {
                    if grammar.distance(self.state) != 0 || !self.pop(grammar) {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Bytes of the shortest way to a whole text.
    fn missing_bytes(&self, grammar: &Grammar<'_>) -> usize {
        self.pending_bytes as usize + usize::from(grammar.distance(self.state))
    }

    /// Whether the text is whole and nothing can follow.
    fn is_final(&self, grammar: &Grammar<'_>) -> bool {
        let stack = self.stack.get(..usize::from(self.depth)).unwrap_or_default();
        self.missing_bytes(grammar) == 0 && stack.iter().chain([&self.state]).all(|&state| grammar.is_leaf(state))
    }
}

/// Most bytes of a token whose states are kept for the next one.
const TRAIL_MAX: usize = 16;

/// Walks from one place over token after token, in the order of their bytes.
struct Walk<'p> {
    start: &'p Place,
    /// States after the bytes of the last token, for as long as nothing was called and nothing returned.
    trail: [u16; TRAIL_MAX],
    n_trail: usize,
}

impl<'p> Walk<'p> {
    fn from(start: &'p Place) -> Self {
        Self { start, trail: [0; TRAIL_MAX], n_trail: 0 }
    }

    /// What is missing after `piece`, whose first `n_shared` bytes are those of the piece before, or how many of its bytes are taken.
    #[inline(never)]
    fn follow(&mut self, grammar: &Grammar<'_>, piece: &[u8], n_shared: usize) -> Result<usize, usize> {
        self.n_trail = self.n_trail.min(n_shared);
        let known = self.n_trail.checked_sub(1).and_then(|last| self.trail.get(last));
        let mut state = known.copied().unwrap_or(self.start.state);
        for (taken, &byte) in piece.iter().enumerate().skip(self.n_trail) {
            match grammar.edge(state, byte) {
                Some(Edge::Byte { target }) if grammar.is_room(target, usize::from(self.start.depth)) => state = target,
                Some(Edge::Byte { .. }) => return Err(taken),
                None if grammar.distance(state) != 0 => return Err(taken),
                _ => return self.follow_calls(grammar, state, piece, taken),
            }
            if let Some(slot) = self.trail.get_mut(taken) {
                *slot = state;
                self.n_trail = taken + 1;
            }
        }
        Ok(self.start.pending_bytes as usize + usize::from(grammar.distance(state)))
    }

    /// Goes on from `state`, where the first `taken` bytes lead, with a stack that changes.
    #[inline(never)]
    fn follow_calls(&self, grammar: &Grammar<'_>, state: u16, piece: &[u8], taken: usize) -> Result<usize, usize> {
        let mut place = Place { state, ..*self.start };
        for (taken, &byte) in piece.iter().enumerate().skip(taken) {
            if !place.take(grammar, byte) {
                return Err(taken);
            }
        }
        Ok(place.missing_bytes(grammar))
    }
}

/// A text under way that stays inside a grammar: the [`Constraint`] of a generation.
#[derive(Clone, Copy, Debug)]
pub struct GrammarState<'m> {
    grammar: Grammar<'m>,
    tokenizer: Tokenizer<'m>,
    end_tokens: &'m [TokenId],
    place: Place,
}

impl<'m> GrammarState<'m> {
    /// The start of a text. An end token is allowed where the text is whole, and only there.
    ///
    /// `tokenizer` must be the one that `grammar` was parsed with: with another, tokens are refused that need not be.
    pub fn new(grammar: Grammar<'m>, tokenizer: Tokenizer<'m>, end_tokens: &'m [TokenId]) -> Self {
        Self { grammar, tokenizer, end_tokens, place: Place::START }
    }

    /// Whether the text so far is whole.
    pub fn is_whole(&self) -> bool {
        self.place.missing_bytes(&self.grammar) == 0
    }

    /// The place after `piece`, or how many of its bytes the grammar takes.
    fn after(&self, piece: &[u8]) -> Result<Place, usize> {
        let mut place = self.place;
        for (taken, &byte) in piece.iter().enumerate() {
            if !place.take(&self.grammar, byte) {
                return Err(taken);
            }
        }
        Ok(place)
    }

    /// The place after a token that is text and may come next, with `n_left` left to draw.
    fn after_token(&self, token: TokenId, n_left: usize) -> Option<Place> {
        if !self.grammar.is_text(&self.tokenizer, token) {
            return None;
        }
        let place = self.after(self.tokenizer.piece(token)).ok()?;
        (place.missing_bytes(&self.grammar) < n_left).then_some(place)
    }
}

impl Constraint for GrammarState<'_> {
    fn tokens_missing(&self) -> usize {
        self.place.missing_bytes(&self.grammar)
    }

    fn allows(&self, token: TokenId, n_left: usize) -> bool {
        match self.end_tokens.contains(&token) {
            true => self.is_whole(),
            false => self.after_token(token, n_left).is_some(),
        }
    }

    fn restrict(&self, logits: &mut [f32], n_left: usize) {
        let mut refuse = |token: TokenId| {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        };
        // In the order of their bytes: what a token shares with the one before was refused already, or was walked already.
        let mut walk = Walk::from(&self.place);
        let mut n_taken = usize::MAX;
        for (token, n_shared) in self.grammar.texts() {
            if n_shared > n_taken {
                refuse(token);
                continue;
            }
            n_taken = usize::MAX;
            match walk.follow(&self.grammar, self.tokenizer.piece(token), n_shared) {
                Ok(missing_bytes) if missing_bytes < n_left => {}
                Ok(_) => refuse(token),
                Err(taken) => {
                    n_taken = taken;
                    refuse(token);
                }
            }
        }
        let is_whole = self.is_whole();
        for token in self.grammar.others() {
            if !(is_whole && self.end_tokens.contains(&token)) {
                refuse(token);
            }
        }
        if !is_whole {
            self.end_tokens.iter().copied().for_each(&mut refuse);
        }
        let beyond = self.tokenizer.vocab_size();
        logits.iter_mut().skip(beyond).for_each(|logit| *logit = f32::NEG_INFINITY);
    }

    fn is_narrow(&self) -> bool {
        self.candidates().is_some()
    }

    fn mark(&self, logits: &mut [f32], n_left: usize) -> bool {
        let Some(candidates) = self.candidates() else { return false };
        self.mark_candidates(&candidates, logits, n_left);
        true
    }

    fn advance(&mut self, token: TokenId, n_left: usize) -> Advance {
        let is_whole = self.is_whole();
        if is_whole && self.end_tokens.contains(&token) {
            return Advance::Last;
        }
        let after = if self.end_tokens.contains(&token) { None } else { self.after_token(token, n_left) };
        match after {
            Some(place) => {
                self.place = place;
                if place.is_final(&self.grammar) { Advance::Last } else { Advance::Open }
            }
            None if is_whole => Advance::Whole,
            None => Advance::Stuck,
        }
    }
}
