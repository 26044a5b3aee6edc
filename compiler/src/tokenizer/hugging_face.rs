//! Reads Hugging Face's `tokenizer.json` and `tokenizer_config.json`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use siskin_runtime::TokenId;
use siskin_runtime::tokenizer::{PreTokenizer, SpacePrefix};

use super::byte_chars::{char_of_byte, piece_of_token};
use super::sentencepiece::Spelling;
use super::word_piece::{self, WordRules};
use super::{MergeRule, Scheme, SpecialToken, TokenizerDef, TokenizerDefError};

/// Longest vocabulary read: keeps a damaged file's single huge id from filling memory.
const VOCAB_MAX: usize = 1 << 20;

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedTokenJson>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: ModelJson,
}

#[derive(Deserialize)]
struct AddedTokenJson {
    id: TokenId,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ModelJson {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<MergeJson>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    max_input_chars_per_word: Option<u32>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Both spellings of a merge: `"a b"` and `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeJson {
    Line(String),
    Pair(String, String),
}

impl MergeJson {
    fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Self::Line(line) => line.split_once(' '),
            Self::Pair(left, right) => Some((left, right)),
        }
    }
}

/// What `tokenizer_config.json` says; the rest of it repeats `tokenizer.json`.
#[derive(Deserialize)]
struct ConfigJson {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    unk_token: Option<TokenName>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenName {
    Text(String),
    Token { content: String },
}

impl TokenName {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Token { content: text } => text,
        }
    }
}

fn invalid(problem: impl Into<String>) -> TokenizerDefError {
    TokenizerDefError::Invalid { format: "Hugging Face", problem: problem.into() }
}

fn unsupported(part: &'static str, found: impl Into<String>, supported: &'static str) -> TokenizerDefError {
    TokenizerDefError::Unsupported { part, found: found.into(), supported }
}

impl TokenizerDef {
    /// [`TokenizerDef::from_hugging_face`] of a `tokenizer.json` alone, which must be UTF-8.
    pub(crate) fn from_hugging_face_bytes(tokenizer_json: &[u8]) -> Result<Self, TokenizerDefError> {
        let text = std::str::from_utf8(tokenizer_json).map_err(|error| invalid(error.to_string()))?;
        Self::from_hugging_face(text, None)
    }

    /// Reads the contents of a `tokenizer.json` and, where there is one, of its `tokenizer_config.json`.
    ///
    /// Without the latter `bos` and `eos` stay empty unless the file's post-processor names the former: `config.json` has their
    /// ids. Parts that would change the ids and that no device runs are refused.
    pub fn from_hugging_face(tokenizer_json: &str, tokenizer_config: Option<&str>) -> Result<Self, TokenizerDefError> {
        let file: TokenizerJson = serde_json::from_str(tokenizer_json).map_err(|e| invalid(e.to_string()))?;
        let tokens = collect_tokens(&file)?;
        let normalizer = flatten(file.normalizer.as_ref(), "normalizers");
        let pre_tokenizer = flatten(file.pre_tokenizer.as_ref(), "pretokenizers");
        if file.model.kind.as_deref() == Some("WordPiece") {
            return word_piece_def(&file, &tokens, &normalizer, &pre_tokenizer);
        }
        check_model(&file.model)?;
        let byte_level = pre_tokenizer.iter().any(|part| kind_of(part) == "ByteLevel");
        let space_prefix = if byte_level { None } else { Some(space_prefix(&normalizer, &pre_tokenizer)?) };
        let mut definition = match space_prefix {
            None => {
                if let Some(part) = normalizer.first() {
                    return Err(unsupported("normalizer", kind_of(part), "byte-level tokenizers must have none"));
                }
                byte_level_def(&tokens, byte_level_cuts(&pre_tokenizer)?)
            }
            Some(space_prefix) => Spelling::of_tokens(&tokens, file.model.byte_fallback).definition(space_prefix),
        };
        add_specials(&mut definition, &file.added_tokens);
        definition.merges = merge_rules(&file.model.merges, &tokens)?;
        let id_of = |name: &str| tokens.iter().position(|token| token == name).map(|id| id as TokenId);
        definition.unk = file.model.unk_token.as_deref().and_then(id_of);
        if let Some(bos) = bos_of(file.post_processor.as_ref())? {
            definition.add_bos = true;
            definition.bos = Some(id_of(&bos).ok_or_else(|| invalid(format!("the vocabulary lacks its {bos:?}")))?);
        }
        if let Some(config) = tokenizer_config {
            let config: ConfigJson = serde_json::from_str(config).map_err(|e| invalid(e.to_string()))?;
            let named = |name: &Option<TokenName>| name.as_ref().and_then(|name| id_of(name.text()));
            definition.bos = named(&config.bos_token).or(definition.bos);
            definition.eos = named(&config.eos_token);
            definition.unk = definition.unk.or(named(&config.unk_token).filter(|_| !byte_level));
        }
        if file.model.ignore_merges {
            check_merges_reach_all(&definition)?;
        }
        Ok(definition)
    }
}

/// BERT's, whose tokens around a text are those of the post-processor.
fn word_piece_def(
    file: &TokenizerJson,
    tokens: &[String],
    normalizer: &[&Value],
    pre_tokenizer: &[&Value],
) -> Result<TokenizerDef, TokenizerDefError> {
    let prefix = file.model.continuing_subword_prefix.as_deref().unwrap_or("##");
    if prefix != "##" {
        return Err(unsupported("sub-word prefix", prefix, "##"));
    }
    let ([normalizer], [cut]) = (normalizer, pre_tokenizer) else {
        return Err(unsupported("normalizer", "of several parts, or none", "WordPiece takes a BertNormalizer alone"));
    };
    for (part, found, supported) in
        [("normalizer", normalizer, "BertNormalizer"), ("pre-tokenizer", cut, "BertPreTokenizer")]
    {
        if kind_of(found) != supported {
            return Err(unsupported(part, kind_of(found), supported));
        }
    }
    let [bos, eos] = frame_of(file.post_processor.as_ref())?;
    let id_of = |name: &str| tokens.iter().position(|token| token == name).map(|id| id as TokenId);
    let framing = |name: Option<String>| {
        let missing = |name: &str| invalid(format!("the vocabulary lacks its {name:?}"));
        name.map(|name| id_of(&name).ok_or_else(|| missing(&name))).transpose()
    };
    let mut definition = TokenizerDef {
        scheme: Scheme::WordPiece { rules: WordRules::of_json(normalizer, file.model.max_input_chars_per_word) },
        pieces: tokens.iter().map(|token| word_piece::piece_of_token(token)).collect(),
        merges: Vec::new(),
        byte_tokens: vec![None; 256],
        specials: Vec::new(),
        bos: framing(bos)?,
        eos: framing(eos)?,
        unk: id_of(file.model.unk_token.as_deref().unwrap_or("[UNK]")),
        add_bos: false,
    };
    add_specials(&mut definition, &file.added_tokens);
    Ok(definition)
}

/// The tokens that a post-processor puts before and after a text.
fn frame_of(post_processor: Option<&Value>) -> Result<[Option<String>; 2], TokenizerDefError> {
    let parts = flatten(post_processor, "processors");
    let [part] = parts[..] else { return Ok([None, None]) };
    let name = |item: &Value, pointer: &str| item.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    match (kind_of(part), part["single"].as_array().map(Vec::as_slice)) {
        ("BertProcessing", _) => Ok([name(part, "/cls/0"), name(part, "/sep/0")]),
        ("TemplateProcessing", Some([first, text, last])) if text.get("Sequence").is_some() => {
            Ok([first, last].map(|item| name(item, "/SpecialToken/id")))
        }
        _ => Err(unsupported("post-processor", part.to_string(), "one token before the text and one after it")),
    }
}

fn add_specials(definition: &mut TokenizerDef, added: &[AddedTokenJson]) {
    for added in added {
        definition.pieces[added.id as usize] = added.content.clone().into_bytes();
        definition.specials.push(SpecialToken { id: added.id, control: added.special });
    }
    definition.specials.sort_unstable_by_key(|special| special.id);
    definition.specials.dedup_by_key(|special| special.id);
}

fn check_model(model: &ModelJson) -> Result<(), TokenizerDefError> {
    if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
        return Err(unsupported("model", model.kind.clone().unwrap_or_default(), "BPE or WordPiece"));
    }
    let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
    if let Some(affix) = affixes.into_iter().flatten().find(|affix| !affix.is_empty()) {
        return Err(unsupported("sub-word affix", format!("{affix:?}"), "only models without one"));
    }
    Ok(())
}

/// The vocabulary's and the added tokens by id; gaps are empty.
fn collect_tokens(file: &TokenizerJson) -> Result<Vec<String>, TokenizerDefError> {
    let Value::Object(vocab) = &file.model.vocab else {
        return Err(invalid("model.vocab is not a map of tokens to ids"));
    };
    let added = file.added_tokens.iter().map(|token| (token.content.as_str(), Some(u64::from(token.id))));
    let mut tokens = Vec::new();
    for (token, id) in vocab.iter().map(|(token, id)| (token.as_str(), id.as_u64())).chain(added) {
        let id = id.and_then(|id| usize::try_from(id).ok()).filter(|&id| id < VOCAB_MAX);
        let id = id.ok_or_else(|| invalid(format!("the id of {token:?} is not a number below {VOCAB_MAX}")))?;
        if tokens.len() <= id {
            tokens.resize(id + 1, String::new());
        }
        tokens[id] = token.to_owned();
    }
    if let Some(token) = file.added_tokens.iter().find(|t| t.single_word || t.lstrip || t.rstrip) {
        let found = format!("{:?}, which takes spaces or whole words", token.content);
        return Err(unsupported("added token", found, "only tokens that match their own text"));
    }
    if let Some(token) = file.added_tokens.iter().find(|token| token.content.is_empty()) {
        return Err(invalid(format!("added token {} is empty", token.id)));
    }
    Ok(tokens)
}

/// A part of the pipeline as a list: a sequence's members, or itself.
fn flatten<'v>(part: Option<&'v Value>, members: &str) -> Vec<&'v Value> {
    match part {
        None | Some(Value::Null) => Vec::new(),
        Some(part) => match part.get(members).and_then(Value::as_array) {
            Some(parts) => parts.iter().flat_map(|part| flatten(Some(part), members)).collect(),
            None => vec![part],
        },
    }
}

fn kind_of(part: &Value) -> &str {
    part.get("type").and_then(Value::as_str).unwrap_or("of no type")
}

fn is_set(part: &Value, field: &str, default: bool) -> bool {
    part.get(field).and_then(Value::as_bool).unwrap_or(default)
}

fn byte_level_cuts(parts: &[&Value]) -> Result<PreTokenizer, TokenizerDefError> {
    let supported = "ByteLevel without a prefix space, alone or after Digits (individual) or a known Split";
    let mut cuts = Vec::new();
    for part in parts {
        match kind_of(part) {
            "ByteLevel" if !is_set(part, "add_prefix_space", true) => {
                cuts.extend(is_set(part, "use_regex", true).then_some(PreTokenizer::Gpt2));
            }
            "Digits" if is_set(part, "individual_digits", false) && cuts.is_empty() => {
                cuts.push(PreTokenizer::DigitsGpt2)
            }
            "Split" if cuts.is_empty() && part.get("behavior") == Some(&Value::from("Isolated")) => {
                let pattern = part.pointer("/pattern/Regex").and_then(Value::as_str).unwrap_or_default();
                let known = KNOWN_SPLITS.iter().find(|(_, known)| *known == pattern);
                cuts.push(
                    known.ok_or_else(|| unsupported("pre-tokenizer", format!("Split by {pattern:?}"), supported))?.0,
                );
            }
            _ => return Err(unsupported("pre-tokenizer", part.to_string(), supported)),
        }
    }
    match cuts[..] {
        [] => Ok(PreTokenizer::None),
        [PreTokenizer::DigitsGpt2, PreTokenizer::Gpt2] => Ok(PreTokenizer::DigitsGpt2),
        [cut] if cut != PreTokenizer::DigitsGpt2 => Ok(cut),
        _ => Err(unsupported("pre-tokenizer", format!("{cuts:?} together"), supported)),
    }
}

/// Regular expressions as the files spell them.
pub(super) const KNOWN_SPLITS: [(PreTokenizer, &str); 3] = [
    (PreTokenizer::Gpt2, r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    (
        PreTokenizer::Llama3,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        PreTokenizer::Qwen2,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// SentencePiece's spaces, by a normalizer (`Prepend`, `Replace`) or by the pre-tokenizer `Metaspace` that does not cut.
fn space_prefix(normalizer: &[&Value], pre_tokenizer: &[&Value]) -> Result<SpacePrefix, TokenizerDefError> {
    let mut prefix = SpacePrefix::default();
    let mut replaced = false;
    for part in normalizer {
        match kind_of(part) {
            "Prepend" if part["prepend"] == "\u{2581}" => (prefix.at_start, prefix.after_special) = (true, true),
            "Replace" if part["pattern"]["String"] == " " && part["content"] == "\u{2581}" => replaced = true,
            kind => return Err(unsupported("normalizer", kind, "Prepend and Replace of spaces by \u{2581}")),
        }
    }
    for part in pre_tokenizer {
        let supported = "ByteLevel, or Metaspace that does not split";
        let scheme = part.get("prepend_scheme").and_then(Value::as_str).unwrap_or("always");
        let cuts = is_set(part, "split", true) || part["replacement"] != "\u{2581}";
        if kind_of(part) != "Metaspace" || cuts || replaced {
            return Err(unsupported("pre-tokenizer", part.to_string(), supported));
        }
        replaced = true;
        prefix =
            SpacePrefix { at_start: scheme != "never", after_special: scheme == "always", once: scheme != "never" };
    }
    if !replaced {
        return Err(unsupported("pre-tokenizer", "missing", "ByteLevel, or SentencePiece's \u{2581} for spaces"));
    }
    Ok(prefix)
}

fn byte_level_def(tokens: &[String], pre_tokenizer: PreTokenizer) -> TokenizerDef {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let byte_token = |byte: u8| ids.get(char_of_byte(byte).to_string().as_str()).map(|&id| id as TokenId);
    TokenizerDef {
        scheme: Scheme::ByteLevel { pre_tokenizer },
        pieces: tokens.iter().map(|token| piece_of_token(token)).collect(),
        merges: Vec::new(),
        byte_tokens: (0..=255).map(byte_token).collect(),
        specials: Vec::new(),
        bos: None,
        eos: None,
        unk: None,
        add_bos: false,
    }
}

/// Merges over ids; the first of two equal ones counts, as the later could never be reached.
fn merge_rules(merges: &[MergeJson], tokens: &[String]) -> Result<Vec<MergeRule>, TokenizerDefError> {
    let pairs = merges.iter().map(|merge| merge.pair().ok_or_else(|| invalid("a merge is not two tokens")));
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    rules_of_pairs(&pairs, tokens).map_err(invalid)
}

/// Ranks pairs of token names by their order; shared with GGUF.
pub(super) fn rules_of_pairs(pairs: &[(&str, &str)], tokens: &[String]) -> Result<Vec<MergeRule>, String> {
    let ids: HashMap<&str, TokenId> = tokens.iter().enumerate().map(|(id, t)| (t.as_str(), id as TokenId)).collect();
    let mut seen = std::collections::HashSet::new();
    let mut rules = Vec::with_capacity(pairs.len());
    for (rank, &(left, right)) in pairs.iter().enumerate() {
        let id = |token: &str| ids.get(token).copied().ok_or_else(|| format!("merge {rank} names unknown {token:?}"));
        let rule =
            MergeRule { rank: rank as u32, left: id(left)?, right: id(right)?, result: id(&format!("{left}{right}"))? };
        if seen.insert((rule.left, rule.right)) {
            rules.push(rule);
        }
    }
    Ok(rules)
}

/// The token that a post-processor puts before the text, if it is one that adds nothing else.
fn bos_of(post_processor: Option<&Value>) -> Result<Option<String>, TokenizerDefError> {
    let mut bos = None;
    for part in flatten(post_processor, "processors") {
        match kind_of(part) {
            "ByteLevel" => {}
            "TemplateProcessing" => {
                let single = part["single"].as_array().map(Vec::as_slice).unwrap_or_default();
                let names: Vec<Option<&str>> =
                    single.iter().map(|item| item.pointer("/SpecialToken/id").and_then(Value::as_str)).collect();
                match names[..] {
                    [None] => {}
                    [Some(first), None] => bos = Some(first.to_owned()),
                    _ => {
                        return Err(unsupported(
                            "post-processor",
                            part["single"].to_string(),
                            "one token before the text",
                        ));
                    }
                }
            }
            kind => {
                return Err(unsupported(
                    "post-processor",
                    kind,
                    "ByteLevel, or a template of one token before the text",
                ));
            }
        }
    }
    Ok(bos)
}

/// `ignore_merges` takes a pre-token that is a token as it is; that changes nothing if merges make every token anyway.
fn check_merges_reach_all(definition: &TokenizerDef) -> Result<(), TokenizerDefError> {
    let compiled = definition.compile()?;
    let tokenizer = compiled.view();
    let mut buffer = Vec::new();
    for (id, piece) in definition.pieces.iter().enumerate() {
        let Ok(word) = std::str::from_utf8(piece) else { continue };
        let is_special = definition.specials.iter().any(|special| special.id as usize == id);
        buffer.resize(tokenizer.max_tokens(word.len()), 0);
        let n = tokenizer.spell(word, &mut buffer).map_err(|e| TokenizerDefError::Compile(e.to_string()))?;
        let n = tokenizer.merge_all(&mut buffer[..n]);
        if !is_special && n > 0 && buffer[..n] != [id as TokenId] {
            let found = format!("ignore_merges, and merges do not make token {id} ({word:?})");
            return Err(unsupported("model", found, "only models whose merges make every token"));
        }
    }
    Ok(())
}
