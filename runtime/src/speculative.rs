//! Speculative decoding: a small model guesses some tokens ahead, and the model that is asked reads all guesses in one pass over its weights.
//!
//! A guess is drawn from the draft's logits as the sampler will draw from the target's, with the same random number, and stands if
//! the sampler then draws it. So what is drawn does not depend on the draft: tokens and logits are those of the target alone, for any
//! sampler, and only their cost differs. A pass over a batch gives the same bits as one token after the other, and a refused guess is
//! forgotten by going back to the position before it, so nothing else can.
//!
//! It pays where reading the weights is what takes the time, as on a host. Where each product costs what it costs, as on a
//! microcontroller, guesses are only more products.

use core::fmt;

use crate::TokenId;
use crate::cut::{Cut, copy};
use crate::format::PackedModel;
use crate::kernels::{Join, Serial};
use crate::sampler::{Constraint, Sampler};
use crate::session::{Session, StepError};

/// Most tokens that are guessed at a time.
pub const GUESSES_MAX: usize = 15;

/// Why two models cannot work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DraftError {
    /// The models have vocabularies of different sizes.
    OtherVocabulary {
        /// Tokens of the model that is asked.
        target_vocab: usize,
        /// Tokens of the draft.
        draft_vocab: usize,
    },
    /// One of them cannot go back to an earlier position, or reads a source: only decoders of transformers serve.
    NoDecoder,
    /// No guesses were asked for, or more than there is room for.
    Guesses {
        /// What was asked for.
        n_guesses: usize,
        /// What [`GUESSES_MAX`] and the target's batch allow.
        most: usize,
    },
    /// The memory for logits has another length than [`Draft::logits_len`] says.
    Memory {
        /// Numbers that are needed.
        needed: usize,
        /// Numbers that were given.
        given: usize,
    },
}

impl fmt::Display for DraftError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherVocabulary { target_vocab, draft_vocab } => write!(
                f,
                "the draft has {draft_vocab} tokens, the model {target_vocab}: a draft must be trained with the model's tokenizer"
            ),
            Self::NoDecoder => {
                f.write_str("a draft and its model must be decoders of transformers, without an encoder")
            }
            Self::Guesses { n_guesses, most } => {
                write!(f, "{n_guesses} guesses at a time were asked for, and 1 to {most} are possible")
            }
            Self::Memory { needed, given } => write!(f, "{needed} logits need memory, and there is some for {given}"),
        }
    }
}

impl core::error::Error for DraftError {}

/// How guesses fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guesses {
    /// Guesses that were made.
    pub n_made: usize,
    /// Those that stood.
    pub n_right: usize,
    /// Passes over the target's weights, the prompt's not counted.
    pub n_passes: usize,
}

/// How a session is moved on by a token, and where what it then predicts lies.
pub trait Ahead<J> {
    /// Shows `session` a token that was drawn. What is drawn next will be drawn as `sampler` draws, within `constraint` and with `n_left` tokens
    /// left to draw. True where all logits but those of tokens that may come next are minus infinity: where the constraint is narrow.
    ///
    /// # Errors
    /// As [`Session::decode_step`].
    fn advance(
        &mut self,
        session: &mut Session<'_, J>,
        token: TokenId,
        sampler: &Sampler<'_>,
        constraint: &impl Constraint,
        n_left: usize,
    ) -> Result<bool, StepError>;

    /// What is predicted after the last token, `(vocab_size,)`.
    fn logits<'s>(&'s mut self, session: &'s mut Session<'_, J>) -> &'s mut [f32];

    /// Tokens that the session was shown, without those that were guessed.
    fn position(&self, session: &Session<'_, J>) -> usize;

    /// Forgets guesses, before the session is used in another way.
    fn settle(&mut self, session: &mut Session<'_, J>);

    /// How guesses fared, where there are any.
    fn counts(&self) -> Option<Guesses> {
        None
    }
}

/// No draft: one token after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl<J: Join + Sync> Ahead<J> for Alone {
    #[inline(always)]
    fn advance(
        &mut self,
        session: &mut Session<'_, J>,
        token: TokenId,
        _: &Sampler<'_>,
        constraint: &impl Constraint,
        n_left: usize,
    ) -> Result<bool, StepError> {
        session.prefill_within(&[token], constraint, n_left)
    }

    #[inline(always)]
    fn logits<'s>(&'s mut self, session: &'s mut Session<'_, J>) -> &'s mut [f32] {
        session.logits()
    }

    #[inline(always)]
    fn position(&self, session: &Session<'_, J>) -> usize {
        session.position()
    }

    #[inline(always)]
    fn settle(&mut self, _: &mut Session<'_, J>) {}
}

/// A small model that guesses what another will be made to write.
pub struct Draft<'d, 'a, J = Serial> {
    session: &'d mut Session<'a, J>,
    /// What the other model predicts after each token of its last pass, `(n_guesses + 1, vocab_size)`.
    logits: &'d mut [f32],
    n_guesses: usize,
    /// The last pass read a token that was drawn, then these.
    guesses: [TokenId; GUESSES_MAX],
    n_guessed: usize,
    /// How many of them stood so far.
    n_right: usize,
    /// Whether `logits` are of the last pass, and not those that a prompt left in the session.
    has_passed: bool,
    /// How many of the draft's first tokens are those of the other session.
    n_shared: usize,
    counts: Guesses,
}

impl<'d, 'a, J: Join + Sync> Draft<'d, 'a, J> {
    /// Numbers of the memory that [`Draft::new`] asks for.
    pub fn logits_len(model: &PackedModel<'_>, n_guesses: usize) -> usize {
        (n_guesses + 1).saturating_mul(model.config().vocab_size)
    }

    /// A draft in `session` for `target`, which guesses `n_guesses` tokens at a time. What the session holds does not matter.
    ///
    /// # Errors
    /// [`DraftError`]: the models do not fit each other, or what was given does not fit them.
    pub fn new(
        session: &'d mut Session<'a, J>,
        target: &PackedModel<'_>,
        n_guesses: usize,
        logits: &'d mut [f32],
    ) -> Result<Self, DraftError> {
        let (config, draft_config) = (target.config(), session.model().config());
        if config.vocab_size != draft_config.vocab_size {
            let (target_vocab, draft_vocab) = (config.vocab_size, draft_config.vocab_size);
            return Err(DraftError::OtherVocabulary { target_vocab, draft_vocab });
        }
        let is_decoder = |parts: &crate::Parts| !parts.is_recurrent && parts.kind == crate::parts::Kind::Decoder;
        if !is_decoder(config.parts()) || !is_decoder(draft_config.parts()) {
            return Err(DraftError::NoDecoder);
        }
        let most = GUESSES_MAX.min(target.memory_plan().prefill_batch - 1);
        if n_guesses == 0 || n_guesses > most {
            return Err(DraftError::Guesses { n_guesses, most });
        }
        let (needed, given) = (Self::logits_len(target, n_guesses), logits.len());
        if given != needed {
            return Err(DraftError::Memory { needed, given });
        }
        let (guesses, counts) = ([0; GUESSES_MAX], Guesses::default());
        let (n_guessed, n_right, has_passed, n_shared) = (0, 0, false, 0);
        Ok(Self { session, logits, n_guesses, guesses, n_guessed, n_right, has_passed, n_shared, counts })
    }

    /// Guesses what will be drawn after `token`, which comes next in `target` and fits there.
    fn guess(&mut self, target: &Session<'_, J>, token: TokenId, sampler: &Sampler<'_>) -> Result<(), StepError> {
        let position = target.position();
        let n_most = (target.model().config().context_len - position - 1).min(self.n_guesses);
        let draft_room = self.session.model().config().context_len.saturating_sub(position + 1);
        if n_most == 0 || draft_room < n_most {
            return Ok(());
        }
        self.session.rewind(self.n_shared.min(position));
        // Most often one token is unread, the last guess, so all go in one pass.
        let unread = target.history().cut(self.session.position()..);
        let (earlier, last) = unread.parts(unread.len().saturating_sub(GUESSES_MAX));
        if !earlier.is_empty() {
            self.session.prefill(earlier)?;
        }
        let mut batch = [token; GUESSES_MAX + 1];
        copy(batch.cut_mut(..last.len()), last);
        self.n_shared = position + 1;
        let (mut sampler, n_read) = (sampler.clone(), last.len() + 1);
        let mut logits = self.session.prefill(batch.cut(..n_read))?;
        for (i, guess) in self.guesses.cut_mut(..n_most).iter_mut().enumerate() {
            *guess = sampler.next(logits);
            if i + 1 < n_most {
                logits = self.session.decode_step(*guess)?;
            }
        }
        self.n_guessed = n_most;
        Ok(())
    }

    /// Moves both on by a token that was drawn.
    fn step(&mut self, session: &mut Session<'_, J>, token: TokenId, sampler: &Sampler<'_>) -> Result<(), StepError> {
        if self.guesses.cut(..self.n_guessed).get(self.n_right) == Some(&token) {
            self.n_right += 1;
            self.counts.n_right += 1;
            return Ok(());
        }
        // The draft read all guesses but the last.
        let n_shared = self.n_shared + self.n_right.min(self.n_guessed.saturating_sub(1));
        self.settle(session);
        self.n_shared = n_shared;
        StepError::check(session.model().config(), session.position(), &[token])?;
        self.guess(session, token, sampler)?;
        let mut batch = [token; GUESSES_MAX + 1];
        let n_tokens = self.n_guessed + 1;
        copy(batch.cut_mut(1..n_tokens), self.guesses.cut(..self.n_guessed));
        session.read_and_predict(batch.cut(..n_tokens), self.logits)?;
        self.has_passed = true;
        self.counts.n_made += self.n_guessed;
        self.counts.n_passes += 1;
        Ok(())
    }
}

impl<J: Join + Sync> Ahead<J> for Draft<'_, '_, J> {
    fn advance(
        &mut self,
        session: &mut Session<'_, J>,
        token: TokenId,
        sampler: &Sampler<'_>,
        constraint: &impl Constraint,
        n_left: usize,
    ) -> Result<bool, StepError> {
        self.step(session, token, sampler)?;
        let is_narrow = constraint.is_narrow();
        if is_narrow {
            constraint.restrict(self.logits(session), n_left);
        }
        Ok(is_narrow)
    }

    fn logits<'s>(&'s mut self, session: &'s mut Session<'_, J>) -> &'s mut [f32] {
        let vocab_size = session.model().config().vocab_size;
        match self.has_passed {
            true => self.logits.cut_mut(self.n_right * vocab_size..(self.n_right + 1) * vocab_size),
            false => session.logits(),
        }
    }

    fn counts(&self) -> Option<Guesses> {
        Some(self.counts)
    }

    fn position(&self, session: &Session<'_, J>) -> usize {
        session.position() - (self.n_guessed - self.n_right)
    }

    fn settle(&mut self, session: &mut Session<'_, J>) {
        session.rewind(self.position(session));
        (self.n_guessed, self.n_right, self.has_passed, self.n_shared) = (0, 0, false, 0);
    }
}

impl<J: Join + Sync> Session<'_, J> {
    /// Goes back to `position`, as if what came after it had never been read. A transformer's decoder alone can.
    fn rewind(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Adds `tokens`, at most a batch, and predicts what follows each: `logits` are `(tokens.len() or more, vocab_size)`.
    fn read_and_predict(&mut self, tokens: &[TokenId], logits: &mut [f32]) -> Result<(), StepError> {
        self.read_batch(tokens)?;
        self.decoder.predict_all(&mut self.buffers, tokens.len(), logits);
        Ok(())
    }
}
