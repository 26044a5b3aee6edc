//! Supervised fine-tuning: prompts and completions, conversations, texts. What is to be said is trained, the rest is read.
//!
//! A record becomes a [`Dialogue`], a template makes [`Rendered`] text of it, and [`SftEncoder`] its tokens with their mask.

mod dialogue;
mod encode;
mod mixture;
mod render;

pub use dialogue::{Dialogue, FileChecks, Shape};
pub use encode::{SftCounts, SftEncoder};
pub use mixture::{MixingSection, MixtureModel, TaskMixture, TaskPool, TaskSection, TaskShare, TaskTemplate};
pub use render::{FormTemplate, Part, PromptTemplate, Rendered, Renderer};

use serde::{Deserialize, Serialize};

/// What is trained on, and how records become text. Names are those of Hugging Face's TRL where it has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftSection {
    /// Whether the completion of a prompt alone is trained on, or the prompt too.
    pub completion_only_loss: bool,
    /// Whether the assistant's turns of a conversation alone are trained on, or all of it.
    pub assistant_only_loss: bool,
    /// Jinja over a record's fields: what is read where `prompt` is a text. Without it, the prompt as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_template: Option<String>,
    /// Jinja over `messages`. Without it, that of the model that the recipe goes on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// What becomes of an example that has more tokens than the model's context.
    pub too_long: TooLong,
    /// How the files of `data.text` are mixed, each of them a task. Without it, and without a `task`, they are one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixing: Option<MixingSection>,
    /// What is to be said of single tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub task: Vec<TaskSection>,
}

impl SftSection {
    /// How tasks are mixed, if there are several.
    pub fn mixing(&self) -> Option<MixingSection> {
        self.mixing.clone().or_else(|| (!self.task.is_empty()).then(MixingSection::default))
    }
}

impl Default for SftSection {
    fn default() -> Self {
        Self {
            completion_only_loss: true,
            assistant_only_loss: true,
            prompt_template: None,
            chat_template: None,
            too_long: TooLong::Error,
            mixing: None,
            task: Vec::new(),
        }
    }
}

/// What becomes of an example that has more tokens than the model's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// The run does not begin.
    #[default]
    Error,
    /// It is left out.
    Drop,
    /// It is cut off at its end, and left out if nothing is left to train on.
    Truncate,
}
