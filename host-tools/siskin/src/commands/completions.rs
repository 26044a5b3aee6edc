//! `siskin completions`: a completion script, to be sourced by a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::command_line::CommandLine;
use crate::console::Console;
use crate::failure::Failure;

const AFTER_HELP: &str = "\
Examples:
  siskin completions bash > ~/.local/share/bash-completion/completions/siskin
  siskin completions fish > ~/.config/fish/completions/siskin.fish";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The shell to complete in.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(serde::Serialize)]
struct Reply {
    shell: String,
    script: String,
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.script.trim_end())
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "siskin", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    console.reply(&Reply { shell: args.shell.to_string(), script })
}
