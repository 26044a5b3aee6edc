//! A packed model as a source of logits: the runtime's own session, so what is measured is what ships.

use siskin_runtime::{ArenaError, Join, Kernels, PackedModel, Session, StepError, TokenId};

use super::{EvalError, LogitsSource};
use crate::pack::AlignedBytes;

/// A packed model at work on the host.
pub struct PackedLogits<'a, J> {
    session: Session<'a, J>,
    window: Vec<TokenId>,
    /// Tokens of the window that the session has read.
    n_read: usize,
    /// Predictions of the last batch that are still to be given.
    unseen: std::ops::Range<usize>,
}

impl<'a, J: Join + Sync> PackedLogits<'a, J> {
    /// Sets a session up in `arena`, of the header's `arena_bytes`.
    ///
    /// # Errors
    /// [`ArenaError`]: the arena is too small.
    pub fn new(
        model: &PackedModel<'a>,
        arena: &'a mut AlignedBytes,
        kernels: Kernels,
        join: J,
    ) -> Result<Self, ArenaError> {
        let session = Session::with_join(model, arena, kernels, join)?;
        Ok(Self { session, window: Vec::new(), n_read: 0, unseen: 0..0 })
    }
}

impl<J: Join + Sync> LogitsSource for PackedLogits<'_, J> {
    fn vocab_size(&self) -> usize {
        self.session.model().config().vocab_size
    }

    fn context_len(&self) -> usize {
        self.session.model().config().context_len
    }

    fn start_window(&mut self, tokens: &[TokenId]) -> Result<(), EvalError> {
        EvalError::check_window(tokens, self.vocab_size(), self.context_len())?;
        self.session.reset();
        self.window = tokens.to_vec();
        (self.n_read, self.unseen) = (0, 0..0);
        Ok(())
    }

    fn next_logits(&mut self) -> Result<&[f32], EvalError> {
        if self.unseen.is_empty() {
            let rest = &self.window[self.n_read..];
            if rest.is_empty() {
                return Err(EvalError::WindowEnded);
            }
            let n = self.session.read_batch(rest).map_err(|error: StepError| EvalError::Source(error.into()))?;
            self.n_read += n;
            self.unseen = 0..n;
        }
        let batch_idx = self.unseen.next().expect("a batch holds at least one token");
        Ok(self.session.predict_after(batch_idx))
    }
}
