//! Beam search: the best of several texts that grow side by side, in the arena that the memory plan has for them.
//!
//! ```text
//! start(prompt)
//! repeat: compute = each beam's token through the layers, all candidates ranked; choose = who runs on, who has ended
//! finish: the best text
//! ```
//!
//! An encoder's output is shared. Each beam has a cache of its own, so that attention reads a beam as it reads a sequence; when a
//! hypothesis has several successors, all but one are copied into beams that fell free, from where the two part. No order of beams in
//! memory, and no batch, changes a bit.

mod search;

use core::fmt;

pub use search::{BEAMS_MAX, BeamOptions, EarlyStopping, LENGTH_PENALTY_MAX};
pub(crate) use search::{Record, Search};

use crate::TokenId;
use crate::arena::Buffers;
use crate::config::ModelConfig;
use crate::cut::{Cut, copy_part};
use crate::decoder::Place;
use crate::generate::End;
use crate::kernels::{Join, Serial};
use crate::session::{Session, StepError};
use search::{Branch, Memory};

/// Most beams that go through the layers together.
const ROWS_MAX: usize = 8;

/// Why a search cannot begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BeamError {
    /// The prompt was refused.
    Step(StepError),
    /// No beam, or more than the model's arena has room for.
    Beams {
        /// Beams that were asked for.
        n_beams: usize,
        /// What there is room for.
        most: usize,
    },
    /// The length penalty is no number, or beyond [`LENGTH_PENALTY_MAX`] in either direction.
    LengthPenalty,
}

impl BeamError {
    /// What is wrong, for people, without figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Step(_) => "the prompt was refused",
            Self::Beams { n_beams: 0, .. } => "a beam search needs a beam",
            Self::Beams { .. } => "the model has no room for so many beams: compile it with more (--beams)",
            Self::LengthPenalty => "the length penalty must be a number between -4 and 4",
        }
    }
}

impl fmt::Display for BeamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(error) => error.fmt(f),
            Self::Beams { n_beams: 1.., most } => write!(f, "{}; it has room for {most}", self.as_str()),
            _ => f.write_str(self.as_str()),
        }
    }
}

impl core::error::Error for BeamError {}

impl From<StepError> for BeamError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

/// What a search has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best<'s> {
    /// The text's tokens, with the one that ended it.
    pub tokens: &'s [TokenId],
    /// The sum of their log-probabilities, divided by their number to the power of the length penalty.
    pub score: f32,
    /// Why there are no more.
    pub end: End,
}

/// A search under way. Until [`BeamSearch::finish`] the session is not to be used otherwise; where a search is dropped, [`Session::reset`]
/// makes it fit for use again.
pub struct BeamSearch<'s, 'a, J = Serial> {
    session: &'s mut Session<'a, J>,
    search: Search,
    /// Most tokens that the limit and the context allow.
    n_tokens_max: usize,
    goes_on: bool,
}

fn memory<'m>(buffers: &'m mut Buffers<'_>) -> Memory<'m> {
    Memory { nodes: buffers.beam_nodes, records: buffers.beam_records }
}

impl<'s, 'a, J: Join + Sync> BeamSearch<'s, 'a, J> {
    /// Reads the prompt, behind what the session holds.
    ///
    /// # Errors
    /// [`BeamError`]; where it is of the options, nothing was read.
    pub fn start(session: &'s mut Session<'a, J>, prompt: &[TokenId], options: BeamOptions) -> Result<Self, BeamError> {
        let BeamOptions { n_beams, length_penalty, max_new_tokens, .. } = options;
        let most = session.buffers.beam_records.len() / 4;
        if n_beams == 0 || n_beams > most {
            return Err(BeamError::Beams { n_beams, most });
        }
        if !(-LENGTH_PENALTY_MAX..=LENGTH_PENALTY_MAX).contains(&length_penalty) {
            return Err(BeamError::LengthPenalty);
        }
        session.prefill(prompt)?;
        // The last token need not be read.
        let room = session.model().config().context_len - session.position + 1;
        let n_tokens_max = max_new_tokens.min(room);
        let search = Search::new(options, &mut memory(&mut session.buffers));
        Ok(Self { session, search, n_tokens_max, goes_on: n_tokens_max > 0 })
    }

    /// Tokens that each running text has.
    pub fn n_tokens(&self) -> usize {
        self.search.n_tokens()
    }

    /// The first part of a step: each beam's last token goes through the model, and what may follow is ranked. Shows `look` the logits of
    /// each prediction, `(vocab_size,)`, beam after beam. False once the search is over.
    pub fn compute(&mut self, mut look: impl FnMut(&[f32])) -> bool {
        if !self.goes_on {
            return false;
        }
        let Session { decoder, buffers, position, source_len, prefill_batch, .. } = &mut *self.session;
        if self.search.n_tokens() == 0 {
            look(buffers.logits);
            let mut memory = Memory { nodes: buffers.beam_nodes, records: buffers.beam_records };
            self.search.offer(&mut memory, 0, buffers.logits);
            return true;
        }
        let is_recurrent = decoder.model.config().parts().is_recurrent;
        let most = if is_recurrent { 1 } else { ROWS_MAX.min(*prefill_batch).max(1) };
        let n_beams = self.search.n_beams_used(&memory(buffers));
        let place = *position + self.search.n_tokens() - 1;
        for first in (0..n_beams).step_by(most) {
            let n_rows = most.min(n_beams - first);
            let mut tokens = [0; ROWS_MAX];
            for (row, token) in tokens.iter_mut().enumerate().take(n_rows) {
                // A beam in which nothing runs is computed along with the others, and not looked at.
                *token = self.search.in_beam(&memory(buffers), first + row).map_or(0, |(_, token)| token);
            }
            let tokens = tokens.cut(..n_rows);
            match is_recurrent {
                true => decoder.forward_recurrent(buffers, false, first, tokens),
                false => decoder.forward(buffers, Place::beams(first, place), *source_len, tokens),
            }
            for row in 0..n_rows {
                if let Some((rank, _)) = self.search.in_beam(&memory(buffers), first + row) {
                    decoder.predict(buffers, row);
                    look(buffers.logits);
                    let mut memory = Memory { nodes: buffers.beam_nodes, records: buffers.beam_records };
                    self.search.offer(&mut memory, rank, buffers.logits);
                }
            }
        }
        true
    }

    /// The second part of a step, after [`BeamSearch::compute`] and only then: who runs on, and in which beam.
    pub fn choose(&mut self) {
        let is_last = self.search.n_tokens() + 1 == self.n_tokens_max;
        let Session { decoder, buffers, position, .. } = &mut *self.session;
        let (config, n_rows) = (decoder.model.config(), *position + self.search.n_tokens());
        let Buffers { keys, values, state, beam_nodes, beam_records, .. } = buffers;
        let mut memory = Memory { nodes: beam_nodes, records: beam_records };
        self.goes_on = self.search.advance(&mut memory, is_last, |Branch { from, to, n_shared }| {
            if config.parts().is_recurrent {
                return copy_state(state, config, from, to);
            }
            let positions = n_shared.map_or(0, |n_tokens| *position + n_tokens)..n_rows;
            for stored in [&mut *keys, &mut *values] {
                stored.copy_beam(config, from, to, positions.clone());
            }
        });
    }

    /// The best text that was found. The session is empty again, with its source and its adapter.
    pub fn finish(self) -> Best<'s> {
        let Self { session, search, n_tokens_max, .. } = self;
        session.reset();
        let Buffers { history, beam_nodes, beam_records, .. } = &mut session.buffers;
        let memory = Memory { nodes: beam_nodes, records: beam_records };
        let found = search.best(&memory, history);
        let (n_tokens, score) = found.unwrap_or((0, 0.0));
        let tokens = history.cut(..n_tokens);
        let options = search.options();
        let end = match tokens.last() {
            Some(&last) if options.end_token == Some(last) => End::EndToken(last),
            None if n_tokens_max > 0 => End::Stuck,
            _ if n_tokens_max < options.max_new_tokens => End::ContextFull,
            _ => End::MaxNewTokens,
        };
        Best { tokens, score, end }
    }
}

/// Copies the states of a beam's layers to another.
fn copy_state(state: &mut [f32], config: &ModelConfig, from: usize, to: usize) {
    let n = config.n_layers * config.dim;
    copy_part(state, from * n, to * n, n);
}
