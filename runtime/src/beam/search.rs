//! A beam search apart from any model: which hypotheses live on, which have ended, and when no better one can come.
//!
//! As Hugging Face's `generate(num_beams=N, do_sample=False)` has it:
//!
//! ```text
//! candidates = the 2 N best of all running hypotheses and a token more, by the sum of log-probabilities
//! of the N best, those that end are kept if they are among the N best that ended, by sum / length^penalty
//! the N best that do not end run on
//! ```
//!
//! Tokens are kept once: a node a step and beam, with the beam of the step before. A hypothesis stays in the beam of its parent if it is
//! the best of the parent's, so that a cache is copied only for the others, and only from where the two beams part.

use crate::TokenId;
use crate::cut::Cut;
use crate::math;
use crate::sampler::{largest, probability, weight};

/// Most hypotheses that run side by side: as many as a word has bits.
pub const BEAMS_MAX: usize = 64;
/// Largest magnitude of a length penalty: keeps the powers of every length finite.
pub const LENGTH_PENALTY_MAX: f32 = 4.0;

/// When a search may stop before its last token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// Once the best running hypothesis, at its present length, scores no more than the worst of as many ended ones as there are beams.
    /// `False` of Hugging Face.
    #[default]
    Likely,
    /// As soon as as many hypotheses as there are beams have ended; `True`.
    Full,
    /// Like `Likely`, but a positive length penalty counts the longest length there may be: no better text is missed. `"never"`.
    Never,
}

/// How a search ranks and when it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamOptions {
    /// Hypotheses that run side by side.
    pub n_beams: usize,
    /// An ended hypothesis scores the sum of its tokens' log-probabilities, divided by its length to this power: above 0 favours long
    /// texts, since sums are negative.
    pub length_penalty: f32,
    /// When the search stops before its last token.
    pub early_stopping: EarlyStopping,
    /// The token that ends a text, and is its last.
    pub end_token: Option<TokenId>,
    /// Most tokens of a text.
    pub max_new_tokens: usize,
}

/// A [`Hypothesis`] as it lies in the arena.
pub(crate) type Record = [u32; 4];

/// One text, told by its last token.
#[derive(Clone, Copy)]
struct Hypothesis {
    /// The sum of log-probabilities; once it has ended, divided by the length penalty.
    score: f32,
    token: TokenId,
    /// The beam of the tokens before the last; of a running one, its own.
    beam: usize,
    /// Of equal scores the lower comes first: a candidate's parent, by rank; once it has ended, its number of tokens.
    order: usize,
}

impl Hypothesis {
    fn of(&[score, token, beam, order]: &Record) -> Self {
        Self { score: f32::from_bits(score), token, beam: beam as usize, order: order as usize }
    }

    fn record(self) -> Record {
        [self.score.to_bits(), self.token, self.beam as u32, self.order as u32]
    }

    fn precedes(self, other: Self) -> bool {
        self.score > other.score || self.score == other.score && self.order < other.order
    }
}

/// Puts `new` behind all that it does not precede, among the first `len` records; false where there is no room.
fn insert(records: &mut [Record], len: &mut usize, new: Hypothesis) -> bool {
    let better = records.cut(..*len).iter().rev().take_while(|&other| new.precedes(Hypothesis::of(other))).count();
    let at = *len - better;
    if at == records.len() {
        return false;
    }
    *len = records.len().min(*len + 1);
    let mut moved = new.record();
    for record in records.cut_mut(at..*len) {
        core::mem::swap(record, &mut moved);
    }
    true
}

/// What a search keeps in the arena.
pub(crate) struct Memory<'b> {
    /// A node a step and beam: the token, and above [`TOKEN_BITS`] the beam of the step before. `(max_new_tokens, n_beams)` or more.
    pub nodes: &'b mut [u32],
    /// At least `(4 n_beams,)`: candidates, running hypotheses, ended ones.
    pub records: &'b mut [Record],
}

/// Bits of a token in a node: vocabularies have at most [`crate::ModelConfig::COUNT_MAX`] tokens.
const TOKEN_BITS: u32 = 20;

/// A beam whose cache becomes that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    pub from: usize,
    pub to: usize,
    /// Tokens of the text that both have already; `None` where `to` has not even the prompt.
    pub n_shared: Option<usize>,
}

/// How far a search is.
pub(crate) struct Search {
    options: BeamOptions,
    /// Tokens that the running hypotheses have.
    n_tokens: usize,
    n_candidates: usize,
    n_running: usize,
    n_ended: usize,
}

impl Search {
    /// Begins with the empty text in beam 0.
    pub fn new(options: BeamOptions, memory: &mut Memory<'_>) -> Self {
        let search = Self { options, n_tokens: 0, n_candidates: 0, n_running: 1, n_ended: 0 };
        let (_, running, _) = search.parts(memory);
        running.cut_mut(..1).fill(Hypothesis { score: 0.0, token: 0, beam: 0, order: 0 }.record());
        search
    }

    pub fn options(&self) -> &BeamOptions {
        &self.options
    }

    /// Tokens that the running hypotheses have.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// The places for candidates, running hypotheses and ended ones.
    fn parts<'m>(&self, memory: &'m mut Memory<'_>) -> (&'m mut [Record], &'m mut [Record], &'m mut [Record]) {
        let n = self.options.n_beams;
        let (candidates, rest) = memory.records.parts_mut(2 * n);
        let (running, ended) = rest.parts_mut(n);
        (candidates, running, ended.cut_mut(..n))
    }

    fn running<'m>(&self, memory: &'m Memory<'_>) -> impl Iterator<Item = Hypothesis> + use<'m> {
        let n = self.options.n_beams;
        memory.records.cut(2 * n..2 * n + self.n_running).iter().map(Hypothesis::of)
    }

    fn ended<'m>(&self, memory: &'m Memory<'_>) -> impl DoubleEndedIterator<Item = Hypothesis> + use<'m> {
        let n = self.options.n_beams;
        memory.records.cut(3 * n..3 * n + self.n_ended).iter().map(Hypothesis::of)
    }

    /// The rank and the last token of what runs in a beam.
    pub fn in_beam(&self, memory: &Memory<'_>, beam: usize) -> Option<(usize, TokenId)> {
        let mut ranked = self.running(memory).enumerate();
        ranked.find_map(|(rank, running)| (running.beam == beam).then_some((rank, running.token)))
    }

    /// Beams from 0 on among which are all that run.
    pub fn n_beams_used(&self, memory: &Memory<'_>) -> usize {
        self.running(memory).map(|running| running.beam + 1).max().unwrap_or(0)
    }

    /// Ranks the running hypothesis `rank` and each token, by the model's `logits` after it, among the candidates.
    ///
    /// A token's log-probability is `-(max - logit) - ln(sum)`, with the sampler's weights for the sum.
    pub fn offer(&mut self, memory: &mut Memory<'_>, rank: usize, logits: &[f32]) {
        let Some(parent) = self.running(memory).nth(rank) else { return };
        let (_, max) = largest(logits);
        let distance = |logit: f32| if logit == max { 0.0 } else { max - logit };
        let total: u64 = logits.iter().map(|&logit| weight(probability(distance(logit)))).sum();
        // In units of 2^-40.
        let log_sum = math::ln(total as f32 * f32::from_bits((127 - 40) << 23));
        let mut n_candidates = self.n_candidates;
        let (candidates, ..) = self.parts(memory);
        let mut refused = f32::NEG_INFINITY;
        for (token, &logit) in logits.iter().enumerate() {
            // What is no more likely than a refused token is refused too; and so is what is not a number.
            if logit > refused {
                let score = parent.score + (-distance(logit) - log_sum);
                let candidate = Hypothesis { score, token: token as TokenId, beam: parent.beam, order: rank };
                if !(score > f32::NEG_INFINITY && insert(candidates, &mut n_candidates, candidate)) {
                    refused = logit;
                }
            }
        }
        self.n_candidates = n_candidates;
    }

    /// Adds a token: the best candidates run on, or have ended; all have where `is_last`. Tells which beams become others, after which each
    /// that runs is to read its token. False once the search is over.
    pub fn advance(&mut self, memory: &mut Memory<'_>, is_last: bool, branch: impl FnMut(Branch)) -> bool {
        let BeamOptions { n_beams, end_token, .. } = self.options;
        let before = self.running(memory).fold(0, |beams, running| beams | bit(running.beam));
        let (length, divisor) = (self.n_tokens + 1, self.divisor(self.n_tokens + 1));
        let (mut n_running, mut n_ended) = (0, self.n_ended);
        let n_candidates = self.n_candidates;
        let (candidates, running, ended) = self.parts(memory);
        for (rank, candidate) in candidates.cut(..n_candidates).iter().map(Hypothesis::of).enumerate() {
            if !is_last && end_token != Some(candidate.token) {
                if let Some(place) = running.get_mut(n_running) {
                    *place = candidate.record();
                    n_running += 1;
                }
            } else if rank < n_beams {
                let score = candidate.score / divisor;
                insert(ended, &mut n_ended, Hypothesis { score, order: length, ..candidate });
            }
        }
        (self.n_candidates, self.n_running, self.n_ended) = (0, n_running, n_ended);
        self.house(memory, before, branch);
        self.n_tokens = length;
        self.goes_on(memory)
    }

    /// Gives each running hypothesis, which still tells its parent's beam, its own; `before` are the beams that were in use.
    fn house(&self, memory: &mut Memory<'_>, before: u64, mut branch: impl FnMut(Branch)) {
        let n = self.options.n_beams;
        let mut free = self.running(memory).fold(!0, |free, running| free & !bit(running.beam));
        let mut stayed = 0;
        for rank in 0..self.n_running {
            let Some(mut running) = self.running(memory).nth(rank) else { return };
            let from = running.beam;
            if stayed & bit(from) != 0 {
                let to = free.trailing_zeros() as usize;
                free &= !bit(to);
                let n_shared = (before & bit(to) != 0).then(|| self.n_shared(memory, from, to));
                branch(Branch { from, to, n_shared });
                running.beam = to;
            }
            stayed |= bit(from);
            let at = self.n_tokens * n + running.beam;
            memory.nodes.cut_mut(at..=at).fill(running.token | (from as u32) << TOKEN_BITS);
            let (_, places, _) = self.parts(memory);
            places.cut_mut(rank..=rank).fill(running.record());
        }
    }

    fn node(&self, memory: &Memory<'_>, token_idx: usize, beam: usize) -> (TokenId, usize) {
        let node = memory.nodes.get(token_idx * self.options.n_beams + beam).copied().unwrap_or_default();
        (node & ((1 << TOKEN_BITS) - 1), (node >> TOKEN_BITS) as usize)
    }

    /// Tokens at the front of two beams that are the same nodes, of those that are in their caches.
    fn n_shared(&self, memory: &Memory<'_>, mut a: usize, mut b: usize) -> usize {
        let mut n = self.n_tokens;
        while a != b && n > 0 {
            n -= 1;
            (a, b) = (self.node(memory, n, a).1, self.node(memory, n, b).1);
        }
        n
    }

    /// What a sum over `length` tokens is divided by.
    fn divisor(&self, length: usize) -> f32 {
        power(length as f32, self.options.length_penalty)
    }

    fn goes_on(&self, memory: &Memory<'_>) -> bool {
        let (best, worst) = (self.running(memory).next(), self.ended(memory).next_back());
        let BeamOptions { n_beams, early_stopping, length_penalty, max_new_tokens, .. } = self.options;
        match (best, worst) {
            (Some(best), Some(worst)) if self.n_ended == n_beams => {
                let is_longest = early_stopping == EarlyStopping::Never && length_penalty > 0.0;
                let length = if is_longest { max_new_tokens } else { self.n_tokens };
                early_stopping != EarlyStopping::Full && best.score / self.divisor(length) > worst.score
            }
            (best, _) => best.is_some(),
        }
    }

    /// Puts the best text that has ended into the front of `tokens`; gives its length and its score. `None` where none has.
    pub fn best(&self, memory: &Memory<'_>, tokens: &mut [TokenId]) -> Option<(usize, f32)> {
        let Hypothesis { score, token, beam, order: length } = self.ended(memory).next()?;
        let (last, earlier) = tokens.get_mut(..length)?.split_last_mut()?;
        *last = token;
        self.trace(memory, beam, earlier);
        Some((length, score))
    }

    /// Fills `tokens` with those that lead to a beam, up to as many as there are places.
    fn trace(&self, memory: &Memory<'_>, mut beam: usize, tokens: &mut [TokenId]) {
        for (token_idx, place) in tokens.iter_mut().enumerate().rev() {
            (*place, beam) = self.node(memory, token_idx, beam);
        }
    }
}

/// The bit of a beam.
fn bit(beam: usize) -> u64 {
    1u64.checked_shl(beam as u32).unwrap_or(0)
}

/// `base^exponent`: products for its whole part, `exp(fraction * ln base)` for the rest; the inverse for a negative one.
fn power(base: f32, exponent: f32) -> f32 {
    let magnitude = exponent.abs();
    let whole = magnitude as u32;
    let mut power = 1.0;
    for _ in 0..whole {
        power *= base;
    }
    let fraction = magnitude - whole as f32;
    if fraction > 0.0 {
        power *= math::exp(fraction * math::ln(base));
    }
    if exponent < 0.0 { 1.0 / power } else { power }
}

#[cfg(test)]
mod tests;
