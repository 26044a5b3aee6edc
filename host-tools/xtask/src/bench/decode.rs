//! `cargo xtask bench decode`: tokens a second of generation and of reading prompts, beside llama.cpp and llama2.c.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::contestant::{Contestant, Program};
use super::statistics::{median, rounded};
use super::{machine, page, peers};
use crate::{packages, repo};

/// What to measure, and how long.
#[derive(clap::Args)]
pub struct Args {
    /// Models: 260k, 15m, 110m, 135m.
    #[arg(long, value_delimiter = ',', default_value = "260k,15m,110m,135m")]
    models: Vec<String>,
    /// The llama-bench of llama.cpp.
    #[arg(long, value_name = "PROGRAM")]
    llama_bench: Option<PathBuf>,
    /// Sources of llama2.c, the folder with run.c and runq.c.
    #[arg(long, value_name = "DIR")]
    llama2c: Option<PathBuf>,
    /// Threads of everyone.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Times that everyone has a turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds to wait, at most, for the machine to be idle before each round.
    #[arg(long, value_name = "S", default_value_t = 20)]
    wait: u64,
    /// Print the tables and leave compiler/BENCH.md as it is.
    #[arg(long)]
    dry_run: bool,
}

/// Tokens that are generated in a turn, and tokens of the prompt.
const N_TOKENS: usize = 128;

/// DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB CONTEXT of a model, by name. The first is stories260K but for the hidden width, 192 instead of 172:
/// llama.cpp's blocks of 32 must divide it.
const MODELS: [(&str, [usize; 7]); 4] = [
    ("260k", [64, 192, 5, 8, 4, 512, 512]),
    ("15m", [288, 768, 6, 6, 6, 32_000, 256]),
    ("110m", [768, 2048, 12, 12, 12, 32_000, 1024]),
    ("135m", [576, 1536, 30, 9, 3, 49_152, 2048]),
];

/// What generates.
enum Source {
    /// It speaks the protocol of benches/README.md.
    Protocol(Program),
    /// llama-bench with a model of this type.
    LlamaBench { type_name: &'static str },
}

struct Entry {
    name: String,
    source: Source,
}

/// What one reached in each round, in tokens a second.
#[derive(Default)]
struct Rates {
    decode: Vec<f64>,
    prefill: Vec<f64>,
}

/// Measures and writes the section.
pub fn run(args: &Args) -> Result<()> {
    let models = args.models.iter().map(|name| model(name)).collect::<Result<Vec<_>>>()?;
    let entries = entries(args)?;
    let mut body = format!(
        "`cargo xtask bench decode` on {}: tokens a second, {} rounds in which everyone has a turn, medians of the rounds. Models have random \
         weights and tied heads; {N_TOKENS} tokens are generated from an empty context, and prompts have {N_TOKENS} tokens. Siskin is built for \
         any processor, llama2.c with -Ofast -march=native. The limit is how often a second the same threads can read the packed int8 model and do \
         nothing else, which each token has to.\n",
        machine::describe(),
        args.rounds,
    );
    if let Some(program) = &args.llama_bench {
        writeln!(body, "\nllama.cpp says of itself: {}.", version(program)?)?;
    }
    for &(name, shape) in &models {
        for &n_threads in &args.threads {
            repo::announce(&format!("generating with {name} on {n_threads} threads"));
            let table = measure(args, &entries, name, shape, n_threads)?;
            eprintln!("{table}");
            write!(body, "\n{table}")?;
        }
    }
    if args.dry_run { Ok(()) } else { page::HOST.replace_section("Generation", &body) }
}

/// The first line of what llama-bench says of its version and build.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    // It says so on either stream.
    let said = [output.stdout, output.stderr].concat();
    let line = said.split(|&byte| byte == b'\n').find(|line| !line.is_empty()).unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn model(name: &str) -> Result<(&'static str, [usize; 7])> {
    let found = MODELS.into_iter().find(|(known, _)| *known == name);
    found.with_context(|| format!("there is no model {name}; there are 260k, 15m, 110m and 135m"))
}

/// Everyone who can take part.
fn entries(args: &Args) -> Result<Vec<Entry>> {
    let siskin = peers::siskin()?;
    let ours = |format: &str| Entry {
        name: format!("Siskin {format}"),
        source: Source::Protocol(Program {
            name: format!("Siskin {format}"),
            command: vec![siskin.clone(), "decode".into(), format.into()],
            options: Vec::new(),
        }),
    };
    let limit = Entry {
        name: "the limit: reading the int8 model".to_owned(),
        source: Source::Protocol(Program {
            name: "reading".to_owned(),
            command: vec![siskin.clone(), "read".into(), "int8".into()],
            options: Vec::new(),
        }),
    };
    let mut entries = vec![ours("int8"), ours("int8-g32"), ours("int4-g32"), limit];
    match &args.llama2c {
        Some(dir) => entries.extend([llama2c(dir, "run.c", false)?, llama2c(dir, "runq.c", true)?]),
        None => eprintln!("llama2.c does not take part: give the folder of its sources as --llama2c DIR"),
    }
    if args.llama_bench.is_none() {
        eprintln!("llama.cpp does not take part: give its llama-bench as --llama-bench PROGRAM");
    }
    let types = if args.llama_bench.is_some() { &["Q8_0", "Q4_0"][..] } else { &[] };
    entries.extend(
        types.iter().map(|&type_name| Entry {
            name: format!("llama.cpp {type_name}"),
            source: Source::LlamaBench { type_name },
        }),
    );
    Ok(entries)
}

/// llama2.c's own source with our loop around it.
fn llama2c(dir: &Path, source: &str, is_quantized: bool) -> Result<Entry> {
    ensure!(dir.join(source).is_file(), "there is no {source} in {}", dir.display());
    packages::ensure("gcc", &["gcc", "libc6-dev"], || packages::find("gcc").is_some())?;
    let binary = repo::root().join("target/peers").join(format!("bench-llama2c-{}", source.trim_end_matches(".c")));
    fs::create_dir_all(repo::root().join("target/peers"))?;
    let mut compile = Command::new("gcc");
    compile.args(["-Ofast", "-march=native", "-fopenmp", "-DTESTING", "-w"]).arg(format!("-DSOURCE=\"{source}\""));
    compile.args(is_quantized.then_some("-DQUANTIZED")).arg("-I").arg(dir);
    compile.arg(repo::root().join("benches/llama2c/decode.c")).arg("-o").arg(&binary).arg("-lm");
    repo::run(&mut compile)?;
    let name = format!("llama2.c {source}, {}", if is_quantized { "int8" } else { "f32" });
    let program = Program { name: name.clone(), command: vec![binary], options: Vec::new() };
    Ok(Entry { name, source: Source::Protocol(program) })
}

/// Gives everyone their turns on a model and makes its table.
fn measure(args: &Args, entries: &[Entry], name: &str, shape: [usize; 7], n_threads: usize) -> Result<String> {
    let arguments = shape.map(|number| number.to_string());
    let mut runners = Vec::new();
    for entry in entries {
        eprintln!("starting {}", entry.name);
        let runner = match &entry.source {
            Source::Protocol(program) => Runner::Program(Contestant::start(program, &arguments, n_threads)?),
            Source::LlamaBench { type_name } => Runner::LlamaBench(gguf(name, type_name, &arguments)?),
        };
        runners.push((entry, runner, Rates::default()));
    }
    for round in 0..args.rounds {
        let idle = machine::wait_until_quiet(Duration::from_secs(args.wait));
        eprintln!("round {} of {}, machine {:.0}% idle", round + 1, args.rounds, 100.0 * idle);
        for (entry, runner, rates) in &mut runners {
            match runner {
                Runner::Program(contestant) => turn(contestant, rates),
                Runner::LlamaBench(model) => llama_bench(args, model, n_threads, rates),
            }
            .with_context(|| format!("{} failed", entry.name))?;
        }
    }
    Ok(table(name, n_threads, &runners))
}

/// Who is running, or what with.
enum Runner {
    Program(Contestant),
    /// The model's file.
    LlamaBench(PathBuf),
}

fn turn(contestant: &mut Contestant, rates: &mut Rates) -> Result<()> {
    let turn = contestant.turn(N_TOKENS)?;
    let (prompt, tokens) = turn.numbers.split_first().context("it answered nothing")?;
    rates.decode.push(tokens.len() as f64 / tokens.iter().sum::<f64>());
    // 0 is that of one that cannot read a prompt at once.
    if *prompt > 0.0 {
        rates.prefill.push(N_TOKENS as f64 / prompt);
    }
    Ok(())
}

/// A line of llama-bench's output.
#[derive(Deserialize)]
struct Sample {
    n_gen: usize,
    samples_ts: Vec<f64>,
}

fn llama_bench(args: &Args, model: &Path, n_threads: usize, rates: &mut Rates) -> Result<()> {
    let program = args.llama_bench.as_ref().context("llama-bench is given")?;
    let mut command = Command::new(program);
    command.arg("-m").arg(model).args([
        "-t",
        &n_threads.to_string(),
        "-p",
        "128",
        "-n",
        "128",
        "-r",
        "3",
        "-o",
        "jsonl",
    ]);
    for line in repo::output(&mut command)?.lines().filter(|line| line.starts_with('{')) {
        let sample: Sample = serde_json::from_str(line).context("llama-bench printed no such line")?;
        let rate = median(sample.samples_ts).context("llama-bench measured nothing")?;
        if sample.n_gen > 0 { rates.decode.push(rate) } else { rates.prefill.push(rate) }
    }
    Ok(())
}

/// The GGUF of a model, written where it is missing.
fn gguf(name: &str, type_name: &str, arguments: &[String]) -> Result<PathBuf> {
    let folder = repo::cache().join("bench-gguf");
    let path = folder.join(format!("{name}-{type_name}.gguf"));
    if path.is_file() {
        return Ok(path);
    }
    fs::create_dir_all(&folder)?;
    let benches = repo::root().join("benches/llamacpp");
    let python = peers::python_with("gguf-python", "gguf", &benches.join("requirements.txt"))?;
    let partial = path.with_extension("partial");
    let mut write = Command::new(python);
    write.arg(benches.join("models.py")).arg(&partial).arg(type_name).args(arguments);
    repo::run(&mut write)?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

fn table(name: &str, n_threads: usize, runners: &[(&Entry, Runner, Rates)]) -> String {
    let threads = if n_threads == 1 { "1 thread".to_owned() } else { format!("{n_threads} threads") };
    let mut text = format!(
        "**{}, {threads}**\n\n| | generated tokens/s | Siskin int8 is | int8-g32 is | int4-g32 is | prompt tokens/s | Siskin int8 is | int8-g32 is | \
         int4-g32 is |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        name.to_uppercase()
    );
    let rate = |rates: &[f64]| median(rates.iter().copied());
    for (entry, _, rates) in runners {
        let ratio = |ours: &str, of: fn(&Rates) -> &Vec<f64>| {
            let (_, _, our_rates) = runners.iter().find(|(entry, ..)| entry.name == ours)?;
            let is_ours = entry.name.starts_with("Siskin");
            (!is_ours).then_some(())?;
            Some(format!("{}×", rounded(rate(of(our_rates))? / rate(of(rates))?)))
        };
        let cells = [
            rate(&rates.decode).map(rounded),
            ratio("Siskin int8", |rates| &rates.decode),
            ratio("Siskin int8-g32", |rates| &rates.decode),
            ratio("Siskin int4-g32", |rates| &rates.decode),
            rate(&rates.prefill).map(rounded),
            ratio("Siskin int8", |rates| &rates.prefill),
            ratio("Siskin int8-g32", |rates| &rates.prefill),
            ratio("Siskin int4-g32", |rates| &rates.prefill),
        ];
        let cells = cells.map(Option::unwrap_or_default).join(" | ");
        text += &format!("| {} | {cells} |\n", entry.name);
    }
    text
}
