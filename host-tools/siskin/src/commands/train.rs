//! `siskin train`: trains a model as a recipe says, in a run folder that can be resumed.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use indicatif::ProgressBar;
use serde::Serialize;
use siskin_compiler::data::DuplicateCounts;
use siskin_compiler::objective::baseline::MaskedBaselines;
use siskin_compiler::objective::sft::SftCounts;
use siskin_compiler::recipe::Recipe;
use siskin_compiler::train::adaptation::{Adaptation, Figures, Standing};
use siskin_compiler::train::doctor::{Finding, Severity};
use siskin_compiler::train::evaluate::{Evaluation, LengthGroup};
use siskin_compiler::train::lr_range::{self, RateRange};
use siskin_compiler::train::progress::{EvaluationRecord, Event, Progress, SkipRecord, StepRecord};
use siskin_compiler::train::tensorboard::TensorBoard;
use siskin_compiler::train::{self, BestModel, DataSummary, Options, Outcome, REPORT_FILE, TrainError};

use crate::console::Console;
use crate::failure::{Failure, OrFail as _, Status};
use crate::interrupt;

const AFTER_HELP: &str = "\
Examples:
  siskin train recipes/shakespeare-260k.toml --out runs/shakespeare
  siskin train recipes/shakespeare-260k.toml --out runs/short --set train.steps=200
  siskin train recipes/shakespeare-260k.toml --out runs/shakespeare --resume
  siskin train recipes/shakespeare-260k.toml --lr-range 1e-4..1";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The recipe.
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,
    /// Change a value of the recipe, as in --set train.steps=200; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The run folder: the model, the log, report.html and what --resume needs [default: runs/ and the name of the recipe].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the last checkpoint in the run folder.
    #[arg(long)]
    resume: bool,
    /// Write the figures as a TensorBoard event file in the run folder, too.
    #[arg(long, conflicts_with = "lr_range")]
    tensorboard: bool,
    /// Instead of training, let the learning rate grow from LOW to HIGH for some steps, and see which suits the recipe.
    #[arg(long, value_name = "LOW..HIGH", conflicts_with = "resume")]
    lr_range: Option<RateRange>,
    /// Steps of --lr-range.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "lr_range", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    lr_range_steps: u64,
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let recipe_name = args.recipe.display();
    let recipe =
        Recipe::load(&args.recipe, &args.settings).or_invalid_input(|| format!("read the recipe {recipe_name}"))?;
    let stem = args.recipe.file_stem().unwrap_or(args.recipe.as_os_str());
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(stem));
    if let Some(range) = args.lr_range {
        return find_rate(args, &recipe, range, &out, console);
    }
    let options = Options { out: &out, resume: args.resume, interrupt: interrupt::flag() };
    let mut display = Display { console, report: Some(out.join(REPORT_FILE)), bar: ProgressBar::hidden() };
    let outcome = match args.tensorboard {
        true => train::run(&recipe, &options, &mut TensorBoard::new(&out, &mut display)),
        false => train::run(&recipe, &options, &mut display),
    };
    display.bar.finish_and_clear();
    let outcome = outcome.map_err(|error| failed(args, error))?;
    if outcome.interrupted {
        let step = outcome.steps;
        let advice =
            anyhow!("interrupted after step {step} with a checkpoint; go on with --out {} --resume", out.display());
        return Err(Failure::new(Status::Interrupted, format!("finish {recipe_name}"), advice).with_figures(&outcome));
    }
    console.reply(&Reply { outcome })
}

/// Tries learning rates instead of training.
fn find_rate(args: &Args, recipe: &Recipe, range: RateRange, out: &Path, console: &Console) -> Result<(), Failure> {
    let mut display = Display { console, report: None, bar: ProgressBar::hidden() };
    let range = (range, args.lr_range_steps);
    let report = lr_range::lr_range(recipe, range, out, interrupt::flag(), &mut display);
    display.bar.finish_and_clear();
    console.reply(&super::lr_range::Reply { report: report.map_err(|error| failed(args, error))? })
}

fn failed(args: &Args, error: TrainError) -> Failure {
    let status = if error.is_input() { Status::InvalidInput } else { Status::Failed };
    Failure::new(status, format!("train {}", args.recipe.display()), error)
}

/// What was trained, where it is, and how good it is.
#[derive(Serialize)]
struct Reply {
    #[serde(flatten)]
    outcome: Outcome,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            model,
            steps,
            n_tokens,
            n_params,
            n_trained_params,
            validation,
            by_length,
            baselines,
            doctor,
            report,
            adaptation,
            elapsed_seconds,
            ..
        } = &self.outcome;
        if let Some(n_trained) = n_trained_params {
            write!(f, "{n_trained} of ")?;
        }
        writeln!(f, "{n_params} parameters, {steps} steps, {n_tokens} tokens in {elapsed_seconds:.0} s")?;
        if let Some(evaluation) = validation {
            writeln!(f, "validation: {}", figures(evaluation))?;
        }
        if self.outcome.stopped_early {
            writeln!(f, "stopped early: evaluations did not become better")?;
        }
        if self.outcome.n_skipped > 0 {
            writeln!(f, "{} steps left out as outliers", self.outcome.n_skipped)?;
        }
        if let Some(Adaptation { before, after }) = adaptation {
            writeln!(f, "before: {}\nafter:  {}", standing_note(before), standing_note(after))?;
        }
        if !by_length.is_empty() {
            writeln!(f, "tokens read  examples  targets right  wholly right")?;
        }
        for LengthGroup { n_tokens_max, n_examples, accuracy, exact_match } in by_length {
            let (accuracy, exact_match) = (100.0 * accuracy, 100.0 * exact_match);
            writeln!(f, "{n_tokens_max:>11}  {n_examples:>8}  {accuracy:>11.2} %  {exact_match:>10.2} %")?;
        }
        if let Some(MaskedBaselines { unigram, bigram }) = baselines {
            let (unigram, bigram) = (100.0 * unigram, 100.0 * bigram);
            writeln!(f, "by counting alone: {unigram:.2} % of the targets (unigrams), {bigram:.2} % (bigrams)")?;
        }
        if let Some(BestModel { model, step, validation_loss }) = &self.outcome.best {
            writeln!(f, "best model: {} of step {step}, loss {validation_loss:.4} nats", model.display())?;
        }
        if doctor.is_empty() {
            writeln!(f, "doctor: nothing looks wrong")?;
        }
        for finding in doctor {
            writeln!(f, "doctor: {}", diagnosis(finding))?;
        }
        writeln!(f, "report: {}", report.display())?;
        write!(f, "model: {}", model.display())
    }
}

/// A finding in a sentence or two.
fn diagnosis(finding: &Finding) -> String {
    let Finding { kind, severity, step, evidence, advice } = finding;
    let severity = match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
    };
    format!("{severity}: {} (step {step}): {evidence}. What to do: {advice}.", kind.title())
}

/// An evaluation in a line: bits per byte where a text was told, right answers elsewhere.
fn figures(evaluation: &Evaluation) -> String {
    let Evaluation { validation_loss, validation_accuracy, validation_exact_match, validation_bits_per_byte } =
        evaluation;
    match validation_bits_per_byte {
        Some(bits) => format!("{bits:.4} bits per byte"),
        None => format!(
            "loss {validation_loss:.4} nats, {:.2} % of the targets right, {:.2} % of the examples wholly right",
            100.0 * validation_accuracy,
            100.0 * validation_exact_match
        ),
    }
}

/// What a model knows of its domain and in general, in a line.
fn standing_note(standing: &Standing) -> String {
    let figures = |figures: &Option<Figures>| match figures {
        Some(Figures { bits_per_byte: Some(bits), .. }) => format!("{bits:.4} bits per byte"),
        Some(Figures { loss, .. }) => format!("loss {loss:.4} nats"),
        None => "not measured".to_owned(),
    };
    format!("in domain {}, general {}", figures(&standing.in_domain), figures(&standing.general))
}

/// What became of the documents, in a line.
fn data_note(data: &DataSummary) -> String {
    let DataSummary { n_documents, duplicates, n_train_documents, n_validation_documents, .. } = data;
    let dropped = match duplicates {
        DuplicateCounts { n_exact: 0, n_near: 0, .. } => String::new(),
        DuplicateCounts { n_exact, n_near, n_bytes } => {
            format!(", {n_exact} exact and {n_near} near duplicates dropped ({n_bytes} bytes)")
        }
    };
    let sft = data.sft.map(|counts| format!("; {}", sft_note(counts))).unwrap_or_default();
    format!(
        "{n_documents} documents{dropped}: {n_train_documents} to train on, {n_validation_documents} to validate on{sft}"
    )
}

/// What became of examples of prompts and completions.
pub(super) fn sft_note(SftCounts { n_parted, n_truncated, n_dropped }: SftCounts) -> String {
    format!(
        "{n_dropped} too long and left out, {n_truncated} cut off at the context's end, {n_parted} with a token over the boundary of what is \
         said and therefore encoded in parts"
    )
}

/// Shows a run: a bar with the last figures on a terminal, a line now and then elsewhere.
struct Display<'a> {
    console: &'a Console,
    report: Option<PathBuf>,
    bar: ProgressBar,
}

impl Display<'_> {
    fn note(&self, note: &str) {
        self.bar.suspend(|| self.console.note(note));
    }
}

impl Progress for Display<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { n_params, n_train_tokens, n_validation_targets, steps_done, steps, .. } => {
                self.note(&format!(
                    "{n_params} parameters; {n_train_tokens} tokens to train on, {n_validation_targets} to validate on"
                ));
                if *steps_done > 0 {
                    self.note(&format!("going on after step {steps_done} of {steps}"));
                }
                if let Some(report) = &self.report {
                    self.note(&format!("report, rewritten as the run goes: {}", report.display()));
                }
                self.bar = self.console.progress_bar(*steps as usize, "steps");
                self.bar.set_position(*steps_done);
            }
            Event::Adaptation(record) => {
                let when = if record.step == 0 { "before the first step" } else { "after the last step" };
                self.note(&format!("{when}: {}", standing_note(&record.adaptation)));
            }
            Event::Data(data) => self.note(&data_note(data)),
            Event::TrainedPart(part) => self.note(&part.to_string()),
            Event::Memory(memory) => self.note(&format!("memory of a step: {memory}")),
            Event::Step(record) => {
                let StepRecord { step, steps, loss, tokens_per_second, seconds_left, .. } = record;
                self.bar.set_position(*step);
                self.note(&format!(
                    "step {step} of {steps}: loss {loss:.3} nats, {tokens_per_second:.0} tokens/s, {:.0}:{:02.0} left",
                    (seconds_left / 60.0).floor(),
                    (seconds_left % 60.0).floor()
                ));
            }
            Event::Evaluated(record) => {
                let EvaluationRecord { step, evaluation, .. } = record;
                self.note(&format!("step {step}, validation: {}", figures(evaluation)));
            }
            Event::Skipped(SkipRecord { step, skipped_gradient_norm, .. }) => {
                let norm = skipped_gradient_norm.map_or("not a number".into(), |norm| format!("{norm:.3}"));
                self.note(&format!("step {step} left out: the norm of its gradient is {norm}"));
            }
            Event::StoppedEarly { step } => {
                self.note(&format!("stopping after step {step}: evaluations do not become better"));
            }
            Event::Found(finding) => self.note(&format!("doctor: {}", diagnosis(finding))),
            Event::Warning(problem) => self.note(&format!("warning: {problem}")),
            _ => {}
        }
    }
}
