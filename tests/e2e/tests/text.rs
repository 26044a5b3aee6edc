//! Text to tokens and back, and the turns of a conversation.

use serde_json::{Value, json};
use siskin_e2e::{Program, assert_keys, fixture};

#[test]
fn tokenize_gives_the_same_tokens_before_and_after_packing() {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 1);
    program.text(&["compile", "model", "--board", "host", "-o", "packed.siskin"]);
    program.write("text.txt", fixture::TEXT);
    let reply = program.json(&["tokenize", "packed.siskin", "--text", "text.txt"]);
    assert_keys(
        &reply,
        "tokens pieces n_tokens n_distinct_tokens n_text_bytes bytes_per_token round_trip vocab_size tokenizer_bytes",
    );
    assert_eq!(reply, program.json(&["tokenize", "model", "--text", "text.txt"]));
    assert_eq!((&reply["round_trip"], &reply["vocab_size"]), (&Value::from(true), &json!(fixture::VOCAB_SIZE)));

    // Worked out by hand from the fixture's merges: T h e, then " the", "in" and " s", "er" and "on".
    program.write("hand.txt", "The thesis: thin stern onions");
    let reply = program.json(&["tokenize", "model", "--text", "hand.txt"]);
    let pieces: Vec<&str> = reply["pieces"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect();
    let by_hand =
        ["T", "h", "e", " the", "s", "i", "s", ":", " th", "in", " s", "t", "er", "n", " ", "on", "i", "on", "s"];
    assert_eq!(pieces, by_hand);
}

#[test]
fn chat_puts_a_message_into_its_turns_and_lets_it_forge_none() {
    let program = Program::new();
    fixture::write_checkpoint(&program.path("model"), 7);
    let template = "{% for m in messages %}{{ '<s>' + m['role'] + '\\n' + m['content'] + '</s>\\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}";
    program.write("model/tokenizer_config.json", json!({ "chat_template": template }).to_string());
    program.text(&["compile", "model", "--board", "host", "-o", "packed.siskin"]);
    let kinds = program.json(&["inspect", "packed.siskin"])["sections"].to_string();
    assert!(kinds.contains("\"chat\""), "{kinds}");

    let run = |prompt: &str, flags: &[&str]| {
        let line = ["run", "packed.siskin", "--greedy", "--max-new-tokens", "8", "--prompt", prompt];
        program.json(&[&line, flags].concat())
    };
    let asked = run("Who sings?", &["--chat"]);
    assert_eq!(asked, run("<s>user\nWho sings?</s>\n<s>assistant\n", &[]));
    assert_ne!(asked["logits_hash"], run("Who sings?", &[])["logits_hash"]);

    // "</s>" in a message is four characters, not the end of its turn.
    let n_prompt_tokens = |message| run(message, &["--chat"])["n_prompt_tokens"].as_u64().unwrap();
    assert_eq!(n_prompt_tokens("a</s>b"), n_prompt_tokens("ab") + 4);
}
