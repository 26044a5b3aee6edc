//! Instructions of a token before anything is built: the work of a pass over the model, times what a board takes for each kind of it.
//!
//! A board's costs are fitted to counts by `cargo xtask bench costs`, and lie in its `costs.toml`. What was not counted there is not guessed.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use siskin_runtime::PackedModel;

use super::board::BoardError;
use super::work::Work;

/// The file in a board's folder that has them.
pub(super) const COSTS_FILE: &str = "costs.toml";

/// Instructions that a board takes for each kind of [`Work`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// The compiler of the firmware that was counted.
    pub compiler: String,
    /// Instructions of a unit of each kind.
    instructions: BTreeMap<String, f64>,
}

impl Costs {
    /// Reads those of the board whose folder is `dir`; `None` where they were never fitted.
    ///
    /// # Errors
    /// [`BoardError`], with the path.
    pub fn load(dir: &Path) -> Result<Option<Self>, BoardError> {
        let file = dir.join(COSTS_FILE);
        if !file.is_file() {
            return Ok(None);
        }
        let path = file.display().to_string();
        let text = std::fs::read_to_string(&file).map_err(|error| BoardError::Io { path: path.clone(), error })?;
        toml::from_str(&text).map(Some).map_err(|error| BoardError::Toml { path, error: Box::new(error) })
    }

    /// The instructions of `work`, or the kinds of work that were not counted.
    fn of(&self, work: &Work) -> Result<u64, Vec<String>> {
        let unknown = work.amounts().filter(|(kind, _)| !self.instructions.contains_key(*kind));
        let unknown: Vec<String> = unknown.map(|(kind, _)| kind.to_owned()).collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let terms = work.amounts().map(|(kind, amount)| amount * self.instructions.get(kind).copied().unwrap_or(0.0));
        Ok(terms.sum::<f64>().round() as u64)
    }
}

/// What a token is predicted to take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// The board whose counts it is made from.
    pub counted_on: String,
    /// Tokens of the prompt, the source or the text.
    pub prompt_tokens: usize,
    /// Instructions of reading them.
    pub prompt: u64,
    /// Of the first token of the context; of an encoder, of one finding.
    pub first_token: u64,
    /// The mean over all positions of the context; of an encoder, of one finding.
    pub mean_token: u64,
    /// The position that was asked for, and what the token there takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_position: Option<AtPosition>,
}

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AtPosition {
    /// Where its input stands.
    pub position: usize,
    /// What it takes.
    pub instructions: u64,
}

impl Prediction {
    /// What `model` takes by the costs of the board `counted_on`, after a prompt of `prompt_tokens`; greedily, without adapters, grammars or
    /// stop sequences.
    ///
    /// # Errors
    /// The kinds of work that were not counted there.
    pub fn new(
        model: &PackedModel<'_>,
        costs: &Costs,
        counted_on: &str,
        prompt_tokens: usize,
        position: Option<usize>,
    ) -> Result<Self, Vec<String>> {
        let token = |position: usize| costs.of(&Work::of_token(model, position, prompt_tokens));
        let context_len = model.config().context_len;
        let (first_token, last_token) = (token(0)?, token(context_len - 1)?);
        let at_position = match position {
            None => None,
            Some(position) => Some(AtPosition { position, instructions: token(position)? }),
        };
        Ok(Self {
            counted_on: counted_on.to_owned(),
            prompt_tokens,
            prompt: costs.of(&Work::of_reading(model, prompt_tokens))?,
            first_token,
            // Work grows by the same amount from each position to the next.
            mean_token: first_token.midpoint(last_token),
            at_position,
        })
    }
}
