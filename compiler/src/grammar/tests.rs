//! Grammars against a naive recogniser, walks that always end whole, errors, and damaged sections.

use std::collections::{BTreeSet, HashMap};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use siskin_runtime::TokenId;
use siskin_runtime::grammar::{Grammar, GrammarState};
use siskin_runtime::sampler::{Advance, Constraint as _};
use siskin_runtime::tokenizer::Tokenizer;

use super::*;
use crate::pack::AlignedBytes;

/// A tokenizer section with a token for each byte, then `others`, then a control token that ends the text.
fn vocabulary(others: &[&str]) -> AlignedBytes {
    let mut pieces: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    pieces.extend(others.iter().map(|piece| piece.as_bytes().to_vec()));
    pieces.push(b"</s>".to_vec());
    let n = pieces.len();
    let eos = n as u32 - 1;
    let piece_bytes: usize = pieces.iter().map(Vec::len).sum();
    let mut section = b"STOK".to_vec();
    section.extend([1, 0, 0, 2, 0, 0, 0, 0]);
    let words = [n as u32, 0, 0, 1, u32::MAX, eos, u32::MAX, piece_bytes as u32];
    section.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    section.extend((0..256u16).flat_map(u16::to_le_bytes));
    let mut end = 0u16;
    for piece in &pieces {
        end += piece.len() as u16;
        section.extend(end.to_le_bytes());
    }
    section.extend(vec![0; 2 * (n + 1)]);
    section.extend((eos | 1 << 31).to_le_bytes());
    section.extend(pieces.concat());
    AlignedBytes::copy_of(&section)
}

const OTHERS: [&str; 12] = ["ab", "abc", "ba", "{\"", "\":", "\",\"", "true", "tr", "null}", "12", "é", "\"}"];

/// Where texts that begin at `at` and keep to `expr` end.
fn ends(expr: &Expr, text: &[u8], at: usize, known: &HashMap<(usize, usize), BTreeSet<usize>>) -> BTreeSet<usize> {
    let follow = |expr: &Expr, from: &BTreeSet<usize>| -> BTreeSet<usize> {
        from.iter().flat_map(|&at| ends(expr, text, at, known)).collect()
    };
    match expr {
        Expr::Literal(bytes) if text[at..].starts_with(bytes) => BTreeSet::from([at + bytes.len()]),
        Expr::Literal(_) => BTreeSet::new(),
        Expr::Class(ranges) => {
            let is_in = |c: char| ranges.iter().any(|&(low, high)| (low..=high).contains(&c));
            let chars = text[at..].utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
            chars.filter(|&c| is_in(c)).map(|c| at + c.len_utf8()).into_iter().collect()
        }
        Expr::Sequence(exprs) => exprs.iter().fold(BTreeSet::from([at]), |from, expr| follow(expr, &from)),
        Expr::Choice(exprs) => exprs.iter().flat_map(|expr| ends(expr, text, at, known)).collect(),
        Expr::Repeat { expr, min, max } => {
            let mut from = BTreeSet::from([at]);
            for _ in 0..*min {
                from = follow(expr, &from);
            }
            let mut found = from.clone();
            for _ in 0..max.map_or(text.len() + 1, |max| (max - min) as usize) {
                from = follow(expr, &from);
                found.extend(&from);
            }
            found
        }
        Expr::Rule(rule) => known.get(&(*rule, at)).cloned().unwrap_or_default(),
    }
}

/// Whether `text` keeps to the grammar, by trying everything until nothing new is found.
fn is_recognised(rules: &Rules, text: &[u8]) -> bool {
    let mut known: HashMap<(usize, usize), BTreeSet<usize>> = HashMap::new();
    loop {
        let mut next = HashMap::new();
        for (idx, (_, expr)) in rules.rules.iter().enumerate() {
            for at in 0..=text.len() {
                next.insert((idx, at), ends(expr, text, at, &known));
            }
        }
        if next == known {
            return known[&(0, 0)].contains(&text.len());
        }
        known = next;
    }
}

fn random_expr(rng: &mut ChaCha8Rng, depth: u32, n_rules: usize) -> Expr {
    let kind = if depth == 0 { rng.random_range(0..3) } else { rng.random_range(0..9) };
    let some = |rng: &mut ChaCha8Rng| -> Vec<Expr> {
        (0..rng.random_range(1..4)).map(|_| random_expr(rng, depth - 1, n_rules)).collect()
    };
    match kind {
        0 => Expr::text(["a", "b", "ab", "ba", "é", ""][rng.random_range(0..6)]),
        1 => Expr::Class(
            [vec![('a', 'b')], vec![('b', 'c')], vec![('a', 'a'), ('è', 'ë')]][rng.random_range(0..3)].clone(),
        ),
        2 => Expr::Rule(rng.random_range(0..n_rules)),
        3 | 4 => Expr::Sequence(some(rng)),
        5 | 6 => Expr::Choice(some(rng)),
        7 => Expr::Sequence(vec![Expr::text("("), Expr::Rule(rng.random_range(0..n_rules)), Expr::text(")")]),
        _ => {
            let min = rng.random_range(0..3);
            let max = rng.random_bool(0.5).then(|| min + rng.random_range(0..3));
            random_expr(rng, depth - 1, n_rules).repeated(min, max)
        }
    }
}

fn random_rules(rng: &mut ChaCha8Rng) -> Rules {
    let n_rules = rng.random_range(1..4);
    Rules { rules: (0..n_rules).map(|idx| (format!("r{idx}"), random_expr(rng, 3, n_rules))).collect() }
}

#[test]
fn random_grammars_take_what_a_naive_recogniser_takes() {
    let tokenizer_section = vocabulary(&[]);
    let tokenizer = Tokenizer::parse(&tokenizer_section).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut n_compiled, mut n_recursive, mut n_taken, mut n_refused) = (0, 0, 0, 0);
    for case in 0..3000 {
        let rules = random_rules(&mut rng);
        let section = match rules.compile(&tokenizer) {
            Ok(section) => AlignedBytes::copy_of(&section),
            Err(GrammarError::Empty | GrammarError::Ambiguous { .. } | GrammarError::LeftRecursion { .. }) => continue,
            Err(GrammarError::TooLarge { .. }) => continue,
            Err(error) => panic!("case {case}: {error}"),
        };
        let grammar = Grammar::parse(&section, &tokenizer).unwrap();
        n_compiled += 1;
        n_recursive += usize::from(section[20..24] != [0; 4]);
        for _ in 0..40 {
            let text: String =
                (0..rng.random_range(0..8)).map(|_| ['a', 'b', 'c', 'é', '(', ')'][rng.random_range(0..6)]).collect();
            let expected = is_recognised(&rules, text.as_bytes());
            let mut state = GrammarState::new(grammar, tokenizer, &[]);
            let is_taken = text.bytes().all(|byte| {
                let is_allowed = state.allows(byte.into(), usize::MAX);
                state.advance(byte.into(), usize::MAX);
                is_allowed
            });
            assert_eq!(is_taken && state.is_whole(), expected, "case {case}: {text:?} of {rules:?}");
            *(if expected { &mut n_taken } else { &mut n_refused }) += 1;
        }
    }
    assert!(
        n_compiled > 1000 && n_recursive > 30 && n_taken > 2000 && n_refused > 2000,
        "{n_compiled} {n_recursive} {n_taken} {n_refused}"
    );
}

fn compiled(rules: &Rules, tokenizer: &Tokenizer<'_>) -> AlignedBytes {
    AlignedBytes::copy_of(&rules.compile(tokenizer).unwrap())
}

/// Draws allowed tokens at random until the text ends; the text, and how it ended.
fn random_text(mut state: GrammarState<'_>, tokenizer: &Tokenizer<'_>, budget: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let (eos, mut text) = (tokenizer.eos().unwrap(), Vec::new());
    for n_left in (1..=budget).rev() {
        let mut logits = vec![0.0; tokenizer.vocab_size() + 3];
        state.restrict(&mut logits, n_left);
        let mut marks = vec![7.0; logits.len()];
        let is_marked = state.mark(&mut marks, n_left);
        assert_eq!(is_marked, state.is_narrow());
        assert!(if is_marked { marks == logits } else { marks.iter().all(|&mark| mark == 7.0) });
        let allowed: Vec<TokenId> = (0..logits.len() as TokenId).filter(|&id| logits[id as usize] == 0.0).collect();
        if rng.random_bool(0.1) {
            let one_by_one: Vec<TokenId> =
                (0..logits.len() as TokenId).filter(|&id| state.allows(id, n_left)).collect();
            assert_eq!(allowed, one_by_one, "after {:?}", String::from_utf8_lossy(&text));
        }
        let token = allowed[rng.random_range(0..allowed.len())];
        if token == eos {
            break;
        }
        text.extend(tokenizer.piece(token));
        match state.advance(token, n_left) {
            Advance::Open => {}
            Advance::Last => break,
            end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    text
}

#[test]
fn random_walks_end_whole_within_any_budget() {
    let tokenizer_section = vocabulary(&OTHERS);
    let tokenizer = Tokenizer::parse(&tokenizer_section).unwrap();
    let eos = tokenizer.eos();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut n_texts = 0;
    for case in 0..600 {
        let rules = random_rules(&mut rng);
        let Ok(section) = rules.compile(&tokenizer) else { continue };
        let section = AlignedBytes::copy_of(&section);
        let grammar = Grammar::parse(&section, &tokenizer).unwrap();
        for _ in 0..5 {
            let budget = grammar.shortest_text_bytes() + rng.random_range(0..9);
            let state = GrammarState::new(grammar, tokenizer, eos.as_slice());
            let text = random_text(state, &tokenizer, budget, &mut rng);
            assert!(is_recognised(&rules, &text), "case {case}: {text:?} of {rules:?}");
            n_texts += 1;
        }
    }
    assert!(n_texts > 1000, "{n_texts}");
}

const JSON_GBNF: &str = r#"
# Any JSON value, between spaces.
root   ::= value
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( pair ("," ws pair)* )? "}" ws
pair   ::= string ":" ws value
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u00" [0-7] [0-9a-f]) )* "\"" ws
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]+)? ws
ws ::= [ \t\n]?
"#;

#[test]
fn recursive_json_always_parses_and_nests_no_deeper_than_the_stack() {
    let tokenizer_section = vocabulary(&OTHERS);
    let tokenizer = Tokenizer::parse(&tokenizer_section).unwrap();
    let eos = tokenizer.eos();
    let section = compiled(&Rules::from_gbnf(JSON_GBNF).unwrap(), &tokenizer);
    let grammar = Grammar::parse(&section, &tokenizer).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..300 {
        let state = GrammarState::new(grammar, tokenizer, eos.as_slice());
        let budget = rng.random_range(1..200);
        let text = random_text(state, &tokenizer, budget, &mut rng);
        serde_json::from_slice::<serde_json::Value>(&text)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    }
    // As many brackets as the stack holds calls, and no more.
    let mut state = GrammarState::new(grammar, tokenizer, eos.as_slice());
    let mut n_open = 0;
    while state.allows(b'['.into(), 1000) {
        assert_eq!(state.advance(b'['.into(), 1000), Advance::Open);
        n_open += 1;
    }
    assert_eq!(n_open, STACK_MAX + 1);
    (0..n_open).for_each(|_| assert_ne!(state.advance(b']'.into(), 1000), Advance::Stuck));
    assert!(state.is_whole());
}

#[test]
fn a_grammar_that_fits_no_budget_says_what_it_needs() {
    let tokenizer_section = vocabulary(&OTHERS);
    let tokenizer = Tokenizer::parse(&tokenizer_section).unwrap();
    let section = compiled(&Rules::from_gbnf(r#"root ::= "true" "true"?"#).unwrap(), &tokenizer);
    let grammar = Grammar::parse(&section, &tokenizer).unwrap();
    let state = GrammarState::new(grammar, tokenizer, &[]);
    assert_eq!((grammar.shortest_text_bytes(), state.tokens_missing()), (4, 4));
    let mut logits = vec![0.0; tokenizer.vocab_size()];
    state.restrict(&mut logits, 1);
    let allowed: Vec<usize> = (0..logits.len()).filter(|&id| logits[id] == 0.0).collect();
    assert_eq!(allowed, [256 + OTHERS.iter().position(|&piece| piece == "true").unwrap()]);
}

/// A schema's texts, drawn at random, and each held against `is_valid`.
fn check_schema(schema: &str, n_texts: usize, is_valid: impl Fn(&serde_json::Value) -> bool) -> BTreeSet<String> {
    let tokenizer_section = vocabulary(&OTHERS);
    let tokenizer = Tokenizer::parse(&tokenizer_section).unwrap();
    let eos = tokenizer.eos();
    let section = compiled(&Rules::from_json_schema(schema).unwrap(), &tokenizer);
    let grammar = Grammar::parse(&section, &tokenizer).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let texts = (0..n_texts).map(|_| {
        let budget = grammar.shortest_text_bytes() + rng.random_range(0..60);
        let state = GrammarState::new(grammar, tokenizer, eos.as_slice());
        let text = String::from_utf8(random_text(state, &tokenizer, budget, &mut rng)).unwrap();
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(is_valid(&value), "{text} is not valid");
        text
    });
    texts.collect()
}

#[test]
fn schemas_of_every_kind_give_texts_that_parse() {
    let schemas = [
        r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"},
            "height": {"type": "number"}, "tags": {"type": "array", "items": {"enum": ["a", "b\"c", 3, null]}, "minItems": 1, "maxItems": 3},
            "alive": {"type": "boolean"}}, "required": ["name", "age", "tags"], "additionalProperties": false}"#,
        r##"{"$defs": {"node": {"type": "object", "properties": {"v": {"type": ["integer", "null"]},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v", "next"]}}, "$ref": "#/$defs/node"}"##,
        r#"{"type": "array", "items": {"type": "object", "properties": {"a": {"const": {"x": [1, 2]}}, "b": {"type": "string", "minLength": 2,
            "maxLength": 4}}}, "maxItems": 4, "description": "optional members"}"#,
        r#"{"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}, "minItems": 3}"#,
    ];
    let is_valid: [fn(&serde_json::Value) -> bool; 4] = [
        |v| {
            let tags = v["tags"].as_array().map_or(0, Vec::len);
            let name = v["name"].as_str().map_or(99, |name| name.chars().count());
            let others = ["height", "alive"].map(|key| v.get(key).is_none_or(|v| v.is_number() || v.is_boolean()));
            name <= 8 && v["age"].is_i64() && (1..=3).contains(&tags) && others == [true, true]
        },
        |mut v| loop {
            match v {
                serde_json::Value::Null => return true,
                _ if v["v"].is_i64() || v["v"].is_null() => v = &v["next"],
                _ => return false,
            }
        },
        |v| {
            let items = v.as_array().map_or(&[][..], Vec::as_slice);
            let is_item = |item: &serde_json::Value| {
                item.get("a").is_none_or(|a| a["x"][1] == 2)
                    && item.get("b").is_none_or(|b| b.as_str().is_some_and(|b| (2..=4).contains(&b.chars().count())))
            };
            items.len() <= 4 && items.iter().all(is_item)
        },
        |v| {
            let is_pair =
                |pair: &serde_json::Value| pair[0].is_boolean() && pair[1].is_boolean() && pair.get(2).is_none();
            v.as_array().is_some_and(|pairs| pairs.len() >= 3 && pairs.iter().all(is_pair))
        },
    ];
    for (schema, is_valid) in schemas.into_iter().zip(is_valid) {
        let texts = check_schema(schema, 400, is_valid);
        assert!(texts.len() > 50, "{texts:?}");
    }
}

#[test]
fn a_small_schema_has_exactly_its_texts() {
    let schema = r#"{"type": "object", "properties": {"a": {"enum": [1]}, "b": {"type": "null"}, "c": {"type": "boolean"}}, "required": ["b"]}"#;
    let all = [
        r#"{"b":null}"#,
        r#"{"a":1,"b":null}"#,
        r#"{"b":null,"c":true}"#,
        r#"{"b":null,"c":false}"#,
        r#"{"a":1,"b":null,"c":true}"#,
        r#"{"a":1,"b":null,"c":false}"#,
    ];
    assert_eq!(check_schema(schema, 500, |_| true), all.map(str::to_owned).into());
    assert_eq!(check_schema(r#"{"type": "object"}"#, 5, |_| true), BTreeSet::from(["{}".to_owned()]));
}

#[test]
fn what_is_wrong_with_a_grammar_is_told() {
    let tokenizer_section = vocabulary(&[]);
    let tokenizer = Tokenizer::parse(&tokenizer_section).unwrap();
    let cases = [
        ("", "root is used but not defined"),
        ("root ::= a", "rule a is used but not defined"),
        ("root = \"a\"", "line 1, column 6: ::= was expected"),
        ("root ::= \"a", "column 12: a literal's closing quote"),
        ("root ::= [a", "] is missing"),
        ("root ::= [b-a]", "backwards"),
        ("root ::= (\"a\"", "a ) is missing"),
        ("root ::= \"a\" ) \n", "does not belong here"),
        ("root ::= \"a\"{3,2}", "least number first"),
        ("root ::= \"\\q\"", "the escape \\q"),
        ("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 9: the rule root is defined twice"),
        ("root ::= root \"a\" | \"b\"", "begin with itself"),
        ("root ::= root", "no text"),
        ("root ::= \"(\" root \")\" | \"(\" root \"]\" | \"x\"\n", ""),
        ("root ::= \"(\" root \")\" | a\na ::= \"(\" a \"]\" | \"x\"\n", "0x28 may belong to"),
        ("root ::= \"a\"{60000}", "too large"),
        ("root ::= ((((\"a\"{999}){999}){999}){999})", "million steps"),
    ];
    for (text, words) in cases {
        let outcome = Rules::from_gbnf(text).and_then(|rules| rules.compile(&tokenizer));
        match outcome {
            Ok(_) => assert_eq!(words, "", "{text}"),
            Err(error) => assert!(!words.is_empty() && error.to_string().contains(words), "{text}: {error}"),
        }
    }
    let nested = format!("root ::= {}\"a\"{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(Rules::from_gbnf(&nested).unwrap_err().to_string().contains("within each other"));
    let schemas = [
        ("[", "not JSON"),
        ("{}", "one of type, enum"),
        (r#"{"type": "strin"}"#, "the type \"strin\""),
        (r#"{"type": "string", "pattern": "a"}"#, "pattern is not supported"),
        (
            r#"{"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}}"#,
            "at a of the schema: minimum",
        ),
        (r#"{"type": "object", "required": ["a"]}"#, "\"a\" is required"),
        (r#"{"type": "array"}"#, "needs items"),
        (r##"{"$ref": "#/$defs/a"}"##, "it must be there"),
        (r#"{"type": "string", "minLength": 3, "maxLength": 2}"#, "maxLength is below minLength"),
    ];
    for (text, words) in schemas {
        let error = Rules::from_json_schema(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn bytes_that_the_vocabulary_cannot_spell_are_left_out() {
    // A vocabulary without a token for the byte b: its place is taken by a longer piece.
    let mut bytes = vocabulary(&["xb"]).to_vec();
    let at = bytes.len() - (256 + 2 + 4) + usize::from(b'b');
    assert_eq!(bytes[at], b'b');
    bytes[at] = b'a';
    let byte_token = 44 + 2 * usize::from(b'b');
    bytes[byte_token..byte_token + 2].fill(0xff);
    let bytes = AlignedBytes::copy_of(&bytes);
    let tokenizer = Tokenizer::parse(&bytes).unwrap();
    let section = compiled(&Rules::from_gbnf(r#"root ::= "x" ("b" | "c")"#).unwrap(), &tokenizer);
    let grammar = Grammar::parse(&section, &tokenizer).unwrap();
    let mut state = GrammarState::new(grammar, tokenizer, &[]);
    assert!(!state.allows(256, 9) && state.allows(b'x'.into(), 9));
    state.advance(b'x'.into(), 9);
    assert!(state.allows(b'c'.into(), 9) && !state.allows(b'b'.into(), 9));
    assert_eq!(Rules::from_gbnf(r#"root ::= "b""#).unwrap().compile(&tokenizer), Err(GrammarError::Empty));
}

#[test]
fn damaged_sections_neither_panic_nor_loop() {
    let tokenizer_section = vocabulary(&OTHERS);
    let tokenizer = Tokenizer::parse(&tokenizer_section).unwrap();
    let section = compiled(&Rules::from_gbnf(JSON_GBNF).unwrap(), &tokenizer);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut n_parsed, mut n_refused) = (0, 0);
    for case in 0..20_000 {
        let mut damaged = section.to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..damaged.len());
            damaged[at] = if rng.random_bool(0.5) { rng.random() } else { damaged[at] ^ 1 << rng.random_range(0..8) };
        }
        if case % 8 == 0 {
            damaged.truncate(rng.random_range(0..damaged.len()));
        }
        let damaged = AlignedBytes::copy_of(&damaged);
        let Ok(grammar) = Grammar::parse(&damaged, &tokenizer) else {
            n_refused += 1;
            continue;
        };
        n_parsed += 1;
        let mut state = GrammarState::new(grammar, tokenizer, &[]);
        for n_left in (1..12).rev() {
            let mut logits = vec![0.0; tokenizer.vocab_size()];
            state.restrict(&mut logits, n_left);
            state.mark(&mut logits, n_left);
            let token = rng.random_range(0..logits.len()) as TokenId;
            state.advance(token, n_left);
        }
    }
    assert!(n_parsed > 100 && n_refused > 10_000, "{n_parsed} {n_refused}");
    let other = vocabulary(&[]);
    let other = Tokenizer::parse(&other).unwrap();
    let error = Grammar::parse(&section, &other).unwrap_err().to_string();
    assert!(error.contains("another vocabulary"), "{error}");
}
