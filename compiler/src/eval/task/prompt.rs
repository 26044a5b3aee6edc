//! Prompts: a question in its template, after as many examples as there is room for (in-context learning; Brown et al., 2020).

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Question;

/// What the model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text to go on with.
    Text(String),
    /// Turns of a chat; the last has no answer yet.
    Chat(Vec<Turn>),
}

/// What a user said, and what the assistant answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The user's message.
    pub message: String,
    /// The answer; none in the turn that the model is to answer.
    pub answer: Option<String>,
}

/// How a question becomes a prompt. The names of the settings are those of EleutherAI's lm-evaluation-harness.
#[derive(Debug)]
pub struct PromptFormat {
    /// The `doc_to_text` template.
    environment: Environment<'static>,
    /// Between a question and its answer.
    target_delimiter: String,
    /// Between examples.
    fewshot_delimiter: String,
    /// Whether questions are messages of a chat, and examples its earlier turns.
    is_chat: bool,
}

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The template is wrong, or speaks of a field that the question has not.
    #[error("the template does not render: {0:#}")]
    Template(#[from] minijinja::Error),
    /// The question alone is too long.
    #[error(
        "question {id} takes {n_tokens} tokens, and there is room for {room}: compile the model with a longer context"
    )]
    TooLong {
        /// The question's.
        id: String,
        /// Of the question without examples.
        n_tokens: usize,
        /// Tokens of the context that the answer leaves.
        room: usize,
    },
}

/// Which examples of a pool go before a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The first ones, the same for all questions.
    First,
    /// Others for each question, by a seed.
    Random(u64),
    /// Those that are nearest to the question by the cosine of their vectors, the nearest last.
    Nearest,
}

/// The examples of a run.
#[derive(Clone, Copy, Debug)]
pub struct Shots<'p> {
    /// Where they are taken from.
    pub pool: &'p [Question],
    /// How many are wanted before each question.
    pub n: usize,
    /// Which.
    pub selection: Selection,
    /// A vector for each of the pool and then for each question, where the nearest are taken.
    pub vectors: &'p [Vec<f32>],
}

const TEMPLATE: &str = "doc_to_text";

impl PromptFormat {
    /// A format whose questions are made by a Jinja template over a record's fields.
    ///
    /// # Errors
    /// [`PromptError::Template`]: it is no template.
    pub fn new(
        doc_to_text: &str,
        target_delimiter: &str,
        fewshot_delimiter: &str,
        is_chat: bool,
    ) -> Result<Self, PromptError> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template_owned(TEMPLATE, doc_to_text.to_owned())?;
        let (target_delimiter, fewshot_delimiter) = (target_delimiter.to_owned(), fewshot_delimiter.to_owned());
        Ok(Self { environment, target_delimiter, fewshot_delimiter, is_chat })
    }

    /// What stands before an answer, which begins with it where the prompt ends before it.
    pub fn target_delimiter(&self) -> &str {
        if self.is_chat { "" } else { &self.target_delimiter }
    }

    /// The question as a text.
    ///
    /// # Errors
    /// [`PromptError::Template`].
    pub fn question(&self, question: &Question) -> Result<String, PromptError> {
        Ok(self.environment.get_template(TEMPLATE)?.render(Value::from(Serde(&question.fields)))?)
    }

    /// A prompt with these examples. It ends before the delimiter that an answer begins with.
    ///
    /// # Errors
    /// [`PromptError::Template`].
    pub fn prompt(&self, shots: &[&Question], question: &Question) -> Result<Prompt, PromptError> {
        let asked = self.question(question)?;
        if self.is_chat {
            let turn = |shot: &&Question| {
                Ok(Turn { message: self.question(shot)?, answer: Some(shot.expected.text().to_owned()) })
            };
            let mut turns = shots.iter().map(turn).collect::<Result<Vec<_>, PromptError>>()?;
            turns.push(Turn { message: asked, answer: None });
            return Ok(Prompt::Chat(turns));
        }
        let mut text = String::new();
        for shot in shots {
            text += &self.question(shot)?;
            text += &self.target_delimiter;
            text += shot.expected.text();
            text += &self.fewshot_delimiter;
        }
        Ok(Prompt::Text(text + &asked))
    }

    /// The prompt of question `idx` with as many of its examples as there is `room` for: the first of them are left out where all are
    /// too many. Gives their number too.
    ///
    /// # Errors
    /// [`PromptError`]: also where there is no room for the question alone; and those of `n_tokens`.
    pub fn fitted<E: From<PromptError>>(
        &self,
        shots: &Shots<'_>,
        question: &Question,
        idx: usize,
        room: usize,
        n_tokens: impl Fn(&Prompt) -> Result<usize, E>,
    ) -> Result<(Prompt, usize), E> {
        let chosen = shots.of(question, idx);
        let mut needed = 0;
        for n_left_out in 0..=chosen.len() {
            let prompt = self.prompt(&chosen[n_left_out..], question)?;
            needed = n_tokens(&prompt)?;
            if needed <= room {
                return Ok((prompt, chosen.len() - n_left_out));
            }
        }
        Err(PromptError::TooLong { id: question.id.clone(), n_tokens: needed, room }.into())
    }
}

impl<'p> Shots<'p> {
    /// No examples.
    pub const NONE: Shots<'static> = Shots { pool: &[], n: 0, selection: Selection::First, vectors: &[] };

    /// The examples of question `idx`, in the order in which they are shown. A question is not its own example.
    pub fn of(&self, question: &Question, idx: usize) -> Vec<&'p Question> {
        let mut others: Vec<usize> =
            (0..self.pool.len()).filter(|&other| self.pool[other].fields != question.fields).collect();
        let n = self.n.min(others.len());
        let chosen: Vec<usize> = match self.selection {
            Selection::First => others.into_iter().take(n).collect(),
            Selection::Random(seed) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(idx as u64);
                others.partial_shuffle(&mut rng, n).0.to_vec()
            }
            Selection::Nearest => {
                let asked = &self.vectors[self.pool.len() + idx];
                let mut near: Vec<(f32, usize)> =
                    others.into_iter().map(|other| (cosine(&self.vectors[other], asked), other)).collect();
                // Of equals the earlier ones.
                near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                near.truncate(n);
                near.into_iter().rev().map(|(_, other)| other).collect()
            }
        };
        chosen.into_iter().map(|idx| &self.pool[idx]).collect()
    }
}

/// The cosine of the angle between two vectors; 0 where one has no direction.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if length > 0.0 { dot(a, b) / length } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::task::Expected;

    fn question(prompt: &str, completion: &str) -> Question {
        let fields = serde_json::json!({ "prompt": prompt }).as_object().unwrap().clone();
        Question { id: prompt.into(), fields, expected: Expected::Text(vec![completion.into()]) }
    }

    fn format(is_chat: bool) -> PromptFormat {
        PromptFormat::new("Q: {{ prompt }}\nA:", " ", "\n\n", is_chat).unwrap()
    }

    #[test]
    fn examples_stand_before_the_question() {
        let (a, b, asked) = (question("1+1?", "2"), question("2+2?", "4"), question("3+3?", "6"));
        let text = "Q: 1+1?\nA: 2\n\nQ: 2+2?\nA: 4\n\nQ: 3+3?\nA:";
        assert_eq!(format(false).prompt(&[&a, &b], &asked).unwrap(), Prompt::Text(text.into()));
        let Prompt::Chat(turns) = format(true).prompt(&[&a], &asked).unwrap() else { panic!("no chat") };
        assert_eq!((turns.len(), turns[0].answer.as_deref(), turns[1].answer.as_deref()), (2, Some("2"), None));
        assert!(PromptFormat::new("{{ missing }}", "", "", false).unwrap().question(&a).is_err());
        assert!(PromptFormat::new("{% if %}", "", "", false).is_err());
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_front() {
        let pool = [question("a", "1"), question("b", "2"), question("c", "3")];
        let shots = Shots { pool: &pool, n: 3, selection: Selection::First, vectors: &[] };
        let n_bytes = |prompt: &Prompt| match prompt {
            Prompt::Text(text) => Ok::<usize, PromptError>(text.len()),
            Prompt::Chat(_) => unreachable!("a text was asked for"),
        };
        let asked = question("d", "4");
        let fitted = |room| format(false).fitted(&shots, &asked, 0, room, n_bytes);
        assert_eq!(fitted(100).unwrap().1, 3);
        let (Prompt::Text(text), 2) = fitted(30).unwrap() else { panic!("two examples fit") };
        assert!(text.starts_with("Q: b") && text.ends_with("Q: d\nA:"), "{text}");
        assert_eq!(fitted(7).unwrap().1, 0);
        assert!(matches!(fitted(6), Err(PromptError::TooLong { n_tokens: 7, room: 6, .. })));
    }

    #[test]
    fn a_question_is_not_its_own_example() {
        let pool: Vec<Question> = (0..20).map(|idx| question(&idx.to_string(), "x")).collect();
        let vectors: Vec<Vec<f32>> = (0..20).chain([7]).map(|idx| vec![idx as f32, 1.0]).collect();
        for selection in [Selection::First, Selection::Random(3), Selection::Nearest] {
            let shots = Shots { pool: &pool, n: 4, selection, vectors: &vectors };
            let chosen = shots.of(&pool[7], 0);
            assert_eq!(chosen.len(), 4);
            assert!(chosen.iter().all(|shot| shot.id != "7"), "{selection:?}");
            let different: std::collections::HashSet<&str> = chosen.iter().map(|shot| shot.id.as_str()).collect();
            assert_eq!(different.len(), 4);
        }
        let nearest = Shots { pool: &pool, n: 2, selection: Selection::Nearest, vectors: &vectors };
        let ids: Vec<&str> = nearest.of(&pool[7], 0).iter().map(|shot| shot.id.as_str()).collect();
        assert_eq!(ids, ["6", "8"]);
        let random = |idx| {
            let shots = Shots { pool: &pool, n: 4, selection: Selection::Random(3), vectors: &[] };
            shots.of(&pool[7], idx).iter().map(|shot| shot.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(random(1), random(1));
        assert_ne!(random(1), random(2));
    }
}
