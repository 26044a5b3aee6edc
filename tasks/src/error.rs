//! What can be wrong with a task.

/// Why there is no task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No task has the name.
    #[error("there is no task {name:?}: they are voice, logs, sensors, normalize and manual")]
    UnknownTask {
        /// What was asked for.
        name: String,
    },
    /// The grammar is no TOML, or has a key that there is not.
    #[error("the grammar of {task} cannot be read: {source}")]
    Toml {
        /// The task.
        task: String,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// A part of the grammar means nothing.
    #[error("in the grammar of {task}, {place}: {what}")]
    Grammar {
        /// The task.
        task: String,
        /// The slot, fragment or kind.
        place: String,
        /// What is wrong with it.
        what: String,
    },
}
