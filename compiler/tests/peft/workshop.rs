//! A small base model in a folder, recipes that go on from it, and batches for models that are not trained at all.

use siskin_compiler::data::Example;
use siskin_compiler::model::{self, Head, LossOptions, LossSums, Model};
use siskin_compiler::peft::PeftConfig;
use siskin_compiler::recipe::{ModelSection, Recipe, RecipeError};
use siskin_compiler::tensor::{Dtype, Params};
use siskin_compiler::train::progress::{Event, Progress};
use siskin_compiler::train::step::{DropoutSeed, Stepper};
use siskin_compiler::train::{Options, Outcome, TrainError, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub const VOCAB: usize = 128;

/// A folder with a text and a Llama of two layers in `base` that has seen a little of it.
pub fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for i in 0..400_usize {
        let dose = ["one", "two", "five"][i * 7 % 3];
        let salt = ["brine", "silica", "lead", "ether"][i * 5 % 4];
        text += &format!("heat {dose} grams of {salt} {}!\n\n", ["slowly", "at night", "in air"][i / 4 % 3]);
    }
    std::fs::write(dir.path().join("text.txt"), text).unwrap();
    let model = "model = { dim = 24, hidden_dim = 44, n_layers = 2, n_heads = 4, n_kv_heads = 2, context_len = 32 }
tokenizer = { vocab_size = 275, eos = '<end>' }\n";
    let recipe = load(dir.path(), model, 6).unwrap();
    train(&recipe, &dir.path().join("base"), &mut Events::default()).unwrap();
    dir
}

/// The recipe that begins with `text`.
pub fn load(dir: &Path, text: &str, n_steps: usize) -> Result<Recipe, RecipeError> {
    let path = dir.join("recipe.toml");
    let rest = format!(
        "data = {{ text = 'text.txt', documents = 'blank_lines', train_fraction = 0.9 }}
train = {{ steps = {n_steps}, batch_size = 4, seed = 3, log_every = 1, checkpoint_every = 3, dropout = 0.02 }}
optimizer = {{ learning_rate = 1e-2, warmup_steps = 2 }}
"
    );
    std::fs::write(&path, format!("{text}{rest}")).unwrap();
    Recipe::load(&path, &[])
}

/// A recipe that goes on from `base` with this `[peft]`.
pub fn going_on(dir: &Path, peft: &str, n_steps: usize) -> Recipe {
    load(dir, &format!("model = {{ init_from = 'base' }}\npeft = {peft}\n"), n_steps).unwrap()
}

/// What a run told, and the step after which to interrupt it.
#[derive(Default)]
pub struct Events {
    pub events: Vec<Event>,
    pub stop_at: Option<u64>,
    interrupt: AtomicBool,
}

pub fn stop_at(step: u64) -> Events {
    Events { stop_at: Some(step), ..Events::default() }
}

struct Listener<'a>(&'a mut Vec<Event>, Option<u64>, &'a AtomicBool);

impl Progress for Listener<'_> {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Step(record) if self.1.is_some_and(|step| record.step >= step)) {
            self.2.store(true, Ordering::Relaxed);
        }
        self.0.push(event.clone());
    }
}

/// Trains into `out`, going on where it is there already.
pub fn train(recipe: &Recipe, out: &Path, heard: &mut Events) -> Result<Outcome, TrainError> {
    let Events { events, stop_at, interrupt } = heard;
    let mut listener = Listener(events, *stop_at, interrupt);
    run(recipe, &Options { out, resume: out.exists(), interrupt }, &mut listener)
}

/// The parts of a small model of a family.
pub fn architecture(family: &str, n_layers: usize) -> model::Architecture {
    let section: ModelSection = toml::from_str(&format!(
        "architecture = \"{family}\"\ndim = 16\nhidden_dim = 24\nn_layers = {n_layers}\nn_heads = 4\ncontext_len = 32"
    ))
    .unwrap();
    let head = if matches!(family, "bert" | "albert") { Head::MaskedLanguage } else { Head::Language };
    section.architecture(VOCAB, head)
}

/// A small model of a family with this `[peft]`, if any.
pub fn model(family: &str, n_layers: usize, peft: Option<&str>) -> Box<dyn Model> {
    let peft = peft.map(|text| toml::from_str::<PeftConfig>(text).unwrap());
    model::build_for(&architecture(family, n_layers), peft.as_ref()).unwrap()
}

pub fn tokens(n: usize, salt: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 7 + salt * 5) % VOCAB) as u32).collect()
}

pub fn batch(family: &str) -> Vec<[Example; 1]> {
    let example = |n: usize| {
        let decoder_inputs =
            if matches!(family, "t5" | "transformer" | "gru_seq2seq") { tokens(n, 3) } else { Vec::new() };
        [Example { decoder_inputs, ..Example::causal(&tokens(n, 0), &tokens(n, 1)) }]
    };
    [24, 17, 20, 5].map(example).into()
}

/// A step's sums and gradient, and the bytes of its activations.
pub fn step(model: &dyn Model, family: &str, params: &Params, how: &str) -> (LossSums, Vec<f32>, usize) {
    let options = LossOptions {
        dropout: 0.2,
        recompute_activations: how == "recompute",
        activations_dtype: if how == "bf16" { Dtype::Bf16 } else { Dtype::F32 },
        ..LossOptions::plain(0.01)
    };
    let mut stepper = Stepper::new(model);
    let sums = stepper.accumulate(params, &batch(family), options, DropoutSeed { run: 5, first_example: 9 });
    let gradient = stepper.gradient().to_vec();
    (sums, gradient, stepper.n_bytes().0)
}
