//! The figures of `eval` against sources whose answers are known by hand.

use siskin_compiler::artifact::Checkpoint;
use siskin_compiler::eval::{EncodedText, EvalError, LogitsSource, compare, evaluate};
use siskin_compiler::reference::ReferenceModel;
use siskin_runtime::{ModelConfig, TokenId};

/// Gives the same distribution everywhere, and notes the windows it was asked for.
struct Fixed {
    logits: Vec<f32>,
    context_len: usize,
    windows: Vec<Vec<TokenId>>,
}

impl Fixed {
    fn new(probabilities: &[f64]) -> Self {
        let logits = probabilities.iter().map(|p| p.ln() as f32 + 3.0).collect();
        Self { logits, context_len: 4, windows: Vec::new() }
    }
}

impl LogitsSource for Fixed {
    fn vocab_size(&self) -> usize {
        self.logits.len()
    }

    fn context_len(&self) -> usize {
        self.context_len
    }

    fn start_window(&mut self, tokens: &[TokenId]) -> Result<(), EvalError> {
        EvalError::check_window(tokens, self.vocab_size(), self.context_len)?;
        self.windows.push(tokens.to_vec());
        Ok(())
    }

    fn next_logits(&mut self) -> Result<&[f32], EvalError> {
        Ok(&self.logits)
    }
}

fn text(tokens: &[TokenId]) -> EncodedText<'_> {
    EncodedText { tokens, n_bytes: 20 }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

#[test]
fn each_token_but_the_first_is_predicted_once() {
    let mut source = Fixed::new(&[0.5, 0.25, 0.25]);
    let tokens = [2, 0, 0, 1, 0, 2, 0, 0, 1, 1];
    let mut heard = Vec::new();
    let score = evaluate(&mut source, text(&tokens), 4, &mut |n_done| heard.push(n_done)).unwrap();
    assert_eq!(source.windows, [vec![2, 0, 0, 1], vec![0, 2, 0, 0], vec![1]]);
    assert_eq!((score.n_tokens, score.n_bytes), (9, 20));
    // Five tokens of one bit, four of two.
    assert!(close(score.bits_per_byte(), 13.0 / 20.0));
    assert!(close(score.perplexity(), 2f64.powf(13.0 / 9.0)));
    assert_eq!(heard, (1..=9).collect::<Vec<_>>());
}

#[test]
fn divergence_is_that_of_the_definition() {
    let mut p = Fixed::new(&[0.5, 0.25, 0.25]);
    let mut q = Fixed::new(&[0.25, 0.5, 0.25]);
    let comparison = compare(&mut p, &mut q, text(&[0, 1, 1, 1, 2, 0]), 4, &mut |_| {}).unwrap();
    assert!(close(comparison.mean_kl_nats, 0.25 * 2f64.ln()));
    assert_eq!(comparison.same_top_share, 0.0);
    assert_eq!(comparison.other.n_tokens, 5);
    assert!(close(comparison.reference.total_nats, 9.0 * 2f64.ln()));
    assert!(close(comparison.other.total_nats, 7.0 * 2f64.ln()));
    assert!(close(comparison.perplexity_increase(), 2f64.powf(-2.0 / 5.0) - 1.0));
    let same = compare(&mut Fixed::new(&[0.7, 0.3]), &mut Fixed::new(&[0.7, 0.3]), text(&[0, 1]), 1, &mut |_| {});
    let same = same.unwrap();
    assert!(close(same.mean_kl_nats, 0.0) && same.same_top_share == 1.0 && same.perplexity_increase() == 0.0);
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    let error = |tokens: &[TokenId], window_len| {
        evaluate(&mut Fixed::new(&[0.5, 0.5]), text(tokens), window_len, &mut |_| {}).unwrap_err()
    };
    assert!(matches!(error(&[0], 4), EvalError::TextTooShort { n_tokens: 1 }));
    assert!(matches!(error(&[0, 1], 5), EvalError::WindowLen { window_len: 5, context_len: 4 }));
    assert!(matches!(error(&[0, 1], 0), EvalError::WindowLen { .. }));
    assert!(matches!(error(&[0, 1, 2], 4), EvalError::TokenOutOfRange { token: 2, position: 2, vocab_size: 2 }));
    let mut broken = Fixed { logits: vec![0.0, f32::NAN], ..Fixed::new(&[0.5, 0.5]) };
    let failed = evaluate(&mut broken, text(&[0, 0, 0]), 4, &mut |_| {});
    assert!(matches!(failed, Err(EvalError::NotFinite { token_idx: 0 })));
    let failed = compare(&mut Fixed::new(&[1.0]), &mut Fixed::new(&[0.5, 0.5]), text(&[0, 0]), 4, &mut |_| {});
    assert!(matches!(failed, Err(EvalError::VocabSizes { reference: 1, other: 2 })));
}

fn checkpoint() -> Checkpoint {
    let config = ModelConfig {
        dim: 48,
        hidden_dim: 80,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 12,
        vocab_size: 600,
        context_len: 300,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        tied_head: false,
        parts: siskin_runtime::Parts::LLAMA,
    };
    Checkpoint::random(config, 5).unwrap()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let checkpoint = checkpoint();
    let tokens: Vec<TokenId> = (0..300).map(|idx| idx * 37 % 600).collect();
    let logits = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| ReferenceModel::new(&checkpoint).logits(&tokens).unwrap())
    };
    assert!(logits(1) == logits(3));
}

/// A token's logits depend on what came before, and on nothing after; a window that was read is over.
#[test]
fn the_reference_is_causal() {
    let checkpoint = checkpoint();
    let tokens: Vec<TokenId> = (0..100).map(|idx| idx * 31 % 600).collect();
    let mut model = ReferenceModel::new(&checkpoint);
    let whole = model.logits(&tokens).unwrap();
    assert!(matches!(model.next_logits(), Err(EvalError::WindowEnded)));
    let start = model.logits(&tokens[..70]).unwrap();
    for (a, b) in start.iter().zip(&whole) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let mut changed = tokens.clone();
    changed[0] = 599;
    let changed = model.logits(&changed).unwrap();
    let last_row = 99 * 600..;
    assert!(changed[last_row.clone()] != whole[last_row]);
    assert!(matches!(model.logits(&[]), Err(EvalError::WindowLen { .. })));
    assert!(matches!(model.logits(&[600]), Err(EvalError::TokenOutOfRange { .. })));
}
