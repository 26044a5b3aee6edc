//! A conversation with a model: the cache, the position in it, and the steps that move it on.

use core::fmt;

use crate::TokenId;
use crate::arena::{ArenaError, Buffers};
use crate::decoder::Decoder;
use crate::format::PackedModel;
use crate::kernels::{Join, Kernels, Serial};
use crate::sampler::most_probable;

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
            Self::EmptyPrompt => f.write_str("the prompt holds no token: give it some text"),
        }
    }
}

impl core::error::Error for StepError {}

/// A model at work in the caller's memory.
pub struct Session<'a, J = Serial> {
    decoder: Decoder<'a, J>,
    buffers: Buffers<'a>,
    prefill_batch: usize,
    position: usize,
}

impl<'a> Session<'a> {
    /// Starts with an empty cache, on one thread.
    ///
    /// `arena` needs `model.header().arena_bytes` bytes at a multiple of 16; what they held does not matter.
    ///
    /// # Errors
    /// [`ArenaError`] where the arena is too small or misaligned.
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
        let plan = model.memory_plan();
        let buffers = Buffers::cut(arena, &plan)?;
        let decoder = Decoder { model: *model, kernels, join };
        Ok(Self { decoder, buffers, prefill_batch: plan.prefill_batch, position: 0 })
    }

    /// The model.
    pub fn model(&self) -> &PackedModel<'a> {
        &self.decoder.model
    }

    /// Tokens in the cache.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The tokens in the cache, oldest first.
    pub fn history(&self) -> &[TokenId] {
        &self.buffers.history[..self.position]
    }

    /// Empties the cache.
    pub fn reset(&mut self) {
        self.position = 0;
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
        self.check(tokens)?;
        for batch in tokens.chunks(self.prefill_batch) {
            self.add(batch);
        }
        let last_idx = (tokens.len() - 1) % self.prefill_batch;
        self.decoder.logits(&mut self.buffers, last_idx);
        Ok(self.buffers.logits)
    }

    /// Adds the first tokens of `tokens`, as many as one pass over the weights serves, and gives their number. Predicts nothing yet:
    /// [`Session::predict_after`] does, for each of them. For evaluation, which wants every prediction.
    ///
    /// # Errors
    /// [`StepError`] as for [`Session::prefill`] with all of `tokens`; nothing was added.
    pub fn read_batch(&mut self, tokens: &[TokenId]) -> Result<usize, StepError> {
        self.check(tokens)?;
        let n = tokens.len().min(self.prefill_batch);
        self.add(&tokens[..n]);
        Ok(n)
    }

    /// Predicts what follows token `batch_idx` of the last [`Session::read_batch`].
    ///
    /// # Panics
    /// If `batch_idx` is not below the number that it gave: a caller's bug.
    pub fn predict_after(&mut self, batch_idx: usize) -> &mut [f32] {
        assert!(batch_idx < self.prefill_batch);
        self.decoder.logits(&mut self.buffers, batch_idx);
        self.buffers.logits
    }

    /// Adds one token and predicts what follows it.
    ///
    /// # Errors
    /// [`StepError`]; nothing was added.
    pub fn decode_step(&mut self, token: TokenId) -> Result<&mut [f32], StepError> {
        self.prefill(&[token])
    }

    /// Makes room in a full context: forgets all but the newest `n_keep` tokens and reads those again from position 0.
    ///
    /// It costs a prefill of `n_keep` tokens, and leaves the session exactly as if the conversation had begun there.
    /// The prediction is that of the newest token. Does nothing where the cache holds no more than `n_keep` or `n_keep` is 0.
    pub fn slide(&mut self, n_keep: usize) {
        if n_keep == 0 || n_keep >= self.position {
            return;
        }
        let n_tokens = self.position;
        self.buffers.history.copy_within(n_tokens - n_keep..n_tokens, 0);
        self.position = 0;
        while self.position < n_keep {
            let n = self.prefill_batch.min(n_keep - self.position);
            self.forward_history(n);
        }
        self.decoder.logits(&mut self.buffers, (n_keep - 1) % self.prefill_batch);
    }

    fn check(&self, tokens: &[TokenId]) -> Result<(), StepError> {
        let config = self.decoder.model.config();
        if tokens.is_empty() {
            return Err(StepError::EmptyPrompt);
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            return Err(StepError::UnknownToken { token, vocab_size: config.vocab_size });
        }
        if tokens.len() > config.context_len - self.position {
            return Err(StepError::ContextFull {
                context_len: config.context_len,
                position: self.position,
                n_tokens: tokens.len(),
            });
        }
        Ok(())
    }

    fn add(&mut self, batch: &[TokenId]) {
        self.buffers.history[self.position..self.position + batch.len()].copy_from_slice(batch);
        self.forward_history(batch.len());
    }

    /// Runs the next `n` tokens of the history, at most a batch.
    fn forward_history(&mut self, n: usize) {
        let history = core::mem::take(&mut self.buffers.history);
        self.decoder.forward(&mut self.buffers, self.position, &history[self.position..self.position + n]);
        self.buffers.history = history;
        self.position += n;
    }
}
