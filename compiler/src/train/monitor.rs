//! Watches a run through its log: examines the figures now and then, and keeps the report up to date.
//!
//! Nothing here changes what is trained, and nothing that fails here fails the run. When the figures are examined depends on the
//! log alone, so that an interrupted run finds the same as a whole one.

use super::corpus::Corpus;
use super::doctor::{Circumstances, EndsSeen, Finding, Severity, examine};
use super::evaluate::LengthGroup;
use super::history::{History, Look, Show};
use super::progress::Event;
use super::report::{Facts, Status, page};
use super::samples::Shower;
use super::tokenize::EOS;
use crate::artifact::write_atomic;
use crate::data::{Example, IGNORED};
use crate::model::Model;
use crate::recipe::{ObjectiveSection, Recipe};
use crate::tensor::{ParamLayout, Params};
use serde_json::Value;
use siskin_runtime::TokenId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the report in a run folder.
pub const REPORT_FILE: &str = "report.html";
/// Looks at the gradients over a whole run.
const N_LOOKS: u64 = 64;
/// Training examples whose targets are counted.
const COUNTED_EXAMPLES: u64 = 512;
/// Lines about training between two examinations.
const EXAMINE_LINES: usize = 8;
/// The share of all lines between two examinations, if that is more: one over it.
const EXAMINE_SHARE: usize = 16;
/// Time between two reports where nothing but lines of the log has come.
const REPORT_EVERY: Duration = Duration::from_secs(15);
/// Times that writing the report took before it is written again: it costs a fiftieth of the run at most.
const REPORT_PAUSE: u32 = 50;

/// What is known of a run, and its report.
pub(super) struct Monitor {
    facts: Facts,
    history: History,
    examine_at: usize,
    shower: Shower,
    report: ReportFile,
    news: Vec<Event>,
}

/// The report's file and when it was last written.
struct ReportFile {
    path: PathBuf,
    last: Option<Instant>,
    cost: Duration,
    has_failed: bool,
}

impl Monitor {
    /// Watches the run in a folder; `history` is what the log of a resumed one says so far.
    pub fn new(folder: &Path, recipe: &Recipe, corpus: &Corpus, n_params: u64, history: History) -> Self {
        let path = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let n_validation_targets = corpus.source.validation().iter().map(Example::n_targets).sum::<usize>();
        let facts = Facts {
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            recipe: toml::to_string(recipe).unwrap_or_default(),
            is_causal: recipe.objective.is_causal(),
            steps: recipe.train.steps,
            n_params,
            n_validation_targets: n_validation_targets as u64,
            baselines: corpus.baselines,
            circumstances: circumstances(recipe, corpus),
        };
        let mut examine_at = 0;
        while examine_at < history.steps.len() {
            examine_at = examined_after(examine_at);
        }
        let report = ReportFile { path: folder.join(REPORT_FILE), last: None, cost: Duration::ZERO, has_failed: false };
        let shower = Shower::new(recipe, &corpus.tokenizer_json, &corpus.labels);
        Self { facts, history, examine_at, shower, report, news: Vec::new() }
    }

    /// Takes in a line of the log, and says what now looks wrong that did not before: lines to add to it.
    pub fn hear(&mut self, line: Value) -> Vec<Finding> {
        let (n_steps, n_evaluations) = (self.history.steps.len(), self.history.evaluations.len());
        self.history.push(line);
        let is_step = self.history.steps.len() > n_steps;
        let is_evaluation = self.history.evaluations.len() > n_evaluations;
        let is_due = is_step && self.history.steps.len() >= self.examine_at;
        if is_due {
            self.examine_at = examined_after(self.examine_at);
        }
        if is_step {
            self.refresh(false);
        }
        if is_due || is_evaluation { self.examine() } else { Vec::new() }
    }

    /// What looks wrong that did not before.
    pub fn examine(&mut self) -> Vec<Finding> {
        let mut found = examine(&self.history, &self.facts.circumstances);
        found.retain(|new| self.history.findings.iter().all(|old| old.kind != new.kind));
        self.history.findings.extend(found.iter().cloned());
        self.news.extend(found.iter().cloned().map(Event::Found));
        found
    }

    /// Each matrix's gradient, if it is time to look at it.
    pub fn look(&self, step: u64, layout: &ParamLayout, gradient: &[f32]) -> Option<Look> {
        let every = (self.facts.steps / N_LOOKS).max(1);
        if !step.is_multiple_of(every) {
            return None;
        }
        let matrices = layout.specs().iter().filter(|spec| !spec.is_vector);
        let trained = matrices.filter_map(|spec| Some((spec, spec.grad.clone()?)));
        let gradient_rms = trained.map(|(spec, range)| (spec.name.clone(), rms(&gradient[range]))).collect();
        Some(Look { step, gradient_rms })
    }

    /// What the model says now.
    pub fn show(
        &self,
        step: u64,
        model: &dyn Model,
        params: &Params,
        examples: &[Example],
        by_length: &[LengthGroup],
    ) -> Show {
        let samples = self.shower.samples(model, params, examples, step);
        Show { step, samples, by_length: by_length.to_vec() }
    }

    /// Writes the report anew if it is time to; what was just said of the model is `urgent`.
    pub fn refresh(&mut self, urgent: bool) {
        let pause = if urgent { Duration::ZERO } else { REPORT_EVERY };
        let is_due = |last: Instant| last.elapsed() >= pause.max(REPORT_PAUSE * self.report.cost);
        if self.report.last.is_none_or(is_due) {
            self.write(&Status::Running);
        }
    }

    /// Writes the last report, and says all that looks wrong.
    pub fn finish(&mut self, status: &Status) -> Vec<Finding> {
        self.write(status);
        self.findings()
    }

    /// What the run's progress should hear of.
    pub fn news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// What looks wrong now, and what did before: each with the step where it was first seen, warnings first.
    fn findings(&self) -> Vec<Finding> {
        let before = &self.history.findings;
        let mut findings = examine(&self.history, &self.facts.circumstances);
        for finding in &mut findings {
            finding.step = before.iter().find(|old| old.kind == finding.kind).map_or(finding.step, |old| old.step);
        }
        let passed = before.iter().filter(|old| findings.iter().all(|finding| finding.kind != old.kind));
        let passed: Vec<Finding> = passed.cloned().collect();
        findings.extend(passed);
        findings.sort_by_key(|finding| finding.severity == Severity::Note);
        findings
    }

    fn write(&mut self, status: &Status) {
        let started = Instant::now();
        let page = page(&self.facts, &self.history, &self.findings(), status).map_err(|error| error.to_string());
        let report = &mut self.report;
        let written =
            page.and_then(|page| write_atomic(&report.path, page.as_bytes()).map_err(|error| error.to_string()));
        (report.last, report.cost) = (Some(Instant::now()), started.elapsed());
        if let (Err(problem), false) = (written, report.has_failed) {
            report.has_failed = true;
            self.news.push(Event::Warning(format!("the run goes on without its report: {problem}")));
        }
    }
}

/// The number of lines at which the figures are examined next.
fn examined_after(n_lines: usize) -> usize {
    n_lines + EXAMINE_LINES.max(n_lines / EXAMINE_SHARE)
}

/// The root mean square, in three digits.
fn rms(values: &[f32]) -> f64 {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let rms = (values.iter().map(square).sum::<f64>() / values.len().max(1) as f64).sqrt();
    format!("{rms:.2e}").parse().unwrap_or(rms)
}

/// What the doctor goes by; targets are counted in the first training examples.
fn circumstances(recipe: &Recipe, corpus: &Corpus) -> Circumstances {
    let mut counts: BTreeMap<TokenId, u64> = BTreeMap::new();
    for example in (0..COUNTED_EXAMPLES).flat_map(|idx| corpus.source.examples(recipe.train.seed, idx)) {
        let told = example.targets.into_iter().filter(|target| *target != IGNORED);
        told.for_each(|target| *counts.entry(target).or_default() += 1);
    }
    let n_targets = counts.values().sum::<u64>();
    let surprise = |count: &u64| (n_targets as f64 / *count as f64).ln() * *count as f64 / n_targets as f64;
    // The other objectives always end what they say, or say no text.
    let says_text = matches!(recipe.objective, ObjectiveSection::Causal(_) | ObjectiveSection::Prefix(_));
    Circumstances {
        clip_norm: recipe.optimizer.clip_norm,
        n_train_tokens: corpus.source.n_train_tokens() as u64,
        steps: recipe.train.steps,
        target_entropy: counts.values().map(surprise).sum(),
        ends: says_text.then(|| EndsSeen { n_targets, has_end: counts.contains_key(&EOS) }),
    }
}
