//! A checkpoint becomes a packed file, and the packed file becomes text: the same text however it is computed.

use serde_json::Value;
use siskin_e2e::{Program, assert_keys, fixture};

const REPORT_KEYS: &str =
    "board fits flash_bytes ram_bytes stack_bytes flash_limit_bytes ram_limit_bytes flash_parts ram_parts";
const CONFIG_KEYS: &str = "kind dim hidden_dim n_layers n_heads n_kv_heads head_dim vocab_size context_len norm_eps rope_theta \
    tied_head";

/// A program with a checkpoint in `model` and, for each weight format, a packed file.
fn packed() -> Program {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 1);
    for weights in ["int8", "int8-g32"] {
        let out = format!("{weights}.siskin");
        program.text(&["compile", "model", "--board", "host", "--weights", weights, "-o", &out]);
    }
    program
}

fn sum_of_parts(report: &Value, parts: &str) -> u64 {
    report[parts].as_array().unwrap().iter().map(|part| part["bytes"].as_u64().unwrap()).sum()
}

#[test]
fn compile_and_plan_report_every_byte() {
    let program = packed();
    let compiled = program.json(&["compile", "model", "--board", "host", "-o", "again.siskin", "--context", "32"]);
    let keys = "out file_bytes weights layout kv context_len prefill_batch beams";
    let blocks = "zero_blocks_dropped blocks_of_sparse_matrices";
    assert_keys(&compiled, &format!("{REPORT_KEYS} {keys} {blocks}"));
    assert_eq!((&compiled["context_len"], &compiled["weights"]), (&Value::from(32), &Value::from("int8-g32")));
    assert_eq!(compiled["file_bytes"], std::fs::metadata(program.path("again.siskin")).unwrap().len());

    let plan = program.json(&["plan", "model", "--board", "host", "--context", "32"]);
    assert_keys(&plan, &format!("{REPORT_KEYS} prediction uncounted speed"));
    // This machine's instructions were never counted.
    assert!(plan["prediction"].is_null() && plan["speed"].is_null());
    for (bytes, parts) in [("flash_bytes", "flash_parts"), ("ram_bytes", "ram_parts")] {
        assert_eq!(plan[bytes], sum_of_parts(&plan, parts));
        assert_eq!(plan[bytes], compiled[bytes], "{bytes}");
    }
    assert_eq!(plan, program.json(&["plan", "again.siskin", "--board", "host"]));

    // The same model and flags give the same bytes.
    program.text(&["compile", "model", "--board", "host", "-o", "thrice.siskin", "--context", "32"]);
    let bytes = |name| std::fs::read(program.path(name)).unwrap();
    assert!(bytes("again.siskin") == bytes("thrice.siskin"));
}

#[test]
fn inspect_shows_the_model_and_its_sections() {
    let program = packed();
    let inspected = program.json(&["inspect", "int8.siskin"]);
    assert_keys(
        &inspected,
        "version file_bytes weights layout n_params arena_bytes kv kv_cache_bytes prefill_batch beams config sections adapters",
    );
    assert_keys(&inspected["config"], CONFIG_KEYS);
    assert_eq!(inspected["weights"], "int8");
    assert_eq!(inspected["config"]["vocab_size"], fixture::VOCAB_SIZE);
    assert_eq!(inspected["config"]["context_len"], fixture::CONTEXT_LEN);
    let sections = inspected["sections"].as_array().unwrap();
    let kinds: Vec<&str> = sections.iter().map(|section| section["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tensors", "weights", "rope", "tokenizer"]);
    sections.iter().for_each(|section| assert_keys(section, "kind offset bytes crc32"));
    let text = program.text(&["inspect", "int8.siskin"]);
    assert!(kinds.iter().all(|kind| text.contains(kind)), "{text}");
}

#[test]
fn run_gives_the_same_bits_on_any_kernels_and_threads() {
    let program = packed();
    for file in ["int8.siskin", "int8-g32.siskin"] {
        for sampling in
            [&["--greedy"][..], &["--temperature", "1.2", "--top-k", "50", "--top-p", "0.95", "--seed", "9"]]
        {
            let run = |extra: &[&str]| {
                let flags = ["run", file, "--prompt", "The siskin", "--max-new-tokens", "40"];
                program.json(&[&flags, sampling, extra].concat())
            };
            let reference = run(&["--kernels", "generic"]);
            assert_keys(&reference, "text tokens n_prompt_tokens logits_hash end");
            assert_eq!(reference["tokens"].as_array().unwrap().len(), 40);
            assert_eq!(reference["end"], "max_new_tokens");
            let hash = reference["logits_hash"].as_str().unwrap();
            assert!(hash.len() == 16 && hash.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{hash}");
            assert_eq!(reference, run(&["--kernels", "generic", "--threads", "2"]));
            assert_eq!(reference, run(&[]));
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") {
                assert_eq!(reference, run(&["--kernels", "avx2"]));
                assert_eq!(reference, run(&["--kernels", "avx2", "--threads", "2"]));
            }
        }
    }
}

#[test]
fn run_follows_its_flags() {
    let program = packed();
    let run = |flags: &[&str]| {
        let line = ["run", "int8.siskin", "--prompt", "In the morning"];
        program.json(&[&line, flags].concat())
    };
    let tokens = |reply: &Value| reply["tokens"].as_array().unwrap().clone();

    // Text mode prints the same text, and JSON mode nothing but the object.
    let greedy = run(&["--greedy", "--max-new-tokens", "12"]);
    let text =
        program.text(&["run", "int8.siskin", "--prompt", "In the morning", "--greedy", "--max-new-tokens", "12"]);
    assert_eq!(text, format!("{}\n", greedy["text"].as_str().unwrap()));

    // A temperature of 0 is greedy; a seed decides; top-k of 1 is greedy whatever the seed.
    assert_eq!(run(&["--temperature", "0", "--max-new-tokens", "12"]), greedy);
    assert_eq!(run(&["--temperature", "2", "--top-k", "1", "--seed", "5", "--max-new-tokens", "12"]), greedy);
    let drawn = |seed| run(&["--temperature", "2", "--seed", seed, "--max-new-tokens", "12"]);
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(tokens(&drawn("1")), tokens(&drawn("2")));

    // A prompt and a stop may look like flags.
    program.json(&["run", "int8.siskin", "--prompt", "--greedy", "--stop", "-x", "--max-new-tokens", "1"]);

    // Fewer tokens are the beginning of more.
    let longer = run(&["--greedy", "--max-new-tokens", "20"]);
    assert_eq!(tokens(&longer)[..12], tokens(&greedy)[..]);
    assert_eq!(tokens(&run(&["--greedy", "--max-new-tokens", "0"])).len(), 0);

    // The penalty keeps a greedy choice from repeating itself as often.
    let distinct = |reply: &Value| {
        let mut ids: Vec<u64> = tokens(reply).iter().map(|id| id.as_u64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    };
    let penalised = run(&["--greedy", "--repetition-penalty", "5", "--max-new-tokens", "20"]);
    assert!(distinct(&penalised) >= distinct(&longer));

    // A stop ends the text before it.
    let drawn = drawn("1");
    let text = drawn["text"].as_str().unwrap();
    let stop: String = text.chars().skip(3).take(2).collect();
    let stopped =
        run(&["--temperature", "2", "--seed", "1", "--max-new-tokens", "12", "--stop", "@@@", "--stop", &stop]);
    assert_eq!(stopped["text"], text[..text.find(&stop).unwrap()]);
    assert_eq!(stopped["end"], "stop");
}

#[test]
fn a_full_context_ends_or_slides() {
    let program = packed();
    let run = |flags: &[&str]| program.json(&[&["run", "int8.siskin", "--prompt", "a", "--greedy"], flags].concat());
    let full = run(&["--max-new-tokens", "100"]);
    // The last token is drawn from a context that holds all before it.
    let n_tokens = full["tokens"].as_array().unwrap().len() as u64 + full["n_prompt_tokens"].as_u64().unwrap();
    assert_eq!((&full["end"], n_tokens), (&Value::from("context_full"), fixture::CONTEXT_LEN as u64 + 1));
    let slid = run(&["--max-new-tokens", "100", "--slide"]);
    assert_eq!(slid["end"], "max_new_tokens");
    assert_eq!(slid["tokens"].as_array().unwrap().len(), 100);

    let long = "long ".repeat(fixture::CONTEXT_LEN);
    program.fails(&["run", "int8.siskin", "--prompt", &long], 3, &["context is full", "shorten the prompt"]);
}

#[test]
fn an_end_token_ends_the_text_and_is_no_part_of_it() {
    let program = packed();
    let run = |file| program.json(&["run", file, "--prompt", "The", "--temperature", "2", "--max-new-tokens", "20"]);
    let without = run("int8-g32.siskin");
    let tokens = without["tokens"].as_array().unwrap();
    // The same weights, with the tenth token drawn as the end of text.
    let at = tokens.iter().position(|token| *token == tokens[9]).unwrap();
    let config = std::fs::read_to_string(program.path("model/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["eos_token_id"] = tokens[at].clone();
    program.write("model/config.json", config.to_string());
    program.text(&["compile", "model", "--board", "host", "-o", "ended.siskin"]);
    let ended = run("ended.siskin");
    assert_eq!(ended["end"], "end_token");
    assert_eq!(ended["tokens"].as_array().unwrap()[..], tokens[..=at]);
    let text = ended["text"].as_str().unwrap().trim_end_matches('\u{fffd}');
    assert!(without["text"].as_str().unwrap().starts_with(text), "{ended} {without}");
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let program = packed();
    let good = std::fs::read(program.path("int8.siskin")).unwrap();
    let damaged = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    program.write("cut.siskin", &good[..good.len() / 2]);
    program.write("version.siskin", damaged(8, 9));
    program.write("header.siskin", damaged(40, good[40] ^ 1));
    program.write("weights.siskin", damaged(good.len() / 2, good[good.len() / 2] ^ 1));
    for (file, words) in [
        ("cut.siskin", "cut short"),
        ("version.siskin", "version 9"),
        ("header.siskin", "header's checksum"),
        ("weights.siskin", "checksum of the weights section"),
    ] {
        for command in [&["inspect", file][..], &["run", file, "--prompt", "a"], &["plan", file, "--board", "host"]] {
            program.fails(command, 3, &[file, words]);
        }
    }
    program.fails(&["run", "int8.siskin", "--prompt", "a", "--chat"], 3, &["leave --chat out"]);
    program.fails(&["run", "int8.siskin", "--prompt", ""], 3, &["prompt"]);
    program.fails(&["plan", "int8.siskin", "--board", "host", "--context", "8"], 2, &["packed already"]);
    program.fails(&["compile", "model", "--board", "host", "-o", "x.siskin", "--context", "65"], 3, &["64"]);
    program.fails(&["compile", "model", "--board", "host", "-o", "int8.siskin/x.siskin"], 1, &["int8.siskin/x.siskin"]);

    std::fs::remove_file(program.path("model/tokenizer.json")).unwrap();
    program.fails(&["compile", "model", "--board", "host", "-o", "x.siskin"], 3, &["--tokenizer"]);
    program.write("model/config.json", "{");
    program.fails(&["compile", "model", "--board", "host", "-o", "x.siskin"], 3, &["config.json", "JSON"]);
    assert!(!program.path("x.siskin").exists());
}
