//! WordPiece against Hugging Face's `tokenizers`: Python's by the golden file that `tests/oracles/word_piece.py` wrote, the crate's on
//! more texts, and with all-MiniLM's own vocabulary where `cargo xtask data` has fetched it.

mod varied_texts;

use serde::Deserialize;
use serde_json::Value;
use siskin_compiler::tokenizer::{CorpusEncoder, TokenizerDef, decode};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    tokenizers: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Recorded {
    tokenizer: Value,
    ids: Vec<Vec<TokenId>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/word_piece.json")).unwrap()
}

/// A text's tokens between those that frame it, with the runtime and with the corpus encoder, which must agree.
fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<TokenId> {
    let mut ids = vec![0; tokenizer.max_tokens(text.len())];
    let n = tokenizer.encode(text, &mut ids).expect("the buffer is large enough");
    ids.truncate(n);
    assert_eq!(ids, CorpusEncoder::new(*tokenizer).encode(text), "{text:?}");
    tokenizer.bos().into_iter().chain(ids).chain(tokenizer.eos()).collect()
}

#[test]
fn ids_are_those_of_python_with_each_setting_of_the_normaliser() {
    let golden = golden();
    assert_eq!((golden.tokenizers.len(), golden.texts.len()), (5, 142));
    for recorded in golden.tokenizers {
        let definition = TokenizerDef::from_hugging_face(&recorded.tokenizer.to_string(), None).unwrap();
        let compiled = definition.compile().unwrap();
        for (text, ids) in golden.texts.iter().zip(&recorded.ids) {
            assert_eq!(encode(&compiled.view(), text), *ids, "{text:?} {}", recorded.tokenizer["normalizer"]);
        }
        println!("{} tokens in {} bytes", definition.vocab_size(), compiled.section().len());
        // What is exported is the same tokenizer.
        let exported = TokenizerDef::from_hugging_face(&definition.to_hugging_face().unwrap(), None).unwrap();
        assert!(exported == definition);
    }
}

/// Texts of many kinds; the same ids, and decoding gives the same words.
fn agrees_with_the_crate(json: &str, n_texts: usize) {
    let theirs = tokenizers::Tokenizer::from_bytes(json).unwrap();
    let compiled = TokenizerDef::from_hugging_face(json, None).unwrap().compile().unwrap();
    let ours = compiled.view();
    for text in varied_texts::generate(n_texts, &["[CLS]", "[SEP]", "[MASK]", "[UNK]"]) {
        let expected = theirs.encode_fast(text.as_str(), true).unwrap();
        let ids = encode(&ours, &text);
        assert_eq!(ids, expected.get_ids(), "{text:?}");
        let words = theirs.decode(&ids, true).unwrap();
        assert_eq!(decode(&ours, &ids), words, "{text:?}");
    }
}

/// The file without what would cut or fill up texts, or tidy what is decoded.
fn bare(mut file: Value) -> String {
    (file["truncation"], file["padding"]) = (Value::Null, Value::Null);
    file["decoder"] = serde_json::json!({ "type": "WordPiece", "prefix": "##", "cleanup": false });
    file.to_string()
}

#[test]
fn ids_are_those_of_the_crate_on_varied_texts() {
    for recorded in golden().tokenizers {
        agrees_with_the_crate(&bare(recorded.tokenizer), 200);
    }
}

#[test]
fn minilm_encodes_as_the_crate_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/data/minilm/tokenizer.json");
    let Ok(file) = std::fs::read(path) else { return println!("skipped: {path} is not there") };
    let json = bare(serde_json::from_slice(&file).unwrap());
    let compiled = TokenizerDef::from_hugging_face(&json, None).unwrap().compile().unwrap();
    println!("{} bytes", compiled.section().len());
    agrees_with_the_crate(&json, 1000);
}

#[test]
fn every_character_is_what_it_is_to_the_crate() {
    let golden = golden();
    for recorded in &golden.tokenizers[..2] {
        let json = bare(recorded.tokenizer.clone());
        let theirs = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        let compiled = TokenizerDef::from_hugging_face(&json, None).unwrap().compile().unwrap();
        let ours = compiled.view();
        // A seventh of them, in stretches shorter than most scripts.
        let characters: Vec<char> = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        for characters in characters.chunks(97).step_by(7) {
            let text: String = characters.iter().map(|c| format!("a{c}b {c}")).collect();
            assert_eq!(encode(&ours, &text), theirs.encode_fast(text.as_str(), true).unwrap().get_ids(), "{text:?}");
        }
    }
}

#[test]
fn damaged_sections_are_refused_or_harmless() {
    let recorded = &golden().tokenizers[0];
    let compiled = TokenizerDef::from_hugging_face(&recorded.tokenizer.to_string(), None).unwrap().compile().unwrap();
    let section = compiled.section();
    for n_bytes in (0..section.len()).step_by(7) {
        assert!(Tokenizer::parse(&section[..n_bytes]).is_err(), "{n_bytes} bytes");
    }
    let mut n_refused = 0;
    for at in 0..section.len() {
        let mut damaged = section.to_vec();
        damaged[at] ^= 1 << (at % 8);
        match Tokenizer::parse(&damaged) {
            Err(_) => n_refused += 1,
            Ok(tokenizer) => {
                let mut ids = [0; 64];
                let _ = tokenizer.encode("The sískin 안녕 豈 sings, sang [MASK].", &mut ids);
            }
        }
    }
    assert!(n_refused > section.len() / 4, "{n_refused} of {}", section.len());
    let mut with_merges = section.to_vec();
    with_merges[16] = 1;
    assert!(Tokenizer::parse(&with_merges).is_err());
}

#[test]
fn what_no_device_runs_is_refused() {
    let recorded = golden().tokenizers.swap_remove(0);
    let refused = |pointer: &str, value: Value, word: &str| {
        let mut file = recorded.tokenizer.clone();
        *file.pointer_mut(pointer).unwrap() = value;
        let error = TokenizerDef::from_hugging_face(&file.to_string(), None).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused("/model/continuing_subword_prefix", "@@".into(), "@@");
    refused("/pre_tokenizer/type", "Whitespace".into(), "Whitespace");
    refused("/normalizer/type", "NFKC".into(), "NFKC");
    refused("/post_processor/single", serde_json::json!([]), "one token before the text and one after");
}
