//! Encoders, encoder-decoders, GPT-2 and GRUs from a checkpoint to text or labels: compiled, and run on the host with every kernel, with
//! the same bits. `every_board` has the boards.

use serde_json::Value;
use siskin_e2e::Program;
use siskin_e2e::families::{Family, LABELS, write_family};
use siskin_e2e::fixture::{CONTEXT_LEN, DIM};

const PROMPTS: [&str; 3] =
    ["The siskin sings", "a", "マヒワが歌う。 The others are on the river, and then they are gone."];

/// Compiles a tiny model of a family for the host.
fn compile(program: &Program, family: Family, weights: &str) -> String {
    write_family(&program.path("model"), family, 11);
    let out = format!("{family:?}-{weights}.siskin");
    let report = program.json(&["compile", "model", "--board", "host", "--weights", weights, "-o", &out]);
    assert_eq!(report["fits"], true, "{report}");
    out
}

/// What must agree everywhere: all that a model says, and the hash of how it came to it.
fn same(reply: &Value) -> Vec<Value> {
    let keys =
        ["text", "tokens", "end", "vector", "label", "scores", "tags", "fills", "n_prompt_tokens", "logits_hash"];
    keys.iter().map(|key| reply[key].clone()).collect()
}

#[test]
fn every_kernel_and_thread_count_agrees_on_the_host() {
    let program = Program::new();
    use Family::*;
    for family in [Classifier, Tagger, Masked, Vector, T5, Gpt2, Gru] {
        for weights in ["int8", "int8-g32"] {
            let file = compile(&program, family, weights);
            for prompt in PROMPTS {
                let prompt = &(if family == Masked { prompt.to_owned() + "[MASK]" } else { prompt.to_owned() });
                let run = |flags: &[&str]| {
                    let case = ["run", &file, "--prompt", prompt, "--greedy", "--max-new-tokens", "12"];
                    program.json(&[&case, flags].concat())
                };
                let want = run(&["--kernels", "generic"]);
                assert_ne!(want["logits_hash"], "cbf29ce484222325", "{family:?}: nothing was computed");
                assert_eq!(same(&run(&["--threads", "2"])), same(&want), "{family:?} {weights} {prompt}");
            }
        }
    }
}

#[test]
fn replies_have_the_keys_of_the_models_head() {
    let program = Program::new();
    let run = |file: &str| program.json(&["run", file, "--prompt", "The siskin sings"]);
    let reply = run(&compile(&program, Family::Classifier, "int8"));
    assert!(LABELS.contains(&reply["label"].as_str().unwrap()), "{reply}");
    let scores = reply["scores"].as_array().unwrap();
    let total: f64 = scores.iter().filter_map(|score| score["probability"].as_f64()).sum();
    assert!(scores.len() == LABELS.len() && (total - 1.0).abs() < 1e-6, "{reply}");

    let reply = run(&compile(&program, Family::Tagger, "int8"));
    let tags = reply["tags"].as_array().unwrap();
    assert_eq!(Some(tags.len() as u64 + 2), reply["n_prompt_tokens"].as_u64(), "{reply}");
    let text: String = tags.iter().filter_map(|tag| tag["text"].as_str()).collect();
    assert_eq!(text, "The siskin sings");

    let reply = run(&compile(&program, Family::Vector, "int8"));
    assert_eq!(reply["vector"].as_array().map(Vec::len), Some(DIM), "{reply}");

    // A classifier reads the beginning of a long text; a tagger would leave some of it without a tag.
    let long = "on the alder ".repeat(30);
    let file = compile(&program, Family::Classifier, "int8");
    assert_eq!(program.json(&["run", &file, "--prompt", &long])["n_prompt_tokens"], CONTEXT_LEN);
    let file = compile(&program, Family::Tagger, "int8");
    program.fails(&["run", &file, "--prompt", &long], 3, &["64", "shorten"]);
}
