//! The training loop.

use super::adaptation::{Adaptation, AdaptationRecord, Standing, first_values};
use super::batches::{accumulate, batches_of};
use super::best::{BestModel, write_best};
use super::corpus::Corpus;
use super::doctor::Finding;
use super::evaluate::{Evaluation, LengthGroup, by_length, measure};
use super::memory::{Memory, MemoryRecord};
use super::norm::{clip_factor, norm};
use super::optimizer::Optimizer;
use super::outliers::Skip;
use super::progress::{DataRecord, EvaluationRecord, Event, Progress, SkipRecord, StepRecord};
use super::report::Status;
use super::run_folder::{RunFolder, write_model};
use super::schedule::learning_rate;
use super::state::{Past, STATE_FILE, State};
use super::step::Stepper;
use super::texts::DataSummary;
use super::trained_part::TrainedPart;
use crate::artifact::ArtifactError;
use crate::data::{DataError, Example};
use crate::model::{self, BuildError, Model};
use crate::objective::baseline::MaskedBaselines;
use crate::peft::NameError;
use crate::recipe::{ObjectiveSection, Recipe};
use crate::tensor::Dtype;
use crate::tokenizer::TokenizerDefError;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The text cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file of the model cannot be written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The tokenizer cannot be trained on this text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerDefError),
    /// The model's parts do not go together, or what is to be trained of it is not there.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The optimiser's groups are not the model's.
    #[error("[optimizer]: {0}")]
    Optimizer(#[from] NameError),
    /// Evaluations decide about the run, but there is nothing to evaluate.
    #[error("train.{key} needs a validation part, and there is none: lower data.train_fraction, or give more text")]
    NoValidation {
        /// What needs it.
        key: &'static str,
    },
    /// A record of the run cannot be put in words.
    #[error("cannot write the run down: {0}")]
    Recipe(String),
    /// The folder has a run in it, and going on was not asked for.
    #[error("{} already holds a training run: resume it, or choose another folder", path.display())]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the run cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of the run cannot be written while it goes on.
    #[error("{source}; {}", resumable(*saved_step))]
    Stopped {
        /// Which, and why.
        source: ArtifactError,
        /// Steps done by the last checkpoint, if there is one.
        saved_step: Option<u64>,
    },
    /// A file of the run cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The saved state is damaged or of another model.
    #[error("{} cannot be resumed from: {problem}", path.display())]
    BadState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The saved state belongs to another recipe or text.
    #[error(
        "{} was made by another recipe or from another text: resume with those of recipe.toml beside it, or start anew elsewhere",
        path.display()
    )]
    OtherRecipe {
        /// The file.
        path: PathBuf,
    },
    /// The model to go on from cannot be used.
    #[error("cannot go on from {}: {problem}", path.display())]
    InitFrom {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The loss or a parameter is no longer a finite number.
    #[error("training diverged ({problem}): lower optimizer.learning_rate, or set optimizer.clip_norm")]
    Diverged {
        /// Where it showed.
        problem: String,
    },
}

/// Where a run that had to stop can go on from.
fn resumable(saved_step: Option<u64>) -> String {
    match saved_step {
        Some(step) => format!("the checkpoint of step {step} is whole, and the run can be resumed from it"),
        None => "there is no checkpoint yet that the run could be resumed from".to_owned(),
    }
}

impl TrainError {
    /// Whether what the user gave is at fault, rather than the machine or the training itself.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Data(_)
                | Self::Tokenizer(_)
                | Self::Optimizer(_)
                | Self::Build(BuildError::Peft(_))
                | Self::NoValidation { .. }
                | Self::InitFrom { .. }
                | Self::RunExists { .. }
                | Self::BadState { .. }
                | Self::OtherRecipe { .. }
        )
    }
}

/// What a run is told beside its recipe.
#[derive(Debug)]
pub struct Options<'a> {
    /// The run folder, made if missing. When the run ends it is a model folder.
    pub out: &'a Path,
    /// Go on from the state in the folder, if there is one.
    pub resume: bool,
    /// Set from outside to stop after the current step with a checkpoint.
    pub interrupt: &'a AtomicBool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The run folder.
    pub model: PathBuf,
    /// Steps done.
    pub steps: u64,
    /// Tokens trained on.
    pub n_tokens: u64,
    /// Numbers of the model.
    pub n_params: u64,
    /// Those that are trained, where not all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_trained_params: Option<u64>,
    /// The last evaluation of the validation part; absent if there is none or the run was interrupted.
    #[serde(flatten)]
    pub validation: Option<Evaluation>,
    /// The best of the models that were kept beside the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<BestModel>,
    /// Steps whose update was not applied, since their gradients were outliers.
    #[serde(skip_serializing_if = "is_zero")]
    pub n_skipped: u64,
    /// The last evaluation by the length of what was read, for a sequence-to-sequence objective.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_length: Vec<LengthGroup>,
    /// What counting alone reaches on the validation part, for a masked language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baselines: Option<MaskedBaselines>,
    /// What became of the documents, where there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSummary>,
    /// What looks wrong with the run.
    pub doctor: Vec<Finding>,
    /// The run as a page.
    pub report: PathBuf,
    /// What going on from a model changed; absent for a new model, and if the run was interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptation: Option<Adaptation>,
    /// What a step needed; absent if this process did none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Seconds of this process's training, evaluations and checkpoints.
    pub elapsed_seconds: f64,
    /// Whether the run ended before its last step because evaluations did not become better.
    #[serde(skip_serializing_if = "is_false")]
    pub stopped_early: bool,
    /// Whether the run stopped before its last step, and can be resumed.
    pub interrupted: bool,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Trains as `recipe` says.
///
/// # Errors
/// [`TrainError`]. Whatever happened, the last checkpoint in the folder is whole.
pub fn run(recipe: &Recipe, options: &Options<'_>, progress: &mut dyn Progress) -> Result<Outcome, TrainError> {
    let has_state = options.out.join(STATE_FILE).exists();
    if has_state && !options.resume {
        return Err(TrainError::RunExists { path: options.out.to_owned() });
    }
    let corpus = Corpus::prepare(&recipe.for_examples())?;
    check_validation(recipe, &corpus)?;
    let model = model::build_for(&recipe.architecture(corpus.labels.len()), recipe.peft.as_ref())?;
    let model = &*model;
    let params = first_values(recipe, &corpus, model, options.out)?.stored_as(recipe.train.weights_dtype);
    let before = Standing::of(recipe, &corpus, model, &params);
    let average = (recipe.optimizer.average_decay > 0.0).then(|| params.clone().stored_as(Dtype::F32));
    let optimizer = Optimizer::new(&recipe.optimizer, model.layout())?;
    let mut state = State { step: 0, n_tokens: 0, params, optimizer, average, past: Past::default() };
    if has_state {
        state.load(options.out, &corpus.fingerprint)?;
    }
    let n_params = state.params.layout.len() as u64;
    let mut folder = RunFolder::open(options.out, recipe, &corpus, n_params, has_state.then_some(state.step))?;
    if let Some(data) = corpus.several_documents() {
        progress.event(&Event::Data(data));
        if !has_state {
            folder.log(&DataRecord { step: 0, data })?;
        }
    }
    if let Some(adaptation) = before {
        let record = AdaptationRecord { step: 0, adaptation };
        progress.event(&Event::Adaptation(record));
        if !has_state {
            folder.log(&record)?;
        }
    }
    progress.event(&Event::Started {
        n_params,
        n_train_tokens: corpus.source.n_train_tokens(),
        n_validation_targets: corpus.source.validation().iter().map(Example::n_targets).sum(),
        baselines: corpus.baselines,
        steps_done: state.step,
        steps: recipe.train.steps,
    });
    let mut stepper = Stepper::new(model);
    let mut memory = None;
    if let Some(peft) = &recipe.peft {
        let part = TrainedPart::measure(peft, &mut stepper, &corpus, &recipe.train, &state);
        memory = Some(part.memory);
        progress.event(&Event::TrainedPart(part));
        if !has_state {
            folder.log(&part)?;
        }
    }
    let started = Instant::now();
    let mut trainer = Trainer {
        recipe,
        corpus: &corpus,
        model,
        stepper,
        state,
        folder,
        by_length: Vec::new(),
        memory,
        before,
        started,
        progress,
    };
    let ended = trainer.run(options.interrupt);
    trainer.finish(ended)
}

/// Checks that there is something to evaluate where evaluations decide.
fn check_validation(recipe: &Recipe, corpus: &Corpus) -> Result<(), TrainError> {
    let key = match &recipe.train {
        train if train.early_stopping_patience > 0 => "early_stopping_patience",
        train if train.keep_best > 0 => "keep_best",
        _ => return Ok(()),
    };
    let has_targets = corpus.source.validation().iter().any(|example| example.n_targets() > 0);
    if has_targets { Ok(()) } else { Err(TrainError::NoValidation { key }) }
}

struct Trainer<'a> {
    recipe: &'a Recipe,
    corpus: &'a Corpus,
    model: &'a dyn Model,
    stepper: Stepper<'a>,
    state: State,
    folder: RunFolder,
    by_length: Vec<LengthGroup>,
    /// What the first step of this process needed, or will need.
    memory: Option<Memory>,
    /// What the model knew that the run goes on from.
    before: Option<Standing>,
    started: Instant,
    progress: &'a mut dyn Progress,
}

/// When the last line of the log was written, to tell the rate since.
struct Pace {
    at: Instant,
    n_tokens: u64,
    first_step: u64,
}

impl Trainer<'_> {
    fn run(&mut self, interrupt: &AtomicBool) -> Result<Outcome, TrainError> {
        let settings = &self.recipe.train;
        let mut pace = Pace { at: self.started, n_tokens: self.state.n_tokens, first_step: self.state.step };
        let mut last_evaluation = None;
        let mut interrupted = false;
        while self.state.step < settings.steps && !self.state.past.best.gives_up(settings) {
            if interrupt.load(Ordering::Relaxed) {
                interrupted = true;
                break;
            }
            let (loss, gradient_norm, rate) = self.step()?;
            self.measure_memory()?;
            let is_last = self.state.step == settings.steps;
            let due = |every: u64| every > 0 && self.state.step.is_multiple_of(every);
            let (log, evaluate, save) =
                (due(settings.log_every), due(settings.eval_every), due(settings.checkpoint_every));
            if log || is_last {
                self.report(&mut pace, loss, gradient_norm, rate)?;
            }
            let mut is_best = false;
            if evaluate || is_last {
                last_evaluation = self.evaluate()?;
                is_best = self.keep_if_best(last_evaluation.as_ref())?;
            }
            if (save || is_best) && !is_last {
                self.save()?;
            }
        }
        self.save()?;
        let stopped_early = self.state.step < settings.steps && !interrupted;
        if stopped_early {
            self.progress.event(&Event::StoppedEarly { step: self.state.step });
        }
        if last_evaluation.is_none() && !interrupted {
            last_evaluation = self.evaluate()?;
        }
        let adaptation = if interrupted { None } else { self.adapted()? };
        Ok(Outcome {
            model: self.folder.path().to_owned(),
            steps: self.state.step,
            n_tokens: self.state.n_tokens,
            n_params: self.state.params.layout.len() as u64,
            n_trained_params: self.recipe.peft.as_ref().map(|_| self.state.params.layout.n_trained() as u64),
            validation: last_evaluation.filter(|_| !interrupted),
            best: self.state.past.best.model(self.folder.path()),
            n_skipped: self.state.past.outliers.n_skipped,
            by_length: std::mem::take(&mut self.by_length),
            baselines: self.corpus.baselines,
            data: self.corpus.several_documents(),
            doctor: Vec::new(),
            report: self.folder.report(),
            adaptation,
            memory: self.memory.map(|_| Memory::of(&self.stepper, &self.state)),
            elapsed_seconds: self.started.elapsed().as_secs_f64(),
            stopped_early,
            interrupted,
        })
    }

    /// Writes the last report of a run that ended so, and adds what it found.
    fn finish(&mut self, ended: Result<Outcome, TrainError>) -> Result<Outcome, TrainError> {
        let status = match &ended {
            Ok(outcome) if outcome.interrupted => Status::Interrupted,
            Ok(_) => Status::Finished,
            Err(error) => Status::Failed(error.to_string()),
        };
        let doctor = self.folder.finish(&status, self.progress);
        ended.map(|outcome| Outcome { doctor, ..outcome })
    }

    /// What the run changed, where it went on from a model.
    fn adapted(&mut self) -> Result<Option<Adaptation>, TrainError> {
        let after = Standing::of(self.recipe, self.corpus, self.model, self.state.published());
        let Some((before, after)) = self.before.zip(after) else { return Ok(None) };
        let record = AdaptationRecord { step: self.state.step, adaptation: after };
        self.folder.log(&record)?;
        self.progress.event(&Event::Adaptation(record));
        Ok(Some(Adaptation { before, after }))
    }

    /// One update: the step's mean loss in nats, the gradient's norm before clipping, and the learning rate.
    fn step(&mut self) -> Result<(f64, f64, f64), TrainError> {
        let (settings, rule) = (&self.recipe.train, &self.recipe.optimizer);
        let (state, source) = (&mut self.state, &*self.corpus.source);
        let batches = batches_of(settings, state.step);
        let (loss, n_tokens) = accumulate(&mut self.stepper, source, settings, &state.params, batches);
        let gradient = self.stepper.gradient();
        let norm = norm(gradient);
        self.folder.look(state.step + 1, &state.params.layout, gradient)?;
        let rate = learning_rate(rule, state.step, settings.steps);
        let is_finite = loss.is_finite() && norm.is_finite();
        let skip = state.past.outliers.judge(settings, if is_finite { norm } else { f64::NAN });
        if skip.is_none() {
            if !is_finite {
                let problem = format!("the loss of step {} is {loss}, its gradient's norm {norm}", state.step + 1);
                return Err(TrainError::Diverged { problem });
            }
            state.update(gradient, clip_factor(norm, rule.clip_norm), rate, rule.average_decay);
        }
        state.step += 1;
        state.n_tokens += n_tokens;
        if let Some(Skip { bound }) = skip {
            let record = SkipRecord {
                step: state.step,
                skipped_gradient_norm: is_finite.then_some(norm),
                gradient_norm_max: bound,
                n_skipped: state.past.outliers.n_skipped,
            };
            self.folder.log(&record)?;
            self.progress.event(&Event::Skipped(record));
        }
        Ok((loss, norm, rate))
    }

    /// Tells what the first step of this process needed; the log of the whole run has one such line.
    fn measure_memory(&mut self) -> Result<(), TrainError> {
        if self.memory.is_some() {
            return Ok(());
        }
        let (step, memory) = (self.state.step, Memory::of(&self.stepper, &self.state));
        self.memory = Some(memory);
        self.progress.event(&Event::Memory(memory));
        if step == 1 { self.folder.log(&MemoryRecord { step, memory }) } else { Ok(()) }
    }

    fn report(&mut self, pace: &mut Pace, loss: f64, gradient_norm: f64, rate: f64) -> Result<(), TrainError> {
        let (step, steps) = (self.state.step, self.recipe.train.steps);
        let seconds = pace.at.elapsed().as_secs_f64().max(1e-9);
        let seconds_a_step = self.started.elapsed().as_secs_f64() / (step - pace.first_step).max(1) as f64;
        let record = StepRecord {
            step,
            steps,
            n_tokens: self.state.n_tokens,
            loss,
            gradient_norm,
            learning_rate: rate,
            tokens_per_second: (self.state.n_tokens - pace.n_tokens) as f64 / seconds,
            seconds_left: (steps - step) as f64 * seconds_a_step,
        };
        (pace.at, pace.n_tokens) = (Instant::now(), self.state.n_tokens);
        self.folder.log(&record)?;
        self.progress.event(&Event::Step(record));
        self.folder.tell(self.progress);
        Ok(())
    }

    /// Evaluates the validation part, if there is one.
    fn evaluate(&mut self) -> Result<Option<Evaluation>, TrainError> {
        let (params, corpus) = (self.state.published(), self.corpus);
        let examples = corpus.source.validation();
        let each = measure(self.model, params, examples);
        let Some(evaluation) = Evaluation::of(&each, corpus.n_validation_bytes) else { return Ok(None) };
        if matches!(self.recipe.objective, ObjectiveSection::Seq2seq(_)) {
            self.by_length = by_length(examples, &each);
        }
        let elapsed_seconds = self.started.elapsed().as_secs_f64();
        let record = EvaluationRecord { step: self.state.step, evaluation, elapsed_seconds };
        self.folder.log(&record)?;
        self.progress.event(&Event::Evaluated(record));
        self.folder.show(record.step, self.model, params, examples, &self.by_length)?;
        self.folder.tell(self.progress);
        Ok(Some(evaluation))
    }

    /// Remembers an evaluation, and writes the model if it is one of the best that the recipe keeps; tells whether it is.
    fn keep_if_best(&mut self, evaluation: Option<&Evaluation>) -> Result<bool, TrainError> {
        let settings = &self.recipe.train;
        let Some(evaluation) = evaluation else { return Ok(false) };
        if settings.early_stopping_patience == 0 && settings.keep_best == 0 {
            return Ok(false);
        }
        let step = self.state.step;
        let is_kept = self.state.past.best.hear(settings, step, evaluation.validation_loss);
        if is_kept {
            let (state, made, corpus) = (&self.state, (self.model, self.recipe), self.corpus);
            write_best(self.folder.path(), step, |path| write_model(path, state, made, corpus))?;
        }
        Ok(is_kept)
    }

    /// Writes a checkpoint, and then removes the models that are no longer among the best by what it says.
    fn save(&mut self) -> Result<(), TrainError> {
        self.folder.save(&self.state, (self.model, self.recipe), self.corpus)?;
        if self.recipe.train.keep_best > 0 {
            self.state.past.best.prune(self.folder.path())?;
        }
        let (folder, step) = (self.folder.path().to_owned(), self.state.step);
        self.progress.event(&Event::Saved { folder, step });
        Ok(())
    }
}
