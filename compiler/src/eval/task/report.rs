//! Answers as one HTML page that needs nothing but itself.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;
use siskin_runtime::TokenId;

use super::Figure;

/// What answers were worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// The model, as it was named.
    pub model: String,
    /// The file of questions, as it was named.
    pub questions: String,
    /// Who answered: `host`, or a board.
    pub on: String,
    /// How many there were.
    pub n_questions: usize,
    /// Examples before a question: fewest and most.
    pub n_shots: [usize; 2],
    /// What the answers were worth.
    pub figures: Vec<Figure>,
    /// How long it took.
    pub seconds: f64,
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answered<'q> {
    /// The question's.
    pub id: &'q str,
    /// The question as it was put.
    pub question: String,
    /// All that the model read, examples and template included, as tokens: for another program to read the same.
    pub prompt_tokens: Vec<TokenId>,
    /// The right answer.
    pub expected: &'q str,
    /// The model's.
    pub answered: String,
    /// By the first metric.
    pub score: f64,
}

/// Answers that are shown: the first ones, wrong ones before right ones.
const N_SHOWN: usize = 200;

/// The page.
///
/// # Errors
/// If the template cannot be filled, which no answer brings about.
pub fn page(results: &Results, answers: &[Answered<'_>]) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", include_str!("report.html"))?;
    let mut shown: Vec<&Answered<'_>> = answers.iter().collect();
    shown.sort_by(|a, b| a.score.total_cmp(&b.score));
    shown.truncate(N_SHOWN);
    environment
        .get_template("page")?
        .render(context! { results => Serde(results), shown => Serde(shown), n_lines => answers.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_first_and_nothing_is_taken_for_markup() {
        let figure =
            Figure { metric: "exact_match".into(), value: 0.5, low: Some(0.0), high: Some(1.0), signature: None };
        let results = Results {
            model: "a<b>.siskin".into(),
            questions: "test.jsonl".into(),
            on: "host".into(),
            n_questions: 2,
            n_shots: [0, 1],
            figures: vec![figure],
            seconds: 1.0,
        };
        let line = |id, answered: &str, score| Answered {
            id,
            question: "q".into(),
            prompt_tokens: vec![1],
            expected: "<i>",
            answered: answered.into(),
            score,
        };
        let page = page(&results, &[line("one", "a finch", 1.0), line("two", "a stone", 0.0)]).unwrap();
        assert!(page.find("a stone").unwrap() < page.find("a finch").unwrap());
        assert!(page.contains("a&lt;b&gt;.siskin") && !page.contains("<i>"), "{page}");
    }
}
