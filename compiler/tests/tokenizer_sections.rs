//! Tokenizer and chat sections under damage: whatever the bytes, an error or a tokenizer that works, never a panic.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_compiler::tokenizer::{ByteLevelTraining, ChatTemplate, MergeRule, Scheme, SpecialToken, TokenizerDef};
use siskin_runtime::tokenizer::{ChatPrompt, EncodeError, PreTokenizer, SpacePrefix, TextStream, Tokenizer, layout};

const N_MUTATIONS: usize = 10_000;
const TEXT: &str = "It's <s>caf\u{e9} 1234\n\n\u{4f60}\u{597d} the the  the</s> \u{1f600} to be or not to be";

fn byte_level() -> TokenizerDef {
    let text = "to be or not to be that is the question the slings and arrows of outrageous fortune ".repeat(4);
    TokenizerDef::train_byte_level(&[&text], &ByteLevelTraining::new(300)).unwrap()
}

/// A small SentencePiece vocabulary: bytes, a few characters, and words made of them.
fn sentencepiece() -> TokenizerDef {
    let mut pieces: Vec<Vec<u8>> = vec![b"<unk>".to_vec(), b"<s>".to_vec(), b"</s>".to_vec()];
    pieces.extend((0..=255).map(|byte| vec![byte]));
    let chars: Vec<(char, u32)> = " tobeh".chars().zip(259..).collect();
    pieces.extend(chars.iter().map(|(c, _)| c.to_string().into_bytes()));
    let mut merges = Vec::new();
    for (left, right) in [(260, 261), (259, 265), (262, 263), (259, 267), (260, 264), (269, 263), (259, 270)] {
        let (rank, result) = (merges.len() as u32, pieces.len() as u32);
        pieces.push([&pieces[left as usize][..], &pieces[right as usize]].concat());
        merges.push(MergeRule { rank, left, right, result });
    }
    TokenizerDef {
        scheme: Scheme::SentencePiece {
            space_prefix: SpacePrefix { at_start: true, after_special: true, once: false },
            chars,
        },
        pieces,
        merges,
        byte_tokens: (3..259).map(Some).collect(),
        specials: (0..3).map(|id| SpecialToken { id, control: true }).collect(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        add_bos: true,
    }
}

/// Uses everything a tokenizer offers.
fn use_all(tokenizer: &Tokenizer<'_>) {
    let mut out = vec![0; tokenizer.max_tokens(TEXT.len())];
    let n = tokenizer.encode(TEXT, &mut out).expect("the buffer is large enough");
    assert!(out[..n].iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    let mut stream = TextStream::at_start(tokenizer);
    for id in out[..n].iter().copied().chain([u32::MAX, tokenizer.vocab_size() as u32]) {
        stream.push(tokenizer.piece(id), |_| ());
        tokenizer.is_control(id);
        tokenizer.merge(id, id);
    }
    stream.finish(|_| ());
    assert_eq!(tokenizer.encode(TEXT, &mut out[..3]), Err(EncodeError { given_tokens: 3 }));
}

/// Damages `section` in a few places, or cuts it, or makes it longer.
fn mutate(section: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = section.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let header = rng.random_range(0..3) == 0;
        let at = rng.random_range(0..if header { layout::HEADER_BYTES.min(bytes.len()) } else { bytes.len() });
        bytes[at] = match rng.random_range(0..4) {
            0 => 0,
            1 => 0xff,
            2 => bytes[at].wrapping_add(1),
            _ => rng.random_range(0..=255),
        };
    }
    match rng.random_range(0..8) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => bytes.push(0),
        _ => {}
    }
    bytes
}

#[test]
fn damaged_tokenizer_sections_are_refused_or_work() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for definition in [byte_level(), sentencepiece()] {
        let compiled = definition.compile().unwrap();
        use_all(&compiled.view());
        let mut n_refused = 0;
        for _ in 0..N_MUTATIONS {
            match Tokenizer::parse(&mutate(compiled.section(), &mut rng)) {
                Ok(tokenizer) => use_all(&tokenizer),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    n_refused += 1;
                }
            }
        }
        assert!(n_refused > N_MUTATIONS / 2, "{n_refused}");
        for n_bytes in 0..compiled.section().len() {
            assert!(Tokenizer::parse(&compiled.section()[..n_bytes]).is_err(), "{n_bytes}");
        }
    }
}

#[test]
fn damaged_chat_sections_are_refused_or_work() {
    let source = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>";
    let section = ChatTemplate::new(source, "\u{bf}", "").unwrap().reduce(Some("\u{e9}")).unwrap().section();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for _ in 0..N_MUTATIONS {
        let bytes = mutate(&section, &mut rng);
        let Ok(prompt) = ChatPrompt::parse(&bytes) else { continue };
        let mut buffer = vec![0; prompt.max_bytes(TEXT.len())];
        assert!(prompt.first(TEXT, &mut buffer).is_ok() && prompt.next(TEXT, &mut buffer).is_ok());
        assert!(prompt.first(TEXT, &mut buffer[..5]).is_err());
    }
}

#[test]
fn sentencepiece_merges_words_and_falls_back_to_bytes() {
    let compiled = sentencepiece().compile().unwrap();
    let tokenizer = compiled.view();
    assert!(tokenizer.splits_words());
    let mut out = [0; 40];
    let n = tokenizer.encode("to be\u{2581}\u{e9}</s>to", &mut out).unwrap();
    assert_eq!(out[..n], [1, 266, 268, 259, 3 + 0xc3, 3 + 0xa9, 2, 266]);
    assert_eq!(siskin_compiler::tokenizer::decode(&tokenizer, &out[..n]), "to be \u{e9} to");
}

#[test]
fn a_buffer_that_holds_the_text_but_not_its_bytes_is_an_error() {
    let compiled = byte_level().compile().unwrap();
    let tokenizer = compiled.view();
    let text = "x".repeat(100);
    assert_eq!(tokenizer.encode(&text, &mut [0; 99]), Err(EncodeError { given_tokens: 99 }));
    assert_eq!(tokenizer.encode(&text, &mut [0; 100]), Ok(100));
    assert_eq!(tokenizer.encode("", &mut []), Ok(0));
}

/// Equal ranks and a rank that a merge brings below its own: the order must be that of a queue over (rank, position).
#[test]
fn merges_follow_rank_then_position_whatever_the_vocabulary() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for _ in 0..300 {
        let mut definition = byte_level();
        let Scheme::ByteLevel { pre_tokenizer } = &mut definition.scheme else { unreachable!() };
        *pre_tokenizer = PreTokenizer::None;
        for rule in &mut definition.merges {
            rule.rank = rng.random_range(0..12);
        }
        let compiled = definition.compile().unwrap();
        let tokenizer = compiled.view();
        let text = "that is the question the slings ".repeat(3);
        let mut out = vec![0; text.len()];
        let n = tokenizer.encode(&text, &mut out).unwrap();
        assert_eq!(out[..n], merge_one_by_one(&definition, &text), "ranks of {:?}", definition.merges);
    }
}

/// The definition of byte-pair encoding: again and again the first of the pairs of lowest rank.
fn merge_one_by_one(definition: &TokenizerDef, text: &str) -> Vec<u32> {
    let mut tokens: Vec<u32> = text.bytes().map(|byte| definition.byte_tokens[usize::from(byte)].unwrap()).collect();
    let rule_at = |tokens: &[u32], at: usize| {
        definition.merges.iter().find(|rule| (rule.left, rule.right) == (tokens[at], tokens[at + 1])).copied()
    };
    while let Some((at, rule)) = (0..tokens.len() - 1)
        .filter_map(|at| Some((at, rule_at(&tokens, at)?)))
        .min_by_key(|(at, rule)| (rule.rank, *at))
    {
        tokens.splice(at..at + 2, [rule.result]);
    }
    tokens
}
