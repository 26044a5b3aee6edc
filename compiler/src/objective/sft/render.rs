//! From records to text: templates, and which parts are to be said.

use super::{Dialogue, SftSection, TaskTemplate};
use crate::data::{DataError, Record};
use crate::tokenizer::{AssistantTurns, ChatTemplate};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

/// The name under which the environment keeps a template; it shows in errors.
const NAME: &str = "prompt_template";
/// At the ends of a template: keeps its first and last line breaks, which Jinja drops.
const NOTHING: &str = "{{ '' }}";

/// Jinja over the fields of a record.
#[derive(Debug)]
pub struct PromptTemplate {
    environment: Environment<'static>,
    source: String,
}

impl PromptTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(source: &str) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_template_owned(NAME, format!("{NOTHING}{source}{NOTHING}"))?;
        Ok(Self { environment, source: source.to_owned() })
    }

    /// The text of a record's fields.
    ///
    /// # Errors
    /// What the template cannot do with them, such as a field that there is not.
    pub fn render(&self, fields: &Map<String, Value>) -> Result<String, minijinja::Error> {
        self.environment.get_template(NAME)?.render(Serde(fields))
    }

    /// A chat template that puts each message of the user where the prompt goes, so that a chat with the model reads what it was
    /// trained on; `None` if other fields are read too.
    pub fn as_chat_template(&self, add_bos: bool) -> Option<String> {
        let fields = self.environment.get_template(NAME).ok()?.undeclared_variables(false);
        if fields.len() != 1 || !fields.contains("prompt") {
            return None;
        }
        let (bos, source) = (if add_bos { "{{ bos_token }}" } else { "" }, &self.source);
        Some(format!(
            "{bos}{{% for message in messages %}}{{% if message['role'] == 'user' %}}{{% set prompt = message['content'] %}}\
             {NOTHING}{source}{NOTHING}{{% else %}}{{{{ message['content'] + eos_token }}}}{{% endif %}}{{% endfor %}}"
        ))
    }
}

/// The templates of one way to put a task.
#[derive(Debug)]
pub struct FormTemplate {
    prompt: PromptTemplate,
    completion: PromptTemplate,
}

impl FormTemplate {
    /// Reads both templates.
    ///
    /// # Errors
    /// [`DataError::BadTemplate`].
    pub fn new(template: &TaskTemplate) -> Result<Self, DataError> {
        let read = |source: &str| {
            PromptTemplate::new(source)
                .map_err(|error| DataError::BadTemplate { key: "task.templates", problem: format!("{error:#}") })
        };
        Ok(Self { prompt: read(&template.prompt)?, completion: read(&template.completion)? })
    }
}

/// A stretch of text that is read or said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The text.
    pub text: String,
    /// Whether it is trained on.
    pub is_trained: bool,
}

/// The text of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// What it consists of, in order; none is empty.
    pub parts: Vec<Part>,
    /// Whether a chat template wrote it, which spells special tokens itself.
    pub is_chat: bool,
}

impl Rendered {
    fn new(parts: impl IntoIterator<Item = (String, bool)>, is_chat: bool) -> Self {
        let parts = parts.into_iter().filter(|(text, _)| !text.is_empty());
        Self { parts: parts.map(|(text, is_trained)| Part { text, is_trained }).collect(), is_chat }
    }

    /// All of it in a row.
    pub fn text(&self) -> String {
        self.parts.iter().map(|part| part.text.as_str()).collect()
    }
}

/// Makes text of records.
#[derive(Debug)]
pub struct Renderer {
    prompt: Option<PromptTemplate>,
    chat: Option<ChatTemplate>,
    completion_only: bool,
    assistant_only: bool,
}

impl Renderer {
    /// With the templates of a recipe, or `model_template`; special tokens by their texts.
    ///
    /// # Errors
    /// [`DataError::BadTemplate`], naming the setting.
    pub fn new(
        section: &SftSection,
        model_template: Option<&str>,
        (bos, eos): (&str, &str),
    ) -> Result<Self, DataError> {
        let bad = |key| move |problem: String| DataError::BadTemplate { key, problem };
        let prompt = section.prompt_template.as_deref().map(PromptTemplate::new).transpose();
        let chat = section.chat_template.as_deref().or(model_template);
        let chat = chat.map(|source| ChatTemplate::new(source, bos, eos)).transpose();
        Ok(Self {
            prompt: prompt.map_err(|error| bad("prompt_template")(format!("{error:#}")))?,
            chat: chat.map_err(|error| bad("chat_template")(error.to_string()))?,
            completion_only: section.completion_only_loss,
            assistant_only: section.assistant_only_loss,
        })
    }

    /// The template of prompts, if there is one.
    pub fn prompt_template(&self) -> Option<&PromptTemplate> {
        self.prompt.as_ref()
    }

    /// The text of a record that says `dialogue`.
    ///
    /// # Errors
    /// [`DataError::BadRecord`]: the template refuses it, or there is none for messages.
    pub fn render(&self, record: &Record, dialogue: &Dialogue) -> Result<Rendered, DataError> {
        match dialogue {
            Dialogue::Text(text) => Ok(Rendered::new([(text.clone(), true)], false)),
            Dialogue::Pair { prompt, completion } => {
                let prompt = match &self.prompt {
                    Some(template) => template
                        .render(record.fields())
                        .map_err(|error| record.bad(format!("objective.prompt_template does not render: {error:#}")))?,
                    None => prompt.clone(),
                };
                Ok(Rendered::new([(prompt, !self.completion_only), (completion.clone(), true)], false))
            }
            Dialogue::Turns { prompt, completion } => {
                let template = self.chat_template(record)?;
                let failed = |error: crate::tokenizer::ChatTemplateError| record.bad(error.to_string());
                let before = template.render(prompt, true).map_err(failed)?;
                let all: Vec<_> = prompt.iter().chain(completion).cloned().collect();
                let all = template.render(&all, false).map_err(failed)?;
                let Some(said) = all.strip_prefix(&before) else {
                    let problem = "the chat template renders the prompt otherwise when the completion follows";
                    return Err(record.bad(problem));
                };
                let said = said.to_owned();
                Ok(Rendered::new([(before, !self.completion_only), (said, true)], true))
            }
            Dialogue::Messages(messages) => {
                let found = self.chat_template(record)?.assistant_turns(messages);
                let found = found.map_err(|error| record.bad(error.to_string()))?;
                let parts = parts(&found, !self.assistant_only);
                if !parts.iter().any(|(_, is_trained)| *is_trained) {
                    return Err(record.bad("the chat template renders no turn of the assistant"));
                }
                Ok(Rendered::new(parts, true))
            }
        }
    }

    /// The text of a record put in one way, whatever its fields.
    ///
    /// # Errors
    /// [`DataError::BadRecord`]: a template refuses it, or there is nothing to read or to say.
    pub fn render_form(&self, record: &Record, form: &FormTemplate) -> Result<Rendered, DataError> {
        let filled = |name: &str, template: &PromptTemplate| match template.render(record.fields()) {
            Ok(text) if text.trim().is_empty() => Err(record.bad(format!("the template's {name} is empty"))),
            Ok(text) => Ok(text),
            Err(error) => Err(record.bad(format!("the template's {name} does not render: {error:#}"))),
        };
        let (prompt, completion) = (filled("prompt", &form.prompt)?, filled("completion", &form.completion)?);
        Ok(Rendered::new([(prompt, !self.completion_only), (completion, true)], false))
    }

    fn chat_template(&self, record: &Record) -> Result<&ChatTemplate, DataError> {
        self.chat.as_ref().ok_or_else(|| {
            record.bad("messages need a chat template: set objective.chat_template, or go on from a model that has one")
        })
    }
}

/// A conversation cut where the assistant begins and ends to speak.
fn parts(found: &AssistantTurns, trains_all: bool) -> Vec<(String, bool)> {
    let (mut parts, mut at) = (Vec::new(), 0);
    for turn in &found.turns {
        parts.push((found.text[at..turn.start].to_owned(), trains_all));
        parts.push((found.text[turn.clone()].to_owned(), true));
        at = turn.end;
    }
    parts.push((found.text[at..].to_owned(), trains_all));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::ChatMessage;
    use serde_json::json;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_prompt_template_reads_the_records_fields_and_keeps_its_line_breaks() {
        let template = PromptTemplate::new("\n{{ prompt.upper() }} ({{ lang }})\n").unwrap();
        assert_eq!(template.render(&fields(json!({"prompt": "a", "lang": "de"}))).unwrap(), "\nA (de)\n");
        let error = template.render(&fields(json!({"prompt": "a"}))).expect_err("no field").to_string();
        assert!(error.contains("undefined"), "{error}");
        assert!(PromptTemplate::new("{{ prompt").is_err());
        assert!(template.as_chat_template(false).is_none());
    }

    #[test]
    fn a_chat_reads_what_a_prompt_template_makes() {
        for source in ["\n{{ prompt }} =>\n", "{% if prompt %}\nQ: {{ prompt | trim }}{% endif %}\n\n  A:"] {
            let template = PromptTemplate::new(source).unwrap();
            let chat = template.as_chat_template(true).unwrap();
            let chat = ChatTemplate::new(&chat, "<s>", "</s>").unwrap();
            let (user, assistant) = (ChatMessage::new("user", "b c"), ChatMessage::new("assistant", "d"));
            let prompt = template.render(&fields(json!({"prompt": "b c"}))).unwrap();
            assert_eq!(chat.render(std::slice::from_ref(&user), true).unwrap(), format!("<s>{prompt}"));
            let two = chat.render(&[user.clone(), assistant, user], true).unwrap();
            assert_eq!(two, format!("<s>{prompt}d</s>{prompt}"));
            assert!(chat.reduce(None).is_ok(), "{source}: a device cannot have it");
        }
    }
}
