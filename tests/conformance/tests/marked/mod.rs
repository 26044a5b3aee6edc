//! The same text twice: once with only the rows of the head that its grammar lets come, once with all logits.

use siskin_runtime::grammar::{Grammar, GrammarState};
use siskin_runtime::sampler::{Advance, Constraint};
use siskin_runtime::{Generation, Kernels, Limits, PackedModel, Sampler, Sampling, Session, StopMatcher, TokenId};

/// A grammar that is asked after all logits are computed.
struct Unmarked<'m>(GrammarState<'m>);

impl Constraint for Unmarked<'_> {
    fn tokens_missing(&self) -> usize {
        self.0.tokens_missing()
    }

    fn allows(&self, token: TokenId, n_left: usize) -> bool {
        self.0.allows(token, n_left)
    }

    fn restrict(&self, logits: &mut [f32], n_left: usize) {
        self.0.restrict(logits, n_left);
    }

    fn advance(&mut self, token: TokenId, n_left: usize) -> Advance {
        self.0.advance(token, n_left)
    }
}

/// Steps of some texts: those where rows were left out, and those where none was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    pub narrow: usize,
    pub wide: usize,
}

/// Draws six texts both ways, in an arena each: every logit that was computed and every token are the same.
pub fn texts_are_the_same(
    model: &PackedModel<'_>,
    grammar: Grammar<'_>,
    kernels: Kernels,
    arenas: [&mut [u8]; 2],
    max_new_tokens: usize,
) -> Steps {
    let [marked_arena, whole_arena] = arenas;
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let eos = tokenizer.eos();
    let limits = Limits { max_new_tokens, end_tokens: eos.as_slice(), slide_to: None };
    let mut steps = Steps::default();
    for seed in 0..6 {
        let sampling = if seed % 3 == 0 { Sampling::greedy() } else { Sampling::random(1.5).expect("a temperature") };
        let [mut marked, mut whole] = [&mut *marked_arena, &mut *whole_arena]
            .map(|arena| Session::new(model, arena, kernels).expect("room in the arena"));
        let state = || GrammarState::new(grammar, tokenizer, eos.as_slice());
        let stops = || StopMatcher::new(&[]).expect("no stops");
        let sampler = || Sampler::new(sampling, seed);
        let mut marked = Generation::new(&mut marked, Some(tokenizer), sampler(), stops(), limits).within(state());
        let mut whole =
            Generation::new(&mut whole, Some(tokenizer), sampler(), stops(), limits).within(Unmarked(state()));
        let prompt = [1, 40 + seed as TokenId, 60];
        marked.read(&prompt).and_then(|()| whole.read(&prompt)).expect("room for the prompt");
        while marked.compute(|_| {}) {
            assert!(whole.compute(|_| {}));
            let n_left_out = marked.logits().iter().filter(|&&logit| logit == f32::NEG_INFINITY).count();
            *(if n_left_out > 0 { &mut steps.narrow } else { &mut steps.wide }) += 1;
            assert!(n_left_out == 0 || n_left_out * 8 >= tokenizer.vocab_size() * 7, "{n_left_out}");
            let is_same = |(a, b): (&f32, &f32)| *a == f32::NEG_INFINITY || a.to_bits() == b.to_bits();
            assert!(marked.logits().iter().zip(whole.logits()).all(is_same), "{} seed {seed}", kernels.name());
            assert_eq!(marked.draw(|_| {}), whole.draw(|_| {}), "{} seed {seed}", kernels.name());
        }
        assert!(!whole.compute(|_| {}));
        assert_eq!(marked.end(), whole.end());
    }
    steps
}
