//! `siskin adapter`: packs an adapter into a file of its own, to be sent to devices that have its model already.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use siskin_compiler::artifact::write_atomic;
use siskin_runtime::adapter::Adapter;

use crate::adapter;
use crate::commands::inspect::AdapterLine;
use crate::console::Console;
use crate::failure::{Failure, OrFail as _};
use crate::input;

const AFTER_HELP: &str = "\
Examples:
  siskin adapter poet-lora --for shakespeare.siskin --name poet -o poet.siskin-adapter
  siskin run shakespeare.siskin --adapter-file poet.siskin-adapter --prompt 'ROMEO:'";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// What siskin train or PEFT made: adapter_config.json and adapter_model.safetensors, of LoRA or prompt tuning.
    folder: PathBuf,
    /// The packed model that the devices hold, for the same board.
    #[arg(long = "for", value_name = "FILE")]
    model: PathBuf,
    /// The adapter's name [default: the folder's].
    #[arg(long)]
    name: Option<String>,
    /// The file to write.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Reply {
    out: String,
    #[serde(flatten)]
    adapter: AdapterLine,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.out, self.adapter)
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let file = input::open_packed(&args.model)?;
    let model = file.model();
    let folder_name = || args.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = args.name.clone().unwrap_or_else(folder_name);
    let bytes = adapter::pack_folder(&name, &args.folder, &model)?;
    write_atomic(&args.out, &bytes).or_failed(|| "write the adapter".to_owned())?;
    let adapter = Adapter::parse(&bytes, &model).or_failed(|| "read the adapter again".to_owned())?;
    console.reply(&Reply { out: args.out.display().to_string(), adapter: AdapterLine::new(&adapter) })
}
