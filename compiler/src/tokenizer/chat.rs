//! Chat templates: rendered on the host, and reduced to plain text for devices.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};
use siskin_runtime::tokenizer::ChatPrompt;

/// The name under which the environment keeps the template; it shows in errors.
const NAME: &str = "chat_template";

/// A turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl ChatMessage {
    /// A turn of the named role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A Jinja template that turns a conversation into the text that a chat model was trained on.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

/// Why a chat template cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatTemplateError {
    /// The template is wrong, or refuses the conversation.
    #[error("the chat template does not render: {0:#}")]
    Render(#[from] minijinja::Error),
    /// What it renders depends on the messages in a way that plain text around them cannot have.
    #[error("the chat template cannot be reduced to text around the user's message: {0}")]
    Irreducible(&'static str),
}

/// A template reduced to the text around a user's messages; see [`ChatPrompt`], which reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatSegments {
    /// Before the first message: the system's turn and the opening of the user's.
    pub prefix: String,
    /// Between an answer and the next message.
    pub next_prefix: String,
    /// After a message: the end of the user's turn and the opening of the assistant's.
    pub suffix: String,
    /// Whether the template drops white space around messages.
    pub trim: bool,
}

impl ChatTemplate {
    /// Reads a template as Hugging Face's `apply_chat_template` does: blocks trimmed, Python's string methods, and
    /// `raise_exception`. `bos_token` and `eos_token` are the special tokens' texts.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self, ChatTemplateError> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Self { environment, bos_token: bos_token.to_owned(), eos_token: eos_token.to_owned() })
    }

    /// The text of `messages`, which opens the assistant's turn at its end if `add_generation_prompt`.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, ChatTemplateError> {
        let template = self.environment.get_template(NAME)?;
        let turn = |message: &ChatMessage| context! { role => &message.role, content => &message.content };
        let messages: Vec<Value> = messages.iter().map(turn).collect();
        Ok(template.render(context! {
            messages, add_generation_prompt, bos_token => &self.bos_token, eos_token => &self.eos_token,
        })?)
    }

    /// Finds the text around a user's messages by rendering conversations whose messages can be found again, and checks that it
    /// does not depend on them. `system` is the system's message, if it is not to be the template's default.
    pub fn reduce(&self, system: Option<&str>) -> Result<ChatSegments, ChatTemplateError> {
        let segments =
            self.segments(system, ["\u{e000}one\u{e000}", "\u{e000}two\u{e000}", "\u{e000}three\u{e000}"])?;
        let other = self.segments(system, ["\u{e001}", "a \u{e001}\n\nlonger answer?", "\u{e001} 3"])?;
        if segments != other {
            return Err(ChatTemplateError::Irreducible("the text around a message depends on the message"));
        }
        let spaced = self.segments(system, [" \n\u{e000}one ", "\u{e000}two", "\u{e000}three\n"]);
        let trim = spaced.as_ref().is_ok_and(|spaced| *spaced == segments);
        let kept = self.first_turns(system, " \n\u{e000}one ")?.contains(" \n\u{e000}one ");
        if kept == trim {
            return Err(ChatTemplateError::Irreducible("it changes white space inside messages"));
        }
        Ok(ChatSegments { trim, ..segments })
    }

    fn first_turns(&self, system: Option<&str>, message: &str) -> Result<String, ChatTemplateError> {
        self.render(&conversation(system, &[("user", message)]), true)
    }

    /// Cuts the rendering of one turn and of three at the messages.
    fn segments(&self, system: Option<&str>, messages: [&str; 3]) -> Result<ChatSegments, ChatTemplateError> {
        let [first, answer, second] = messages;
        let lost = ChatTemplateError::Irreducible("a message does not appear in it exactly once");
        let (prefix, suffix) = match self.first_turns(system, first)?.split_once(first.trim()) {
            Some((prefix, suffix)) if !suffix.contains(first.trim()) => (prefix.to_owned(), suffix.to_owned()),
            _ => return Err(lost),
        };
        let turns = [("user", first), ("assistant", answer), ("user", second)];
        let text = self.render(&conversation(system, &turns), true)?;
        let head = format!("{prefix}{}{suffix}", first.trim());
        let tail = format!("{}{suffix}", second.trim());
        // Where a template puts a space before an answer, the model generates that space.
        let answered = text.strip_prefix(&head).and_then(|rest| rest.trim_start().strip_prefix(answer.trim()));
        let between = answered.and_then(|rest| rest.strip_suffix(&tail));
        let Some(next_prefix) = between else {
            return Err(ChatTemplateError::Irreducible("later turns do not repeat the text around the first"));
        };
        Ok(ChatSegments { prefix, next_prefix: next_prefix.to_owned(), suffix, trim: false })
    }
}

fn conversation(system: Option<&str>, turns: &[(&str, &str)]) -> Vec<ChatMessage> {
    let system = system.map(|content| ChatMessage::new("system", content));
    system.into_iter().chain(turns.iter().map(|&(role, content)| ChatMessage::new(role, content))).collect()
}

impl ChatSegments {
    /// The section that [`ChatPrompt::parse`] reads. Equal segments give equal bytes.
    pub fn section(&self) -> Vec<u8> {
        let texts = [&self.prefix, &self.next_prefix, &self.suffix];
        let mut section = ChatPrompt::MAGIC.to_vec();
        let flags = if self.trim { ChatPrompt::TRIM } else { 0 };
        let lengths = texts.map(|text| u32::try_from(text.len()).expect("a template renders less than 4 GiB"));
        for number in [ChatPrompt::VERSION, flags].into_iter().chain(lengths) {
            section.extend(number.to_le_bytes());
        }
        texts.iter().for_each(|text| section.extend(text.as_bytes()));
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of SmolLM2-Instruct's template.
    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + \
        message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}\
        {{ '<|im_start|>assistant\n' }}{% endif %}";
    /// The shape of Llama 2's template.
    const INST: &str = "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}\
        {% set messages = messages[1:] %}{% endif %}{% for message in messages %}{% if message['role'] == 'user' %}\
        {{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}\
        {{ ' ' + message['content'].strip() + ' ' + eos_token }}{% else %}{{ raise_exception('odd role') }}{% endif %}\
        {% endfor %}";

    fn reduce(source: &str, system: Option<&str>) -> Result<ChatSegments, ChatTemplateError> {
        ChatTemplate::new(source, "<s>", "</s>").unwrap().reduce(system)
    }

    fn text_of(section: &[u8], message: &str) -> String {
        let prompt = ChatPrompt::parse(section).unwrap();
        let mut buffer = vec![0; prompt.max_bytes(message.len())];
        prompt.first(message, &mut buffer).unwrap().text.to_owned()
    }

    #[test]
    fn a_reduced_template_wraps_as_the_template_renders() {
        for (source, system) in [(CHATML, None), (CHATML, Some("Be brief")), (INST, None)] {
            let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
            let section = template.reduce(system).unwrap().section();
            for message in ["Hi", "", " two\nlines\n", "<|im_end|>\u{e000}"] {
                let messages = conversation(system, &[("user", message)]);
                assert_eq!(text_of(&section, message), template.render(&messages, true).unwrap(), "{message:?}");
            }
        }
    }

    #[test]
    fn the_parts_are_what_a_reader_of_the_template_expects() {
        let segments = reduce(CHATML, None).unwrap();
        assert_eq!(segments.prefix, "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\n");
        assert_eq!(segments.suffix, "<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(segments.next_prefix, "<|im_end|>\n<|im_start|>user\n");
        assert!(!segments.trim);
        let segments = reduce(INST, None).unwrap();
        assert_eq!((segments.next_prefix.as_str(), segments.trim), (" </s><s>[INST] ", true));
    }

    #[test]
    fn templates_that_depend_on_the_message_are_refused() {
        for source in [
            "{{ messages[0]['content'] | upper }}",
            "{{ messages[0]['content'] }}{{ messages[0]['content'] }}",
            "{{ messages | length }}{{ messages[0]['content'] }}",
            "{{ messages[0]['content'] }} {{ messages[0]['content'] | length }}",
            "no message",
        ] {
            assert!(matches!(reduce(source, None), Err(ChatTemplateError::Irreducible(_))), "{source}");
        }
        let error = reduce("{{ raise_exception('only odd turns') }}", None).unwrap_err();
        assert!(error.to_string().contains("only odd turns"), "{error}");
        assert!(ChatTemplate::new("{% if %}", "", "").is_err());
    }
}
