//! Documents as training data: packed, parted, without duplicates, in memory or mapped, and what is said of bad ones.

mod interruption;

use interruption::{StopAt, files, try_train};
use siskin_compiler::artifact::hf;
use siskin_compiler::data::Example;
use siskin_compiler::model;
use siskin_compiler::recipe::Recipe;
use siskin_compiler::tensor::Tape;
use siskin_compiler::train::progress::Silent;
use siskin_compiler::train::{Options, Outcome, run};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

struct Case {
    name: &'static str,
    architecture: &'static str,
    objective: &'static str,
    data: &'static str,
}

const CASES: [Case; 8] = [
    Case {
        name: "causal",
        architecture: "llama",
        objective: "kind = 'causal'",
        data: "text = 'folder', documents = 'blank_lines', deduplicate = true, split = 'document', packing = 'best_fit'",
    },
    Case {
        name: "recurrent",
        architecture: "gru",
        objective: "kind = 'causal'",
        data: "text = 'texts.jsonl', deduplicate = 'near', packing = 'best_fit'",
    },
    Case {
        name: "one-text",
        architecture: "gpt2",
        objective: "kind = 'causal'",
        data: "text = 'folder/parted.txt', packing = 'best_fit'",
    },
    Case {
        name: "windows",
        architecture: "llama",
        objective: "kind = 'causal'",
        data: "text = 'folder', documents = { line = '<|end|>' }, split = 'document', shards = 'windows-tokens'",
    },
    Case {
        name: "prefix",
        architecture: "gpt2",
        objective: "kind = 'prefix'",
        data: "text = 'texts.jsonl', packing = 'best_fit', shards = 'prefix-tokens'",
    },
    Case {
        name: "masked",
        architecture: "bert",
        objective: "kind = 'masked'",
        data: "text = 'texts.csv', packing = 'best_fit'",
    },
    Case {
        name: "spans",
        architecture: "t5",
        objective: "kind = 'span_corruption'",
        data: "text = 'folder', packing = 'best_fit', shards = 'span-tokens'",
    },
    Case {
        name: "pairs",
        architecture: "transformer",
        objective: "kind = 'seq2seq'",
        data: "text = 'pairs', split = 'document', deduplicate = true, packing = 'best_fit'",
    },
];

fn sentence(i: usize) -> String {
    let noun = ["bird", "cat", "fish", "dog", "bee"][i * 11 % 5];
    let verb = ["sees", "likes", "hears"][i * 7 % 3];
    format!("the {noun} {verb} the {}", ["tree", "moon", "sea"][i / 5 % 3])
}

/// A folder with the same sentences as texts and as records; every document has a number of its own.
fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut parted, mut jsonl) = (String::new(), String::new());
    let (mut csv, mut pairs) = (String::from("id,text\n"), String::from("source,target\n"));
    for i in 0..240_usize {
        let document: String = (0..=i % 7).map(|k| sentence(i + k) + ". ").collect();
        writeln!(parted, "no {i}: {document}\n").unwrap();
        writeln!(jsonl, "{{\"text\": \"no {i}: {document}\"}}").unwrap();
        writeln!(csv, "{i},no {i}: {document}").unwrap();
        writeln!(pairs, "{i} {},{i}", sentence(i)).unwrap();
    }
    let write = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("folder/parted.txt", &parted);
    write("folder/more/last.txt", "the end of it\n\nno 3: the fish  sees the tree.\n<|end|>\nnot the end\n");
    write("folder/more/records.jsonl", &jsonl[..jsonl.find("no 20").unwrap() - 10]);
    write("texts.jsonl", &jsonl);
    write("texts.csv", &csv);
    write("pairs/a.csv", &pairs);
    write(
        "pairs/b.jsonl",
        "{\"source\": \"7 more\", \"target\": \"7\"}\n{\"target\": \"7\", \"source\": \"7 more\"}\n",
    );
    dir
}

fn recipe(dir: &Path, case: &Case, n_steps: usize) -> Recipe {
    let Case { architecture, objective, data, .. } = case;
    let fraction = if data.contains("train_fraction") { "" } else { ", train_fraction = 0.8" };
    let text = format!(
        "\
model = {{ architecture = '{architecture}', dim = 24, hidden_dim = 44, n_layers = 1, n_heads = 4, context_len = 32 }}
tokenizer = {{ vocab_size = 275 }}
data = {{ {data}{fraction} }}
objective = {{ {objective} }}
train = {{ steps = {n_steps}, batch_size = 4, accumulate = 2, seed = 3, log_every = 1, checkpoint_every = 5, dropout = 0.05 }}
optimizer = {{ learning_rate = 1e-2, warmup_steps = 1 }}
"
    );
    let path = dir.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    Recipe::load(&path, &[]).unwrap()
}

fn train(recipe: &Recipe, out: &Path, n_threads: usize) -> Outcome {
    try_train(recipe, out, n_threads, &mut Silent).unwrap()
}

#[test]
fn threads_and_interruptions_leave_no_trace() {
    let dir = workshop();
    for (i, case) in CASES.iter().enumerate() {
        let recipe = recipe(dir.path(), case, 12);
        let out = |run: &str| dir.path().join(format!("{}-{run}", case.name));
        let outcome = train(&recipe, &out("one"), 1);
        assert_eq!(outcome.data.is_some(), case.name != "one-text", "{}", case.name);
        train(&recipe, &out("two"), 2);
        assert!(files(&out("one")) == files(&out("two")), "{}: threads leave a trace", case.name);
        let flag = AtomicBool::new(false);
        let options = Options { out: &out("parts"), resume: false, interrupt: &flag };
        assert!(run(&recipe, &options, &mut StopAt(1 + i as u64, &flag)).unwrap().interrupted);
        train(&recipe, &out("parts"), 2);
        assert!(files(&out("one")) == files(&out("parts")), "{}: an interruption leaves a trace", case.name);
        // What a run folder says of its recipe makes the same run.
        let again = Recipe::load(&out("one").join("recipe.toml"), &[]).unwrap();
        assert_eq!(again, recipe, "{}", case.name);
        if recipe.data.shards.is_some() {
            let in_memory = Recipe {
                data: {
                    let mut data = recipe.data.clone();
                    data.shards = None;
                    data
                },
                ..recipe
            };
            train(&in_memory, &out("memory"), 2);
            assert!(files(&out("one")) == files(&out("memory")), "{}: shards leave a trace", case.name);
        }
    }
}

#[test]
fn duplicates_are_dropped_and_told() {
    let dir = workshop();
    let data = |i: usize| {
        let recipe = recipe(dir.path(), &CASES[i], 1);
        let out = dir.path().join(format!("run-{i}"));
        let data = train(&recipe, &out, 1).data.unwrap();
        let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        assert_eq!(first["data"], serde_json::to_value(data).unwrap());
        assert_eq!(
            data.n_train_documents + data.n_validation_documents + data.duplicates.n_exact + data.duplicates.n_near,
            data.n_documents
        );
        data
    };
    // 20 records and one text repeat what the big file has, however they are spaced.
    let folder = data(0);
    assert_eq!((folder.duplicates.n_exact, folder.duplicates.n_near), (20, 0));
    assert!((35..70).contains(&folder.n_validation_documents), "{folder:?}");
    assert_eq!(data(7).duplicates.n_exact, 1);
    let near = data(1).duplicates;
    assert!(near.n_exact == 0 && near.n_near > 20, "{near:?}");
}

#[test]
fn the_end_of_a_document_is_learnt() {
    let dir = workshop();
    let case = Case { data: "text = 'ends.jsonl', packing = 'best_fit'", ..CASES[0] };
    let lines: String = (0..60).map(|i| format!("{{\"text\": \"{}\"}}\n", sentence(i))).collect();
    std::fs::write(dir.path().join("ends.jsonl"), lines).unwrap();
    let out = dir.path().join("run");
    let outcome = train(&recipe(dir.path(), &case, 120), &out, 2);
    // Three of about six words are free: 5, 3 and 3 ways, for some 24 bytes.
    assert!(outcome.validation.unwrap().validation_bits_per_byte.unwrap() < 0.35, "{outcome:?}");
    let model = hf::load_trained(&out).unwrap();
    let built = model::build(&model.architecture).unwrap();
    let params = model.params(built.layout()).unwrap();
    let tokenizer = std::fs::read(out.join("tokenizer.json")).unwrap();
    let ids =
        siskin_compiler::tokenizer::TokenizerDef::from_hugging_face(std::str::from_utf8(&tokenizer).unwrap(), None);
    let compiled = ids.unwrap().compile().unwrap();
    let tokens = siskin_compiler::tokenizer::CorpusEncoder::new(compiled.view()).encode(&sentence(4));
    let example = Example { inputs: tokens, ..Example::default() };
    let mut tape = Tape::default();
    let mut graph = tape.evaluate(&params);
    let logits = built.logits(&mut graph, std::slice::from_ref(&example));
    let last = graph.value(logits).chunks_exact(275).next_back().unwrap();
    let best = (0..275).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
    assert_eq!(best as u32, model.specials.eos.unwrap());
}

#[test]
fn bad_data_is_refused_with_file_and_line() {
    let dir = workshop();
    let said = |case: &Case, name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let error = try_train(&recipe(dir.path(), case, 1), &dir.path().join("bad-run"), 1, &mut Silent);
        std::fs::remove_file(&path).unwrap();
        let error = error.expect_err(name);
        assert!(error.is_input(), "{error}");
        error.to_string()
    };
    let causal = |data: &'static str| Case { data, ..CASES[0] };
    for (data, name, content, expected) in [
        ("text = 'a.txt'", "a.txt", &b""[..], "a.txt has no text in it"),
        ("text = 'a.jsonl'", "a.jsonl", b"\n\n", "a.jsonl has no text in it"),
        ("text = 'bad'", "bad/.hidden", b"text", "bad has no text in it"),
        ("text = 'bad'", "bad/a.txt", b"one\ntwo\n\xff\n", "a.txt, line 3: the byte at offset 8"),
        (
            "text = 'bad', documents = 'blank_lines'",
            "bad/a.txt",
            b"one\n\n\xff\n",
            "a.txt, line 3: the byte at offset 5",
        ),
        ("text = 'a.csv'", "a.csv", b"id,text\n1,a\n2,b,c\n", "a.csv, line 3: "),
        ("text = 'a.csv'", "a.csv", b"id,text\n1,a\n2,\xff\n", "a.csv, line 3: "),
        ("text = 'a.jsonl'", "a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"b\"\n", "a.jsonl, line 2: not a JSON object"),
        ("text = 'a.jsonl'", "a.jsonl", b"{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "a.jsonl, line 2: there is no field"),
        (
            "text = 'a.jsonl', split = 'document', train_fraction = 1e-9",
            "a.jsonl",
            b"{\"text\": \"one\"}\n",
            "the training part of the text has 0 tokens",
        ),
        ("text = 'a.txt', split = 'document'", "a.txt", b"some text", "data.split is for several"),
        ("text = 'a.txt', deduplicate = true", "a.txt", b"some text", "data.deduplicate is for several"),
        ("text = 'texts.jsonl', shards = 'keep'", "keep/precious.txt", b"x", "keep is not empty and holds no tokens"),
    ] {
        let error = said(&causal(data), name, content);
        assert!(error.contains(expected), "{error}");
    }
    let records = |objective, data| Case { architecture: "gpt2", objective, data, name: "" };
    let seq2seq = records("kind = 'seq2seq'", "text = 'a.jsonl'");
    let labels = records("kind = 'classification'", "text = 'a.jsonl'");
    let tags = records("kind = 'token_classification'", "text = 'a.jsonl'");
    // A merge needs some text: many good records before the bad one.
    let lines = |good: &str, bad: &str| format!("{}{bad}\n", format!("{good}\n").repeat(50));
    let pair = "{\"source\": \"the bird sees the tree under a silver morning sky\", \"target\": \"the moon\"}";
    let text = "{\"text\": \"the bird sees the tree under a silver morning sky\", \"label\": \"x\"}";
    let words = "{\"tokens\": [\"silver\", \"morning\", \"sees\", \"the\", \"bird\"], \"tags\": [\"x\", \"y\", \"x\", \"x\", \"y\"]}";
    for (case, good, bad, expected) in [
        (&seq2seq, pair, "{\"source\": \" \", \"target\": \"a\"}", "a.jsonl, line 51: `source` is empty"),
        (&labels, text, "{\"text\": \"\", \"label\": \"x\"}", "a.jsonl, line 51: `text` is empty"),
        (&tags, words, "{\"tokens\": [], \"tags\": []}", "a.jsonl, line 51: there is nothing to learn from it"),
    ] {
        let error = said(case, "a.jsonl", lines(good, bad).as_bytes());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_folder_of_tokens_is_used_again_and_never_when_it_is_stale_or_damaged() {
    let dir = workshop();
    let recipe = recipe(dir.path(), &CASES[4], 2);
    let tokens = dir.path().join("prefix-tokens");
    let shard = tokens.join("train/00000.tokens");
    train(&recipe, &dir.path().join("first"), 1);
    let written = || std::fs::metadata(&shard).unwrap().modified().unwrap();
    let (at, content) = (written(), std::fs::read(&shard).unwrap());
    train(&recipe, &dir.path().join("second"), 1);
    assert_eq!(written(), at, "the tokens were made again");
    assert!(files(&dir.path().join("first")) == files(&dir.path().join("second")));

    std::fs::write(&shard, &content[..content.len() - 7]).unwrap();
    let error = try_train(&recipe, &dir.path().join("third"), 1, &mut Silent).expect_err("cut off").to_string();
    assert!(error.contains("00000.tokens") && error.contains("write the folder anew"), "{error}");

    // With other data the folder is of no use, whatever is wrong with it.
    let path = dir.path().join("texts.jsonl");
    let text = std::fs::read_to_string(&path).unwrap() + "{\"text\": \"one more document\"}\n";
    std::fs::write(&path, text).unwrap();
    let outcome = train(&recipe, &dir.path().join("fourth"), 1);
    assert_eq!(outcome.data.unwrap().n_documents, 241);
    assert!(std::fs::read(&shard).unwrap() == content, "the text at the end is held out");
    let error = try_train(&recipe, &dir.path().join("first"), 1, &mut Silent).expect_err("other data").to_string();
    assert!(error.contains("another text"), "{error}");
}
