//! Why a command failed, in words for people, and the exit code that scripts see.

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde_json::{Map, Value};

/// How the program ended; scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// It could not be done, though nothing was wrong with what was asked.
    Failed = 1,
    /// The command line is wrong; clap uses the same code.
    CommandLine = 2,
    /// A file or folder is missing, unreadable or not what it should be.
    InvalidInput = 3,
    /// The model is too large for the board.
    DoesNotFit = 4,
    /// Stopped half-way, and can be resumed.
    Interrupted = 5,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// "failed to {doing}: {cause}", with what scripts need to know of it.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    doing: String,
    cause: anyhow::Error,
    /// Figures to add to the JSON object, such as the bytes a model is short of.
    figures: Map<String, Value>,
}

impl Failure {
    /// A failure to do `doing`, a fragment such as "read model.siskin".
    pub(crate) fn new(status: Status, doing: impl Into<String>, cause: impl Into<anyhow::Error>) -> Self {
        Self { status, doing: doing.into(), cause: cause.into(), figures: Map::new() }
    }

    /// With [`Status::Failed`].
    pub(crate) fn failed(doing: impl Into<String>, cause: impl Into<anyhow::Error>) -> Self {
        Self::new(Status::Failed, doing, cause)
    }

    /// With [`Status::InvalidInput`].
    pub(crate) fn invalid_input(doing: impl Into<String>, cause: impl Into<anyhow::Error>) -> Self {
        Self::new(Status::InvalidInput, doing, cause)
    }

    /// With [`Status::CommandLine`].
    pub(crate) fn command_line(cause: impl Into<anyhow::Error>) -> Self {
        Self::new(Status::CommandLine, "understand the command line", cause)
    }

    /// Stdout could not be written to.
    pub(crate) fn from_stdout(error: io::Error) -> Self {
        Self::failed("write to stdout", error)
    }

    /// Adds figures, a struct's fields, to the JSON form.
    pub(crate) fn with_figures(mut self, figures: &impl serde::Serialize) -> Self {
        if let Ok(Value::Object(figures)) = serde_json::to_value(figures) {
            self.figures.extend(figures);
        }
        self
    }

    /// What caused it, for a library whose callback failed.
    pub(crate) fn into_cause(self) -> anyhow::Error {
        self.cause
    }

    /// The reader of our stdout has gone, as `head` does when it has enough: no failure of ours.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        let io_error = self.cause.downcast_ref::<io::Error>();
        io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn exit_code(&self) -> Status {
        self.status
    }

    /// `error` in words, `exit_code`, and the figures.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("error".to_owned(), Value::from(self.to_string()));
        object.insert("exit_code".to_owned(), Value::from(self.status as u8));
        object.extend(self.figures.clone());
        Value::Object(object)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}", self.doing)?;
        let mut said = String::new();
        for cause in self.cause.chain() {
            let cause = cause.to_string();
            // Some libraries' messages already hold those of what caused them.
            if !said.contains(&cause) {
                write!(f, ": {cause}")?;
            }
            said.push_str(&cause);
        }
        Ok(())
    }
}

/// Says what was being done when a library's error came up.
pub(crate) trait OrFail<T> {
    /// The error is the fault of a file or folder that was given: exit code 3.
    fn or_invalid_input(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
    /// The error is nobody's fault: exit code 1.
    fn or_failed(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_invalid_input(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::invalid_input(doing(), error))
    }

    fn or_failed(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::failed(doing(), error))
    }
}
