//! Chat templates: rendered on the host, and reduced to plain text for devices.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, State, Value, context};
use siskin_runtime::tokenizer::ChatPrompt;
use std::ops::Range;

/// The name under which the environment keeps the template; it shows in errors.
const NAME: &str = "chat_template";
/// The variable that asks for marks around the assistant's turns.
const MARKS: &str = "marks_assistant_turns";
/// Around an assistant's turn, where marks are asked for: characters that stand in no text.
const MARK_START: char = '\u{10fffe}';
const MARK_END: char = '\u{10ffff}';

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
    /// Whether it says itself what the assistant generates.
    has_generation: bool,
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
    /// What the assistant says cannot be found in what it renders.
    #[error(
        "the chat template renders what is before message {0} otherwise when that message follows: mark the assistant's turns in the template by {{% generation %}} and {{% endgeneration %}}"
    )]
    Turns(usize),
}

/// A conversation's text, and where the assistant speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssistantTurns {
    /// The text.
    pub text: String,
    /// Bytes of the assistant's turns, in order: each from where generating begins to where the next turn does.
    pub turns: Vec<Range<usize>>,
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
    /// Reads a template as Hugging Face's `apply_chat_template` does: blocks trimmed, Python's string methods, `raise_exception`, and
    /// `generation` blocks. `bos_token` and `eos_token` are the special tokens' texts.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self, ChatTemplateError> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("generation", |state: &State<'_, '_>, turn: String| match state.lookup(MARKS) {
            Some(marks) if marks.is_true() => format!("{MARK_START}{turn}{MARK_END}"),
            _ => turn,
        });
        let (source, has_generation) = with_filters(source);
        environment.add_template_owned(NAME, source)?;
        let (bos_token, eos_token) = (bos_token.to_owned(), eos_token.to_owned());
        Ok(Self { environment, has_generation, bos_token, eos_token })
    }

    /// The text of `messages`, which opens the assistant's turn at its end if `add_generation_prompt`.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, ChatTemplateError> {
        self.render_with(messages, add_generation_prompt, false)
    }

    fn render_with(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        marks_assistant_turns: bool,
    ) -> Result<String, ChatTemplateError> {
        let template = self.environment.get_template(NAME)?;
        let turn = |message: &ChatMessage| context! { role => &message.role, content => &message.content };
        let messages: Vec<Value> = messages.iter().map(turn).collect();
        Ok(template.render(context! {
            messages, add_generation_prompt, marks_assistant_turns,
            bos_token => &self.bos_token, eos_token => &self.eos_token,
        })?)
    }

    /// The text of a conversation and what the assistant generates of it: what the template's `generation` blocks hold, as for
    /// transformers' `return_assistant_tokens_mask`; in a template that has none, what each of its messages adds to the rendering of
    /// those before it with a generation prompt.
    pub fn assistant_turns(&self, messages: &[ChatMessage]) -> Result<AssistantTurns, ChatTemplateError> {
        match self.has_generation {
            true => Ok(unmarked(&self.render_with(messages, false, true)?)),
            false => self.turns_by_prefix(messages),
        }
    }

    fn turns_by_prefix(&self, messages: &[ChatMessage]) -> Result<AssistantTurns, ChatTemplateError> {
        let text = self.render(messages, false)?;
        let mut turns = Vec::new();
        for (idx, _) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
            let before = self.render(&messages[..idx], true)?;
            let with = if idx + 1 == messages.len() { text.clone() } else { self.render(&messages[..=idx], false)? };
            if !text.starts_with(&with) || !with.starts_with(&before) {
                return Err(ChatTemplateError::Turns(idx));
            }
            turns.push(before.len()..with.len());
        }
        Ok(AssistantTurns { text, turns })
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

/// A template whose `generation` blocks are filters of that name, which keep what trimming does around them; and whether there are any.
fn with_filters(source: &str) -> (String, bool) {
    let (mut out, mut rest, mut found) = (String::with_capacity(source.len()), source, false);
    while let Some((before, block)) = rest.split_once("{%") {
        let Some((inside, after)) = block.split_once("%}") else { break };
        let name = inside.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let inside = match name {
            "generation" => inside.replace(name, "filter generation"),
            "endgeneration" => inside.replace(name, "endfilter"),
            _ => inside.to_owned(),
        };
        found |= name == "generation";
        out.extend([before, "{%", &inside, "%}"]);
        rest = after;
    }
    out.push_str(rest);
    (out, found)
}

/// A text without its marks, and what lay between them. A mark that has no other is dropped.
fn unmarked(marked: &str) -> AssistantTurns {
    let (mut text, mut turns, mut start) = (String::with_capacity(marked.len()), Vec::new(), None);
    for c in marked.chars() {
        match c {
            MARK_START => start = Some(text.len()),
            MARK_END => turns.extend(start.take().map(|start| start..text.len())),
            c => text.push(c),
        }
    }
    AssistantTurns { text, turns }
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

    /// What the assistant generates of a conversation of two answers.
    fn generated(source: &str) -> Result<Vec<String>, ChatTemplateError> {
        let turns = [("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two")];
        let template = ChatTemplate::new(source, "<s>", "</s>")?;
        let found = template.assistant_turns(&conversation(None, &turns))?;
        assert_eq!(found.text, template.render(&conversation(None, &turns), false)?);
        Ok(found.turns.into_iter().map(|turn| found.text[turn].to_owned()).collect())
    }

    #[test]
    fn the_assistants_turns_are_found_with_and_without_generation_blocks() {
        assert_eq!(generated(CHATML).unwrap(), ["one<|im_end|>\n", "two<|im_end|>\n"]);
        assert_eq!(generated(INST).unwrap(), [" one </s>", " two </s>"]);
        let marked = "{% for message in messages %}{{ message['role'] + ':' }}{%- if message['role'] == 'assistant' %}\n\
            {%- generation -%}\n {{ message['content'] + eos_token }}\n{% endgeneration %}\n{% else %}\
            {{ message['content'] }}{% endif %};{% endfor %}";
        assert_eq!(generated(marked).unwrap(), ["one</s>\n", "two</s>\n"]);
        let thinking = format!("{}{{% if add_generation_prompt %}}<think>{{% endif %}}", CHATML);
        let error = generated(&thinking).expect_err("the prompt is not what comes before an answer").to_string();
        assert!(error.contains("message 1") && error.contains("{% generation %}"), "{error}");
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
