//! `siskin eval`: how well a model tells a text, or answers questions.

mod board;
mod questions;
mod text;

use std::path::PathBuf;

use crate::boards::BoardsDirArgs;
use crate::console::Console;
use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  siskin eval runs/shakespeare --text test.txt
  siskin eval shakespeare.siskin --text test.txt --against runs/shakespeare
  siskin eval home.siskin --questions test.jsonl --metrics json_match,rougeL -o runs/home-eval
  siskin eval home.siskin --questions test.jsonl --on mps2-an386 --limit 100
  siskin eval smollm2.siskin --questions test.jsonl --chat --num-fewshot 5 --pool train.jsonl";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A packed .siskin, or a model that compile takes: run in float on a text, packed to int8 for questions.
    model: PathBuf,
    /// A text in UTF-8 that the model tells, token by token.
    #[arg(long, value_name = "FILE", required_unless_present = "questions", conflicts_with = "questions")]
    text: Option<PathBuf>,
    #[command(flatten)]
    of_text: text::TextArgs,
    /// Questions with their answers, a record each (.jsonl, .csv): `prompt` and `completion` or `references`; `prompt`, `choices` and
    /// `answer`; `text` and `label`.
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    #[command(flatten)]
    of_questions: questions::QuestionArgs,
    #[command(flatten)]
    boards_dir: BoardsDirArgs,
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    match (&args.text, &args.questions) {
        (Some(text), _) => text::run(&args.model, text, &args.of_text, console),
        (None, Some(questions)) => {
            questions::run(&args.model, questions, &args.of_questions, &args.boards_dir, console)
        }
        (None, None) => Err(Failure::command_line(anyhow::anyhow!("name a --text or --questions"))),
    }
}
