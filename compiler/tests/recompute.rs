//! Activations computed twice: the same gradients in less memory.

use siskin_compiler::data::Example;
use siskin_compiler::model::{self, Head, LossOptions, LossSums, Model};
use siskin_compiler::recipe::ModelSection;
use siskin_compiler::train::step::{DropoutSeed, Stepper};

const VOCAB: usize = 128;

fn model(family: &str, n_layers: usize) -> Box<dyn Model> {
    let section: ModelSection = toml::from_str(&format!(
        "architecture = \"{family}\"\ndim = 32\nhidden_dim = 64\nn_layers = {n_layers}\nn_heads = 4\ncontext_len = 64"
    ))
    .unwrap();
    let head = if matches!(family, "bert" | "albert") { Head::MaskedLanguage } else { Head::Language };
    model::build(&section.architecture(VOCAB, head)).unwrap()
}

fn batch(family: &str) -> Vec<[Example; 1]> {
    let tokens = |n: usize, salt: usize| (0..n).map(|i| ((i * i * 7 + salt * 5) % VOCAB) as u32).collect::<Vec<u32>>();
    let example = |n: usize| {
        let decoder_inputs = if matches!(family, "t5" | "transformer") { tokens(n, 3) } else { Vec::new() };
        [Example { decoder_inputs, ..Example::causal(&tokens(n, 0), &tokens(n, 1)) }]
    };
    [64, 17, 40, 5].map(example).into()
}

/// A step's sums and gradient, and the bytes of its activations.
fn step(model: &dyn Model, family: &str, recompute_activations: bool) -> (LossSums, Vec<f32>, usize) {
    let params = model.init(3);
    let options = LossOptions { dropout: 0.2, recompute_activations, ..LossOptions::plain(0.01) };
    let mut stepper = Stepper::new(model);
    let seed = DropoutSeed { run: 5, first_example: 9 };
    let sums = stepper.accumulate(&params, &batch(family), options, seed);
    let gradient = stepper.gradient().to_vec();
    (sums, gradient, stepper.n_bytes().0)
}

#[test]
fn gradients_are_the_same_bits_where_sums_keep_their_order() {
    for family in ["llama", "gpt2", "bert", "albert"] {
        let model = model(family, 3);
        let (want, got) = (step(&*model, family, false), step(&*model, family, true));
        assert_eq!(want.0, got.0, "{family}");
        assert!(want.1 == got.1, "{family}: gradients differ");
    }
}

#[test]
fn gradients_are_the_same_to_rounding_across_encoder_and_decoder() {
    for family in ["t5", "transformer"] {
        let model = model(family, 3);
        let (want, got) = (step(&*model, family, false), step(&*model, family, true));
        assert_eq!(want.0, got.0, "{family}");
        let largest = want.1.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let off = want.1.iter().zip(&got.1).fold(0.0_f32, |off, (a, b)| off.max((a - b).abs()));
        assert!(off < 1e-6 * largest, "{family}: off by {off} of {largest}");
    }
}

#[test]
fn deep_models_need_a_fraction_of_the_memory() {
    let model = model("llama", 12);
    let (kept, recomputed) = (step(&*model, "llama", false).2, step(&*model, "llama", true).2);
    assert!(recomputed * 4 < kept, "{recomputed} bytes instead of {kept}");
}
