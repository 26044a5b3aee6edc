//! Writes Hugging Face's `tokenizer.json`.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{PreTokenizer, SpacePrefix};

use super::byte_chars::token_of_piece;
use super::hugging_face::KNOWN_SPLITS;
use super::sentencepiece::byte_token_name;
use super::word_piece;
use super::{Scheme, TokenizerDef, TokenizerDefError};

/// The file; the vocabulary is written in the order of ids, which a JSON map of the library would not keep.
#[derive(Serialize)]
struct TokenizerJson {
    version: &'static str,
    truncation: Value,
    padding: Value,
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: ModelJson,
}

#[derive(Serialize)]
struct ModelJson {
    r#type: &'static str,
    dropout: Value,
    unk_token: Option<String>,
    continuing_subword_prefix: Value,
    end_of_word_suffix: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_input_chars_per_word: Option<u32>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    #[serde(serialize_with = "map_of_ids")]
    vocab: Vec<(String, TokenId)>,
    merges: Vec<[String; 2]>,
}

fn map_of_ids<S: Serializer>(vocab: &[(String, TokenId)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(vocab.iter().map(|(token, id)| (token, id)))
}

impl TokenizerDef {
    /// The contents of a `tokenizer.json` with which Hugging Face's library gives the same ids.
    ///
    /// Merges of equal rank, which only SentencePiece has, are put in order of their ids: the file cannot say "leftmost first".
    pub fn to_hugging_face(&self) -> Result<String, TokenizerDefError> {
        let names = self.token_names();
        let mut merges = self.merges.clone();
        merges.sort_unstable_by_key(|merge| (merge.rank, merge.left, merge.right));
        let name = |id: TokenId| names[id as usize].clone();
        let named = (0..).zip(&names).filter(|(_, name)| !name.is_empty());
        let (normalizer, pre_tokenizer, decoder) = self.pipeline()?;
        let is_sentencepiece = matches!(self.scheme, Scheme::SentencePiece { .. });
        let word_rules = if let Scheme::WordPiece { rules } = self.scheme { Some(rules) } else { None };
        let file = TokenizerJson {
            version: "1.0",
            truncation: Value::Null,
            padding: Value::Null,
            added_tokens: self
                .specials
                .iter()
                .map(|special| added_token(special.id, &name(special.id), special.control))
                .collect(),
            normalizer,
            pre_tokenizer,
            post_processor: match (word_rules, self.bos, self.eos) {
                (Some(_), Some(bos), Some(eos)) => frame_template([(bos, name(bos)), (eos, name(eos))]),
                _ => self.bos.filter(|_| self.add_bos).map_or(Value::Null, |bos| bos_template(bos, &name(bos))),
            },
            decoder,
            model: ModelJson {
                r#type: if word_rules.is_some() { "WordPiece" } else { "BPE" },
                dropout: Value::Null,
                unk_token: self.unk.map(name),
                continuing_subword_prefix: word_rules.map_or(Value::Null, |_| json!("##")),
                end_of_word_suffix: Value::Null,
                max_input_chars_per_word: word_rules.map(|rules| rules.word_chars_max),
                fuse_unk: is_sentencepiece,
                byte_fallback: is_sentencepiece && self.byte_tokens.iter().all(Option::is_some),
                ignore_merges: false,
                vocab: named.map(|(id, name)| (name.clone(), id)).collect(),
                merges: merges.iter().map(|merge| [name(merge.left), name(merge.right)]).collect(),
            },
        };
        serde_json::to_string_pretty(&file).map_err(|error| TokenizerDefError::Compile(error.to_string()))
    }

    /// Names of all tokens as the file spells them.
    fn token_names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.scheme {
            Scheme::ByteLevel { .. } => self.pieces.iter().map(|piece| token_of_piece(piece)).collect(),
            Scheme::SentencePiece { .. } => {
                self.pieces.iter().map(|piece| String::from_utf8_lossy(piece).replace(' ', "\u{2581}")).collect()
            }
            Scheme::WordPiece { .. } => self.pieces.iter().map(|piece| word_piece::token_of_piece(piece)).collect(),
        };
        if let Scheme::SentencePiece { .. } = self.scheme {
            for (byte, id) in (0..=255).zip(&self.byte_tokens).filter_map(|(byte, id)| Some((byte, (*id)?))) {
                names[id as usize] = byte_token_name(byte);
            }
        }
        for special in &self.specials {
            names[special.id as usize] = String::from_utf8_lossy(&self.pieces[special.id as usize]).into_owned();
        }
        names
    }

    /// Normalizer, pre-tokenizer and decoder.
    fn pipeline(&self) -> Result<(Value, Value, Value), TokenizerDefError> {
        match self.scheme {
            Scheme::ByteLevel { pre_tokenizer } => Ok((Value::Null, byte_level_cuts(pre_tokenizer), byte_level(true))),
            Scheme::SentencePiece { space_prefix, .. } => {
                let (normalizer, pre_tokenizer) = spaces(space_prefix)?;
                Ok((normalizer, pre_tokenizer, sentencepiece_decoder(space_prefix.at_start)))
            }
            Scheme::WordPiece { rules } => {
                let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": false});
                Ok((rules.to_json(), json!({"type": "BertPreTokenizer"}), decoder))
            }
        }
    }
}

fn added_token(id: TokenId, content: &str, control: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": control,
    })
}

/// A post-processor that puts `bos` before the text.
fn bos_template(bos: TokenId, name: &str) -> Value {
    let token = |type_id: u32| json!({"SpecialToken": {"id": name, "type_id": type_id}});
    let text = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
    json!({
        "type": "TemplateProcessing",
        "single": [token(0), text("A", 0)],
        "pair": [token(0), text("A", 0), token(1), text("B", 1)],
        "special_tokens": {name: {"id": name, "ids": [bos], "tokens": [name]}},
    })
}

/// A post-processor that puts tokens before and after the text.
fn frame_template([(bos, bos_name), (eos, eos_name)]: [(TokenId, String); 2]) -> Value {
    let token = |name: &str, type_id: u32| json!({"SpecialToken": {"id": name, "type_id": type_id}});
    let text = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
    let special = |id: TokenId, name: &str| json!({"id": name, "ids": [id], "tokens": [name]});
    let single = [token(&bos_name, 0), text("A", 0), token(&eos_name, 0)];
    let second = [text("B", 1), token(&eos_name, 1)];
    let pair = [&single[..], &second].concat();
    json!({
        "type": "TemplateProcessing", "single": single, "pair": pair,
        "special_tokens": {&bos_name: special(bos, &bos_name), &eos_name: special(eos, &eos_name)},
    })
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn byte_level_cuts(pre_tokenizer: PreTokenizer) -> Value {
    let sequence = |first: Value, second: Value| json!({"type": "Sequence", "pretokenizers": [first, second]});
    match pre_tokenizer {
        PreTokenizer::None => byte_level(false),
        PreTokenizer::Gpt2 => byte_level(true),
        PreTokenizer::DigitsGpt2 => sequence(json!({"type": "Digits", "individual_digits": true}), byte_level(true)),
        other => {
            let pattern = KNOWN_SPLITS.iter().find(|(kind, _)| *kind == other).map(|(_, pattern)| *pattern);
            let split =
                json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            sequence(split, byte_level(false))
        }
    }
}

/// SentencePiece's spaces as a normalizer and a pre-tokenizer.
fn spaces(prefix: SpacePrefix) -> Result<(Value, Value), TokenizerDefError> {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let metaspace =
        |scheme| json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": false});
    match prefix {
        SpacePrefix { at_start: false, after_special: false, .. } => Ok((replace, Value::Null)),
        SpacePrefix { at_start: true, after_special: true, once: false } => {
            let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
            Ok((json!({"type": "Sequence", "normalizers": [prepend, replace]}), Value::Null))
        }
        SpacePrefix { at_start: true, after_special: true, once: true } => Ok((Value::Null, metaspace("always"))),
        SpacePrefix { at_start: true, after_special: false, once: true } => Ok((Value::Null, metaspace("first"))),
        other => Err(TokenizerDefError::Unsupported {
            part: "prefix space",
            found: format!("{other:?}"),
            supported: "tokenizer.json has one nowhere, everywhere, or at the start where there is none",
        }),
    }
}

fn sentencepiece_decoder(strip: bool) -> Value {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if strip {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}
