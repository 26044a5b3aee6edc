//! A conversation with a model: the cache, the position in it, and the steps that move it on.

use core::fmt;

use crate::TokenId;
use crate::arena::{ArenaError, Buffers};
use crate::config::ModelConfig;
use crate::cut::{Cut, copy};
use crate::decoder::{Decoder, Place};
use crate::format::PackedModel;
use crate::kernels::{Join, Kernels, Serial};
use crate::parts::Kind;
use crate::sampler::{Constraint, Unconstrained, most_probable};

/// Why a step was refused. The session is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepError {
    /// The tokens do not fit behind those in the cache. [`Session::slide`] makes room.
    ContextFull {
        /// Positions of the context.
        context_len: usize,
        /// Tokens in the cache.
        position: usize,
        /// Tokens that were to be added.
        n_tokens: usize,
    },
    /// A token that the vocabulary does not have.
    UnknownToken {
        /// The token.
        token: TokenId,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
    /// No token at all, so there is nothing to predict from.
    EmptyPrompt,
    /// The model's decoder attends to a source, which [`Session::read_source`] has not been given.
    NoSource,
    /// A source was given to a model without an encoder.
    NoEncoder,
    /// The text must be whole at its end, and may not be within the tokens that there is room for. The prompt was read.
    NoRoom {
        /// At most so many tokens make it whole.
        n_missing: usize,
        /// Tokens that the limit and the context let be drawn.
        n_left: usize,
    },
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContextFull { context_len, position, n_tokens } => {
                write!(
                    f,
                    "the context is full: {n_tokens} more tokens do not fit behind {position} of {context_len}; "
                )?;
                f.write_str("shorten the prompt or compile with a longer context")?;
                // No sliding makes room for more than the whole context.
                if n_tokens <= context_len { f.write_str(", or let it slide") } else { Ok(()) }
            }
            Self::UnknownToken { token, vocab_size } => {
                write!(f, "token {token} is not in the vocabulary of {vocab_size}")
            }
            Self::NoRoom { n_missing, n_left } => write!(
                f,
                "the grammar's shortest text may take {n_missing} tokens, but {n_left} can be drawn: allow more, or shorten the prompt"
            ),
            Self::EmptyPrompt => f.write_str("the prompt holds no token: give it some text"),
            Self::NoSource => f.write_str("the model writes from a source, and none was read yet"),
            Self::NoEncoder => f.write_str("the model has no encoder to read a source: give the text as the prompt"),
        }
    }
}

impl core::error::Error for StepError {}

impl StepError {
    /// Checks that `tokens` are some, in the vocabulary, and fit behind `position` tokens.
    pub(crate) fn check(config: &ModelConfig, position: usize, tokens: &[TokenId]) -> Result<(), Self> {
        if tokens.is_empty() {
            return Err(Self::EmptyPrompt);
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            return Err(Self::UnknownToken { token, vocab_size: config.vocab_size });
        }
        if tokens.len() > config.context_len - position {
            let (context_len, n_tokens) = (config.context_len, tokens.len());
            return Err(Self::ContextFull { context_len, position, n_tokens });
        }
        Ok(())
    }
}

/// A model at work in the caller's memory.
pub struct Session<'a, J = Serial> {
    pub(crate) decoder: Decoder<'a, J>,
    pub(crate) buffers: Buffers<'a>,
    pub(crate) prefill_batch: usize,
    pub(crate) position: usize,
    /// Tokens of the source, where there is an encoder; 0 before one is read.
    pub(crate) source_len: usize,
}

impl<'a> Session<'a> {
    /// Starts with an empty cache, on one thread.
    ///
    /// `arena` needs `model.header().arena_bytes` bytes at a multiple of 16; what they held does not matter.
    ///
    /// # Errors
    /// [`ArenaError`] where the arena is too small or misaligned, or the model is an encoder alone.
    pub fn new(model: &PackedModel<'a>, arena: &'a mut [u8], kernels: Kernels) -> Result<Self, ArenaError> {
        Self::with_join(model, arena, kernels, Serial)
    }
}

impl Session<'_> {
    /// Adds `tokens` and gives the most probable token after them, of equal ones the lowest: all that greedy decoding needs.
    ///
    /// # Errors
    /// [`StepError`]; nothing was added.
    pub fn most_probable_after(&mut self, tokens: &[TokenId]) -> Result<TokenId, StepError> {
        Ok(most_probable(self.prefill(tokens)?))
    }
}

impl<'a, J: Join + Sync> Session<'a, J> {
    /// Like [`Session::new`], with the caller's threads. The results are the same, bit for bit.
    pub fn with_join(
        model: &PackedModel<'a>,
        arena: &'a mut [u8],
        kernels: Kernels,
        join: J,
    ) -> Result<Self, ArenaError> {
        if model.config().parts().kind == Kind::Encoder {
            return Err(ArenaError::OtherKind);
        }
        let plan = model.memory_plan();
        let buffers = Buffers::cut(arena, &plan)?;
        let decoder = Decoder::new(model, kernels, join);
        let mut session = Self { decoder, buffers, prefill_batch: plan.prefill_batch, position: 0, source_len: 0 };
        session.reset();
        Ok(session)
    }

    /// Reads what an encoder-decoder is to write from, in place of any source before, and empties the cache.
    ///
    /// # Errors
    /// [`StepError`]; what was read before is still there.
    pub fn read_source(&mut self, tokens: &[TokenId]) -> Result<(), StepError> {
        let config = self.decoder.model.config();
        if !config.parts().has_source() {
            return Err(StepError::NoEncoder);
        }
        StepError::check(config, 0, tokens)?;
        match config.parts().is_recurrent {
            true => self.decoder.read_recurrent_source(&mut self.buffers, self.prefill_batch, tokens),
            false => self.decoder.read_source(&mut self.buffers, self.prefill_batch, tokens),
        }
        self.source_len = tokens.len();
        self.reset();
        Ok(())
    }

    /// The model.
    pub fn model(&self) -> &PackedModel<'a> {
        &self.decoder.model
    }

    /// Positions that the cache holds: the tokens, and a soft prompt before them.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The tokens in the cache, oldest first.
    pub fn history(&self) -> &[TokenId] {
        self.buffers.history.cut(self.first_token()..self.position)
    }

    /// Where the first token lies: behind a soft prompt.
    fn first_token(&self) -> usize {
        #[cfg(feature = "adapters")]
        return self.prompt_len();
        #[cfg(not(feature = "adapters"))]
        0
    }

    /// Empties the cache. A source and an adapter stay, and a soft prompt is read again.
    pub fn reset(&mut self) {
        self.position = 0;
        if self.decoder.model.config().parts().is_recurrent {
            self.decoder.reset_states(&mut self.buffers);
        }
        #[cfg(feature = "adapters")]
        self.read_soft_prompt();
    }

    /// What the last step predicts for the next token, `(vocab_size,)`. A sampler may change it in place.
    pub fn logits(&mut self) -> &mut [f32] {
        self.buffers.logits
    }

    /// Adds `tokens` to the cache, a batch at a time, and predicts what follows the last.
    ///
    /// # Errors
    /// [`StepError`]; nothing was added.
    pub fn prefill(&mut self, tokens: &[TokenId]) -> Result<&mut [f32], StepError> {
        self.prefill_within(tokens, &Unconstrained, usize::MAX)?;
        Ok(self.buffers.logits)
    }

    /// [`Session::prefill`] where a constraint may leave few tokens of which to draw the next, with `n_left` tokens left to draw, that one
    /// included: then only their logits are computed, all others are minus infinity, and it gives true.
    ///
    /// # Errors
    /// [`StepError`]; nothing was added.
    #[inline(always)]
    pub fn prefill_within(
        &mut self,
        tokens: &[TokenId],
        constraint: &impl Constraint,
        n_left: usize,
    ) -> Result<bool, StepError> {
        let last_idx = self.read_all(tokens)?;
        let is_marked = constraint.mark(self.buffers.logits, n_left);
        if is_marked {
            self.decoder.predict_open(&mut self.buffers, last_idx);
        } else {
            self.decoder.predict(&mut self.buffers, last_idx);
        }
        Ok(is_marked)
    }

    /// Adds `tokens`, a batch at a time; gives the place of the last in its batch.
    fn read_all(&mut self, tokens: &[TokenId]) -> Result<usize, StepError> {
        self.check(tokens)?;
        for batch in tokens.chunks(self.prefill_batch.max(1)) {
            self.add(batch);
        }
        Ok((tokens.len() - 1) % self.prefill_batch.max(1))
    }

    /// Adds the first tokens of `tokens`, as many as one pass over the weights serves, and gives their number. Predicts nothing yet:
    /// [`Session::predict_after`] does, for each of them. For evaluation, which wants every prediction.
    ///
    /// # Errors
    /// [`StepError`] as for [`Session::prefill`] with all of `tokens`; nothing was added.
    pub fn read_batch(&mut self, tokens: &[TokenId]) -> Result<usize, StepError> {
        self.check(tokens)?;
        let n = tokens.len().min(self.prefill_batch);
        self.add(tokens.cut(..n));
        Ok(n)
    }

    /// Predicts what follows token `batch_idx` of the last [`Session::read_batch`].
    ///
    /// # Panics
    /// If `batch_idx` is not below the number that it gave: a caller's bug.
    pub fn predict_after(&mut self, batch_idx: usize) -> &mut [f32] {
        require!(batch_idx < self.prefill_batch);
        self.decoder.predict(&mut self.buffers, batch_idx);
        self.buffers.logits
    }

    /// Adds one token and predicts what follows it.
    ///
    /// # Errors
    /// [`StepError`]; nothing was added.
    pub fn decode_step(&mut self, token: TokenId) -> Result<&mut [f32], StepError> {
        self.prefill(&[token])
    }

    /// Makes room in a full context: forgets all but the newest `n_keep` tokens and reads those again from position 0, or behind a soft
    /// prompt.
    ///
    /// It costs a prefill of `n_keep` tokens, and leaves the session exactly as if the conversation had begun there.
    /// The prediction is that of the newest token. Does nothing where the cache holds no more than `n_keep` or `n_keep` is 0.
    pub fn slide(&mut self, n_keep: usize) {
        self.slide_behind(0, n_keep);
    }

    /// [`Session::slide`] with the first `n_sinks` tokens kept too: those that models were trained to find at the front, and attend to with
    /// what they have no other use for ("attention sinks"), or a prompt that is never to be forgotten.
    ///
    /// The newest `n_newest` are read again behind them, from position `n_sinks` on. The session is as if it had begun with these tokens.
    pub fn slide_behind(&mut self, n_sinks: usize, n_newest: usize) {
        let first = self.first_token();
        let n_tokens = self.position - first;
        if n_newest == 0 || n_newest >= n_tokens.saturating_sub(n_sinks) {
            return;
        }
        let (end, kept) = (self.position, first + n_sinks);
        for idx in 0..n_newest {
            if let Some(&token) = self.buffers.history.get(end - n_newest + idx) {
                self.buffers.history.cut_mut(kept + idx..=kept + idx).fill(token);
            }
        }
        // Nothing that a transformer's first positions hold depends on later ones.
        if self.decoder.model.config().parts().is_recurrent || n_sinks == 0 {
            self.reset();
        } else {
            self.position = kept;
        }
        let mut n_last = 1;
        while self.position < kept + n_newest {
            n_last = self.prefill_batch.min(kept + n_newest - self.position);
            self.forward_history(n_last);
        }
        self.decoder.predict(&mut self.buffers, n_last - 1);
    }

    fn check(&self, tokens: &[TokenId]) -> Result<(), StepError> {
        let config = self.decoder.model.config();
        if config.parts().has_source() && self.source_len == 0 {
            return Err(StepError::NoSource);
        }
        StepError::check(config, self.position, tokens)
    }

    fn add(&mut self, batch: &[TokenId]) {
        copy(self.buffers.history.cut_mut(self.position..self.position + batch.len()), batch);
        self.forward_history(batch.len());
    }

    /// Runs the next `n` tokens of the history, at most a batch.
    fn forward_history(&mut self, n: usize) {
        let history = core::mem::take(&mut self.buffers.history);
        let tokens = history.cut(self.position..self.position + n);
        match self.decoder.model.config().parts().is_recurrent {
            true => self.decoder.forward_recurrent(&mut self.buffers, false, 0, tokens),
            false => self.decoder.forward(&mut self.buffers, Place::sequence(self.position), self.source_len, tokens),
        }
        self.buffers.history = history;
        self.position += n;
    }
}
