//! `siskin data tasks`: writes a task's prompts and completions, in parts that hold out what a model should generalise
//! to.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use siskin_compiler::artifact::write_atomic;
use siskin_tasks::{PartRecords, Task};

use crate::console::Console;
use crate::failure::Failure;

/// Stands for every task.
const ALL: &str = "all";

const AFTER_HELP: &str = "\
Tasks: voice (command to JSON), logs (line to category), sensors (readings to
sentence), normalize (written to spoken text), manual (passage and question to
answer). Each gets a folder with train.jsonl, validation.jsonl,
unseen-phrasings.jsonl (templates that are not trained on) and
unseen-combinations.jsonl (combinations of values that are not); voice has its
schema.json too, for `siskin compile --grammar`.

Examples:
  siskin data tasks all --out runs/tasks
  siskin data tasks voice --out runs/tasks --n 20000 --seed 3";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The task, or all.
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder to write to: a folder in it for each task.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Another seed draws other records; which phrasings and combinations are held out does not depend on it.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Records to train on; each other part has a tenth as many, at most 1,000.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(10..))]
    n: u32,
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let names: Vec<&str> = match args.name.as_str() {
        ALL => siskin_tasks::names().collect(),
        name => vec![name],
    };
    let tasks = names.into_iter().map(|name| siskin_tasks::task(name).map_err(Failure::command_line));
    let tasks: Vec<Task> = tasks.collect::<Result<_, _>>()?;
    let written = tasks.iter().map(|task| write(task, args)).collect::<Result<_, _>>()?;
    console.reply(&Reply { seed: args.seed, tasks: written })
}

fn write(task: &Task, args: &Args) -> Result<WrittenTask, Failure> {
    let folder = args.out.join(task.name());
    let write = |name: String, text: &str| {
        let path = folder.join(name);
        write_file(&path, text).map(|()| path)
    };
    let part = |records: PartRecords| {
        let file = write(format!("{}.jsonl", records.part.name()), &records.jsonl())?;
        Ok(WrittenPart { part: records.part.name(), file, n_records: records.records.len() })
    };
    let parts = task.generate(args.seed, args.n as usize).into_iter().map(part).collect::<Result<_, Failure>>()?;
    let schema = task.schema().map(|schema| write("schema.json".to_owned(), &schema)).transpose()?;
    let (n_templates, n_held_out_templates) = task.n_templates();
    let (name, about) = (task.name().to_owned(), task.about().to_owned());
    Ok(WrittenTask { name, about, n_templates, n_held_out_templates, parts, schema })
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    write_atomic(path, text.as_bytes()).map_err(|error| Failure::failed(format!("write {}", path.display()), error))
}

#[derive(Serialize)]
struct Reply {
    seed: u64,
    tasks: Vec<WrittenTask>,
}

#[derive(Serialize)]
struct WrittenTask {
    name: String,
    about: String,
    n_templates: usize,
    n_held_out_templates: usize,
    parts: Vec<WrittenPart>,
    schema: Option<PathBuf>,
}

#[derive(Serialize)]
struct WrittenPart {
    part: &'static str,
    file: PathBuf,
    n_records: usize,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, task) in self.tasks.iter().enumerate() {
            let WrittenTask { name, about, n_templates, n_held_out_templates, parts, schema } = task;
            let separator = if idx > 0 { "\n" } else { "" };
            write!(f, "{separator}{name}: {about}; {n_templates} templates and {n_held_out_templates} held out")?;
            for WrittenPart { file, n_records, .. } in parts {
                write!(f, "\n  {n_records:>6} {}", file.display())?;
            }
            if let Some(schema) = schema {
                write!(f, "\n  schema {}", schema.display())?;
            }
        }
        Ok(())
    }
}
