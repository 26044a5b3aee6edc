//! Ten thousand texts of a model at temperature 1.5, drawn within a JSON schema: each parses and is valid. Another validator of JSON schemas
//! looks at them with tests/oracles/grammar.py.

#[path = "../../tests/conformance/tests/marked/mod.rs"]
mod marked;

use std::collections::HashSet;
use std::path::Path;

use marked::texts_are_the_same;
use rayon::prelude::*;
use siskin_compiler::grammar::Rules;
use siskin_compiler::pack::{AlignedBytes, PackedFile, relayout, with_section};
use siskin_runtime::format::SectionKind;
use siskin_runtime::grammar::{Grammar, GrammarState};
use siskin_runtime::{End, Generation, Kernels, Limits, Sampler, Sampling, Session, StopMatcher};

const SCHEMA: &str = include_str!("../../tests/golden/reply.schema.json");
const N_TEXTS: u64 = 10_000;
const N_TASKS: u64 = 20;

fn packed() -> PackedFile {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/shakespeare-260k.siskin");
    let file = PackedFile::open(&golden).expect("the golden model");
    let tokenizer = file.model().tokenizer().expect("its tokenizer");
    let section = Rules::from_json_schema(SCHEMA).and_then(|rules| rules.compile(&tokenizer)).expect("the schema");
    let bytes = with_section(&file.model(), SectionKind::Grammar, &section).expect("room for a section");
    let file = PackedFile::from_bytes(bytes).expect("a packed model");
    // In the order of bytes that this machine's kernels read, which changes no result.
    let batch = file.model().header().prefill_batch as usize;
    let bytes = relayout(&file.model(), Kernels::detect().preferred_layout(), batch).expect("another layout");
    PackedFile::from_bytes(bytes).expect("a packed model")
}

/// The text of a seed, and how it ended. Some have just the tokens that the shortest text may take.
fn text(session: &mut Session<'_>, seed: u64) -> (String, Option<End>) {
    session.reset();
    let model = *session.model();
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let grammar = Grammar::parse(model.section(SectionKind::Grammar).expect("a grammar"), &tokenizer).expect("sound");
    let shortest = grammar.shortest_text_bytes();
    let eos = tokenizer.eos();
    let max_new_tokens = if seed.is_multiple_of(7) { shortest } else { shortest + 40 };
    let limits = Limits { max_new_tokens, end_tokens: eos.as_slice(), slide_to: None };
    let mut sampling = Sampling::random(1.5).expect("a temperature");
    sampling = match seed % 4 {
        1 => sampling.with_top_p(0.9).expect("a share"),
        2 => sampling.with_typical_p(0.8).expect("a share"),
        3 => sampling.with_mirostat(5.0, 0.1).expect("a target"),
        _ => sampling,
    };
    let stops = StopMatcher::new(&[]).expect("no stops");
    let state = GrammarState::new(grammar, tokenizer, eos.as_slice());
    let sampler = Sampler::new(sampling, seed);
    let mut generation = Generation::new(session, Some(tokenizer), sampler, stops, limits).within(state);
    generation.read(&[1, 40, 60]).expect("room for the prompt");
    let mut text = String::new();
    while generation.step(|piece| text.push_str(piece)).is_some() {}
    (text, generation.end())
}

/// The schema, member by member.
fn is_valid(value: &serde_json::Value) -> bool {
    let Some(members) = value.as_object() else { return false };
    let who = value["who"].as_str().unwrap_or_default();
    let to = value["to"].as_array().map_or(&[][..], Vec::as_slice);
    members.keys().all(|key| ["who", "says", "mood", "to"].contains(&key.as_str()))
        && ["Romeo", "Juliet", "Nurse"].contains(&who)
        && value["says"].as_str().is_some_and(|says| says.chars().count() <= 12)
        && members.get("mood").is_none_or(|mood| mood.is_null() || mood.is_i64())
        && (1..=3).contains(&to.len())
        && to.iter().all(serde_json::Value::is_boolean)
}

#[test]
fn ten_thousand_texts_at_temperature_1_5_are_valid() {
    let file = packed();
    let texts_of_task = |task: u64| -> Vec<String> {
        let model = file.model();
        let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
        let mut session = Session::new(&model, &mut arena, Kernels::detect()).expect("room in the arena");
        let seeds = task * N_TEXTS / N_TASKS..(task + 1) * N_TEXTS / N_TASKS;
        let texts = seeds.map(|seed| {
            let (text, end) = text(&mut session, seed);
            let value: Result<serde_json::Value, _> = serde_json::from_str(&text);
            assert!(value.is_ok_and(|value| is_valid(&value)), "seed {seed}: {text} {end:?}");
            assert!(matches!(end, Some(End::Complete | End::MaxNewTokens)), "seed {seed}: {end:?}");
            text
        });
        texts.collect()
    };
    let texts: Vec<String> = (0..N_TASKS).into_par_iter().flat_map_iter(texts_of_task).collect();
    // For the oracle to look at.
    if let Some(path) = std::env::var_os("SISKIN_GRAMMAR_TEXTS") {
        let lines = texts.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
        std::fs::write(path, lines.collect::<String>()).expect("the texts are written");
    }
    let different: HashSet<&String> = texts.iter().collect();
    assert!(texts.len() as u64 == N_TEXTS && different.len() > 5000, "{} different texts", different.len());
}

#[test]
fn where_few_tokens_may_come_the_others_are_not_computed_and_the_text_is_the_same() {
    let file = packed();
    for kernels in Kernels::available() {
        let bytes = relayout(&file.model(), kernels.preferred_layout(), 8).expect("another layout");
        let model = siskin_runtime::PackedModel::parse(&bytes).expect("a packed model");
        let tokenizer = model.tokenizer().expect("a tokenizer");
        let section = model.section(SectionKind::Grammar).expect("a grammar");
        let grammar = Grammar::parse(section, &tokenizer).expect("sound");
        let mut arenas = [(); 2].map(|()| AlignedBytes::zeroed(model.memory_plan().arena_bytes));
        let arenas = arenas.each_mut().map(|arena| &mut arena[..]);
        let steps = texts_are_the_same(&model, grammar, kernels, arenas, 90);
        assert!(steps.narrow > 50 && steps.wide > 10, "{steps:?}");
    }
}
