//! Tasks: questions with known answers, what a packed model answers, and what that is worth.
//!
//! ```text
//! records ── read_questions ──> Question ── PromptFormat, shots of a pool ──> Prompt ── Respondent ──> Answer ── grades ──> Figure
//! ```

mod grades;
mod prompt;
mod read;
mod report;
mod respond;

use serde_json::{Map, Value};

pub use grades::{Figure, GradeError, Grades, TEXT_METRICS, grades};
pub use prompt::{Prompt, PromptError, PromptFormat, Selection, Shots, Turn};
pub use read::{QuestionsError, read_questions};
pub use report::{Answered, Results, page};
pub use respond::{RespondError, Respondent};

/// A question to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The record's `id`, or else the number of its line.
    pub id: String,
    /// The record's fields, which a template speaks of.
    pub fields: Map<String, Value>,
    /// What the model should answer.
    pub expected: Expected,
}

/// A right answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// One of these texts; the first is the one that examples show.
    Text(Vec<String>),
    /// One of several texts: the one that the model finds likeliest is its answer.
    Choice {
        /// The texts.
        choices: Vec<String>,
        /// Index of the right one.
        answer: usize,
    },
    /// A classifier's label.
    Label(String),
}

impl Expected {
    /// The right answer as a text.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(texts) => texts.first().map_or("", String::as_str),
            Self::Choice { choices, answer } => choices.get(*answer).map_or("", String::as_str),
            Self::Label(label) => label,
        }
    }
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The text that it went on with.
    Text {
        /// The text.
        text: String,
        /// Tokens of it.
        n_tokens: usize,
    },
    /// How likely each choice is to follow: the sum of the log-probabilities of its tokens, in nats.
    Choice(Vec<f64>),
    /// A classifier's label, and the probability that it gives it.
    Label {
        /// The label's name.
        label: String,
        /// From 0 to 1.
        probability: f64,
    },
}

impl Answer {
    /// Index of the likeliest choice by the likelihoods over these divisors, one for each choice: the first of equals, as numpy's argmax.
    fn best_choice(likelihoods: &[f64], divisors: impl Iterator<Item = f64>) -> Option<usize> {
        let normed = likelihoods.iter().zip(divisors).map(|(sum, divisor)| sum / divisor).enumerate();
        normed.reduce(|best, other| if other.1 > best.1 { other } else { best }).map(|(idx, _)| idx)
    }

    /// The answer as a text: of choices the likeliest.
    pub fn text<'a>(&'a self, expected: &'a Expected) -> &'a str {
        match (self, expected) {
            (Self::Text { text, .. }, _) => text,
            (Self::Label { label, .. }, _) => label,
            (Self::Choice(likelihoods), Expected::Choice { choices, .. }) => {
                let best = Self::best_choice(likelihoods, choices.iter().map(|_| 1.0));
                best.and_then(|idx| choices.get(idx)).map_or("", String::as_str)
            }
            (Self::Choice(_), _) => "",
        }
    }
}
