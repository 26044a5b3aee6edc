//! Several tasks at once: how often each is drawn, and in which of its forms (Wei et al. 2021, after Raffel et al. 2019).

use super::{Rendered, SftCounts, SftEncoder, TooLong};
use crate::data::{Example, ExampleSource, Shuffle, example_rng};
use crate::model::Kind;
use crate::objective::Frame;
use crate::tokenizer::{CompiledTokenizer, CorpusEncoder};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How tasks are mixed. Each is drawn in proportion to its examples, up to a limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixingSection {
    /// Most examples of a task that are trained on at all.
    pub max_examples: usize,
    /// Most examples of a task that count for how often it is drawn.
    pub max_rate: usize,
    /// Examples of the same task that are read before the prompt, in the few-shot form of an example; fewer where the context is full.
    pub shots: usize,
    /// Share of the examples that are drawn in this form.
    pub few_shot_share: f64,
    /// What stands after each of these.
    pub shot_separator: String,
}

impl Default for MixingSection {
    fn default() -> Self {
        Self { max_examples: 30_000, max_rate: 3_000, shots: 0, few_shot_share: 0.5, shot_separator: "\n\n".into() }
    }
}

/// What a recipe says of one task: a file of `data.text`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSection {
    /// The file's name without its ending.
    pub name: String,
    /// How much more often it is drawn than its examples say.
    #[serde(default = "one")]
    pub weight: f64,
    /// Ways to put it; each example is drawn in one of them.
    #[serde(default)]
    pub templates: Vec<TaskTemplate>,
}

fn one() -> f64 {
    1.0
}

/// One way to put a task: Jinja over a record's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskTemplate {
    /// What is read.
    pub prompt: String,
    /// What is to be said.
    #[serde(default = "the_completion")]
    pub completion: String,
}

fn the_completion() -> String {
    "{{ completion }}".into()
}

/// The examples of a task to train on: each in all its forms.
#[derive(Debug)]
pub struct TaskPool {
    /// Its name.
    pub name: String,
    /// How much more often it is drawn than its examples say.
    pub weight: f64,
    /// A record's text in each form; every record has as many.
    pub records: Vec<Vec<Rendered>>,
}

/// How a task takes part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskShare {
    /// Its name.
    pub name: String,
    /// Records to train on.
    pub n_train_documents: usize,
    /// Records held out.
    pub n_validation_documents: usize,
    /// Share of the examples that are drawn from it.
    pub share: f64,
}

/// What a mixture's model and tokenizer are.
#[derive(Debug)]
pub struct MixtureModel {
    /// The tokenizer.
    pub tokenizer: CompiledTokenizer,
    /// What the model reads and writes.
    pub kind: Kind,
    /// Positions that it has.
    pub context_len: usize,
    /// What begins and ends texts.
    pub frame: Frame,
    /// What becomes of what is too long.
    pub too_long: TooLong,
}

/// Examples of several tasks, drawn by number.
///
/// A cycle has as many draws of each task as its rate, in an order of its own; a task's records are gone through one after another, in
/// another order each time. Form and shots of an example are drawn by its number.
#[derive(Debug)]
pub struct TaskMixture {
    model: MixtureModel,
    section: MixingSection,
    tasks: Vec<TaskPool>,
    /// Where each task's draws begin in a cycle, and the draws of all.
    starts: Vec<u64>,
    /// Tokens of each record in its first form.
    lens: Vec<usize>,
    validation: Vec<Example>,
}

impl TaskMixture {
    /// A mixture of tasks that have at least one record each; `lens` tells the tokens of all their records.
    pub fn new(
        model: MixtureModel,
        section: MixingSection,
        tasks: Vec<TaskPool>,
        lens: Vec<usize>,
        validation: Vec<Example>,
    ) -> Self {
        let mut starts = vec![0];
        for task in &tasks {
            let rate = task.records.len().min(section.max_rate) as f64 * task.weight;
            starts.push(starts[starts.len() - 1] + (rate.round() as u64).max(1));
        }
        Self { model, section, tasks, starts, lens, validation }
    }

    /// Share of the draws that are of a task.
    pub fn share(&self, task: usize) -> f64 {
        (self.starts[task + 1] - self.starts[task]) as f64 / self.cycle() as f64
    }

    /// Draws of a cycle.
    fn cycle(&self) -> u64 {
        self.starts[self.tasks.len()]
    }

    /// The task and the record of a draw.
    fn drawn(&self, seed: u64, idx: u64) -> (&TaskPool, usize) {
        let (cycle, at) = (idx / self.cycle(), idx % self.cycle());
        let slot = Shuffle::of_epoch(self.cycle(), seed, cycle).at(at);
        let task = self.starts.partition_point(|start| *start <= slot) - 1;
        let rate = self.starts[task + 1] - self.starts[task];
        let pool = &self.tasks[task];
        let (n_drawn, len) = (cycle * rate + slot - self.starts[task], pool.records.len() as u64);
        let order = Shuffle::of_epoch(len, seed.wrapping_add(1 + task as u64), n_drawn / len);
        (pool, order.at(n_drawn % len) as usize)
    }

    /// A record in one of its forms, with so many others before it.
    fn with_shots(&self, pool: &TaskPool, form: usize, shots: &[usize], record: usize) -> Rendered {
        let mut rendered = pool.records[record][form].clone();
        let separator = &self.section.shot_separator;
        let before: String = shots.iter().map(|shot| pool.records[*shot][form].text() + separator).collect();
        if let Some(prompt) = rendered.parts.first_mut() {
            prompt.text.insert_str(0, &before);
        }
        rendered
    }

    /// Other records of the task, where the draw is one with shots. Conversations and texts have none.
    fn shots(&self, pool: &TaskPool, record: usize, form: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let n_others = pool.records.len() - 1;
        let n_shots = self.section.shots.min(n_others);
        let Rendered { parts, is_chat } = &pool.records[record][form];
        if *is_chat || parts.len() != 2 || n_shots == 0 || !rng.random_bool(self.section.few_shot_share) {
            return Vec::new();
        }
        let order = Shuffle::new(n_others as u64, rng.random());
        let others = (0..n_shots as u64).map(|idx| order.at(idx) as usize);
        others.map(|other| if other < record { other } else { other + 1 }).collect()
    }
}

impl ExampleSource for TaskMixture {
    fn examples(&self, seed: u64, idx: u64) -> Vec<Example> {
        let (pool, record) = self.drawn(seed, idx);
        let mut rng = example_rng(seed, idx);
        let form = rng.random_range(0..pool.records[record].len() as u64) as usize;
        let mut shots = self.shots(pool, record, form, &mut rng);
        let MixtureModel { tokenizer, kind, context_len, frame, too_long } = &self.model;
        let mut corpus_encoder = CorpusEncoder::new(tokenizer.view());
        let mut encoder = SftEncoder {
            encoder: &mut corpus_encoder,
            kind: *kind,
            context_len: *context_len,
            frame: *frame,
            too_long: *too_long,
            counts: SftCounts::default(),
        };
        loop {
            let rendered = self.with_shots(pool, form, &shots, record);
            let Some(example) = encoder.unfitted(&rendered) else { return Vec::new() };
            if example.n_positions() <= *context_len {
                return vec![example];
            }
            // Without its shots it fits, or is cut off: the examples were tried before the first step.
            if shots.pop().is_none() {
                return vec![encoder.truncated(example)];
            }
        }
    }

    fn n_train_tokens(&self) -> usize {
        self.lens.iter().sum()
    }

    fn validation(&self) -> &[Example] {
        &self.validation
    }

    fn capacity(&self) -> usize {
        self.model.context_len
    }

    fn passes(&self, n: u64) -> f64 {
        n as f64 / self.lens.len() as f64
    }

    fn document_lens(&self) -> Vec<usize> {
        self.lens.clone()
    }
}
