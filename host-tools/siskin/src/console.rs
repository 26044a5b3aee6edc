//! What the user sees: one reply on stdout, as text or as one JSON object; notes and errors on stderr.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// The flags that every command takes.
#[derive(clap::Args)]
pub(crate) struct Console {
    /// What to print on stdout: text for people, or one JSON object.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT", display_order = 900)]
    format: Format,
    /// Print no progress and no notes on stderr; errors still are.
    #[arg(long, short, global = true, display_order = 901)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Console {
    /// Prints a command's result: its `Display` as text, its fields as JSON.
    pub(crate) fn reply(&self, reply: &(impl Serialize + Display)) -> Result<(), Failure> {
        let text = match self.format {
            Format::Text => format!("{reply}\n"),
            Format::Json => json_line(reply)?,
        };
        self.print(&text)
    }

    /// Prints a command's result as JSON, if that is wanted; as text it was streamed.
    pub(crate) fn reply_after_stream(&self, reply: &impl Serialize) -> Result<(), Failure> {
        if self.is_json() { self.print(&json_line(reply)?) } else { Ok(()) }
    }

    /// Prints a piece of text as it is made. With JSON it waits for the reply.
    pub(crate) fn stream(&self, text: &str) -> Result<(), Failure> {
        if self.is_json() { Ok(()) } else { self.print(text) }
    }

    /// Tells the user, on stderr, what is going on.
    pub(crate) fn note(&self, note: impl Display) {
        if !self.quiet {
            eprintln!("{note}");
        }
    }

    /// Whether stdout gets one JSON object and nothing else.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A bar on stderr that counts to `n`; hidden where stderr is no terminal, and with `--quiet`.
    pub(crate) fn progress_bar(&self, n: usize, unit: &str) -> ProgressBar {
        if self.quiet || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(n as u64).with_style(style)
    }

    /// Ends the program: a failure is told on stderr, and as a JSON object where one was asked for.
    pub(crate) fn finish(&self, outcome: Result<(), Failure>) -> ExitCode {
        let Err(failure) = outcome else { return ExitCode::SUCCESS };
        if failure.is_closed_pipe() {
            return ExitCode::SUCCESS;
        }
        eprintln!("siskin: {failure}");
        if self.is_json() {
            // The exit code already tells of a failure; a second one in telling it changes nothing.
            let _ = json_line(&failure.to_json()).and_then(|line| self.print(&line));
        }
        failure.exit_code().into()
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::from_stdout)
    }
}

fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let mut line = serde_json::to_string(value).map_err(|error| Failure::failed("write the reply as JSON", error))?;
    line.push('\n');
    Ok(line)
}
