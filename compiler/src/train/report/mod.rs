//! A run as one HTML page that needs nothing but itself: no network, no scripts.
//!
//! It is made of the run's log and a few facts, so it can be written at any moment of a run, and its size is bounded however long
//! the run is.

pub mod chart;

use super::doctor::{Circumstances, Finding, Severity};
use super::evaluate::LengthGroup;
use super::history::{EvaluationPoint, History, Show, StepPoint};
use super::samples::Sample;
use crate::objective::baseline::MaskedBaselines;
use chart::{Chart, Series, figure};
use minijinja::{AutoEscape, Environment, Value, context};
use std::time::SystemTime;

/// Evaluations whose samples are shown: the last ones.
const SHOWS_MAX: usize = 6;

/// What is known of a run beside its log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The run folder's name.
    pub name: String,
    /// The recipe, as TOML.
    pub recipe: String,
    /// Whether its model tells a text, so that bits per byte are what counts.
    pub is_causal: bool,
    /// Steps in all.
    pub steps: u64,
    /// Trained numbers.
    pub n_params: u64,
    /// Targets of the validation part.
    pub n_validation_targets: u64,
    /// What counting alone reaches, for a masked language model.
    pub baselines: Option<MaskedBaselines>,
    /// What the doctor goes by.
    pub circumstances: Circumstances,
}

/// How a run stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It goes on.
    #[default]
    Running,
    /// It did all its steps.
    Finished,
    /// It was stopped, and can be resumed.
    Interrupted,
    /// It failed, for this reason.
    Failed(String),
}

/// The page.
///
/// # Errors
/// If the template cannot be filled, which no figure brings about.
pub fn page(
    facts: &Facts,
    history: &History,
    findings: &[Finding],
    status: &Status,
) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report.html", include_str!("report.html"))?;
    let step = history.last_step();
    let left = history.steps.last().filter(|_| *status == Status::Running).map(|last| duration(last.seconds_left));
    let (word, reason) = match status {
        Status::Running => ("running", None),
        Status::Finished => ("finished", None),
        Status::Interrupted => ("interrupted", None),
        Status::Failed(reason) => ("failed", Some(reason)),
    };
    let shows: Vec<&Show> = history.shows.iter().rev().take(SHOWS_MAX).collect();
    let has_answers = shows.iter().any(|show| show.samples.iter().any(|sample| sample.expected.is_some()));
    environment.get_template("report.html")?.render(context! {
        name => facts.name.as_str(),
        status => context! { word, reason },
        refresh => *status == Status::Running,
        step, steps => facts.steps, left,
        percent => format!("{:.1}", 100.0 * step as f64 / facts.steps.max(1) as f64),
        findings => findings.iter().map(finding_view).collect::<Vec<Value>>(),
        tiles => tiles(facts, history),
        charts => charts(facts, history).iter().map(chart_view).collect::<Vec<Value>>(),
        by_length => history.shows.last().map(length_rows),
        shows => shows.into_iter().map(show_view).collect::<Vec<Value>>(),
        shows_note => has_answers.then_some("Validation examples. Each choice is made after the right ones before it."),
        recipe => facts.recipe.as_str(),
        written => utc(SystemTime::now()),
        version => env!("CARGO_PKG_VERSION"),
    })
}

fn finding_view(finding: &Finding) -> Value {
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
    };
    let Finding { kind, step, evidence, advice, .. } = finding;
    context! { severity, title => kind.title(), step, evidence, advice }
}

fn show_view(show: &Show) -> Value {
    let sample = |sample: &Sample| {
        let Sample { read, said, expected, is_right } = sample;
        context! { read, said, expected, is_right }
    };
    context! { step => show.step, samples => show.samples.iter().map(sample).collect::<Vec<Value>>() }
}

/// Figures with their names.
fn tiles(facts: &Facts, history: &History) -> Vec<Value> {
    let tile = |label: &str, value: String| context! { label, value };
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let n_train_tokens = facts.circumstances.n_train_tokens;
    let mut tiles = vec![
        tile("parameters", figure(facts.n_params as f64)),
        tile("tokens to train on", figure(n_train_tokens as f64)),
        tile("targets to validate on", figure(facts.n_validation_targets as f64)),
    ];
    if let Some(memory) = history.memory {
        tiles.push(tile("memory of a step", memory.total().to_string()));
    }
    if let Some(last) = history.steps.last() {
        tiles.push(tile("tokens trained on", figure(last.n_tokens as f64)));
        let passes = last.n_tokens as f64 / n_train_tokens.max(1) as f64;
        tiles.push(tile("passes over the data", format!("{passes:.2}")));
        tiles.push(tile("loss, training", format!("{:.4}", last.loss)));
        tiles.push(tile("tokens/s", figure(last.tokens_per_second)));
    }
    if let (Some(last), Some(best)) = (history.evaluations.last(), history.best_evaluation()) {
        tiles.push(tile("loss, validation", format!("{:.4}", last.validation_loss)));
        tiles.push(tile("lowest, validation", format!("{:.4} (step {})", best.validation_loss, best.step)));
        if let Some(bits) = last.validation_bits_per_byte {
            tiles.push(tile("bits per byte", format!("{bits:.4}")));
        }
        tiles.push(tile("targets right", percent(last.validation_accuracy)));
        if !facts.is_causal {
            tiles.push(tile("examples wholly right", percent(last.validation_exact_match)));
        }
    }
    if let Some(MaskedBaselines { unigram, bigram }) = facts.baselines {
        tiles.push(tile("right by unigrams", percent(unigram)));
        tiles.push(tile("right by bigrams", percent(bigram)));
    }
    tiles
}

fn charts(facts: &Facts, history: &History) -> Vec<Chart> {
    let trained = |value: fn(&StepPoint) -> f64| {
        history.steps.iter().map(|point| (point.step as f64, value(point))).collect::<Vec<_>>()
    };
    let validated = |value: fn(&EvaluationPoint) -> f64| {
        history.evaluations.iter().map(|point| (point.step as f64, value(point))).collect::<Vec<_>>()
    };
    let series = |class, name, points| Series { class, name, points };
    let chart = |title, series| Chart { title, series, ..Chart::default() };
    let losses = vec![
        series("train", "training", trained(|point| point.loss)),
        series("validation", "validation", validated(|point| point.validation_loss)),
    ];
    let clip_norm = facts.circumstances.clip_norm;
    let norm = vec![series("norm", "norm", trained(|point| point.gradient_norm))];
    let mut charts = vec![
        chart("Loss, nats", losses),
        Chart {
            levels: (clip_norm > 0.0).then_some(("clipped above", clip_norm)).into_iter().collect(),
            ..chart("Gradient norm, before clipping", norm)
        },
        Chart {
            from_zero: true,
            ..chart("Learning rate", vec![series("rate", "rate", trained(|point| point.learning_rate))])
        },
        Chart {
            from_zero: true,
            ..chart(
                "Speed, evaluations included",
                vec![series("speed", "tokens/s", trained(|point| point.tokens_per_second))],
            )
        },
    ];
    if !facts.is_causal {
        let right = |share: f64| 100.0 * share;
        let baselines =
            facts.baselines.map(|rules| [("unigrams", right(rules.unigram)), ("bigrams", right(rules.bigram))]);
        charts.push(Chart {
            from_zero: true,
            levels: baselines.into_iter().flatten().collect(),
            ..chart(
                "Right on the validation part, %",
                vec![
                    series("train", "targets", validated(|point| 100.0 * point.validation_accuracy)),
                    series("validation", "whole examples", validated(|point| 100.0 * point.validation_exact_match)),
                ],
            )
        });
    }
    charts.retain(|chart| chart.series.iter().any(|series| !series.points.is_empty()));
    charts
}

fn chart_view(chart: &Chart) -> Value {
    let with_points = chart.series.iter().filter_map(|series| Some((series, series.points.last()?.1)));
    let keys: Vec<Value> = with_points
        .map(|(series, last)| context! { class => series.class, name => series.name, value => figure(last) })
        .collect();
    context! { title => chart.title, keys, svg => chart.svg() }
}

fn length_rows(show: &Show) -> Vec<Vec<String>> {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let row = |group: &LengthGroup| {
        let (n_tokens, n_examples) = (group.n_tokens_max.to_string(), group.n_examples.to_string());
        vec![n_tokens, n_examples, percent(group.accuracy), percent(group.exact_match)]
    };
    show.by_length.iter().map(row).collect()
}

/// `4:05`, or `2:04:05` from an hour on.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A moment as `2026-02-28 23:59:59 UTC`.
fn utc(moment: SystemTime) -> String {
    let seconds = moment.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that a leap day is the last day of one; 400 of them have 146,097 days.
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests;
