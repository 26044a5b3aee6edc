//! `siskin run`: continues a prompt with a packed model, or says what an encoder finds in it.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::anyhow;
use serde::Serialize;
use siskin_compiler::pack::{AlignedBytes, PackedFile};
use siskin_compiler::threads::{TeamJoin, with_threads};
use siskin_runtime::format::SectionKind;
use siskin_runtime::parts::Kind;
use siskin_runtime::speculative::{Ahead, Alone, Draft, Guesses};
use siskin_runtime::{
    Encoder, End, Generation, Join, Kernels, Limits, PackedModel, Sampler, Session, StopMatcher, TokenId, Window,
};

use crate::adapter::AdapterArgs;
use crate::beams::BeamArgs;
use crate::console::Console;
use crate::encoding::{Findings, Found, input_tokens};
use crate::failure::{Failure, OrFail as _};
use crate::generation::{Beginning, GenerationArgs, end_name};
use crate::text::Text;
use crate::{beams, draft, grammar, input, packing};

const AFTER_HELP: &str = "\
Examples:
  siskin run shakespeare.siskin --prompt 'ROMEO:' --greedy --max-new-tokens 64
  siskin run smollm2.siskin --chat --prompt 'Why is the sky blue?' --temperature 0.7 --top-p 0.9
  siskin run shakespeare.siskin --prompt 'ROMEO:' --stop 'JULIET:' --format json
  siskin run moods.siskin --prompt 'I could not be happier.'
  siskin run shakespeare.siskin --prompt 'ROMEO:' --grammar schema.json
  siskin run shakespeare.siskin --prompt 'ROMEO:' --adapter poet
  siskin run summaries.siskin --prompt 'The siskin is a small finch.' --beams 4";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The packed .siskin.
    file: PathBuf,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    beam: BeamArgs,
    /// Keep the text to a grammar, in place of the model's own: GBNF, or a JSON schema in a .json.
    #[arg(long, value_name = "FILE", conflicts_with = "beams")]
    grammar: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// In a full context, forget the older half and go on, rather than end.
    #[arg(long, conflicts_with = "beams")]
    slide: bool,
    /// Of the half that --slide keeps, so many tokens from the front: attention sinks.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "slide")]
    sinks: usize,
    /// A small packed model with the same tokenizer that guesses ahead, in place of one packed with the model: the same text and logits, in less
    /// time where it often guesses right.
    #[arg(long, value_name = "FILE", conflicts_with = "beams")]
    draft: Option<PathBuf>,
    /// Tokens that the draft guesses at a time.
    #[arg(long, value_name = "N", default_value_t = 3)]
    guesses: usize,
    /// Threads for the matrix products; any number gives the same bits.
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
    /// The kernels: auto for the fastest that this CPU has, generic for plain Rust, or a backend's name; all give the same bits.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = kernels_named)]
    kernels: Kernels,
}

/// `auto`, or the name of a backend that this CPU has.
fn kernels_named(name: &str) -> Result<Kernels, String> {
    let mut found = Kernels::available().filter(|kernels| name == "auto" || name == kernels.name());
    found.next().ok_or_else(|| {
        let names: Vec<&str> = Kernels::available().map(Kernels::name).collect();
        format!("this CPU has auto and {}", names.join(", "))
    })
}

#[derive(Serialize)]
struct Reply {
    text: String,
    tokens: Vec<TokenId>,
    n_prompt_tokens: usize,
    logits_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    guesses: Option<GuessesReply>,
    /// `max_new_tokens`, `end_token`, `stop`, `context_full`, `complete` or `stuck`.
    end: &'static str,
}

/// How a draft's guesses fared.
#[derive(Serialize)]
struct GuessesReply {
    n_made: usize,
    n_right: usize,
    n_passes: usize,
}

impl From<Guesses> for GuessesReply {
    fn from(Guesses { n_made, n_right, n_passes }: Guesses) -> Self {
        Self { n_made, n_right, n_passes }
    }
}

/// What an encoder says of the prompt.
#[derive(Serialize)]
struct EncodedReply {
    #[serde(flatten)]
    findings: Findings,
    n_prompt_tokens: usize,
    logits_hash: String,
}

impl fmt::Display for EncodedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.fmt(f)
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let sampling = args.generation.sampling()?;
    let kernels = args.kernels;
    let stops = args.generation.stops()?;
    let stops = StopMatcher::new(&stops).map_err(Failure::command_line)?;
    let file = packing::laid_out_for(kernels, input::open_packed(&args.file)?)?;
    args.beam.check(&file.model())?;
    if args.beam.beams.is_some() {
        return search(args, file, console);
    }
    let model = file.model();
    if model.config().parts.kind == Kind::Encoder {
        args.adapter.refuse()?;
        let encoded = with_threads(args.threads, |join| encode_prompt(args, &model, join));
        return console.reply(&encoded.or_failed(|| "start the threads".to_owned())??);
    }
    let biases = args.generation.biases(&model)?;
    let sampler = Sampler::new(sampling, args.generation.seed).with_biases(&biases);
    let received = args.adapter.received(&args.file, &model)?;
    let draft_file = match &args.draft {
        Some(path) => Some(draft::open(path, &model)?),
        None => draft::packed_with(&model)?,
    };
    let draft_file = draft_file.map(|file| packing::laid_out_for(kernels, file)).transpose()?;
    let continued = with_threads(args.threads, |join| {
        let lay_out = || "lay out the arena".to_owned();
        let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes_for(join.n_threads()));
        let mut session = Session::with_join(&model, &mut arena, kernels, join.clone()).or_failed(lay_out)?;
        args.adapter.start(&mut session, received.as_deref())?;
        let Some(draft_file) = &draft_file else {
            return continue_prompt(args, &model, &mut session, Alone, sampler, stops, console);
        };
        let draft_model = draft_file.model();
        let mut arena = AlignedBytes::zeroed(draft_model.memory_plan().arena_bytes_for(join.n_threads()));
        let mut draft_session = Session::with_join(&draft_model, &mut arena, kernels, join).or_failed(lay_out)?;
        let mut logits = vec![0.0; Draft::<TeamJoin>::logits_len(&model, args.guesses)];
        let draft = Draft::new(&mut draft_session, &model, args.guesses, &mut logits);
        let draft = draft.or_invalid_input(|| "let the draft guess".to_owned())?;
        continue_prompt(args, &model, &mut session, draft, sampler, stops, console)
    });
    console.reply_after_stream(&continued.or_failed(|| "start the threads".to_owned())??)
}

/// Searches with beams, for which the model need not have been compiled.
fn search(args: &Args, file: PackedFile, console: &Console) -> Result<(), Failure> {
    let end_token = input::packed_tokenizer(&file.model())?.eos();
    let Some(options) = args.beam.options(&args.generation, end_token)? else { return Ok(()) };
    let had = file.model().header().n_beams as usize;
    let file = packing::with_room(file, Some(had.max(options.n_beams)))?;
    let model = file.model();
    let received = args.adapter.received(&args.file, &model)?;
    let (generation, adapter, kernels) = (&args.generation, &args.adapter, args.kernels);
    let job = beams::Job { generation, adapter, received: received.as_deref(), kernels, options };
    let found = with_threads(args.threads, |join| job.run(&model, join, console));
    console.reply_after_stream(&found.or_failed(|| "start the threads".to_owned())??)
}

fn encode_prompt(args: &Args, model: &PackedModel<'_>, join: impl Join + Sync) -> Result<EncodedReply, Failure> {
    let tokenizer = input::packed_tokenizer(model)?;
    let tokens = input_tokens(model, &tokenizer, &args.generation.prompt)?;
    let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes_for(join.n_threads()));
    let encoder = Encoder::with_join(model, &mut arena, args.kernels, join);
    let mut encoder = encoder.or_failed(|| "lay out the arena".to_owned())?;
    encoder.read(&tokens).or_invalid_input(|| "read the prompt".to_owned())?;
    let mut found = Vec::new();
    let hash = encoder.findings(&tokens, |finding| Found::keep(finding, &mut found));
    Ok(EncodedReply {
        findings: Findings::new(model, &tokenizer, &tokens, &found),
        n_prompt_tokens: tokens.len(),
        logits_hash: hash.to_string(),
    })
}

fn continue_prompt<'a, J: Join + Sync>(
    args: &Args,
    model: &PackedModel<'a>,
    session: &mut Session<'a, J>,
    ahead: impl Ahead<J>,
    mut sampler: Sampler<'_>,
    stops: StopMatcher<'_>,
    console: &Console,
) -> Result<Reply, Failure> {
    let tokenizer = input::packed_tokenizer(model)?;
    let section = args.grammar.as_ref().map(|path| grammar::compile(path, model)).transpose()?;
    let Beginning { prompt, after_prefix } = args.generation.beginning(model, &tokenizer)?;
    let eos = tokenizer.eos();
    let context_len = model.config().context_len;
    let limits = Limits {
        max_new_tokens: args.generation.max_new_tokens,
        end_tokens: eos.as_slice(),
        slide_to: if args.slide { Some(window(args.sinks, context_len)?) } else { None },
    };
    let started = Instant::now();
    let start = model.config().parts.start_token;
    if start.is_some() {
        session.read_source(&prompt).or_invalid_input(|| "read the prompt".to_owned())?;
    }
    if let (true, Some(prefix)) = (after_prefix, model.section(SectionKind::Prefix)) {
        session.restore(prefix).or_invalid_input(|| "begin after the prefix".to_owned())?;
        sampler.observe(session.history());
    }
    let first = start.as_ref().map_or(&prompt[..], std::slice::from_ref);
    let constraint = grammar::start(section.as_deref(), model, tokenizer, eos.as_slice())?;
    let mut generation =
        Generation::new(session, Some(tokenizer), sampler, stops, limits).within(constraint).guessed_by(ahead);
    generation.read(first).or_invalid_input(|| "read the prompt".to_owned())?;
    let prompt_s = started.elapsed().as_secs_f64();
    let Text { text, tokens, hash } = Text::write(&mut generation, |piece| console.stream(piece))?;
    let (end, total_s) = (generation.end(), started.elapsed().as_secs_f64());
    let logits_hash = hash.to_string();
    let tokens_per_s = tokens.len() as f64 / (total_s - prompt_s).max(1e-9);
    console.stream("\n")?;
    console.note(format_args!(
        "{} prompt tokens in {prompt_s:.2} s, {} new at {tokens_per_s:.1} a second; logits {logits_hash}",
        prompt.len(),
        tokens.len()
    ));
    let guesses = generation.guesses();
    if let Some(Guesses { n_made, n_right, n_passes }) = guesses {
        console.note(format_args!("the draft guessed {n_right} of {n_made} tokens right, in {n_passes} passes"));
    }
    if end == Some(End::ContextFull) {
        console.note(format_args!("the context of {context_len} tokens is full; --slide goes on beyond it"));
    }
    Ok(Reply {
        text,
        tokens,
        n_prompt_tokens: prompt.len(),
        logits_hash,
        guesses: guesses.map(Into::into),
        end: end_name(end),
    })
}

/// Half of a context, the first `n_sinks` tokens among it.
fn window(n_sinks: usize, context_len: usize) -> Result<Window, Failure> {
    let n_kept = context_len.div_ceil(2);
    match n_kept.checked_sub(n_sinks) {
        None | Some(0) => {
            let cause = anyhow!("--sinks {n_sinks} leaves no room: sliding keeps {n_kept} of {context_len} tokens");
            Err(Failure::command_line(cause))
        }
        Some(n_newest) => Ok(Window { n_sinks, n_newest }),
    }
}
