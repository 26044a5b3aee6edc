//! Steps of training: forward, backward and AdamW, in `f32`.

use std::time::Instant;

use anyhow::{Context as _, Result};
use siskin_compiler::data::Example;
use siskin_compiler::model::{self, Head, LossOptions};
use siskin_compiler::recipe::{ModelSection, OptimizerSection};
use siskin_compiler::train::optimizer::Optimizer;
use siskin_compiler::train::step::{DropoutSeed, Stepper};

/// As every contestant has it.
const OPTIMIZER: &str = "learning_rate = 1e-3\nbeta1 = 0.9\nbeta2 = 0.95\nweight_decay = 0.1";
/// Steps before the clock starts: memory is taken and the learning begins.
const WARM_UP: usize = 2;

/// Answers with the last loss in nats a target, then the seconds of each step.
pub fn run(family: &str, numbers: &[&str]) -> Result<()> {
    let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, batch_size, context_len] = numbers[..] else {
        anyhow::bail!("expected eight numbers after the family");
    };
    let section: ModelSection = toml::from_str(&format!(
        "architecture = \"{family}\"\ndim = {dim}\nhidden_dim = {hidden_dim}\nn_layers = {n_layers}\nn_heads = {n_heads}\n\
         n_kv_heads = {n_kv_heads}\ncontext_len = {context_len}"
    ))
    .context("not a model")?;
    let rule: OptimizerSection = toml::from_str(OPTIMIZER)?;
    let model = model::build(&section.architecture(vocab_size, Head::Language))?;
    let mut params = model.init(1);
    let mut optimizer = Optimizer::new(&rule, model.layout())?;
    let batch: Vec<Example> = (0..batch_size).map(|idx| example(idx, context_len, vocab_size)).collect();
    let options = LossOptions::plain(1.0 / (batch_size * context_len) as f32);
    let mut stepper = Stepper::new(&*model);
    let n_params = params.values.len();
    let mut n_steps = 0;
    let mut step = || {
        stepper.clear();
        let sums = stepper.accumulate(&params, &batch, options, DropoutSeed::default());
        optimizer.update(&mut params, stepper.gradient(), 1.0, rule.learning_rate, n_steps);
        n_steps += 1;
        sums.nats / sums.n_targets as f64
    };
    (0..WARM_UP).for_each(|_| {
        step();
    });
    crate::serve(&format!("{n_params}"), |n| {
        let mut loss = 0.0;
        let mut seconds = Vec::with_capacity(n + 1);
        for _ in 0..n {
            let start = Instant::now();
            loss = step();
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.insert(0, loss);
        seconds
    })
}

/// Tokens that repeat from step to step but follow no rule: the loss falls as they are learned by heart.
fn example(idx: usize, context_len: usize, vocab_size: usize) -> Example {
    let token = |place: usize| {
        let mixed = ((idx * context_len + place + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 33) % vocab_size as u64) as u32
    };
    let tokens: Vec<u32> = (0..=context_len).map(token).collect();
    Example::causal(&tokens[..context_len], &tokens[1..])
}
