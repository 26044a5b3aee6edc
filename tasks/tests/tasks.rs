//! What the parts of every task promise.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use siskin_tasks::{Part, PartRecords, Record, Task, names, task};

const SEED: u64 = 1;
const N: usize = 20_000;

fn part(parts: &[PartRecords], part: Part) -> &[Record] {
    &parts.iter().find(|records| records.part == part).expect("every part is there").records
}

fn set<'r>(records: &'r [Record], of: impl Fn(&'r Record) -> String) -> BTreeSet<String> {
    records.iter().map(of).collect()
}

fn template(record: &Record) -> String {
    format!("{}/{}", record.kind, record.template)
}

fn combination(record: &Record) -> String {
    record.combination.clone()
}

fn generated(name: &str) -> (Task, Vec<PartRecords>) {
    let task = task(name).unwrap();
    let parts = task.generate(SEED, N);
    (task, parts)
}

#[test]
fn parts_hold_out_what_their_names_say() {
    for name in names() {
        let (task, parts) = generated(name);
        let [train, validation, phrasings, combinations] = Part::ALL.map(|name| part(&parts, name));
        let sizes = [train.len(), validation.len(), phrasings.len(), combinations.len()];
        assert_eq!(sizes, [N, 1000, 1000, 1000], "{name}");
        let (n_train, n_held_out) = task.n_templates();
        let templates = set(train, template);
        assert_eq!(templates.len(), n_train, "{name}: every template is trained on");
        assert_eq!(set(phrasings, template).len(), n_held_out, "{name}: every other is tested");
        assert!(templates.is_disjoint(&set(phrasings, template)), "{name}");
        assert!(templates.is_superset(&set(validation, template)), "{name}");
        assert!(templates.is_superset(&set(combinations, template)), "{name}");
        let trained = set(train, combination);
        let unseen = set(combinations, combination);
        assert!(trained.is_disjoint(&unseen), "{name}");
        assert!(unseen.len() >= 8, "{name}: {} combinations", unseen.len());
        for other in [validation, phrasings] {
            assert!(set(other, combination).is_disjoint(&unseen), "{name}");
        }
    }
}

/// A template to train on that could make a held-out sentence would soon do so.
#[test]
fn no_template_to_train_on_makes_a_held_out_phrasing() {
    for name in names() {
        let (task, parts) = generated(name);
        let phrasings = set(part(&parts, Part::UnseenPhrasings), |record| record.prompt.clone());
        for seed in [2, 3] {
            let parts = task.generate(seed, N);
            let made = part(&parts, Part::Train).iter().find(|record| phrasings.contains(&record.prompt));
            assert_eq!(made, None, "{name}");
        }
    }
}

#[test]
fn no_prompt_comes_twice_and_none_has_two_answers() {
    for name in names() {
        let task = task(name).unwrap();
        let mut answers: BTreeMap<String, String> = BTreeMap::new();
        for seed in [SEED, 2] {
            let mut prompts = BTreeSet::new();
            for record in task.generate(seed, N).into_iter().flat_map(|part| part.records) {
                assert!(prompts.insert(record.prompt.clone()), "{name}: {:?} comes twice", record.prompt);
                assert!(!record.prompt.is_empty() && !record.completion.is_empty());
                let known = answers.entry(record.prompt.clone()).or_insert_with(|| record.completion.clone());
                assert_eq!(*known, record.completion, "{name}: {:?}", record.prompt);
            }
        }
    }
}

/// A held-out phrasing is a sentence that was not seen, of words that were.
#[test]
fn held_out_phrasings_have_no_new_words() {
    let words = |text: &str| -> BTreeSet<String> {
        let parts = text.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() > 1);
        parts.map(str::to_lowercase).collect()
    };
    for name in names() {
        let (_, parts) = generated(name);
        let known: BTreeSet<String> =
            part(&parts, Part::Train).iter().flat_map(|record| words(&record.prompt)).collect();
        let unseen: BTreeSet<String> =
            part(&parts, Part::UnseenPhrasings).iter().flat_map(|record| words(&record.prompt)).collect();
        let new: Vec<&String> = unseen.difference(&known).collect();
        assert!(new.is_empty(), "{name}: {new:?}");
    }
}

/// Each value of an unseen combination is trained on in others.
#[test]
fn unseen_combinations_have_no_new_values() {
    for name in ["voice", "logs", "sensors"] {
        let (_, parts) = generated(name);
        let values = |records: &[Record]| -> BTreeSet<String> {
            let of = |record: &Record| -> Vec<String> {
                let slots = record.combination.strip_prefix(&record.kind).unwrap_or_default();
                slots.split('=').map(|part| part.split(' ').next().unwrap_or_default().to_owned()).collect()
            };
            records.iter().flat_map(of).collect()
        };
        let known = values(part(&parts, Part::Train));
        let unseen = values(part(&parts, Part::UnseenCombinations));
        // A time is made of an hour and minutes, which come in other times.
        let new: Vec<&String> = unseen.difference(&known).filter(|value| !value.contains(':')).collect();
        assert!(new.is_empty(), "{name}: {new:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let bytes =
        |seed, n| -> String { task("voice").unwrap().generate(seed, n).iter().map(PartRecords::jsonl).collect() };
    assert_eq!(bytes(7, 500), bytes(7, 500));
    assert_ne!(bytes(7, 500), bytes(8, 500));
}

/// What is evaluated does not depend on how much is trained on, from 10,000 records on.
#[test]
fn more_to_train_on_leaves_the_other_parts_as_they_are() {
    let task = task("voice").unwrap();
    for (few, many) in task.generate(SEED, 10_000).iter().zip(task.generate(SEED, 20_000)).skip(1) {
        assert_eq!(few.records, many.records);
    }
}

/// Enough of JSON Schema for what the task writes: alternatives, objects, constants and lists of values.
fn is_valid(schema: &Json, value: &Json) -> bool {
    if let Some(schemas) = schema["anyOf"].as_array() {
        return schemas.iter().any(|schema| is_valid(schema, value));
    }
    if let Some(constant) = schema.get("const") {
        return constant == value;
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.contains(value);
    }
    let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object()) else { return false };
    let required = schema["required"].as_array().expect("objects say what is required");
    required.iter().all(|key| object.contains_key(key.as_str().unwrap_or_default()))
        && object.iter().all(|(key, value)| properties.get(key).is_some_and(|schema| is_valid(schema, value)))
}

#[test]
fn every_completion_of_voice_keeps_to_its_schema() {
    let (task, parts) = generated("voice");
    let schema: Json = serde_json::from_str(&task.schema().unwrap()).unwrap();
    for record in parts.iter().flat_map(|part| &part.records) {
        let value: Json = serde_json::from_str(&record.completion).unwrap();
        assert!(is_valid(&schema, &value), "{}", record.completion);
        assert_eq!(value["intent"], *record.kind, "{}", record.completion);
    }
    let wrong = [
        r#"{"intent":"warmer"}"#,
        r#"{"intent":"lock","door":"moon"}"#,
        r#"{"intent":"lock","door":"back door","x":1}"#,
    ];
    for wrong in wrong {
        assert!(!is_valid(&schema, &serde_json::from_str(wrong).unwrap()), "{wrong}");
    }
}

#[test]
fn wrong_grammars_are_refused_with_a_reason() {
    let kind = |train: &str| {
        format!("about=''\nform='text'\n[[kinds]]\nname='a'\ncompletion='b'\ntrain=['{train}']\nheld_out=['c']\n")
    };
    let cases = [
        (kind("<nothing>"), "in the grammar of x, kind a: <nothing> is neither a slot nor a fragment"),
        (kind("(a"), "in the grammar of x, kind a: a choice has no )"),
        (kind("a") + "slot='b'\n", "unknown field `slot`"),
        ("about=''\nform='text'\nkinds=[]\n[slots.a]\nrange=[3, 1, 1]\nsay=['{n}']\n".into(), "a range ascends"),
        ("about=''\nform='text'\nkinds=[]\n[slots.a]\n".into(), "one of values, range and calendar"),
    ];
    for (grammar, reason) in cases {
        let error = Task::parse("x", &grammar).err().expect("the grammar is wrong").to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(task("poems").err().unwrap().to_string().contains("there is no task \"poems\""));
}
