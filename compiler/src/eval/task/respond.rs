//! A packed model that answers questions on the host, many at a time.

use rayon::prelude::*;
use siskin_runtime::encoder::Finding;
use siskin_runtime::format::SectionKind;
use siskin_runtime::grammar::{Grammar, GrammarState};
use siskin_runtime::parts::Kind;
use siskin_runtime::sampler::Sampling;
use siskin_runtime::tokenizer::{EncodeOptions, Specials, Tokenizer};
use siskin_runtime::{
    Encoder, Generation, Kernels, Limits, PackedModel, Sampler, Serial, Session, StopMatcher, TokenId,
};

use super::{Answer, Expected, Prompt, PromptError};
use crate::eval::{EvalError, LogitsSource, PackedLogits, log_sum_exp};
use crate::pack::AlignedBytes;

/// Questions that share a session's memory, one after another.
const N_TOGETHER: usize = 8;

/// A packed model, and how it answers.
#[derive(Clone, Copy)]
pub struct Respondent<'m> {
    /// The model, in the layout that `kernels` read.
    pub model: PackedModel<'m>,
    /// A compiled grammar that texts keep to; else the model's own, if it has one.
    pub grammar: Option<&'m [u8]>,
    /// An adapter of the model's, by name.
    pub adapter: Option<&'m str>,
    /// The kernels.
    pub kernels: Kernels,
    /// How tokens are drawn; a question's draws begin with `seed` plus its number.
    pub sampling: Sampling,
    /// What draws begin with.
    pub seed: u64,
    /// Tokens of a text at most.
    pub max_new_tokens: usize,
    /// What ends a text, and is no part of it.
    pub stops: &'m [&'m str],
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    /// The model is of another kind than the questions.
    #[error("the questions want {wanted}, and the model has no such head")]
    Head {
        /// What.
        wanted: &'static str,
    },
    /// The model has no tokenizer.
    #[error("the model has no tokenizer: compile it with --tokenizer")]
    NoTokenizer,
    /// A chat was asked for.
    #[error("the model has no chat template: leave --chat out, or give its turns as --doc-to-text")]
    NoChat,
    /// A prompt cannot be read, or an answer not be told.
    #[error("question {idx} of the file: {problem}")]
    Question {
        /// Which, from 1 on.
        idx: usize,
        /// Why.
        problem: String,
    },
    /// The model cannot be set up.
    #[error("{0}")]
    SetUp(String),
    /// There is no prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The model failed.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// An error of something that everything is asked with.
fn set_up(error: impl std::fmt::Display) -> RespondError {
    RespondError::SetUp(error.to_string())
}

impl<'m> Respondent<'m> {
    fn tokenizer(&self) -> Result<Tokenizer<'m>, RespondError> {
        self.model.tokenizer().ok_or(RespondError::NoTokenizer)
    }

    /// Positions that a prompt may take, beside the answer to a question of this kind.
    pub fn room(&self, expected: &Expected, target_delimiter: &str) -> Result<usize, RespondError> {
        let context_len = self.model.config().context_len;
        let answer = match expected {
            Expected::Text(_) if self.model.config().parts.kind == Kind::EncoderDecoder => 0,
            Expected::Text(_) => self.max_new_tokens,
            Expected::Choice { choices, .. } => {
                let n_tokens = |choice: &String| self.encode(&format!("{target_delimiter}{choice}"), CONTINUATION);
                let lens = choices.iter().map(|choice| n_tokens(choice).map(|tokens| tokens.len()));
                lens.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or_default()
            }
            Expected::Label(_) => 0,
        };
        Ok(context_len.saturating_sub(answer))
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// [`RespondError::NoChat`], [`RespondError::NoTokenizer`].
    pub fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<TokenId>, RespondError> {
        let tokenizer = self.tokenizer()?;
        match prompt {
            Prompt::Text(text) => {
                let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
                let n_tokens = self.model.encode_input(&tokenizer, text, &mut tokens).map_err(set_up)?;
                tokens.truncate(n_tokens);
                Ok(tokens)
            }
            Prompt::Chat(turns) => {
                let chat = self.model.chat().ok_or(RespondError::NoChat)?;
                let mut tokens = Vec::new();
                for (turn_idx, turn) in turns.iter().enumerate() {
                    let mut buffer = vec![0; chat.max_bytes(turn.message.len())];
                    let text = match turn_idx {
                        0 => chat.first(&turn.message, &mut buffer),
                        _ => chat.next(&turn.message, &mut buffer),
                    };
                    let text = text.map_err(set_up)?;
                    tokens.extend(self.encode(text.text, text.options)?);
                    if let Some(answer) = &turn.answer {
                        tokens.extend(self.encode(answer, CONTINUATION)?);
                    }
                }
                Ok(tokens)
            }
        }
    }

    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, RespondError> {
        let tokenizer = self.tokenizer()?;
        let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
        let n_tokens = tokenizer.encode_with(text, &mut tokens, options).map_err(set_up)?;
        tokens.truncate(n_tokens);
        Ok(tokens)
    }

    /// The answers to questions that expect `expected[i]` after `prompts[i]`, on all threads; `progress` is called after each.
    ///
    /// # Errors
    /// [`RespondError`], with the question.
    pub fn answers(
        &self,
        prompts: &[Prompt],
        expected: &[&Expected],
        target_delimiter: &str,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Vec<Answer>, RespondError> {
        let asked: Vec<(usize, &Prompt, &Expected)> = prompts
            .iter()
            .zip(expected)
            .enumerate()
            .map(|(idx, (prompt, expected))| (idx, prompt, *expected))
            .collect();
        let answers: Result<Vec<Vec<Answer>>, RespondError> = asked
            .par_chunks(N_TOGETHER)
            .map(|asked| {
                let mut arena = AlignedBytes::zeroed(self.model.memory_plan().arena_bytes);
                match asked.first().map(|(_, _, expected)| expected) {
                    Some(Expected::Text(_)) => self.texts(asked, &mut arena, progress),
                    Some(Expected::Choice { .. }) => self.choices(asked, target_delimiter, &mut arena, progress),
                    Some(Expected::Label(_)) => self.labels(asked, &mut arena, progress),
                    None => Ok(Vec::new()),
                }
            })
            .collect();
        Ok(answers?.concat())
    }

    fn texts(
        &self,
        asked: &[(usize, &Prompt, &Expected)],
        arena: &mut [u8],
        progress: &(dyn Fn() + Sync),
    ) -> Result<Vec<Answer>, RespondError> {
        if self.model.config().parts.kind == Kind::Encoder {
            return Err(RespondError::Head { wanted: "texts" });
        }
        let tokenizer = self.tokenizer()?;
        let section = self.grammar.or_else(|| self.model.section(SectionKind::Grammar));
        let grammar = section.map(|section| Grammar::parse(section, &tokenizer)).transpose().map_err(set_up)?;
        let mut session = Session::new(&self.model, arena, self.kernels).map_err(set_up)?;
        session.use_adapter(self.adapter).map_err(set_up)?;
        let eos = tokenizer.eos();
        let limits = Limits { max_new_tokens: self.max_new_tokens, end_tokens: eos.as_slice(), slide_to: None };
        let one = |&(idx, prompt, _): &(usize, &Prompt, &Expected)| {
            let failed =
                |problem: &dyn std::fmt::Display| RespondError::Question { idx: idx + 1, problem: problem.to_string() };
            let prompt = self.prompt_tokens(prompt)?;
            session.reset();
            let start = self.model.config().parts.start_token;
            if start.is_some() {
                session.read_source(&prompt).map_err(|error| failed(&error))?;
            }
            let first = start.as_ref().map_or(&prompt[..], std::slice::from_ref);
            let constraint = grammar.map(|grammar| GrammarState::new(grammar, tokenizer, eos.as_slice()));
            let sampler = Sampler::new(self.sampling, self.seed.wrapping_add(idx as u64));
            let stops = StopMatcher::new(self.stops).map_err(set_up)?;
            let mut generation =
                Generation::new(&mut session, Some(tokenizer), sampler, stops, limits).within(constraint);
            generation.read(first).map_err(|error| failed(&error))?;
            let mut text = String::new();
            while generation.step(|piece| text.push_str(piece)).is_some() {}
            let n_tokens = generation.n_tokens();
            progress();
            Ok(Answer::Text { text, n_tokens })
        };
        asked.iter().map(one).collect()
    }

    /// The log-probability of each choice after the prompt, as lm-evaluation-harness's `loglikelihood`: prompt and choice are encoded
    /// together, and the choice's tokens are those behind as many as the prompt has alone.
    fn choices(
        &self,
        asked: &[(usize, &Prompt, &Expected)],
        target_delimiter: &str,
        arena: &mut AlignedBytes,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Vec<Answer>, RespondError> {
        if self.model.config().parts.kind != Kind::Decoder {
            return Err(RespondError::Head { wanted: "likelihoods of texts" });
        }
        let mut logits = PackedLogits::new(&self.model, arena, self.kernels, Serial).map_err(set_up)?;
        let one = |&(_, prompt, expected): &(usize, &Prompt, &Expected)| {
            let Expected::Choice { choices, .. } = expected else {
                return Err(RespondError::Head { wanted: "choices" });
            };
            let likelihoods: Result<Vec<f64>, RespondError> = choices
                .iter()
                .map(|choice| {
                    let (tokens, n_prompt) = self.with_continuation(prompt, &format!("{target_delimiter}{choice}"))?;
                    Ok(log_likelihood(&mut logits, &tokens, n_prompt)?)
                })
                .collect();
            progress();
            Ok(Answer::Choice(likelihoods?))
        };
        asked.iter().map(one).collect()
    }

    /// The tokens of a prompt with what follows it, and how many of them are the prompt's.
    fn with_continuation(&self, prompt: &Prompt, continuation: &str) -> Result<(Vec<TokenId>, usize), RespondError> {
        match prompt {
            Prompt::Text(text) => {
                // White space at the end belongs to the token that follows.
                let context = text.trim_end();
                let spaces = &text[context.len()..];
                let n_prompt = self.prompt_tokens(&Prompt::Text(context.to_owned()))?.len();
                let whole = self.prompt_tokens(&Prompt::Text(format!("{context}{spaces}{continuation}")))?;
                Ok((whole, n_prompt))
            }
            Prompt::Chat(_) => {
                let mut tokens = self.prompt_tokens(prompt)?;
                let n_prompt = tokens.len();
                tokens.extend(self.encode(continuation, CONTINUATION)?);
                Ok((tokens, n_prompt))
            }
        }
    }

    fn labels(
        &self,
        asked: &[(usize, &Prompt, &Expected)],
        arena: &mut [u8],
        progress: &(dyn Fn() + Sync),
    ) -> Result<Vec<Answer>, RespondError> {
        if self.model.config().parts.kind != Kind::Encoder {
            return Err(RespondError::Head { wanted: "labels" });
        }
        let mut encoder = Encoder::new(&self.model, arena, self.kernels).map_err(set_up)?;
        let one = |&(idx, prompt, _): &(usize, &Prompt, &Expected)| {
            let tokens = self.prompt_tokens(prompt)?;
            let failed = |error| RespondError::Question { idx: idx + 1, problem: format!("{error}") };
            encoder.read(&tokens).map_err(failed)?;
            let mut answer = None;
            encoder.findings(&tokens, |finding| {
                if let Finding::Label { label, scores } = finding {
                    let name = self.model.label(label).map_or_else(|| format!("LABEL_{label}"), str::to_owned);
                    let log_sum = log_sum_exp(scores).map(|(log_sum, _)| log_sum);
                    let probability = log_sum.map_or(f64::NAN, |log_sum| (f64::from(scores[label]) - log_sum).exp());
                    answer = Some(Answer::Label { label: name, probability });
                }
            });
            progress();
            answer.ok_or(RespondError::Head { wanted: "labels of texts" })
        };
        asked.iter().map(one).collect()
    }
}

/// What follows a prompt: no special tokens.
const CONTINUATION: EncodeOptions = EncodeOptions { add_bos: false, specials: Specials::Nowhere };

/// The sum of the log-probabilities of the tokens from `n_prompt` on, in nats.
fn log_likelihood(source: &mut dyn LogitsSource, tokens: &[TokenId], n_prompt: usize) -> Result<f64, EvalError> {
    let n_prompt = n_prompt.max(1);
    if tokens.len() <= n_prompt {
        return Err(EvalError::TextTooShort { n_tokens: tokens.len() });
    }
    source.start_window(&tokens[..tokens.len() - 1])?;
    let mut sum = 0.0;
    for (token_idx, &target) in tokens.iter().enumerate().skip(1) {
        let logits = source.next_logits()?;
        if token_idx >= n_prompt {
            let (log_sum, _) = log_sum_exp(logits).ok_or(EvalError::NotFinite { token_idx })?;
            sum += f64::from(logits[target as usize]) - log_sum;
        }
    }
    Ok(sum)
}
