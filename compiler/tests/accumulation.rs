//! Gradients of a step are those of its targets, however the step is cut: one batch, several, or one example at a time.

use proptest::prelude::*;
use siskin_compiler::data::{Example, IGNORED};
use siskin_compiler::model::{self, Head, LossOptions, Model};
use siskin_compiler::recipe::ModelSection;
use siskin_compiler::train::step::{DropoutSeed, Stepper};

const VOCAB: u32 = 19;
const CONTEXT_LEN: usize = 12;

fn model(family: &str) -> Box<dyn Model> {
    let sizes = if family == "gru" { "" } else { "hidden_dim = 20\nn_heads = 2\n" };
    let section: ModelSection = toml::from_str(&format!(
        "architecture = '{family}'\ndim = 12\nn_layers = 1\ncontext_len = {CONTEXT_LEN}\n{sizes}"
    ))
    .unwrap();
    let head = if family == "bert" { Head::MaskedLanguage } else { Head::Language };
    model::build(&section.architecture(VOCAB as usize, head)).unwrap()
}

/// Ragged sequences, part of whose targets are not trained on; the first target of the first example always is.
fn examples(has_decoder: bool) -> impl Strategy<Value = Vec<Example>> {
    let tokens = |len| prop::collection::vec(0..VOCAB, len);
    let targets = |len| prop::collection::vec(prop_oneof![3 => 0..VOCAB, 1 => Just(IGNORED)], len);
    let example = (1..=CONTEXT_LEN, 1..=CONTEXT_LEN).prop_flat_map(move |(n_inputs, n_outputs)| {
        let (n_decoder, n_targets) = if has_decoder { (n_outputs, n_outputs) } else { (0, n_inputs) };
        (tokens(n_inputs), tokens(n_decoder), targets(n_targets))
            .prop_map(|(inputs, decoder_inputs, targets)| Example { inputs, prefix_len: 0, decoder_inputs, targets })
    });
    prop::collection::vec(example, 32).prop_map(|mut examples| {
        examples[0].targets[0] = 3;
        examples
    })
}

/// The step's summed loss in nats and its gradient, accumulated over batches of `batch_size`.
fn step(model: &dyn Model, examples: &[Example], batch_size: usize) -> (f64, Vec<f32>) {
    let params = model.init(7);
    let n_targets = examples.iter().map(Example::n_targets).sum::<usize>();
    let mut stepper = Stepper::new(model);
    stepper.clear();
    let options = LossOptions::plain(1.0 / n_targets as f32);
    let nats = examples
        .chunks(batch_size)
        .map(|batch| stepper.accumulate(&params, batch, options, DropoutSeed::default()).nats)
        .sum();
    (nats, stepper.gradient().to_vec())
}

fn check(family: &str, examples: &[Example]) -> Result<(), TestCaseError> {
    let model = model(family);
    let (nats, gradient) = step(&*model, examples, 32);
    let scale = gradient.iter().fold(0_f32, |max, value| max.max(value.abs()));
    prop_assert!(scale > 0.0);
    for batch_size in [8, 1, 5] {
        let (other_nats, other) = step(&*model, examples, batch_size);
        prop_assert!((nats - other_nats).abs() <= 1e-6 * nats, "{family}: {nats} and {other_nats} nats");
        for (i, (a, b)) in gradient.iter().zip(&other).enumerate() {
            let bound = 4e-6 * scale;
            prop_assert!((a - b).abs() <= bound, "{family}, batches of {batch_size}, number {i}: {a} and {b}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_batch_or_many_give_the_same_step(plain in examples(false), pairs in examples(true)) {
        for family in ["llama", "bert", "gru"] {
            check(family, &plain)?;
        }
        check("t5", &pairs)?;
    }
}
