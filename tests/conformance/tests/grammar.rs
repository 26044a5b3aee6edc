//! Where a grammar lets few tokens come next, only their rows of the head are computed: the text is the one of all logits.

mod aligned;

use aligned::Aligned;
use siskin_runtime::grammar::{Grammar, GrammarState, layout};
use siskin_runtime::sampler::{Advance, Constraint};
use siskin_runtime::{
    Generation, Kernels, Limits, PackedModel, Sampler, Sampling, Session, StopMatcher, TokenId, Tokenizer,
};

/// The section of `("(" [a-z ] ")" [0-9]*)+` for a vocabulary.
fn section(tokenizer: &Tokenizer<'_>) -> Vec<u8> {
    let ids = 0..tokenizer.vocab_size() as TokenId;
    let is_text = |&id: &TokenId| !tokenizer.piece(id).is_empty() && !tokenizer.is_control(id);
    let mut texts: Vec<TokenId> = ids.clone().filter(is_text).collect();
    texts.sort_by_key(|&id| tokenizer.piece(id));
    let tokens: Vec<TokenId> = texts.iter().copied().chain(ids.filter(|id| !is_text(id))).collect();
    // The start, in brackets, behind them, before the closing one.
    let edges: [(u8, u8, u16); 6] =
        [(b'(', b'(', 1), (b' ', b' ', 3), (b'a', b'z', 3), (b'(', b'(', 1), (b'0', b'9', 2), (b')', b')', 2)];
    let (distances, edge_starts) = ([3u16, 2, 0, 1], [0u16, 1, 3, 5, 6]);
    let mut bytes = layout::MAGIC.to_vec();
    let counts =
        [layout::VERSION, 0, distances.len() as u32, edges.len() as u32, 0, tokens.len() as u32, texts.len() as u32];
    bytes.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
    bytes.extend(tokens.iter().flat_map(|&id| (id as u16).to_le_bytes()));
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    for (low, high, target) in edges {
        bytes.extend([low, high, target as u8, 0]);
    }
    bytes.extend(distances.iter().chain(&edge_starts).flat_map(|number| number.to_le_bytes()));
    bytes.extend([0; 4]);
    let mut before: &[u8] = &[];
    for &id in &texts {
        let piece = tokenizer.piece(id);
        bytes.push(piece.iter().zip(before).take_while(|(a, b)| a == b).count().min(255) as u8);
        before = piece;
    }
    bytes
}

/// The same grammar, asked after all logits are computed.
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

#[test]
fn where_few_tokens_may_come_the_others_are_not_computed_and_the_text_is_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
    let file = Aligned::new(&std::fs::read(path).expect("the golden model"));
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let tokenizer = model.tokenizer().expect("its tokenizer");
    let section = Aligned::new(&section(&tokenizer));
    let grammar = Grammar::parse(section.bytes(), &tokenizer).expect("a sound section");
    let eos = tokenizer.eos();
    let limits = Limits { max_new_tokens: 60, end_tokens: eos.as_slice(), slide_to: None };
    let mut arenas = [(); 2].map(|()| Aligned::new(&vec![0xa5; model.memory_plan().arena_bytes]));
    for kernels in Kernels::available() {
        let (mut n_narrow, mut n_wide) = (0, 0);
        for seed in 0..6 {
            let sampling =
                if seed % 3 == 0 { Sampling::greedy() } else { Sampling::random(1.5).expect("a temperature") };
            let [mut marked, mut whole] = arenas
                .each_mut()
                .map(|arena| Session::new(&model, arena.bytes_mut(), kernels).expect("room in the arena"));
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
                *(if n_left_out > 0 { &mut n_narrow } else { &mut n_wide }) += 1;
                assert!(n_left_out == 0 || n_left_out * 8 >= tokenizer.vocab_size() * 7, "{n_left_out}");
                let is_same = |(a, b): (&f32, &f32)| *a == f32::NEG_INFINITY || a.to_bits() == b.to_bits();
                assert!(marked.logits().iter().zip(whole.logits()).all(is_same), "{} seed {seed}", kernels.name());
                assert_eq!(marked.draw(|_| {}), whole.draw(|_| {}), "{} seed {seed}", kernels.name());
            }
            assert!(!whole.compute(|_| {}));
            assert_eq!(marked.end(), whole.end());
        }
        assert!(n_narrow > 100 && n_wide > 3, "{n_narrow} {n_wide}");
    }
}
