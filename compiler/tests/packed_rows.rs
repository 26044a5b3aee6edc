//! Sequences that are run together: each is told as it is alone.

use siskin_compiler::data::{Example, IGNORED};
use siskin_compiler::model::{self, Architecture, Family, Kind, LossOptions};
use siskin_compiler::recipe::Recipe;
use siskin_compiler::tensor::Tape;
use siskin_compiler::train::step::{DropoutSeed, Stepper};
use siskin_runtime::TokenId;
use std::path::Path;

const CONTEXT_LEN: usize = 24;

fn architecture(family: Family) -> Architecture {
    let objective = match family.kind() {
        Kind::EncoderOnly => "masked",
        Kind::EncoderDecoder => "span_corruption",
        Kind::DecoderOnly => "causal",
    };
    let text = format!(
        "\
model = {{ architecture = '{}', dim = 16, hidden_dim = 24, n_layers = 2, n_heads = 4, n_kv_heads = 2, context_len = {CONTEXT_LEN} }}
tokenizer = {{ vocab_size = 300 }}
data = {{ text = 'none' }}
objective = {{ kind = '{objective}' }}
train = {{ steps = 1, batch_size = 1 }}
optimizer = {{ learning_rate = 1e-2 }}
",
        family.name()
    );
    Recipe::parse(&text, &[], Path::new("recipe.toml")).unwrap().architecture(2)
}

/// Sequences of different lengths that fill a row.
fn row(family: Family) -> Vec<Example> {
    let tokens =
        |n: usize, salt: usize| (0..n).map(|i| ((i * 37 + salt * 53) % 300) as TokenId).collect::<Vec<TokenId>>();
    let example = |(salt, n): (usize, usize)| {
        let (decoder_inputs, n_targets) = match family.kind() {
            Kind::EncoderDecoder => (tokens(n / 2 + 1, salt + 9), n / 2 + 1),
            _ => (Vec::new(), n),
        };
        let mut targets = tokens(n_targets, salt + 20);
        targets[0] = IGNORED;
        Example { inputs: tokens(n, salt), prefix_len: 0, decoder_inputs, targets }
    };
    [7, 1, 10, 6].into_iter().enumerate().map(example).collect()
}

#[test]
fn logits_of_a_packed_document_are_those_of_the_document_alone() {
    for family in Family::ALL {
        let model = model::build(&architecture(family)).unwrap();
        let params = model.init(5);
        let row = row(family);
        let logits = |examples: &[Example]| {
            let mut tape = Tape::default();
            let mut graph = tape.evaluate(&params);
            let logits = model.logits(&mut graph, examples);
            graph.value(logits).to_vec()
        };
        let alone: Vec<f32> = row.iter().flat_map(|example| logits(std::slice::from_ref(example))).collect();
        let together = logits(&row);
        assert_eq!(together.len(), alone.len(), "{}", family.name());
        for (i, (a, b)) in together.iter().zip(&alone).enumerate() {
            assert!((a - b).abs() <= 2e-6 * b.abs().max(1.0), "{}, logit {i}: {a} packed, {b} alone", family.name());
        }
        // In another row, and elsewhere in it, nothing changes either.
        let mut other = row.clone();
        other.rotate_left(1);
        other[0].inputs = vec![9; 3];
        let own = &together[..row[0].targets.len() * 300];
        let moved = logits(&other);
        let moved = &moved[moved.len() - own.len()..];
        assert!(moved.iter().zip(own).all(|(a, b)| (a - b).abs() <= 2e-6 * b.abs().max(1.0)), "{}", family.name());
    }
}

#[test]
fn a_rows_loss_and_gradient_are_the_sum_of_its_examples() {
    for family in Family::ALL {
        let model = model::build(&architecture(family)).unwrap();
        let params = model.init(5);
        let row = row(family);
        let mut packed = Stepper::new(&*model);
        let sums =
            packed.accumulate(&params, std::slice::from_ref(&row), LossOptions::plain(1.0), DropoutSeed::default());
        let mut apart = Stepper::new(&*model);
        let expected = apart.accumulate(&params, &row, LossOptions::plain(1.0), DropoutSeed::default());
        assert_eq!((sums.n_targets, sums.n_correct), (expected.n_targets, expected.n_correct));
        assert!((sums.nats / expected.nats - 1.0).abs() < 1e-5, "{}", family.name());
        let (packed, apart) = (packed.gradient(), apart.gradient());
        let norm = apart.iter().map(|g| g * g).sum::<f32>().sqrt();
        let difference = packed.iter().zip(apart).map(|(a, b)| (*a - *b) * (*a - *b)).sum::<f32>().sqrt();
        assert!(norm > 0.0 && difference < 1e-5 * norm, "{}: {difference} of {norm}", family.name());
    }
}

/// Nothing to tell, which a short masked document may have: no loss, and no gradient.
#[test]
fn a_row_without_targets_is_harmless() {
    for family in Family::ALL {
        let model = model::build(&architecture(family)).unwrap();
        let params = model.init(5);
        let mut row = row(family);
        row.iter_mut().for_each(|example| example.targets.fill(IGNORED));
        let mut stepper = Stepper::new(&*model);
        let sums = stepper.accumulate(&params, &[row], LossOptions::plain(1.0), DropoutSeed::default());
        assert_eq!((sums.n_targets, sums.nats), (0, 0.0), "{}", family.name());
        assert!(stepper.gradient().iter().all(|g| *g == 0.0), "{}", family.name());
    }
}
