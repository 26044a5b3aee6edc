//! Why no text comes.

use core::fmt;

use siskin_runtime::grammar::GrammarError;
use siskin_runtime::sampler::StopError;
use siskin_runtime::{ArenaError, FormatError, StepError};

/// Why no text, or no more text, comes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The file is damaged, or not what this build runs.
    Format(FormatError),
    /// The memory is not what the model needs, or the model continues no text.
    Arena(ArenaError),
    /// The prompt was refused.
    Step(StepError),
    /// A stop sequence is empty or too long.
    Stop(StopError),
    /// The grammar in the file is damaged.
    Grammar(GrammarError),
    /// Someone else has the model's memory.
    Taken,
    /// The weights lie in another order than this core's kernels read.
    WrongLayout {
        /// The order's name.
        found: &'static str,
        /// The name of the order that the kernels read.
        wanted: &'static str,
    },
    /// The file has no tokenizer, so it takes and gives tokens only.
    NoTokenizer,
    /// The file has no grammar.
    NoGrammar,
    /// The prompt has more tokens than the context, or a word that is longer than what is left of it.
    PromptTooLong {
        /// Tokens that there is room for.
        tokens_max: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::Arena(error) => error.fmt(f),
            Self::Step(error) => error.fmt(f),
            Self::Stop(error) => error.fmt(f),
            Self::Grammar(error) => f.write_str(error.as_str()),
            Self::Taken => f.write_str("the model's memory is in use: it is handed out once"),
            Self::WrongLayout { found, wanted } => {
                write!(f, "the weights lie in the order {found}, but this core's kernels read {wanted}: ")?;
                f.write_str("compile the model for this board")
            }
            Self::NoTokenizer => f.write_str("the model has no tokenizer: use a session, which takes tokens"),
            Self::NoGrammar => f.write_str("the model has no grammar: compile it with one"),
            Self::PromptTooLong { tokens_max } => {
                write!(f, "the prompt does not fit into the context of {tokens_max} tokens: shorten it")
            }
        }
    }
}

impl core::error::Error for Error {}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

impl From<ArenaError> for Error {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl From<StopError> for Error {
    fn from(error: StopError) -> Self {
        Self::Stop(error)
    }
}

impl From<GrammarError> for Error {
    fn from(error: GrammarError) -> Self {
        Self::Grammar(error)
    }
}
