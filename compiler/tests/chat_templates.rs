//! Chat templates of real models, and ones that use more of Jinja, against what Python's `jinja2` 3.1 renders with the settings of
//! Hugging Face's `apply_chat_template`.

use serde_json::Value;
use siskin_compiler::tokenizer::{ChatMessage, ChatTemplate};
use siskin_runtime::tokenizer::ChatPrompt;

fn templates() -> Vec<Value> {
    serde_json::from_str(include_str!("../../tests/golden/chat_templates.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn messages(case: &Value) -> Vec<ChatMessage> {
    let messages = case["messages"].as_array().unwrap().iter();
    messages.map(|message| ChatMessage::new(text(&message["role"]), text(&message["content"]))).collect()
}

#[test]
fn templates_render_as_jinja2_does() {
    for entry in templates() {
        let template = ChatTemplate::new(text(&entry["template"]), "<s>", "</s>").unwrap();
        for case in entry["cases"].as_array().unwrap() {
            let rendered = template.render(&messages(case), case["add_generation_prompt"] == true);
            assert_eq!(rendered.unwrap(), text(&case["text"]), "{}: {case}", entry["name"]);
        }
    }
}

/// A message in the reduced template is the template's rendering of it. The one named `namespace` closes a conversation's last
/// turn unlike the ones before, so no text around a message can stand for it.
#[test]
fn reduced_templates_wrap_as_jinja2_renders() {
    let mut n_wrapped = 0;
    for entry in templates() {
        let template = ChatTemplate::new(text(&entry["template"]), "<s>", "</s>").unwrap();
        for case in entry["cases"].as_array().unwrap().iter().filter(|case| case["add_generation_prompt"] == true) {
            let messages = messages(case);
            let (system, user) = match &messages[..] {
                [user] => (None, user),
                [system, user] => (Some(system.content.as_str()), user),
                _ => continue,
            };
            let reduced = template.reduce(system);
            if entry["name"] == "namespace" {
                assert!(reduced.unwrap_err().to_string().contains("later turns"));
                continue;
            }
            let section = reduced.unwrap_or_else(|error| panic!("{}: {error}", entry["name"])).section();
            let prompt = ChatPrompt::parse(&section).unwrap();
            let mut buffer = vec![0; prompt.max_bytes(user.content.len())];
            let wrapped = prompt.first(&user.content, &mut buffer).unwrap();
            assert_eq!(wrapped.text, text(&case["text"]), "{}: {case}", entry["name"]);
            n_wrapped += 1;
        }
    }
    assert_eq!(n_wrapped, 6);
}
