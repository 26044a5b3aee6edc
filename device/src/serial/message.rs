//! What goes over the line. The order of variants and fields is the format: a change of either is another version.

use serde::{Deserialize, Serialize};
use siskin_runtime::sampler::SamplingError;
use siskin_runtime::{End, Sampling, TokenId};

/// Most stop sequences of a request.
pub const STOPS_MAX: usize = 4;

/// What the host asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<'m> {
    /// What the device is. It answers with [`Event::Hello`].
    Hello,
    /// A text.
    #[serde(borrow)]
    Generate(Generate<'m>),
    /// The text under way is to end; without one nothing happens.
    Stop,
}

/// A text that is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generate<'m> {
    /// The text to go on from.
    pub prompt: &'m str,
    /// Whether it stands behind all that was read and written before.
    pub continues: bool,
    /// Most tokens to write.
    pub max_new_tokens: u32,
    /// How they are chosen.
    pub settings: Settings,
    /// Where the random numbers start.
    pub seed: u64,
    /// The adapter that the model is to have on, by name.
    pub adapter: Option<&'m str>,
    /// Texts before which the text ends; empty ones are none.
    pub stops: [&'m str; STOPS_MAX],
}

/// [`Sampling`] as it goes over the line: unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps every token.
    pub top_k: u32,
    /// 1 keeps every token.
    pub typical_p: f32,
    /// 1 keeps every token.
    pub top_p: f32,
    /// 0 keeps every token.
    pub min_p: f32,
    /// 1 penalises nothing.
    pub repetition_penalty: f32,
    /// 0 penalises nothing.
    pub frequency_penalty: f32,
    /// 0 penalises nothing.
    pub presence_penalty: f32,
    /// Mirostat's tau and eta.
    pub mirostat: Option<(f32, f32)>,
}

impl From<&Sampling> for Settings {
    fn from(sampling: &Sampling) -> Self {
        Self {
            temperature: sampling.temperature(),
            top_k: sampling.top_k().unwrap_or(0),
            typical_p: sampling.typical_p(),
            top_p: sampling.top_p(),
            min_p: sampling.min_p(),
            repetition_penalty: sampling.repetition_penalty(),
            frequency_penalty: sampling.frequency_penalty(),
            presence_penalty: sampling.presence_penalty(),
            mirostat: sampling.mirostat().map(|mirostat| (mirostat.tau, mirostat.eta)),
        }
    }
}

impl Settings {
    /// The same, checked.
    ///
    /// # Errors
    /// [`SamplingError`]: a value out of its range.
    pub fn sampling(&self) -> Result<Sampling, SamplingError> {
        let mut sampling = Sampling::random(self.temperature)?;
        if self.top_k != 0 {
            sampling = sampling.with_top_k(self.top_k)?;
        }
        if let Some((tau, eta)) = self.mirostat {
            sampling = sampling.with_mirostat(tau, eta)?;
        }
        let sampling = sampling.with_typical_p(self.typical_p)?.with_top_p(self.top_p)?.with_min_p(self.min_p)?;
        sampling
            .with_repetition_penalty(self.repetition_penalty)?
            .with_frequency_penalty(self.frequency_penalty)?
            .with_presence_penalty(self.presence_penalty)
    }
}

/// What the device says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event<'m> {
    /// What it is.
    Hello {
        /// The board's name.
        board: &'m str,
        /// Bytes of the model.
        model_bytes: u32,
        /// Their CRC-32.
        model_crc: u32,
        /// Positions of the context.
        context_len: u32,
        /// Bytes of the longest frame that it receives, as they go over the line.
        frame_bytes_max: u32,
    },
    /// The prompt was read.
    Prompt {
        /// Its tokens.
        n_tokens: u32,
    },
    /// A token was drawn.
    Token(TokenId),
    /// Text that became certain with it, in whole characters.
    Text(&'m str),
    /// The text is over.
    End {
        /// Why.
        reason: EndReason,
        /// Tokens drawn, an end token included.
        n_tokens: u32,
        /// The hash of the logits that they were drawn from.
        logits_hash: u64,
    },
    /// Why there is no text, or nothing more.
    Error(&'m str),
    /// Something that nobody asked for: a line of what boards say, such as a fault.
    Log(&'m str),
}

/// Why a text is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// As many tokens as were asked for.
    MaxNewTokens,
    /// The model ended it.
    EndToken,
    /// It reached a stop sequence.
    Stop,
    /// The context is full.
    ContextFull,
    /// The grammar lets nothing follow.
    Complete,
    /// Nothing that the grammar allows could be drawn.
    Stuck,
    /// The host said [`Request::Stop`].
    Interrupted,
}

impl From<Option<End>> for EndReason {
    /// Of a text that was interrupted, where it has no end of its own.
    fn from(end: Option<End>) -> Self {
        match end {
            Some(End::MaxNewTokens) => Self::MaxNewTokens,
            Some(End::EndToken(_)) => Self::EndToken,
            Some(End::Stop(_)) => Self::Stop,
            Some(End::ContextFull) => Self::ContextFull,
            Some(End::Complete) => Self::Complete,
            Some(End::Stuck) => Self::Stuck,
            None => Self::Interrupted,
        }
    }
}

impl EndReason {
    /// The name in replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxNewTokens => "max_new_tokens",
            Self::EndToken => "end_token",
            Self::Stop => "stop",
            Self::ContextFull => "context_full",
            Self::Complete => "complete",
            Self::Stuck => "stuck",
            Self::Interrupted => "interrupted",
        }
    }
}
