//! The training loop.

use super::adamw::{self, Moments};
use super::evaluate::bits_per_byte;
use super::progress::{EvaluationRecord, Event, Progress, StepRecord};
use super::run_folder::RunFolder;
use super::schedule::learning_rate;
use super::state::{STATE_FILE, State};
use super::step::Stepper;
use super::tokenize::RunTokenizer;
use crate::artifact::ArtifactError;
use crate::data::{DataError, Example, TokenStream, read_text, split_text};
use crate::model::{self, ArchitectureError, LossOptions, Model};
use crate::recipe::Recipe;
use crate::tokenizer::TokenizerDefError;
use serde::Serialize;
use sha2::{Digest, Sha256};
use siskin_runtime::TokenId;
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
    /// The model's parts do not go together.
    #[error("[model]: {0}")]
    Architecture(#[from] ArchitectureError),
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
    /// The loss or a parameter is no longer a finite number.
    #[error("training diverged ({problem}): lower optimizer.learning_rate, or set optimizer.clip_norm")]
    Diverged {
        /// Where it showed.
        problem: String,
    },
}

impl TrainError {
    /// Whether what the user gave is at fault, rather than the machine or the training itself.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Data(_)
                | Self::Tokenizer(_)
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
    /// Trained numbers.
    pub n_params: u64,
    /// Bits per byte of the validation part; absent if there is none or the run was interrupted.
    pub validation_bits_per_byte: Option<f64>,
    /// Seconds of this process's training, evaluations and checkpoints.
    pub elapsed_seconds: f64,
    /// Whether the run stopped before its last step, and can be resumed.
    pub interrupted: bool,
}

/// The text as tokens.
struct Corpus {
    train: TokenStream,
    validation: Vec<TokenId>,
    validation_text: String,
    tokenizer_json: Vec<u8>,
    /// Digest of the recipe and the text: what a state may be resumed with.
    fingerprint: String,
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
    let corpus = prepare(recipe)?;
    let model = model::build(&recipe.architecture())?;
    let model = &*model;
    let params = model.init(recipe.train.seed);
    let average = (recipe.optimizer.average_decay > 0.0).then(|| params.clone());
    let moments = Moments::zeros(params.values.len());
    let mut state = State { step: 0, params, moments, average };
    if has_state {
        state.load(options.out, &corpus.fingerprint)?;
    }
    let folder = RunFolder::open(options.out, recipe, &corpus.validation_text, has_state.then_some(state.step))?;
    progress.event(&Event::Started {
        n_params: state.params.values.len() as u64,
        n_train_tokens: corpus.train.len(),
        n_validation_tokens: corpus.validation.len(),
        steps_done: state.step,
        steps: recipe.train.steps,
    });
    let stepper = Stepper::new(model);
    let started = Instant::now();
    let trainer = Trainer { recipe, corpus: &corpus, model, stepper, state, folder, started, progress };
    trainer.run(options.interrupt)
}

/// Reads the text, trains the tokenizer on its training part, and encodes both parts.
fn prepare(recipe: &Recipe) -> Result<Corpus, TrainError> {
    let text = read_text(&recipe.data.text)?;
    let (train, validation) = split_text(&text, recipe.data.train_fraction);
    let tokenizer = RunTokenizer::train(train, &recipe.tokenizer)?;
    // The path may be spelled otherwise when the run is resumed; the text itself is in the digest.
    let mut identity = recipe.clone();
    identity.data.text = PathBuf::new();
    let identity = toml::to_string(&identity).map_err(|error| TrainError::Recipe(error.to_string()))?;
    let digest = Sha256::new().chain_update(identity).chain_update([0]).chain_update(&text).finalize();
    Ok(Corpus {
        train: TokenStream::new(tokenizer.encode(train), recipe.model.context_len)?,
        validation: tokenizer.encode(validation),
        validation_text: validation.to_owned(),
        tokenizer_json: tokenizer.json,
        fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

struct Trainer<'a> {
    recipe: &'a Recipe,
    corpus: &'a Corpus,
    model: &'a dyn Model,
    stepper: Stepper<'a>,
    state: State,
    folder: RunFolder,
    started: Instant,
    progress: &'a mut dyn Progress,
}

/// When the last line of the log was written, to tell the rate since.
struct Pace {
    at: Instant,
    step: u64,
    first_step: u64,
}

impl Trainer<'_> {
    fn run(mut self, interrupt: &AtomicBool) -> Result<Outcome, TrainError> {
        let settings = &self.recipe.train;
        let mut pace = Pace { at: self.started, step: self.state.step, first_step: self.state.step };
        let mut last_evaluation = None;
        let mut interrupted = false;
        while self.state.step < settings.steps {
            if interrupt.load(Ordering::Relaxed) {
                interrupted = true;
                break;
            }
            let (loss, gradient_norm, rate) = self.step();
            if !(loss.is_finite() && gradient_norm.is_finite()) {
                return Err(TrainError::Diverged {
                    problem: format!("the loss of step {} is {loss}", self.state.step),
                });
            }
            let is_last = self.state.step == settings.steps;
            let due = |every: u64| every > 0 && self.state.step.is_multiple_of(every);
            let (log, evaluate, save) =
                (due(settings.log_every), due(settings.eval_every), due(settings.checkpoint_every));
            if log || is_last {
                self.report(&mut pace, loss, gradient_norm, rate)?;
            }
            if evaluate || is_last {
                last_evaluation = self.evaluate()?;
            }
            if save && !is_last {
                self.save()?;
            }
        }
        self.save()?;
        if last_evaluation.is_none() && !interrupted {
            last_evaluation = self.evaluate()?;
        }
        Ok(Outcome {
            model: self.folder.path().to_owned(),
            steps: self.state.step,
            n_tokens: self.state.step * self.tokens_per_step(),
            n_params: self.state.params.values.len() as u64,
            validation_bits_per_byte: last_evaluation.filter(|_| !interrupted),
            elapsed_seconds: self.started.elapsed().as_secs_f64(),
            interrupted,
        })
    }

    fn tokens_per_step(&self) -> u64 {
        let settings = &self.recipe.train;
        (settings.batch_size * settings.accumulate * self.recipe.model.context_len) as u64
    }

    /// One update: the step's mean loss in nats, the gradient's norm before clipping, and the learning rate.
    fn step(&mut self) -> (f64, f64, f64) {
        let (settings, rule) = (&self.recipe.train, &self.recipe.optimizer);
        let state = &mut self.state;
        let n_targets = self.recipe.model.context_len * settings.batch_size * settings.accumulate;
        let weight = 1.0 / n_targets as f32;
        let mut nats = 0.0;
        self.stepper.clear();
        for i in 0..settings.accumulate as u64 {
            let batch_idx = state.step * settings.accumulate as u64 + i;
            let windows = self.corpus.train.batch(settings.seed, batch_idx, settings.batch_size);
            let batch: Vec<Example> =
                windows.into_iter().map(|(inputs, targets)| Example::causal(inputs, targets)).collect();
            nats += self.stepper.accumulate(&state.params, &batch, LossOptions::plain(weight)).nats;
        }
        let gradient = self.stepper.gradient();
        let norm = adamw::norm(gradient);
        let factor = adamw::clip_factor(norm, rule.clip_norm);
        let rate = learning_rate(rule, state.step, settings.steps);
        adamw::update(&mut state.params, &mut state.moments, gradient, factor, rule, rate, state.step);
        if let Some(average) = &mut state.average {
            // Young averages forget faster, or they would remember the first values.
            let decay = rule.average_decay.min((state.step + 1) as f64 / (state.step + 10) as f64) as f32;
            for (to, from) in average.values.iter_mut().zip(&state.params.values) {
                *to += (1.0 - decay) * (from - *to);
            }
        }
        state.step += 1;
        (nats / n_targets as f64, norm, rate)
    }

    fn report(&mut self, pace: &mut Pace, loss: f64, gradient_norm: f64, rate: f64) -> Result<(), TrainError> {
        let (step, steps) = (self.state.step, self.recipe.train.steps);
        let seconds = pace.at.elapsed().as_secs_f64().max(1e-9);
        let seconds_a_step = self.started.elapsed().as_secs_f64() / (step - pace.first_step).max(1) as f64;
        let record = StepRecord {
            step,
            steps,
            n_tokens: step * self.tokens_per_step(),
            loss,
            gradient_norm,
            learning_rate: rate,
            tokens_per_second: ((step - pace.step) * self.tokens_per_step()) as f64 / seconds,
            seconds_left: (steps - step) as f64 * seconds_a_step,
        };
        (pace.at, pace.step) = (Instant::now(), step);
        self.folder.log(&record)?;
        self.progress.event(&Event::Step(record));
        Ok(())
    }

    /// Bits per byte of the validation part, if there is one.
    fn evaluate(&mut self) -> Result<Option<f64>, TrainError> {
        let corpus = self.corpus;
        if corpus.validation.len() < 2 {
            return Ok(None);
        }
        let bits = bits_per_byte(self.model, self.state.published(), &corpus.validation, corpus.validation_text.len());
        let elapsed_seconds = self.started.elapsed().as_secs_f64();
        let record = EvaluationRecord { step: self.state.step, validation_bits_per_byte: bits, elapsed_seconds };
        self.folder.log(&record)?;
        self.progress.event(&Event::Evaluated(record));
        Ok(Some(bits))
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let corpus = self.corpus;
        self.folder.save(&self.state, self.model.architecture(), &corpus.tokenizer_json, &corpus.fingerprint)?;
        let (folder, step) = (self.folder.path().to_owned(), self.state.step);
        self.progress.event(&Event::Saved { folder, step });
        Ok(())
    }
}
