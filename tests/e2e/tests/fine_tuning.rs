//! Supervised fine-tuning from the outside: bad lines are named, and what was trained answers in a chat.

use siskin_e2e::Program;
use std::fmt::Write as _;

const RECIPE: &str = "\
model = { dim = 32, hidden_dim = 64, n_layers = 1, n_heads = 2, context_len = 48 }
tokenizer = { vocab_size = 280 }
data = { text = \"commands.jsonl\", train_fraction = 0.9 }
objective = { kind = \"sft\", prompt_template = \"Q: {{ prompt }}\\n\" }
train = { steps = 400, batch_size = 8, seed = 1 }
optimizer = { learning_rate = 1e-2, warmup_steps = 5 }
";

fn commands() -> String {
    let mut lines = String::new();
    for i in 0..200_usize {
        let (verb, state) = [("turn on", "on"), ("switch off", "off")][i % 2];
        let (thing, room) = (["lamp", "fan", "heater"][i / 2 % 3], ["hall", "kitchen"][i / 6 % 2]);
        let (prompt, completion) = (format!("{verb} the {thing} in the {room}"), format!("{thing} {state} {room}"));
        writeln!(lines, "{{\"prompt\": \"{prompt}\", \"completion\": \"{completion}\"}}").unwrap();
    }
    lines
}

#[test]
fn every_bad_line_is_named_by_inspect_and_train_alike() {
    let program = Program::new();
    let bad = "{\"prompt\": \"a\", \"completion\": \"\"}\n{\"prompt\": \"a\"\n{\"messages\": []}\n";
    program.write("commands.jsonl", commands() + bad + &"{\"prompt\": 1, \"completion\": \"b\"}\n".repeat(25));
    program.write("recipe.toml", RECIPE);
    let words = [
        "28 records cannot be trained on",
        "commands.jsonl, line 201: `completion` is empty",
        "line 202: not a JSON object",
        "line 203: `messages` is an empty list",
        "line 204: `prompt` is a number",
        "line 220:",
        "and 8 more",
    ];
    for args in [["data", "inspect", "recipe.toml"], ["train", "recipe.toml", "--quiet"]] {
        let failed = program.fails(&args, 3, &words);
        assert!(!format!("{failed:?}").contains("line 221"), "twenty are enough");
    }
}

#[test]
fn a_tuned_model_answers_in_a_chat() {
    let program = Program::new();
    program.write("commands.jsonl", commands());
    program.write("recipe.toml", RECIPE);
    let shown = program.text(&["data", "inspect", "recipe.toml", "--n", "1"]);
    assert!(shown.contains("Q: ") && shown.contains("</s>]") && shown.contains("0 too long and left out"), "{shown}");
    let reply = program.json(&["train", "recipe.toml", "--out", "run"]);
    assert_eq!(reply["data"]["sft"]["n_parted"], 0, "{reply}");
    program.text(&["compile", "run", "--board", "host", "-o", "tuned.siskin"]);
    let prompt = "switch off the fan in the kitchen";
    let said = program.json(&["run", "tuned.siskin", "--chat", "--prompt", prompt, "--greedy"]);
    assert_eq!((&said["text"], &said["end"]), (&"fan off kitchen".into(), &"end_token".into()), "{said}");
}
