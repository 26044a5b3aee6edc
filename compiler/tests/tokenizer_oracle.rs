//! Tokenizers against implementations that are not ours.

mod varied_texts;

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use siskin_compiler::tokenizer::{ByteLevelTraining, CorpusEncoder, TokenizerDef, decode};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{PreTokenizer, Tokenizer};

fn data(path: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache/data").join(path);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        eprintln!("skipped: {} is not there; `cargo xtask data` fetches it", path.display());
    }
    bytes
}

/// Encodes with the runtime and with the corpus encoder, which must agree.
fn encode(tokenizer: &Tokenizer<'_>, text: &str) -> Vec<TokenId> {
    let mut ids = vec![0; tokenizer.max_tokens(text.len())];
    let n = tokenizer.encode(text, &mut ids).expect("the buffer is large enough");
    ids.truncate(n);
    assert_eq!(ids, CorpusEncoder::new(*tokenizer).encode(text), "{text:?}");
    ids
}

fn sha256_of_ids(ids: &[TokenId]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ids of Python's `tokenizers` 0.23.3, trained and run on the same text with the same options.
#[test]
fn training_on_shakespeare_gives_the_ids_of_python() {
    let Some(bytes) = data("tiny-shakespeare/input.txt") else { return };
    let text = String::from_utf8(bytes).unwrap();
    let (train, valid) = text.split_at(text.len() * 9 / 10);
    let definition = TokenizerDef::train_byte_level(&[train], &ByteLevelTraining::new(512)).unwrap();
    let compiled = definition.compile().unwrap();
    assert!(compiled.section().len() < 5_000, "{} bytes", compiled.section().len());
    let tokenizer = compiled.view();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(1)));
    let (train_ids, valid_ids) = (encode(&tokenizer, train), encode(&tokenizer, valid));
    assert_eq!((train_ids.len(), valid_ids.len()), (517_243, 59_455));
    assert_eq!(sha256_of_ids(&train_ids), "ab491abf082bc50c9d53a83d22a6b692d7c006280a5760688d20a912d7987d7c");
    assert_eq!(sha256_of_ids(&valid_ids), "918c80de379e574a41136f40d3b9298a8bf96b935379835dc2aa61e187c39eda");
    assert_eq!(decode(&tokenizer, &valid_ids), valid);
}

/// Every pre-tokenizer against the `tokenizers` crate, on one vocabulary.
#[test]
fn every_pre_tokenizer_encodes_as_the_tokenizers_crate_does() {
    let texts = varied_texts::generate(600, &["<s>", "</s>"]);
    let joined = texts.concat();
    let training = ByteLevelTraining::new(700);
    let mut definition = TokenizerDef::train_byte_level(&[&joined], &training).unwrap();
    for pre_tokenizer in PreTokenizer::ALL {
        definition.scheme = siskin_compiler::tokenizer::Scheme::ByteLevel { pre_tokenizer };
        let json = definition.to_hugging_face().unwrap();
        let theirs = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        let compiled = definition.compile().unwrap();
        let ours = compiled.view();
        for text in &texts {
            let expected = theirs.encode_fast(text.as_str(), true).unwrap();
            let ids = encode(&ours, text);
            assert_eq!(ids, expected.get_ids(), "{pre_tokenizer:?} of {text:?}");
            assert_eq!(decode(&ours, &ids), theirs.decode(&ids, true).unwrap(), "{pre_tokenizer:?} of {text:?}");
        }
        assert_eq!(
            TokenizerDef::from_hugging_face(&json, None).unwrap().compile().unwrap().section().len(),
            compiled.section().len()
        );
    }
}
