//! Where a grammar lets few tokens come next, only their rows of the head are computed: the text is the one of all logits.

mod aligned;
mod marked;

use aligned::Aligned;
use marked::texts_are_the_same;
use siskin_runtime::grammar::{Grammar, layout};
use siskin_runtime::{Kernels, PackedModel, TokenId, Tokenizer};

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

#[test]
fn where_few_tokens_may_come_the_others_are_not_computed_and_the_text_is_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
    let file = Aligned::new(&std::fs::read(path).expect("the golden model"));
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let tokenizer = model.tokenizer().expect("its tokenizer");
    let section = Aligned::new(&section(&tokenizer));
    let grammar = Grammar::parse(section.bytes(), &tokenizer).expect("a sound section");
    let mut arenas = [(); 2].map(|()| Aligned::new(&vec![0xa5; model.memory_plan().arena_bytes]));
    for kernels in Kernels::available() {
        let arenas = arenas.each_mut().map(Aligned::bytes_mut);
        let steps = texts_are_the_same(&model, grammar, kernels, arenas, 60);
        assert!(steps.narrow > 100 && steps.wide > 3, "{steps:?}");
    }
}
