//! Tokenizer files of other projects: what they encode, and what is refused with which words.

use serde_json::{Value, json};
use siskin_compiler::tokenizer::{CorpusEncoder, TokenizerDef, decode};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{EncodeOptions, Specials};

const SENTENCEPIECE_MODEL: &[u8] = include_bytes!("../../tests/golden/sentencepiece.model");
/// Texts with the ids and the text that Python's `sentencepiece` 0.2.3 gives with that model, a BPE of 420 pieces.
const SENTENCEPIECE_CASES: &str = include_str!("../../tests/golden/sentencepiece.json");

fn cases() -> Vec<(String, Vec<TokenId>, String)> {
    let cases: Vec<Value> = serde_json::from_str(SENTENCEPIECE_CASES).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ids = |value: &Value| value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as TokenId).collect();
    cases.iter().map(|case| (text(&case["text"]), ids(&case["ids"]), text(&case["decoded"]))).collect()
}

fn check_sentencepiece(definition: &TokenizerDef, name: &str) {
    let compiled = definition.compile().unwrap();
    let tokenizer = compiled.view();
    let options = EncodeOptions { add_bos: false, specials: Specials::Nowhere };
    for (text, expected, decoded) in cases() {
        let mut ids = vec![0; tokenizer.max_tokens(text.len())];
        let n = tokenizer.encode_with(&text, &mut ids, options).unwrap();
        assert_eq!(ids[..n], expected, "{name}: {text:?}");
        assert_eq!(CorpusEncoder::new(tokenizer).encode_with(&text, options), expected, "{name}: {text:?}");
        assert_eq!(decode(&tokenizer, &expected), decoded, "{name}: {text:?}");
    }
}

#[test]
fn a_sentencepiece_model_encodes_as_python_does() {
    let definition = TokenizerDef::from_sentencepiece(SENTENCEPIECE_MODEL).unwrap();
    check_sentencepiece(&definition, "model");
    assert_eq!((definition.bos, definition.eos, definition.unk), (Some(1), Some(2), Some(0)));
}

/// Through `tokenizer.json` and back, and in the tokenizers crate itself.
#[test]
fn an_exported_sentencepiece_model_encodes_alike() {
    let definition = TokenizerDef::from_sentencepiece(SENTENCEPIECE_MODEL).unwrap();
    let json = definition.to_hugging_face().unwrap();
    check_sentencepiece(&TokenizerDef::from_hugging_face(&json, None).unwrap(), "tokenizer.json");
    let theirs = tokenizers::Tokenizer::from_bytes(&json).unwrap();
    for (text, expected, _) in cases().into_iter().filter(|(text, ..)| !text.contains("<s>")) {
        assert_eq!(theirs.encode_fast(text.as_str(), false).unwrap().get_ids(), expected, "{text:?}");
    }
}

/// The same vocabulary in llama2.c's file, which has the bytes at 3 and spaces for U+2581.
#[test]
fn a_llama2c_file_encodes_as_the_model_that_it_was_made_from() {
    let definition = TokenizerDef::from_sentencepiece(SENTENCEPIECE_MODEL).unwrap();
    let mut file = 27u32.to_le_bytes().to_vec();
    for (id, piece) in definition.pieces.iter().enumerate() {
        let byte = definition.byte_tokens.iter().position(|&token| token == Some(id as TokenId));
        let name = byte.map_or(piece.clone(), |byte| format!("<0x{byte:02X}>").into_bytes());
        let score = if id < 259 { 0.0 } else { 259.0 - id as f32 };
        file.extend(score.to_le_bytes());
        file.extend((name.len() as i32).to_le_bytes());
        file.extend(name);
    }
    let read = TokenizerDef::from_llama2c(&file, definition.vocab_size()).unwrap();
    check_sentencepiece(&read, "llama2.c");
    assert!(read.add_bos);
    let error = TokenizerDef::from_llama2c(&file[..file.len() - 1], definition.vocab_size()).unwrap_err();
    assert!(error.to_string().contains("token 419 of 420"), "{error}");
    let error = TokenizerDef::from_llama2c(&file, 419).unwrap_err();
    assert!(error.to_string().contains("bytes follow"), "{error}");
}

#[test]
fn other_sentencepiece_models_are_refused() {
    // Fields of the trainer and the normalizer, appended: a later one replaces an earlier one.
    let unigram = [SENTENCEPIECE_MODEL, &[0x12, 2, 0x18, 1]].concat();
    let squeezed = [SENTENCEPIECE_MODEL, &[0x1a, 2, 0x20, 1]].concat();
    let mapped = [SENTENCEPIECE_MODEL, &[0x1a, 3, 0x12, 1, 7]].concat();
    let cases: [(&[u8], &str); 5] = [
        (&unigram, "Unigram"),
        (&squeezed, "extra spaces"),
        (&mapped, "map of characters"),
        (b"", "no pieces"),
        (&SENTENCEPIECE_MODEL[..1000], "not a valid SentencePiece"),
    ];
    for (model, words) in cases {
        let error = TokenizerDef::from_sentencepiece(model).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// A byte-level tokenizer of three letters and a word.
fn small() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 4, "content": "<end>", "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        },
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "\u{120}": 2, "ab": 3}, "merges": ["a b"]},
    })
}

#[test]
fn a_hugging_face_file_is_read() {
    let config = r#"{"eos_token": {"content": "<end>"}, "bos_token": null}"#;
    let definition = TokenizerDef::from_hugging_face(&small().to_string(), Some(config)).unwrap();
    assert_eq!((definition.bos, definition.eos, definition.add_bos), (Some(4), Some(4), true));
    let compiled = definition.compile().unwrap();
    assert_eq!(CorpusEncoder::new(compiled.view()).encode("ab<end> ba?"), [4, 3, 4, 2, 1, 0]);
}

#[test]
fn parts_that_would_change_the_ids_are_refused() {
    let cases = [
        ("/model/type", json!("WordPiece"), "WordPiece"),
        ("/model/type", json!("Unigram"), "Unigram"),
        ("/model/end_of_word_suffix", json!("</w>"), "</w>"),
        ("/model/merges", json!(["a x"]), "unknown \"x\""),
        ("/model/merges", json!(["ab"]), "not two tokens"),
        ("/model/vocab", json!([["a", 0.5]]), "not a map"),
        ("/model/vocab", json!({"a": 3_000_000_000u64}), "not a number below"),
        ("/normalizer", json!({"type": "NFC"}), "NFC"),
        ("/pre_tokenizer", json!({"type": "Whitespace"}), "Whitespace"),
        ("/pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": true}), "ByteLevel"),
        ("/pre_tokenizer", json!(null), "missing"),
        ("/added_tokens/0/lstrip", json!(true), "takes spaces"),
        ("/added_tokens/0/content", json!(""), "is empty"),
        ("/post_processor/type", json!("BertProcessing"), "BertProcessing"),
    ];
    for (path, value, words) in cases {
        let mut file = small();
        let (parent, field) = path.rsplit_once('/').unwrap();
        file.pointer_mut(parent).unwrap()[field] = value;
        let error = TokenizerDef::from_hugging_face(&file.to_string(), None).unwrap_err().to_string();
        assert!(error.contains(words), "{path}: {error}");
    }
    assert!(TokenizerDef::from_hugging_face("{", None).unwrap_err().to_string().contains("Hugging Face"));
}

#[test]
fn merges_that_are_ignored_must_not_matter() {
    let mut file = small();
    file["model"]["ignore_merges"] = json!(true);
    assert!(TokenizerDef::from_hugging_face(&file.to_string(), None).is_ok());
    file["model"]["merges"] = json!([]);
    let error = TokenizerDef::from_hugging_face(&file.to_string(), None).unwrap_err().to_string();
    assert!(error.contains("ignore_merges"), "{error}");
}
