//! `siskin eval --questions`: what a packed model answers, on this machine or on a board, and what that is worth.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::anyhow;
use serde::Serialize;
use siskin_compiler::artifact::write_atomic;
use siskin_compiler::eval::task::{
    Answer, Answered, Expected, Figure, Grades, Prompt, PromptFormat, Question, RespondError, Respondent, Results,
    Selection, Shots, TEXT_METRICS, grades, page, read_questions,
};
use siskin_compiler::pack::AlignedBytes;
use siskin_runtime::encoder::Finding;
use siskin_runtime::parts::Kind;
use siskin_runtime::sampler::{Sampling, StopMatcher};
use siskin_runtime::{Encoder, Kernels};

use super::board;
use crate::boards::BoardsDirArgs;
use crate::console::Console;
use crate::encoding::input_tokens;
use crate::failure::{Failure, OrFail as _};
use crate::packing::PackingArgs;
use crate::{grammar, input, packing};

/// What a question is where nobody says: the field of texts to label, or the prompt.
const LABELLED: &str = "{{ text }}";
const ASKED: &str = "{{ prompt }}";

/// How questions are asked, and answers graded.
#[derive(clap::Args)]
pub(super) struct QuestionArgs {
    /// What answers in text are graded by; the first gives each question's score: exact_match, json_match, bleu, chrf, rouge1, rouge2, rougeL,
    /// rougeLsum [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "questions")]
    metrics: Vec<String>,
    /// Ask only the first N questions.
    #[arg(long, value_name = "N", requires = "questions")]
    limit: Option<NonZeroUsize>,
    /// The question, a Jinja template over the record's fields [default: {{ prompt }}, and {{ text }} for labels].
    #[arg(long, value_name = "TEMPLATE", requires = "questions", allow_hyphen_values = true)]
    doc_to_text: Option<String>,
    /// What stands between a question and its answer.
    #[arg(long, value_name = "TEXT", default_value = "", requires = "questions", allow_hyphen_values = true)]
    target_delimiter: String,
    /// Put the question into the model's chat template; examples are earlier turns.
    #[arg(long, requires = "questions")]
    chat: bool,
    /// Show so many answered examples before each question: as many of them as the context has room for.
    #[arg(long, value_name = "K", default_value_t = 0, requires = "pool")]
    num_fewshot: usize,
    /// Where examples are taken from, a file like that of the questions. A question is never its own example.
    #[arg(long, value_name = "FILE", requires = "questions")]
    pool: Option<PathBuf>,
    /// Which examples: the pool's first, random ones for each question, or the nearest.
    #[arg(long, value_name = "WHICH", default_value = "first", requires = "pool")]
    select: Select,
    /// The packed encoder whose vectors tell what is nearest.
    #[arg(long, value_name = "FILE", required_if_eq("select", "nearest"))]
    embedder: Option<PathBuf>,
    /// What stands between examples.
    #[arg(long, value_name = "TEXT", default_value = "\n\n", requires = "pool", allow_hyphen_values = true)]
    fewshot_delimiter: String,
    /// Keep answers to a grammar, in place of the model's own: GBNF, or a JSON schema in a .json.
    #[arg(long, value_name = "FILE", requires = "questions")]
    grammar: Option<PathBuf>,
    /// Answer with the model's adapter NAME.
    #[arg(long, value_name = "NAME", requires = "questions", conflicts_with = "on")]
    adapter: Option<String>,
    /// Tokens of an answer at most.
    #[arg(long, value_name = "N", default_value_t = 128, requires = "questions")]
    max_new_tokens: usize,
    /// End an answer before TEXT; may be given several times.
    #[arg(long = "stop", value_name = "TEXT", requires = "questions", allow_hyphen_values = true)]
    stops: Vec<String>,
    /// Draw at temperature T; 0 takes the most probable token always.
    #[arg(long, value_name = "T", default_value_t = 0.0, requires = "questions")]
    temperature: f32,
    /// Where random examples and draws start.
    #[arg(long, value_name = "S", default_value_t = 0, requires = "questions")]
    seed: u64,
    /// Have this board answer, emulated: one that talks over a serial line.
    #[arg(long, value_name = "BOARD", requires = "questions")]
    on: Option<String>,
    /// Write results.json, answers.jsonl and report.html into this folder.
    #[arg(long, short, value_name = "DIR", requires = "questions")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Select {
    First,
    Random,
    Nearest,
}

/// What answers were worth.
#[derive(Serialize)]
#[serde(transparent)]
struct Reply<'r>(&'r Results);

impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Results { model, on, n_questions, n_shots: [fewest, most], figures, .. } = self.0;
        write!(f, "{model} on {on}, {n_questions} questions, ")?;
        match fewest == most {
            true => write!(f, "{most} examples before each")?,
            false => write!(f, "{fewest} to {most} examples before each")?,
        }
        for Figure { metric, value, low, high, .. } in figures {
            write!(f, "\n{metric:<14} {value:>8.4}")?;
            if let (Some(low), Some(high)) = (low, high) {
                write!(f, "  [{low:.4}, {high:.4}]")?;
            }
        }
        Ok(())
    }
}

pub(super) fn run(
    model_path: &Path,
    path: &Path,
    args: &QuestionArgs,
    boards_dir: &BoardsDirArgs,
    console: &Console,
) -> Result<(), Failure> {
    let metrics = args.metrics()?;
    let doing = || "read the questions".to_owned();
    let mut questions = read_questions(path).or_invalid_input(doing)?;
    questions.truncate(args.limit.map_or(usize::MAX, NonZeroUsize::get));
    let pool = match &args.pool {
        Some(pool) => read_questions(pool).or_invalid_input(doing)?,
        None => Vec::new(),
    };
    let format = args.format(&questions)?;
    let vectors = args.vectors(&format, &pool, &questions)?;
    let shots = Shots { pool: &pool, n: args.num_fewshot, selection: args.selection(), vectors: &vectors };

    let started = Instant::now();
    let host = siskin_compiler::plan::Board::host();
    let file = packing::laid_out_for(Kernels::detect(), PackingArgs::default().pack(model_path, &host, console)?)?;
    let model = file.model();
    let section = args.grammar.as_ref().map(|path| grammar::compile(path, &model)).transpose()?;
    let stops: Vec<&str> = args.stops.iter().map(String::as_str).collect();
    StopMatcher::new(&stops).map_err(Failure::command_line)?;
    let respondent = Respondent {
        model,
        grammar: section.as_deref(),
        adapter: args.adapter.as_deref(),
        kernels: Kernels::detect(),
        sampling: args.sampling()?,
        seed: args.seed,
        max_new_tokens: args.max_new_tokens,
        stops: &stops,
    };
    let (prompts, n_shots) = prompts(&respondent, &format, &shots, &questions)?;
    let expected: Vec<&Expected> = questions.iter().map(|question| &question.expected).collect();
    let bar = console.progress_bar(questions.len(), "questions");
    let answers = match &args.on {
        None => respondent
            .answers(&prompts, &expected, format.target_delimiter(), &|| bar.inc(1))
            .or_invalid_input(|| "answer the questions".to_owned())?,
        Some(name) => {
            let job =
                board::Job { name, boards_dir, model_path, grammar: args.grammar.as_deref(), respondent: &respondent };
            job.answers(&prompts, &expected, console, &bar)?
        }
    };
    bar.finish_and_clear();
    let graded = grades(&expected, &answers, &metrics).or_failed(|| "grade the answers".to_owned())?;
    let fewest_and_most = [n_shots.iter().min(), n_shots.iter().max()].map(|n| n.copied().unwrap_or_default());
    let results = Results {
        model: model_path.display().to_string(),
        questions: path.display().to_string(),
        on: args.on.clone().unwrap_or_else(|| "host".to_owned()),
        n_questions: questions.len(),
        n_shots: fewest_and_most,
        figures: graded.figures.clone(),
        seconds: started.elapsed().as_secs_f64(),
    };
    if let Some(out) = &args.out {
        save(out, &results, &answered(&respondent, &format, &questions, &prompts, &answers, &graded)?)?;
    }
    console.reply(&Reply(&results))
}

impl QuestionArgs {
    fn metrics(&self) -> Result<Vec<&str>, Failure> {
        let metrics: Vec<&str> = self.metrics.iter().map(String::as_str).collect();
        match metrics.iter().find(|metric| !TEXT_METRICS.contains(metric)) {
            Some(unknown) => {
                let cause = anyhow!("there is no metric {unknown}; there are {}", TEXT_METRICS.join(", "));
                Err(Failure::command_line(cause))
            }
            None if metrics.is_empty() => Ok(TEXT_METRICS.to_vec()),
            None => Ok(metrics),
        }
    }

    fn sampling(&self) -> Result<Sampling, Failure> {
        match self.temperature {
            0.0 => Ok(Sampling::greedy()),
            temperature => Sampling::random(temperature).map_err(Failure::command_line),
        }
    }

    fn selection(&self) -> Selection {
        match self.select {
            Select::First => Selection::First,
            Select::Random => Selection::Random(self.seed),
            Select::Nearest => Selection::Nearest,
        }
    }

    fn format(&self, questions: &[Question]) -> Result<PromptFormat, Failure> {
        let are_labelled = matches!(questions.first().map(|first| &first.expected), Some(Expected::Label(_)));
        let usual = if are_labelled { LABELLED } else { ASKED };
        let template = self.doc_to_text.as_deref().unwrap_or(usual);
        PromptFormat::new(template, &self.target_delimiter, &self.fewshot_delimiter, self.chat)
            .map_err(Failure::command_line)
    }

    /// The vectors of the pool's questions and of those to ask, where the nearest are wanted.
    fn vectors(&self, format: &PromptFormat, pool: &[Question], asked: &[Question]) -> Result<Vec<Vec<f32>>, Failure> {
        let Some(path) = self.embedder.as_ref().filter(|_| self.select == Select::Nearest) else {
            return Ok(Vec::new());
        };
        let doing = || format!("compare questions by {}", path.display());
        let file = packing::laid_out_for(Kernels::detect(), input::open_packed(path)?)?;
        let model = file.model();
        if model.config().parts.kind != Kind::Encoder {
            return Err(Failure::invalid_input(doing(), anyhow!("it is no encoder, which gives a text's vector")));
        }
        let tokenizer = input::packed_tokenizer(&model)?;
        let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
        let mut encoder = Encoder::new(&model, &mut arena, Kernels::detect()).or_failed(doing)?;
        let one = |question: &Question| {
            let text = format.question(question).or_invalid_input(doing)?;
            let mut tokens = input_tokens(&model, &tokenizer, &text)?;
            tokens.truncate(model.config().context_len);
            encoder.read(&tokens).or_invalid_input(doing)?;
            let mut vector = Vec::new();
            encoder.findings(&tokens, |finding| {
                if let Finding::Vector(found) = finding {
                    vector = found.to_vec();
                }
            });
            match vector.is_empty() {
                true => Err(Failure::invalid_input(doing(), anyhow!("its head gives no vector of a text"))),
                false => Ok(vector),
            }
        };
        pool.iter().chain(asked).map(one).collect()
    }
}

/// The prompt of each question, and how many examples it has.
fn prompts(
    respondent: &Respondent<'_>,
    format: &PromptFormat,
    shots: &Shots<'_>,
    questions: &[Question],
) -> Result<(Vec<Prompt>, Vec<usize>), Failure> {
    let doing = || "put the questions into prompts".to_owned();
    let mut made = (Vec::with_capacity(questions.len()), Vec::with_capacity(questions.len()));
    for (idx, question) in questions.iter().enumerate() {
        let room = respondent.room(&question.expected, format.target_delimiter()).or_invalid_input(doing)?;
        let n_tokens = |prompt: &Prompt| Ok::<usize, RespondError>(respondent.prompt_tokens(prompt)?.len());
        let fitted = format.fitted(shots, question, idx, room, n_tokens);
        let (prompt, n_shots) = fitted.or_invalid_input(doing)?;
        made.0.push(prompt);
        made.1.push(n_shots);
    }
    Ok(made)
}

/// The questions with their answers.
fn answered<'q>(
    respondent: &Respondent<'_>,
    format: &PromptFormat,
    questions: &'q [Question],
    prompts: &[Prompt],
    answers: &[Answer],
    grades: &Grades,
) -> Result<Vec<Answered<'q>>, Failure> {
    let doing = || "put a question into its prompt".to_owned();
    let one = |(((question, prompt), answer), &score): (((&'q Question, &Prompt), &Answer), &f64)| {
        let asked = format.question(question).or_invalid_input(doing)?;
        let prompt_tokens = respondent.prompt_tokens(prompt).or_invalid_input(doing)?;
        let answered = answer.text(&question.expected).to_owned();
        Ok(Answered {
            id: &question.id,
            question: asked,
            prompt_tokens,
            expected: question.expected.text(),
            answered,
            score,
        })
    };
    questions.iter().zip(prompts).zip(answers).zip(&grades.scores).map(one).collect()
}

/// Writes what was found into `out`.
fn save(out: &Path, results: &Results, answered: &[Answered<'_>]) -> Result<(), Failure> {
    let doing = || format!("write into {}", out.display());
    let figures = serde_json::to_string_pretty(results).or_failed(doing)? + "\n";
    let answers: Result<Vec<String>, _> = answered.iter().map(serde_json::to_string).collect();
    let answers = answers.or_failed(doing)?.join("\n") + "\n";
    let html = page(results, answered).or_failed(doing)?;
    for (name, text) in [("results.json", figures), ("answers.jsonl", answers), ("report.html", html)] {
        write_atomic(&out.join(name), text.as_bytes()).or_failed(doing)?;
    }
    Ok(())
}
