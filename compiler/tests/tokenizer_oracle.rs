//! Tokenizers against implementations that are not ours.

mod varied_texts;

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use siskin_compiler::artifact::gguf::{self, GgufVocab};
use siskin_compiler::tokenizer::{ByteLevelTraining, CorpusEncoder, TokenizerDef, decode};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{EncodeOptions, PreTokenizer, Specials, Tokenizer};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence};

/// A file of the cache. `cargo xtask data` fetches the text and SmolLM2; llama.cpp's vocabularies are `vendor/llama.cpp/models` in
/// the source package of llama-cpp-python 0.3.36, to be put into `.cache/data/llama-vocab` by hand.
fn data(path: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache/data").join(path);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        eprintln!("skipped: {} is not there", path.display());
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

/// The tokenizers crate, put together from a GGUF's arrays by hand.
fn assemble(vocab: &GgufVocab) -> tokenizers::Tokenizer {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    let ids: Vec<(String, u32)> = vocab.tokens.iter().map(text).zip(0..).collect();
    let pair = |merge: String| merge.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())).unwrap();
    let merges: Vec<(String, String)> = vocab.merges.iter().map(text).map(pair).collect();
    let specials = ids.iter().filter(|(_, id)| vocab.token_types[*id as usize] == 3);
    let specials: Vec<_> = specials.map(|(token, _)| tokenizers::AddedToken::from(token.as_str(), true)).collect();
    let model = BPE::new(ids.into_iter().collect(), merges);
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![Digits::new(true).into(), byte_level.into()])));
    tokenizer.with_decoder(Some(byte_level));
    tokenizer.add_special_tokens(specials).unwrap();
    tokenizer
}

/// SmolLM2's tokenizer on 1,000 texts, against the tokenizers crate here and Python's `tokenizers` 0.23.3 by checksum.
#[test]
fn smollm2_encodes_as_the_reference_does() {
    let Some(file) = data("smollm2/smollm2-135m-instruct-q4_1.gguf") else { return };
    let vocab = gguf::parse_vocab(&file).unwrap();
    let theirs = assemble(&vocab);
    let compiled = TokenizerDef::from_gguf(&vocab).unwrap().compile().unwrap();
    let ours = compiled.view();
    let texts = varied_texts::generate(1000, &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]);
    if let Some(path) = std::env::var_os("VARIED_TEXTS_OUT") {
        std::fs::write(path, serde_json::to_vec(&texts).unwrap()).unwrap();
    }
    let mut all_ids = Vec::new();
    for text in &texts {
        let ids = encode(&ours, text);
        assert_eq!(ids, theirs.encode_fast(text.as_str(), false).unwrap().get_ids(), "{text:?}");
        assert_eq!(decode(&ours, &ids), theirs.decode(&ids, true).unwrap(), "{text:?}");
        all_ids.extend(ids);
        all_ids.push(TokenId::MAX);
    }
    assert_eq!(sha256_of_ids(&all_ids), "378ae043d90691d0b066f69fd9ec0f1d134e78341de875afd965e5660fc752cb");
}

/// The texts and ids that llama.cpp keeps beside its vocabularies.
#[test]
fn llama_cpp_vocabularies_encode_as_llama_cpp_does() {
    for name in ["gpt-2", "mpt", "starcoder", "refact", "command-r", "qwen2", "llama-spm", "phi-3"] {
        let path = format!("llama-vocab/ggml-vocab-{name}.gguf");
        let [Some(file), Some(texts), Some(ids)] = ["", ".inp", ".out"].map(|end| data(&format!("{path}{end}"))) else {
            return;
        };
        let compiled = TokenizerDef::from_gguf(&gguf::parse_vocab(&file).unwrap()).unwrap().compile().unwrap();
        let tokenizer = compiled.view();
        let texts = String::from_utf8(texts).unwrap();
        let ids = String::from_utf8(ids).unwrap();
        let options = EncodeOptions { add_bos: false, specials: Specials::Nowhere };
        let mut n_texts = 0;
        for (text, expected) in texts.split("\n__ggml_vocab_test__\n").zip(ids.lines()) {
            let expected: Vec<TokenId> = expected.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let mut ids = vec![0; tokenizer.max_tokens(text.len())];
            let n = tokenizer.encode_with(text, &mut ids, options).unwrap();
            assert_eq!(ids[..n], expected, "{name}: {text:?}");
            assert_eq!(ids[..n], CorpusEncoder::new(tokenizer).encode_with(text, options), "{name}: {text:?}");
            n_texts += 1;
        }
        assert!(n_texts > 40, "{name}: {n_texts} texts");
    }
}
