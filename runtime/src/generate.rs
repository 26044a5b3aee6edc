//! Generating text: a prompt goes in, then one token at a time comes out, as text that can be shown at once.
//!
//! ```text
//! prefill(prompt); observe(prompt)
//! repeat: token = sample; end on an end token, a stop or the limit; decode_step(token)
//! ```

use core::fmt;

use crate::TokenId;
use crate::kernels::{Join, Serial};
use crate::sampler::{Advance, Constraint, Sampler, StopMatcher, Unconstrained};
use crate::session::{Session, StepError};
use crate::speculative::{Ahead, Alone, Guesses};
use crate::tokenizer::{TextStream, Tokenizer};

/// FNV-1a, 64 bits, over the little-endian bytes of logits: equal on two targets if they computed the same bits.
///
/// Not-a-numbers count as the one quiet NaN, `0x7fc0_0000`. Prints as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogitsHash(pub u64);

impl LogitsHash {
    /// The hash of no logits.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// Adds one step's raw logits.
    pub fn add(&mut self, logits: &[f32]) {
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        const QUIET_NAN: u32 = 0x7fc0_0000;
        for logit in logits {
            let bits = logit.to_bits();
            // In integers: cores without an FPU would call a function for it.
            let bits = if bits << 1 > 0xff00_0000 { QUIET_NAN } else { bits };
            let with = |hash: u64, byte: u32| (hash ^ u64::from(byte & 0xff)).wrapping_mul(PRIME);
            self.0 = with(with(with(with(self.0, bits), bits >> 8), bits >> 16), bits >> 24);
        }
    }
}

impl fmt::Display for LogitsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Why no more tokens came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As many tokens as were asked for.
    MaxNewTokens,
    /// The model ended its text with this token.
    EndToken(TokenId),
    /// The text reached a stop sequence, the one with this index.
    Stop(usize),
    /// The context is full, and was not to slide.
    ContextFull,
    /// The text is whole: its grammar lets nothing follow.
    Complete,
    /// Every token that the grammar allows was banned or has no logit, and the text is not whole.
    Stuck,
}

/// When a generation ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'g> {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// Tokens that end the text and are no part of it.
    pub end_tokens: &'g [TokenId],
    /// In a full context, forget all but so many tokens and go on; `None` ends there.
    pub slide_to: Option<Window>,
}

/// What a context that slides keeps, as [`Session::slide_behind`] takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first tokens: attention sinks.
    pub n_sinks: usize,
    /// The newest tokens.
    pub n_newest: usize,
}

/// A text in the making.
pub struct Generation<'g, 'a, J = Serial, C = Unconstrained, A = Alone> {
    session: &'g mut Session<'a, J>,
    ahead: A,
    tokenizer: Option<Tokenizer<'a>>,
    sampler: Sampler<'g>,
    constraint: C,
    stops: StopMatcher<'g>,
    limits: Limits<'g>,
    text: TextStream,
    /// The token that was drawn last, which the session has not seen.
    last: Option<TokenId>,
    /// Whether the logits are restricted to the constraint's tokens already.
    is_restricted: bool,
    n_tokens: usize,
    end: Option<End>,
}

impl<'g, 'a, J: Join + Sync> Generation<'g, 'a, J> {
    /// Reads the prompt. What the session already holds stands before it.
    ///
    /// Without a `tokenizer`, tokens come but no text, so no stop is ever reached.
    ///
    /// # Errors
    /// [`StepError`]: the prompt is empty, does not fit, or has a token that the vocabulary has not.
    pub fn start(
        session: &'g mut Session<'a, J>,
        tokenizer: Option<Tokenizer<'a>>,
        prompt: &[TokenId],
        sampler: Sampler<'g>,
        stops: StopMatcher<'g>,
        limits: Limits<'g>,
    ) -> Result<Self, StepError> {
        let mut generation = Self::new(session, tokenizer, sampler, stops, limits);
        generation.read(prompt)?;
        Ok(generation)
    }

    /// A text that has yet to [`read`](Self::read) its prompt: [`Generation::start`] in two steps, for where there is no stack to move it.
    #[inline]
    pub fn new(
        session: &'g mut Session<'a, J>,
        tokenizer: Option<Tokenizer<'a>>,
        sampler: Sampler<'g>,
        stops: StopMatcher<'g>,
        limits: Limits<'g>,
    ) -> Self {
        let (text, constraint) = (TextStream::new(), Unconstrained);
        Self {
            session,
            ahead: Alone,
            tokenizer,
            sampler,
            constraint,
            stops,
            limits,
            text,
            last: None,
            is_restricted: false,
            n_tokens: 0,
            end: None,
        }
    }
}

impl<'g, 'a, J: Join + Sync, C: Constraint, A: Ahead<J>> Generation<'g, 'a, J, C, A> {
    /// The same text, yet to read its prompt, within a constraint, such as a [`GrammarState`](crate::grammar::GrammarState).
    #[inline]
    pub fn within<D>(self, constraint: D) -> Generation<'g, 'a, J, D, A> {
        self.with(|_, ahead| (constraint, ahead))
    }

    /// The same text, yet to read its prompt, with a draft's guesses: it has the same tokens and logits, and may come faster.
    #[inline]
    pub fn guessed_by<D: Ahead<J>>(self, ahead: D) -> Generation<'g, 'a, J, C, D> {
        self.with(|constraint, _| (constraint, ahead))
    }

    /// The same text with another constraint or draft.
    #[inline]
    fn with<D, B>(self, change: impl FnOnce(C, A) -> (D, B)) -> Generation<'g, 'a, J, D, B> {
        let Self { session, ahead, tokenizer, sampler, constraint, stops, limits, text, last, n_tokens, end, .. } =
            self;
        let (constraint, ahead) = change(constraint, ahead);
        let is_restricted = false;
        Generation {
            session,
            ahead,
            tokenizer,
            sampler,
            constraint,
            stops,
            limits,
            text,
            last,
            is_restricted,
            n_tokens,
            end,
        }
    }

    /// How a draft's guesses fared so far, where there is one.
    pub fn guesses(&self) -> Option<Guesses> {
        self.ahead.counts()
    }

    /// Reads what an encoder-decoder is to write from, before its prompt, which is the token that it starts from.
    ///
    /// # Errors
    /// As [`Session::read_source`].
    pub fn read_source(&mut self, source: &[TokenId]) -> Result<(), StepError> {
        self.session.read_source(source)
    }

    /// Reads the prompt, before the first step.
    ///
    /// # Errors
    /// As [`Generation::start`], and [`StepError::NoRoom`] where the constraint's shortest text may not fit.
    pub fn read(&mut self, prompt: &[TokenId]) -> Result<(), StepError> {
        self.ahead.settle(self.session);
        let n_left = self.n_left_after(prompt.len());
        self.is_restricted = self.session.prefill_within(prompt, &self.constraint, n_left)?;
        self.sampler.observe(prompt);
        let (n_missing, n_left) = (self.constraint.tokens_missing(), self.n_left());
        if n_missing > n_left { Err(StepError::NoRoom { n_missing, n_left }) } else { Ok(()) }
    }

    /// How many tokens can still be drawn: as the limit and the context let them.
    fn n_left(&self) -> usize {
        self.n_left_after(0)
    }

    /// The same once so many tokens more are read.
    fn n_left_after(&self, n_read: usize) -> usize {
        let n_wanted = self.limits.max_new_tokens - self.n_tokens;
        if self.limits.slide_to.is_some() {
            return n_wanted;
        }
        // The last token that is drawn need not be read again.
        let position = self.ahead.position(self.session) + n_read;
        let n_positions = self.session.model().config().context_len.saturating_sub(position);
        n_wanted.min(n_positions + 1)
    }

    /// Draws the next token and gives `emit` the text that is certain by now, in whole characters and no part of a stop.
    ///
    /// `None` once the text has ended; [`Generation::end`] says why.
    pub fn step(&mut self, mut emit: impl FnMut(&str)) -> Option<TokenId> {
        if self.compute(&mut emit) { self.draw(emit) } else { None }
    }

    /// The first part of a [`step`](Self::step): shows the model the last token, after which [`Generation::logits`] are those of the next.
    /// False once the text has ended. For who wants to look at the logits, or to count the parts apart.
    pub fn compute(&mut self, mut emit: impl FnMut(&str)) -> bool {
        if self.end.is_none() && self.n_tokens == self.limits.max_new_tokens {
            self.finish(End::MaxNewTokens, &mut emit);
        }
        self.end.is_none() && self.advance(&mut emit)
    }

    /// What the next token will be drawn from, `(vocab_size,)`, after [`Generation::compute`]. Where the constraint lets few tokens come next
    /// ([`Constraint::is_narrow`]), the others' are minus infinity and were not computed.
    pub fn logits(&mut self) -> &[f32] {
        self.ahead.logits(self.session)
    }

    /// The second part of a step, after [`Generation::compute`] and only then: draws the token and gives its text.
    pub fn draw(&mut self, mut emit: impl FnMut(&str)) -> Option<TokenId> {
        let n_left = self.n_left();
        let token = self.sampler.next_of(self.ahead.logits(self.session), &self.constraint, n_left, self.is_restricted);
        let advance = self.constraint.advance(token, n_left);
        if let Advance::Whole | Advance::Stuck = advance {
            self.finish(if advance == Advance::Whole { End::Complete } else { End::Stuck }, &mut emit);
            return None;
        }
        self.last = Some(token);
        self.n_tokens += 1;
        if self.limits.end_tokens.contains(&token) {
            self.finish(End::EndToken(token), &mut emit);
        } else if let Some(tokenizer) = &self.tokenizer
            && !tokenizer.is_control(token)
        {
            self.add_text(tokenizer.piece(token), &mut emit);
        }
        if self.end.is_none() && advance == Advance::Last {
            self.finish(End::Complete, &mut emit);
        }
        Some(token)
    }

    /// Why the text ended, once it has.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Tokens drawn so far, an end token included.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Shows the session the last token, so that its logits are those of the next. False if the context is full.
    fn advance(&mut self, emit: &mut impl FnMut(&str)) -> bool {
        let Some(token) = self.last.take() else { return true };
        let is_full = self.ahead.position(self.session) == self.session.model().config().context_len;
        if let (Some(window), true) = (self.limits.slide_to, is_full) {
            self.ahead.settle(self.session);
            self.session.slide_behind(window.n_sinks, window.n_newest);
        }
        let n_left = self.n_left_after(1);
        let is_read = self.ahead.advance(self.session, token, &self.sampler, &self.constraint, n_left);
        match is_read {
            Ok(is_restricted) => self.is_restricted = is_restricted,
            Err(_) => self.finish(End::ContextFull, emit),
        }
        is_read.is_ok()
    }

    fn add_text(&mut self, piece: &[u8], emit: &mut impl FnMut(&str)) {
        let (stops, mut hit) = (&mut self.stops, None);
        self.text.push(piece, |text| {
            if hit.is_none() {
                hit = stops.push(text, &mut *emit);
            }
        });
        if let Some(idx) = hit {
            self.end = Some(End::Stop(idx));
        }
    }

    /// Ends the text and gives out what was held back.
    fn finish(&mut self, end: End, emit: &mut impl FnMut(&str)) {
        self.end = Some(end);
        let (stops, mut hit) = (&mut self.stops, None);
        self.text.finish(|text| hit = stops.push(text, &mut *emit));
        match hit {
            Some(idx) => self.end = Some(End::Stop(idx)),
            None => stops.finish(emit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_over_canonical_bits() {
        // "foobarbaz!!!" as three numbers, against the published algorithm computed elsewhere.
        let spelled = [*b"foob", *b"arba", *b"z!!!"].map(f32::from_le_bytes);
        let mut hash = LogitsHash::EMPTY;
        hash.add(&spelled);
        assert_eq!(hash, LogitsHash(0x167e9109e99625b2));

        let mut hash = LogitsHash::EMPTY;
        hash.add(&[1.0, -2.5]);
        hash.add(&[-f32::from_bits(0x7f80_0001)]);
        assert_eq!(hash, LogitsHash(0x0019d869ee7bbb95));
    }
}
