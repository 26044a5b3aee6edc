//! A text that a model writes on this machine.

use siskin_runtime::sampler::Constraint;
use siskin_runtime::speculative::Ahead;
use siskin_runtime::{Generation, Join, LogitsHash, TokenId};

use crate::failure::Failure;

/// What came of a generation.
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) hash: LogitsHash,
}

impl Text {
    /// Draws until the text ends, and shows each piece of it as it comes.
    pub(crate) fn write<J: Join + Sync>(
        generation: &mut Generation<'_, '_, J, impl Constraint, impl Ahead<J>>,
        show: impl Fn(&str) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let (mut text, mut tokens, mut shown, mut hash) = (String::new(), Vec::new(), Ok(()), LogitsHash::EMPTY);
        loop {
            let mut emit = |piece: &str| {
                text.push_str(piece);
                if shown.is_ok() {
                    shown = show(piece);
                }
            };
            if !generation.compute(&mut emit) {
                break;
            }
            hash.add(generation.logits());
            let token = generation.draw(&mut emit);
            std::mem::replace(&mut shown, Ok(()))?;
            let Some(token) = token else { break };
            tokens.push(token);
        }
        shown?;
        Ok(Self { text, tokens, hash })
    }
}
