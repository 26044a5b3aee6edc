//! `siskin device check`: whether a device writes what this machine writes, text by text.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use siskin_compiler::artifact::write_atomic_with;
use siskin_compiler::pack::AlignedBytes;
use siskin_runtime::format::checksum;
use siskin_runtime::sampler::Sampling;
use siskin_runtime::{Generation, Kernels, Limits, PackedModel, Sampler, Session, StopMatcher};

use super::{LineArgs, RunReply, ask, hello, open, request};
use crate::boards::BoardsDirArgs;
use crate::console::Console;
use crate::device::Device;
use crate::encoding::input_tokens;
use crate::failure::{Failure, OrFail as _, Status};
use crate::generation::{GenerationArgs, end_name};
use crate::text::Text;
use crate::{grammar, input, interrupt, packing};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The packed file that the device has.
    file: PathBuf,
    #[command(flatten)]
    line: LineArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Write with the device's adapter NAME, - for none; of several, each text with the next, switched to without a reset.
    #[arg(long = "adapter", value_name = "NAME", allow_hyphen_values = true)]
    adapters: Vec<String>,
    /// Texts to compare, each with the next seed.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    texts: u64,
    /// Write the device's texts here, a JSON object a line: the keys of `run`, and `seed`.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How many texts were compared: they all are the same.
#[derive(Serialize)]
struct Reply {
    n_texts: usize,
    n_tokens: usize,
    /// Texts that no other is equal to.
    n_distinct: usize,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_texts, n_tokens, n_distinct } = self;
        write!(f, "{n_texts} texts of {n_tokens} tokens are the host's, bit for bit; {n_distinct} are different")
    }
}

/// A text of the device, in the file of them.
#[derive(Serialize)]
struct Line<'t> {
    seed: u64,
    #[serde(flatten)]
    text: &'t RunReply,
}

pub(super) fn run(args: &Args, boards_dir: &BoardsDirArgs, console: &Console) -> Result<(), Failure> {
    let sampling = args.generation.sampling()?;
    args.generation.stops()?;
    let first_request = request(&args.generation, None)?;
    let mut device = open(&args.line, boards_dir)?;
    is_same_model(&args.file, &mut device, console)?;
    let file = packing::laid_out_for(Kernels::detect(), input::open_packed(&args.file)?)?;
    let model = file.model();
    let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
    let session = Session::new(&model, &mut arena, Kernels::detect());
    let mut session = session.or_failed(|| "lay out the arena".to_owned())?;
    let adapters: Vec<Option<&str>> = match args.adapters.as_slice() {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str()).filter(|name| *name != "-")).collect(),
    };

    let interrupted = interrupt::flag();
    let bar = console.progress_bar(args.texts as usize, "texts");
    let mut texts: Vec<(u64, RunReply)> = Vec::new();
    let seeds = (args.generation.seed..).take(args.texts as usize);
    for (seed, &adapter) in seeds.zip(adapters.iter().cycle()) {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        let mut request = first_request.clone();
        (request.seed, request.adapter) = (seed, adapter);
        let has_adapter = session.use_adapter(adapter).map_err(|error| anyhow!("{error}"));
        has_adapter.or_invalid_input(|| "use the adapter".to_owned())?;
        let there = ask(&mut device, request, console, |_| Ok(()))?;
        let here = write_here(&args.generation, sampling, seed, &model, &mut session)?;
        let difference = difference(&here, &there);
        texts.push((seed, there));
        if let Some(difference) = difference {
            save(args.out.as_deref(), &texts)?;
            return Err(Failure::failed(format!("find the host's text on the device with --seed {seed}"), difference));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    save(args.out.as_deref(), &texts)?;
    if (texts.len() as u64) < args.texts {
        let (n, next) = (texts.len(), args.generation.seed + texts.len() as u64);
        let cause = anyhow!("interrupted after {n} texts, which are the host's; go on with --seed {next}");
        return Err(Failure::new(Status::Interrupted, "compare all texts", cause));
    }
    let n_tokens = texts.iter().map(|(_, text)| text.tokens.len()).sum();
    let mut distinct: Vec<&str> = texts.iter().map(|(_, text)| text.text.as_str()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    console.reply(&Reply { n_texts: texts.len(), n_tokens, n_distinct: distinct.len() })
}

/// Refuses a device that has another model than the file.
fn is_same_model(file: &Path, device: &mut Device, console: &Console) -> Result<(), Failure> {
    let doing = || format!("compare {} with the device's model", file.display());
    let here = format!("{:08x}", checksum(&std::fs::read(file).or_invalid_input(doing)?));
    let there = hello(device, console)?;
    if there.model_crc != here {
        let cause = anyhow!(
            "the device's has CRC-32 {}, the file {here}: name the file that its firmware was built around",
            there.model_crc
        );
        return Err(Failure::invalid_input(doing(), cause));
    }
    Ok(())
}

/// The text of a seed on this machine.
fn write_here<'a>(
    args: &GenerationArgs,
    sampling: Sampling,
    seed: u64,
    model: &PackedModel<'a>,
    session: &mut Session<'a>,
) -> Result<RunReply, Failure> {
    let tokenizer = input::packed_tokenizer(model)?;
    let prompt = input_tokens(model, &tokenizer, &args.prompt)?;
    let eos = tokenizer.eos();
    let limits = Limits { max_new_tokens: args.max_new_tokens, end_tokens: eos.as_slice(), slide_to: None };
    let stops = args.stops()?;
    let stops = StopMatcher::new(&stops).map_err(Failure::command_line)?;
    let constraint = grammar::start(None, model, tokenizer, eos.as_slice())?;
    session.reset();
    let read_prompt = || "read the prompt".to_owned();
    let start = model.config().parts.start_token;
    if start.is_some() {
        session.read_source(&prompt).or_invalid_input(read_prompt)?;
    }
    let first = start.as_ref().map_or(&prompt[..], std::slice::from_ref);
    let sampler = Sampler::new(sampling, seed);
    let mut generation = Generation::new(session, Some(tokenizer), sampler, stops, limits).within(constraint);
    generation.read(first).or_invalid_input(read_prompt)?;
    let Text { text, tokens, hash } = Text::write(&mut generation, |_| Ok(()))?;
    let end = end_name(generation.end()).to_owned();
    Ok(RunReply { text, tokens, n_prompt_tokens: prompt.len(), logits_hash: hash.to_string(), end })
}

/// In what two texts first differ.
fn difference(here: &RunReply, there: &RunReply) -> Option<anyhow::Error> {
    let said = |what: &str, here: &dyn fmt::Display, there: &dyn fmt::Display| {
        Some(anyhow!("{what}: {there} on the device, {here} on the host"))
    };
    let n_same = here.tokens.iter().zip(&there.tokens).take_while(|(a, b)| a == b).count();
    if here.n_prompt_tokens != there.n_prompt_tokens {
        return said("tokens of the prompt", &here.n_prompt_tokens, &there.n_prompt_tokens);
    }
    if n_same < here.tokens.len().max(there.tokens.len()) {
        let token = |reply: &RunReply| reply.tokens.get(n_same).map_or("none".to_owned(), ToString::to_string);
        return said(&format!("token {n_same}"), &token(here), &token(there));
    }
    if here.text != there.text {
        return said("the text", &format_args!("{:?}", here.text), &format_args!("{:?}", there.text));
    }
    if here.logits_hash != there.logits_hash {
        return said("the hash of the logits", &here.logits_hash, &there.logits_hash);
    }
    (here.end != there.end).then(|| anyhow!("it ended by {} on the device, by {} on the host", there.end, here.end))
}

/// Writes the device's texts.
fn save(out: Option<&Path>, texts: &[(u64, RunReply)]) -> Result<(), Failure> {
    let Some(out) = out else { return Ok(()) };
    let lines = || -> anyhow::Result<String> {
        let line = |(seed, text): &(u64, RunReply)| serde_json::to_string(&Line { seed: *seed, text });
        let lines: Result<Vec<String>, _> = texts.iter().map(line).collect();
        Ok(lines.context("a text as JSON")?.join("\n") + "\n")
    };
    let doing = || "write the texts".to_owned();
    let lines = lines().or_failed(doing)?;
    write_atomic_with(out, |file| file.write_all(lines.as_bytes())).or_failed(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes a reply, and what is said of it.
    type Case = (fn(&mut RunReply), &'static str);

    #[test]
    fn the_first_difference_is_named() {
        let here = || RunReply {
            text: "ab".into(),
            tokens: vec![5, 6],
            n_prompt_tokens: 3,
            logits_hash: "0123".into(),
            end: "stop".into(),
        };
        assert!(difference(&here(), &here()).is_none());
        let cases: [Case; 6] = [
            (|there| there.tokens[1] = 7, "token 1: 7 on the device, 6 on the host"),
            (|there| there.tokens.truncate(1), "token 1: none on the device, 6 on the host"),
            (|there| there.n_prompt_tokens = 4, "tokens of the prompt: 4 on the device, 3 on the host"),
            (|there| there.text.clear(), "the text: \"\" on the device, \"ab\" on the host"),
            (|there| there.logits_hash = "9".into(), "the hash of the logits: 9 on the device, 0123 on the host"),
            (|there| there.end = "end_token".into(), "it ended by end_token on the device, by stop on the host"),
        ];
        for (change, said) in cases {
            let mut there = here();
            change(&mut there);
            assert_eq!(difference(&here(), &there).map(|error| error.to_string()).as_deref(), Some(said));
        }
    }
}
