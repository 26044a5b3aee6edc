//! `siskin data`: tasks of our own making ([`super::tasks`]), and `inspect`, which shows what a recipe's data looks like to the model that is to be trained on it.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use siskin_compiler::data::DuplicateCounts;
use siskin_compiler::objective::sft::TaskShare;
use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::DataSummary;
use siskin_compiler::train::inspect::{
    DataReport, LengthCount, PackingCounts, RunShares, ShownExample, ShownToken, TokenRole, inspect,
};

use super::tasks;
use super::train::sft_note;
use crate::console::Console;
use crate::failure::{Failure, Status};

const AFTER_HELP: &str = "\
What is hidden from the model is red, what it is trained to tell is green, in
two shades so that tokens can be told apart; the rest is only read. Where there
are no colours, and with NO_COLOR set, {braces} and [brackets] stand for them.

Examples:
  siskin data tasks all --out runs/tasks
  siskin data inspect recipes/shakespeare-260k.toml
  siskin data inspect recipes/shakespeare-260k.toml --n 2 --set train.steps=100
  siskin data inspect recipes/shakespeare-260k.toml --format json";

/// Columns of the longest bar of the histogram.
const BAR_COLUMNS: usize = 40;

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Count a recipe's data and show its first examples, token by token.
    Inspect(InspectArgs),
    /// Write prompts and completions of a task of the kind that devices have.
    Tasks(tasks::Args),
}

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
struct InspectArgs {
    /// The recipe.
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,
    /// Change a value of the recipe, as in --set train.steps=200; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// How many of the run's first rows to show: examples, or documents that are packed together.
    #[arg(long, default_value_t = 3, value_name = "N")]
    n: u64,
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let args = match &args.command {
        Command::Inspect(args) => args,
        Command::Tasks(args) => return tasks::run(args, console),
    };
    let recipe_name = args.recipe.display();
    let recipe = Recipe::load(&args.recipe, &args.settings)
        .map_err(|error| Failure::invalid_input(format!("read the recipe {recipe_name}"), error))?;
    let report = inspect(&recipe, args.n).map_err(|error| {
        let status = if error.is_input() { Status::InvalidInput } else { Status::Failed };
        Failure::new(status, format!("read the data of {recipe_name}"), error)
    })?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let marks = if io::stdout().is_terminal() && !no_color { Marks::Colours } else { Marks::Brackets };
    console.reply(&Reply { report, marks })
}

/// How roles are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marks {
    Colours,
    Brackets,
}

#[derive(Serialize)]
struct Reply {
    #[serde(flatten)]
    report: DataReport,
    #[serde(skip)]
    marks: Marks,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        counts(&self.report, f)?;
        histogram(&self.report.lengths, f)?;
        for (idx, row) in self.report.rows.iter().enumerate() {
            write!(f, "\n\nrow {idx}:")?;
            for example in row {
                write!(f, "\n  {}", shown(example, self.marks))?;
            }
        }
        Ok(())
    }
}

fn counts(report: &DataReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let DataSummary { n_documents, duplicates, n_train_documents, n_validation_documents, .. } = report.summary;
    let DuplicateCounts { n_exact, n_near, n_bytes } = duplicates;
    let RunShares { n_rows, passes, row_positions, padding_share, masked_share, trained_share } = report.run;
    writeln!(f, "objective: {}", report.objective)?;
    writeln!(
        f,
        "documents: {n_documents}, of which {n_train_documents} to train on, {n_validation_documents} to validate on"
    )?;
    writeln!(f, "duplicates dropped: {n_exact} exact, {n_near} near, {n_bytes} bytes")?;
    if let Some(counts) = report.summary.sft {
        writeln!(f, "examples: {}", sft_note(counts))?;
    }
    write!(f, "tokens to train on: {} of {} bytes", report.n_train_tokens, report.summary.n_train_bytes)?;
    match report.bytes_per_token {
        Some(bytes) => writeln!(f, ", {bytes:.3} bytes a token")?,
        None => writeln!(f)?,
    }
    for TaskShare { name, n_train_documents, n_validation_documents, share } in &report.tasks {
        let share = 100.0 * share;
        writeln!(
            f,
            "task {name}: {n_train_documents} to train on, {n_validation_documents} to validate on, {share:.2} % of the examples"
        )?;
    }
    if let Some(PackingCounts { n_rows, n_cut_documents, n_short_documents, utilisation }) = report.packing {
        let (cut, short, used) = (n_cut_documents, n_short_documents, 100.0 * utilisation);
        writeln!(
            f,
            "packed into {n_rows} rows, {used:.2} % used: {cut} documents cut, {short} too short and left out"
        )?;
    }
    writeln!(f, "targets to validate on: {}", report.n_validation_targets)?;
    writeln!(f, "the run's steps: {n_rows} rows of {row_positions} positions, {passes:.2} passes over the data")?;
    let [padding, masked, trained] = [padding_share, masked_share, trained_share].map(|share| 100.0 * share);
    writeln!(f, "positions that nothing fills: {padding:.2} %")?;
    writeln!(f, "of the tokens read: {masked:.2} % hidden, {trained:.2} % with a target")
}

fn histogram(lengths: &[LengthCount], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "tokens of a document:")?;
    let most = lengths.iter().map(|length| length.n_documents).max().unwrap_or(0).max(1);
    for LengthCount { n_tokens_max, n_documents } in lengths {
        let bar = "#".repeat((n_documents * BAR_COLUMNS).div_ceil(most));
        write!(f, "\n  up to {n_tokens_max:>9} {n_documents:>9} {bar}")?;
    }
    Ok(())
}

/// An example in a line, or as many as its text has.
fn shown(example: &ShownExample, marks: Marks) -> String {
    let mut line = tokens(&example.reads, marks);
    if !example.tells.is_empty() {
        line += " => ";
        line += &tokens(&example.tells, marks);
    }
    line
}

fn tokens(tokens: &[ShownToken], marks: Marks) -> String {
    match marks {
        Marks::Colours => tokens.iter().zip([false, true].into_iter().cycle()).map(coloured).collect(),
        Marks::Brackets => tokens.chunk_by(|a, b| a.role == b.role).map(bracketed).collect(),
    }
}

/// What is shown of a token: its text, and what is to be told in its place.
fn text_of(token: &ShownToken) -> String {
    let text = printable(&token.text);
    match &token.target {
        Some(target) => format!("{text}={}", printable(target)),
        None => text,
    }
}

fn coloured((token, is_odd): (&ShownToken, bool)) -> String {
    let text = text_of(token);
    let colour = match (token.role, is_odd) {
        (TokenRole::Read, _) => return text,
        (TokenRole::Trained, false) => 32,
        (TokenRole::Trained, true) => 92,
        (TokenRole::Masked, false) => 31,
        (TokenRole::Masked, true) => 91,
    };
    format!("\u{1b}[{colour}m{text}\u{1b}[0m")
}

/// Tokens of one role.
fn bracketed(tokens: &[ShownToken]) -> String {
    let texts = || tokens.iter().map(text_of);
    match tokens.first().map(|token| token.role) {
        Some(TokenRole::Trained) => format!("[{}]", texts().collect::<String>()),
        Some(TokenRole::Masked) => texts().fold(String::new(), |mut all, text| {
            let _ = write!(all, "{{{text}}}");
            all
        }),
        _ => texts().collect(),
    }
}

/// A text whose line breaks can be seen and whose other control characters cannot act on the terminal.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\u{21b5}\n  "),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, role: TokenRole, target: Option<&str>) -> ShownToken {
        ShownToken { text: text.into(), role, target: target.map(str::to_owned) }
    }

    #[test]
    fn roles_are_marked_and_control_characters_cannot_act() {
        let example = ShownExample {
            reads: vec![
                token("the", TokenRole::Read, None),
                token(" b", TokenRole::Trained, None),
                token("ird\n", TokenRole::Trained, None),
                token("<mask>", TokenRole::Masked, Some(" sees")),
                token("\u{1b}[2J", TokenRole::Read, None),
            ],
            tells: vec![token("yes", TokenRole::Trained, None)],
        };
        let plain = "the[ bird\u{21b5}\n  ]{<mask>= sees}\\u{1b}[2J => [yes]";
        assert_eq!(shown(&example, Marks::Brackets), plain);
        let coloured = shown(&example, Marks::Colours);
        assert!(coloured.starts_with("the\u{1b}[92m b\u{1b}[0m\u{1b}[32mird"), "{coloured:?}");
        assert!(coloured.contains("\u{1b}[91m<mask>= sees\u{1b}[0m\\u{1b}[2J =>"), "{coloured:?}");
    }
}
