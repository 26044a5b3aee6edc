//! What a record of supervised fine-tuning says: a prompt and its completion, a conversation, or a text.

use crate::data::{DataError, Record};
use crate::tokenizer::ChatMessage;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

/// The fields by which records are told apart: all of a file have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// `prompt` and `completion`, each a text or a list of messages.
    PromptCompletion,
    /// `messages`: a list of objects with `role` and `content`.
    Messages,
    /// `text`, all of which is trained on.
    Text,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PromptCompletion => "`prompt` and `completion`",
            Self::Messages => "`messages`",
            Self::Text => "`text`",
        })
    }
}

/// One example as its record says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialogue {
    /// A text that is read, and the one that is to follow it.
    Pair {
        /// What is read.
        prompt: String,
        /// What is to be said.
        completion: String,
    },
    /// Turns that are read, and those that are to follow them.
    Turns {
        /// What is read.
        prompt: Vec<ChatMessage>,
        /// What is to be said.
        completion: Vec<ChatMessage>,
    },
    /// A conversation, of which the assistant's turns are to be said.
    Messages(Vec<ChatMessage>),
    /// A text.
    Text(String),
}

impl Dialogue {
    /// Reads a record by the fields that it has.
    ///
    /// # Errors
    /// [`DataError::BadRecord`]: no shape, or two; a field of the wrong type; nothing to read, or nothing to say.
    pub fn of(record: &Record) -> Result<Self, DataError> {
        match shape_of(record)? {
            Shape::PromptCompletion => Self::pair(record),
            Shape::Messages => {
                let messages = messages(record, "messages", field(record, "messages")?)?;
                if !messages.iter().any(|message| message.role == "assistant") {
                    return Err(record.bad("`messages` has no turn of the `assistant`: there is nothing to train on"));
                }
                Ok(Self::Messages(messages))
            }
            Shape::Text => Ok(Self::Text(filled(record, "text", field(record, "text")?)?)),
        }
    }

    fn pair(record: &Record) -> Result<Self, DataError> {
        let (prompt, completion) = (field(record, "prompt")?, field(record, "completion")?);
        match (prompt, completion) {
            (Value::Array(_), Value::Array(_)) => Ok(Self::Turns {
                prompt: messages(record, "prompt", prompt)?,
                completion: messages(record, "completion", completion)?,
            }),
            (Value::Array(_), Value::String(_)) | (Value::String(_), Value::Array(_)) => Err(record
                .bad("one of `prompt` and `completion` is a text, the other a list of messages: make both the same")),
            _ => Ok(Self::Pair {
                prompt: filled(record, "prompt", prompt)?,
                completion: filled(record, "completion", completion)?,
            }),
        }
    }

    /// Which fields it was read from.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Pair { .. } | Self::Turns { .. } => Shape::PromptCompletion,
            Self::Messages(_) => Shape::Messages,
            Self::Text(_) => Shape::Text,
        }
    }
}

/// The shape that a record's fields name.
fn shape_of(record: &Record) -> Result<Shape, DataError> {
    let has = |name: &str| record.value(name).is_some();
    match (has("messages"), has("prompt") || has("completion"), has("text")) {
        (true, true, _) => {
            Err(record.bad("it has both `messages` and `prompt` or `completion`: a record is one of them"))
        }
        (true, false, _) => Ok(Shape::Messages),
        (false, true, _) => Ok(Shape::PromptCompletion),
        (false, false, true) => Ok(Shape::Text),
        (false, false, false) => Err(record.bad(format!(
            "it has neither `prompt` and `completion`, nor `messages`, nor `text`; there are: {}",
            record.field_names()
        ))),
    }
}

fn field<'r>(record: &'r Record, name: &str) -> Result<&'r Value, DataError> {
    record.value(name).ok_or_else(|| record.missing(name))
}

/// A text that is not blank.
fn filled(record: &Record, name: &str, value: &Value) -> Result<String, DataError> {
    match value {
        Value::String(text) if text.trim().is_empty() => {
            Err(record.bad(format!("`{name}` is empty: give it some text, or leave the record out")))
        }
        Value::String(text) => Ok(text.clone()),
        other => Err(record.bad(format!("`{name}` is {}, but must be a text", kind_of(other)))),
    }
}

/// A list of turns, none of the assistant's empty.
fn messages(record: &Record, name: &str, value: &Value) -> Result<Vec<ChatMessage>, DataError> {
    let Value::Array(items) = value else {
        return Err(record.bad(format!("`{name}` is {}, but must be a list of messages", kind_of(value))));
    };
    if items.is_empty() {
        return Err(record.bad(format!("`{name}` is an empty list: give it a message, or leave the record out")));
    }
    let turn = |(idx, item): (usize, &Value)| {
        let part = |key: &str| match item.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(record.bad(format!("`{name}[{idx}].{key}` is {}, but must be a text", kind_of(other)))),
            None => Err(record.bad(format!("`{name}[{idx}]` has no `{key}`: a message has a `role` and a `content`"))),
        };
        let message = ChatMessage::new(part("role")?, part("content")?);
        if message.role == "assistant" && message.content.trim().is_empty() {
            return Err(record.bad(format!("`{name}[{idx}].content` is empty, but the assistant must say something")));
        }
        Ok(message)
    };
    items.iter().enumerate().map(turn).collect()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What must hold for all records of a file together.
#[derive(Debug, Default)]
pub struct FileChecks {
    shapes: HashMap<PathBuf, (Shape, u64)>,
    ids: HashMap<(PathBuf, String), u64>,
}

impl FileChecks {
    /// Checks a record against those of its file before it: the same shape, and an `id` of its own if it has one.
    ///
    /// # Errors
    /// [`DataError::BadRecord`], naming the line that it contradicts.
    pub fn check(&mut self, record: &Record, shape: Shape) -> Result<(), DataError> {
        self.check_id(record)?;
        let (path, line) = record.origin();
        let (first, first_line) = *self.shapes.entry(path.to_owned()).or_insert((shape, line));
        match first == shape {
            true => Ok(()),
            false => Err(record.bad(format!(
                "it has {shape}, but line {first_line} has {first}: all records of a file have the same"
            ))),
        }
    }

    /// Checks that a record's `id`, if it has one, is its own in its file.
    ///
    /// # Errors
    /// As [`FileChecks::check`].
    pub fn check_id(&mut self, record: &Record) -> Result<(), DataError> {
        let (path, line) = record.origin();
        let id = match record.value("id") {
            None | Some(Value::Null) => return Ok(()),
            Some(id @ (Value::String(_) | Value::Number(_))) => id.to_string(),
            Some(other) => {
                return Err(record.bad(format!("`id` is {}, but must be a text or a number", kind_of(other))));
            }
        };
        let before = *self.ids.entry((path.to_owned(), id.clone())).or_insert(line);
        match before == line {
            true => Ok(()),
            false => Err(record.bad(format!("its id {id} is that of line {before} too"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read_records;

    fn records(lines: &str) -> Vec<Record> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, lines).unwrap();
        read_records(&path).unwrap()
    }

    fn error(line: &str) -> String {
        Dialogue::of(&records(line)[0]).expect_err(line).to_string()
    }

    #[test]
    fn records_are_told_apart_by_their_fields() {
        let records = records(
            "{\"prompt\": \"a\", \"completion\": \"b\", \"text\": \"ab\"}\n\
             {\"messages\": [{\"role\": \"user\", \"content\": \"\"}, {\"role\": \"assistant\", \"content\": \"b\", \"name\": 1}]}\n\
             {\"text\": \"c\", \"id\": 4}\n\
             {\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"completion\": [{\"role\": \"assistant\", \"content\": \"b\"}]}\n",
        );
        let read: Vec<Dialogue> = records.iter().map(|record| Dialogue::of(record).unwrap()).collect();
        let (user, assistant) = (|text| ChatMessage::new("user", text), ChatMessage::new("assistant", "b"));
        assert_eq!(read[0], Dialogue::Pair { prompt: "a".into(), completion: "b".into() });
        assert_eq!(read[1], Dialogue::Messages(vec![user(""), assistant.clone()]));
        assert_eq!(read[2], Dialogue::Text("c".into()));
        assert_eq!(read[3], Dialogue::Turns { prompt: vec![user("a")], completion: vec![assistant] });
    }

    #[test]
    fn what_cannot_be_trained_on_is_said() {
        for (line, parts) in [
            ("{\"question\": 1}", ["neither `prompt`", "question"]),
            ("{\"prompt\": \"a\"}", ["`completion`", "there are: prompt"]),
            ("{\"prompt\": \"a\", \"completion\": \" \\n\"}", ["`completion` is empty", "leave the record out"]),
            ("{\"prompt\": \"\", \"completion\": \"b\"}", ["`prompt` is empty", ""]),
            ("{\"prompt\": 3, \"completion\": \"b\"}", ["`prompt` is a number", "must be a text"]),
            ("{\"prompt\": [], \"completion\": \"b\"}", ["make both the same", ""]),
            ("{\"prompt\": [], \"completion\": []}", ["`prompt` is an empty list", ""]),
            ("{\"messages\": [], \"prompt\": \"a\"}", ["both `messages`", ""]),
            ("{\"messages\": \"a\"}", ["`messages` is a text", "list of messages"]),
            ("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", ["no turn of the `assistant`", ""]),
            ("{\"messages\": [{\"role\": \"user\"}]}", ["`messages[0]` has no `content`", ""]),
            ("{\"messages\": [{\"role\": \"user\", \"content\": null}]}", ["`messages[0].content` is null", ""]),
            ("{\"messages\": [\"a\"]}", ["`messages[0]` has no `role`", ""]),
            ("{\"messages\": [{\"role\": \"assistant\", \"content\": \"\"}]}", ["`messages[0].content` is empty", ""]),
            ("{\"text\": [\"a\"]}", ["`text` is a list", "must be a text"]),
        ] {
            let error = error(line);
            assert!(error.contains("line 1") && parts.iter().all(|part| error.contains(part)), "{line}: {error}");
        }
    }

    #[test]
    fn records_of_a_file_have_one_shape_and_their_own_ids() {
        let records = records(
            "{\"text\": \"a\", \"id\": 1}\n{\"text\": \"b\", \"id\": \"1\"}\n{\"text\": \"c\", \"id\": 1}\n\
             {\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": \"d\", \"id\": {}}\n",
        );
        let mut checks = FileChecks::default();
        let mut check = |idx: usize| {
            let record = &records[idx];
            checks.check(record, Dialogue::of(record).unwrap().shape()).map_err(|error| error.to_string())
        };
        assert!(check(0).is_ok() && check(1).is_ok());
        assert!(check(2).unwrap_err().contains("line 3: its id 1 is that of line 1 too"));
        assert!(check(3).unwrap_err().contains("line 4: it has `prompt` and `completion`, but line 1 has `text`"));
        assert!(check(4).unwrap_err().contains("`id` is an object"));
    }
}
