//! `siskin data tasks`: files that training and evaluation read, and a schema that generation keeps to.

use std::collections::BTreeSet;

use serde_json::Value;
use siskin_e2e::{Program, assert_keys};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");

#[test]
fn tasks_are_written_whole_and_the_same_again() {
    let program = Program::new();
    let reply = program.json(&["data", "tasks", "all", "--out", "tasks", "--n", "300"]);
    assert_keys(&reply, "seed tasks");
    let tasks = reply["tasks"].as_array().unwrap();
    let names: Vec<&str> = tasks.iter().filter_map(|task| task["name"].as_str()).collect();
    assert_eq!(names, ["voice", "logs", "sensors", "normalize", "manual"]);
    for task in tasks {
        assert_keys(task, "name about n_templates n_held_out_templates parts schema");
        let mut ids = BTreeSet::new();
        for part in task["parts"].as_array().unwrap() {
            let text = std::fs::read_to_string(program.path(part["file"].as_str().unwrap())).unwrap();
            assert_eq!(text.lines().count(), part["n_records"].as_u64().unwrap() as usize, "{part}");
            for line in text.lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                assert_keys(&record, "id prompt completion kind template combination");
                assert!(ids.insert(record["id"].as_str().unwrap().to_owned()), "{line}");
            }
        }
        assert_eq!(ids.len(), 390);
    }
    let read = |folder: &str| std::fs::read(program.path(&format!("{folder}/voice/train.jsonl"))).unwrap();
    program.text(&["data", "tasks", "voice", "--out", "again", "--n", "300"]);
    program.text(&["data", "tasks", "voice", "--out", "other", "--n", "300", "--seed", "2"]);
    assert_eq!(read("tasks"), read("again"));
    assert_ne!(read("tasks"), read("other"));
    program.fails(&["data", "tasks", "poems", "--out", "tasks"], 2, &["there is no task \"poems\"", "voice, logs"]);
    program.write("file", "");
    program.fails(&["data", "tasks", "voice", "--out", "file"], 1, &["write", "file"]);
}

#[test]
fn generated_text_keeps_to_the_schema_of_voice() {
    let program = Program::new();
    program.text(&["data", "tasks", "voice", "--out", "tasks", "--n", "10"]);
    let mut intents = BTreeSet::new();
    for seed in 0..8 {
        let flags = ["--prompt", "turn on the light", "--temperature", "1.5", "--max-new-tokens", "100", "--seed"];
        let seed = seed.to_string();
        let run = [&["run", MODEL, "--grammar", "tasks/voice/schema.json"], &flags[..], &[&seed]].concat();
        let reply = program.json(&run);
        let text = reply["text"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        intents.insert(value["intent"].as_str().unwrap().to_owned());
    }
    assert!(intents.len() > 1, "{intents:?}");
}
