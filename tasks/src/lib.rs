//! Tasks of the kind that a device has, generated: prompts and completions, in parts that hold out what a model should
//! generalise to.
//!
//! A task is a file in `grammars/`: slots with values and the ways to say them, fragments of text, and for each kind of
//! record the templates of its prompts. A record is a template whose choices and slots are drawn. Which records are in
//! which part is decided by the template and by the combination of slot values, never by chance alone, so that the
//! parts test what their names say: `TASKS.md` beside this crate describes and defends them.
//!
//! ```text
//! grammars/NAME.toml ── grammar (checked once) ── draw ── Part: train, validation, unseen phrasings, unseen
//! combinations ── JSONL
//! ```
//!
//! Nothing is read or written here: grammars are part of the program, and the caller writes the text. The same seed
//! gives the same bytes everywhere.

mod draw;
mod error;
mod generate;
mod grammar;
mod schema;
mod slot;
mod template;
mod words;

pub use error::TaskError;
pub use generate::{Part, PartRecords, Record};
pub use grammar::Task;

/// The tasks by name, with their grammars.
const GRAMMARS: [(&str, &str); 5] = [
    ("voice", include_str!("../grammars/voice.toml")),
    ("logs", include_str!("../grammars/logs.toml")),
    ("sensors", include_str!("../grammars/sensors.toml")),
    ("normalize", include_str!("../grammars/normalize.toml")),
    ("manual", include_str!("../grammars/manual.toml")),
];

/// The names of all tasks.
pub fn names() -> impl Iterator<Item = &'static str> {
    GRAMMARS.iter().map(|(name, _)| *name)
}

/// The task of this name.
///
/// # Errors
/// There is none, or its grammar is wrong.
pub fn task(name: &str) -> Result<Task, TaskError> {
    let found = GRAMMARS.iter().find(|(known, _)| *known == name);
    let (name, grammar) = found.ok_or_else(|| TaskError::UnknownTask { name: name.to_owned() })?;
    Task::parse(name, grammar)
}
