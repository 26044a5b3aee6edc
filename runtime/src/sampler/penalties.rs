//! What is done to logits before any filter: biases, and penalties on what was said lately.

use crate::TokenId;

use super::{PENALTY_WINDOW, Sampling};

/// A number to add to a token's logit; minus infinity bans the token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitBias {
    /// The token.
    pub token: TokenId,
    /// What is added.
    pub bias: f32,
}

impl LogitBias {
    /// Never lets `token` be drawn.
    pub const fn ban(token: TokenId) -> Self {
        Self { token, bias: f32::NEG_INFINITY }
    }

    /// As a sampler takes it: the token, then the bits of the bias, both little-endian. So a request's bytes serve where they lie.
    pub const fn encode(self) -> EncodedBias {
        let ([a, b, c, d], [e, f, g, h]) = (self.token.to_le_bytes(), self.bias.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }

    fn decode(&[a, b, c, d, e, f, g, h]: &EncodedBias) -> Self {
        Self { token: TokenId::from_le_bytes([a, b, c, d]), bias: f32::from_le_bytes([e, f, g, h]) }
    }
}

/// The bytes of a [`LogitBias`].
pub type EncodedBias = [u8; 8];

/// The latest tokens, at most [`PENALTY_WINDOW`], in no order that matters.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    tokens: [TokenId; PENALTY_WINDOW],
    n_seen: usize,
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self { tokens: [0; PENALTY_WINDOW], n_seen: 0 }
    }

    /// Takes `token` in, in place of the oldest where there is no room.
    pub(super) fn push(&mut self, token: TokenId) {
        if let Some(slot) = self.tokens.get_mut(self.n_seen % PENALTY_WINDOW) {
            *slot = token;
        }
        // Twice the window says both where the next goes and that all places are taken.
        self.n_seen = if self.n_seen + 1 < 2 * PENALTY_WINDOW { self.n_seen + 1 } else { PENALTY_WINDOW };
    }

    pub(super) fn as_slice(&self) -> &[TokenId] {
        self.tokens.get(..self.n_seen).unwrap_or(&self.tokens)
    }
}

/// Adds each bias, in order.
pub(super) fn add_biases(logits: &mut [f32], biases: &[EncodedBias]) {
    for LogitBias { token, bias } in biases.iter().map(LogitBias::decode) {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
}

/// Penalises each token of `recent` once: by the repetition penalty, then by frequency and presence.
pub(super) fn penalise(logits: &mut [f32], sampling: &Sampling, recent: &[TokenId]) {
    let repetition = sampling.repetition_penalty();
    let (frequency, presence) = (sampling.frequency_penalty(), sampling.presence_penalty());
    if repetition == 1.0 && frequency == 0.0 && presence == 0.0 {
        return;
    }
    for (idx, token) in recent.iter().enumerate() {
        if recent.iter().take(idx).any(|other| other == token) {
            continue;
        }
        let Some(logit) = logits.get_mut(*token as usize) else { continue };
        if repetition != 1.0 {
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
        }
        if frequency != 0.0 || presence != 0.0 {
            let count = recent.iter().skip(idx).filter(|other| *other == token).count();
            *logit -= count as f32 * frequency + presence;
        }
    }
}
