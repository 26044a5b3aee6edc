//! `siskin board`: lists the boards, builds firmware for one, or runs it emulated.

use std::fmt;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;
use siskin_compiler::pack::PackedFile;
use siskin_compiler::plan::{Board, MemoryReport};
use siskin_runtime::parts::Kind;
use siskin_runtime::{BeamOptions, PackedModel, TokenId};

use crate::adapter::AdapterArgs;
use crate::beams::BeamArgs;
use crate::boards::{self, BoardsDirArgs};
use crate::console::Console;
use crate::encoding::{Findings, input_tokens};
use crate::failure::{Failure, OrFail as _};
use crate::firmware::{Adapter, BoardTools, Prompt, Request, Sizes, Transcript};
use crate::generation::GenerationArgs;
use crate::{input, packing};

const AFTER_HELP: &str = "\
Examples:
  siskin board list
  siskin board build netduinoplus2 shakespeare.siskin
  siskin board run netduinoplus2 shakespeare.siskin --prompt 'ROMEO:' --greedy --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    boards_dir: BoardsDirArgs,
}

#[derive(Subcommand)]
enum Action {
    /// List the boards and their limits.
    List,
    /// Build the firmware of a board around a packed model.
    Build(BuildArgs),
    /// Build the firmware, run it in an emulator, and continue a prompt there.
    Run(Box<RunArgs>),
}

#[derive(clap::Args)]
struct BuildArgs {
    /// A folder of boards/.
    board: String,
    /// The packed .siskin.
    file: PathBuf,
    /// The firmware to write [default: target/firmware/BOARD-FILE.elf].
    #[arg(long, short, value_name = "ELF")]
    out: Option<PathBuf>,
    /// Keep N bytes of RAM for an adapter that comes later.
    #[arg(long, value_name = "N", default_value_t = 0)]
    adapter_bytes: usize,
}

#[derive(clap::Args)]
struct RunArgs {
    /// A folder of boards/.
    board: String,
    /// The packed .siskin.
    file: PathBuf,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    beam: BeamArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Run this firmware, which `board build` made around the same file, instead of building it.
    #[arg(long, value_name = "ELF")]
    elf: Option<PathBuf>,
    /// Keep the transcript and the instruction counts there [default: they are dropped after a good run].
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    match &args.action {
        Action::List => list(&args.boards_dir, console),
        Action::Build(build_args) => build(build_args, &args.boards_dir, console),
        Action::Run(run_args) => run_emulated(run_args, &args.boards_dir, console),
    }
}

#[derive(Serialize)]
struct ListReply {
    boards: Vec<BoardLine>,
}

#[derive(Serialize)]
struct BoardLine {
    name: String,
    flash_bytes: Option<u64>,
    ram_bytes: Option<u64>,
    code_bytes: u64,
    static_ram_bytes: u64,
    stack_bytes: u64,
}

impl fmt::Display for ListReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {:>10} {:>10}   firmware's code, statics and stack", "board", "flash", "RAM")?;
        for board in &self.boards {
            let (flash, ram) = (board.flash_bytes.unwrap_or(0), board.ram_bytes.unwrap_or(0));
            let BoardLine { name, code_bytes, static_ram_bytes, stack_bytes, .. } = board;
            write!(f, "\n{name:<16} {flash:>10} {ram:>10}   {code_bytes} {static_ram_bytes} {stack_bytes}")?;
        }
        Ok(())
    }
}

fn list(boards_dir: &BoardsDirArgs, console: &Console) -> Result<(), Failure> {
    let dir = boards_dir.find()?;
    let load = |name: &String| Board::load(&dir.join(name)).or_invalid_input(|| format!("read the board {name}"));
    let boards: Vec<Board> = boards::board_names(&dir).iter().map(load).collect::<Result<_, _>>()?;
    let lines = boards.into_iter().map(|board| BoardLine {
        flash_bytes: board.flash_bytes,
        ram_bytes: board.ram_bytes,
        code_bytes: board.firmware.code_bytes,
        static_ram_bytes: board.firmware.static_ram_bytes,
        stack_bytes: board.firmware.stack_bytes,
        name: board.name,
    });
    console.reply(&ListReply { boards: lines.collect() })
}

#[derive(Serialize)]
struct BuildReply {
    board: String,
    elf: String,
    #[serde(flatten)]
    sizes: Sizes,
}

impl fmt::Display for BuildReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { flash_bytes, ram_bytes, stack_bytes, code_bytes, static_ram_bytes } = self.sizes;
        writeln!(f, "{} for {}", self.elf, self.board)?;
        writeln!(f, "  flash {flash_bytes:>9} bytes, {code_bytes} of them without the model")?;
        writeln!(f, "  RAM   {ram_bytes:>9} bytes, {static_ram_bytes} of them without the arena")?;
        write!(f, "  stack {stack_bytes:>9} bytes at the deepest")
    }
}

fn build(args: &BuildArgs, boards_dir: &BoardsDirArgs, console: &Console) -> Result<(), Failure> {
    let job = Job::prepare(&args.board, &args.file, boards_dir, console)?;
    let elf = args.out.clone().unwrap_or_else(|| job.tools.default_elf(&args.file));
    let sizes = job.build(&args.file, args.adapter_bytes, &elf, console)?;
    console.reply(&BuildReply { board: args.board.clone(), elf: elf.display().to_string(), sizes })
}

#[derive(Serialize)]
struct RunReply {
    text: String,
    tokens: Vec<TokenId>,
    n_prompt_tokens: usize,
    logits_hash: String,
    /// What a beam search's best text scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    /// `max_new_tokens`, `end_token`, `stop`, `context_full`, `complete` or `stuck`.
    end: String,
    /// For each generated token. The first is drawn from the prompt's own prediction, so it costs no pass through the layers.
    instructions: Vec<u64>,
    /// What of those choosing the token took: penalties, filters, the grammar, the draw, the text.
    draw_instructions: Vec<u64>,
    prompt_instructions: u64,
    flash_bytes: u64,
    ram_bytes: u64,
    /// What the deepest path through the code can take.
    stack_bytes: u64,
    /// What this run took.
    stack_used_bytes: u64,
}

/// What an encoder says of the prompt, with the keys of `run`.
#[derive(Serialize)]
struct EncodedReply {
    #[serde(flatten)]
    findings: Findings,
    n_prompt_tokens: usize,
    logits_hash: String,
    /// For each finding.
    instructions: Vec<u64>,
    prompt_instructions: u64,
    flash_bytes: u64,
    ram_bytes: u64,
    stack_bytes: u64,
    stack_used_bytes: u64,
}

impl fmt::Display for EncodedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.fmt(f)
    }
}

fn encoded_reply(
    text: &str,
    model: &PackedModel<'_>,
    sizes: Sizes,
    transcript: Transcript,
) -> Result<EncodedReply, Failure> {
    let tokenizer = input::packed_tokenizer(model)?;
    let tokens = input_tokens(model, &tokenizer, text)?;
    Ok(EncodedReply {
        findings: Findings::new(model, &tokenizer, &tokens, &transcript.found),
        n_prompt_tokens: transcript.n_prompt_tokens,
        logits_hash: transcript.logits_hash,
        instructions: transcript.instructions,
        prompt_instructions: transcript.prompt_instructions,
        flash_bytes: sizes.flash_bytes,
        ram_bytes: sizes.ram_bytes,
        stack_bytes: sizes.stack_bytes,
        stack_used_bytes: transcript.stack_used_bytes,
    })
}

fn run_emulated(args: &RunArgs, boards_dir: &BoardsDirArgs, console: &Console) -> Result<(), Failure> {
    let sampling = args.generation.sampling()?;
    let stops = args.generation.stops()?;
    let job = Job::prepare(&args.board, &args.file, boards_dir, console)?;
    let model = job.file.model();
    args.beam.check(&model)?;
    let beams = args.beam.options(&args.generation, None)?;
    check_room(&model, beams.as_ref())?;
    let biases = args.generation.biases(&model)?;
    let beginning = match model.config().parts.kind {
        // Its input is no prompt to begin with.
        Kind::Encoder => None,
        _ => Some(args.generation.beginning(&model, &input::packed_tokenizer(&model)?)?),
    };
    let chat_tokens = beginning.as_ref().filter(|_| args.generation.chat).map(|beginning| &beginning.prompt[..]);
    let received = args.adapter.received(&args.file, &model)?;
    let (elf, sizes) = match &args.elf {
        Some(elf) => (elf.clone(), Sizes::measure(elf, &model).or_invalid_input(|| "measure the firmware".to_owned())?),
        None => {
            let elf = job.tools.default_elf(&args.file);
            let sizes = job.build(&args.file, received.as_ref().map_or(0, |bytes| bytes.len()), &elf, console)?;
            (elf, sizes)
        }
    };
    let request = Request {
        prompt: chat_tokens.map_or(Prompt::Text(&args.generation.prompt), Prompt::Tokens),
        max_new_tokens: args.generation.max_new_tokens,
        after_prefix: beginning.as_ref().is_some_and(|beginning| beginning.after_prefix),
        window: None,
        sampling,
        seed: args.generation.seed,
        biases: &biases,
        stops: &stops,
        adapter: match (&received, &args.adapter.adapter) {
            (Some(bytes), _) => Adapter::Received(bytes),
            (None, Some(name)) => Adapter::Named(name),
            (None, None) => Adapter::None,
        },
        beams,
    };
    let doing = || format!("run the firmware on {}", args.board);
    let scratch = tempfile::tempdir().or_failed(doing)?;
    let run_dir = args.run_dir.clone().unwrap_or_else(|| scratch.path().to_owned());
    std::fs::create_dir_all(&run_dir).or_failed(|| format!("create {}", run_dir.display()))?;
    let run_dir = run_dir.canonicalize().or_failed(|| format!("find {}", run_dir.display()))?;
    console.note(format_args!("running it on {}", args.board));
    let emulated =
        job.tools.emulate(&elf, &request, &run_dir, |text| console.stream(text).map_err(Failure::into_cause));
    let transcript = emulated.or_failed(doing)?;
    check_stack(&sizes, &transcript)?;
    if model.config().parts.kind == Kind::Encoder {
        tell(&sizes, &transcript, console);
        return console.reply(&encoded_reply(&args.generation.prompt, &model, sizes, transcript)?);
    }
    console.stream("\n")?;
    tell(&sizes, &transcript, console);
    console.reply_after_stream(&reply(sizes, transcript))
}

/// The arena of firmware is as large as its model asks for.
fn check_room(model: &PackedModel<'_>, beams: Option<&BeamOptions>) -> Result<(), Failure> {
    let (asked, most) = (beams.map_or(0, |beams| beams.n_beams), model.header().n_beams as usize);
    if asked <= most {
        return Ok(());
    }
    let cause = anyhow!("the model has room for {most} beams: compile it with --beams {asked}");
    Err(Failure::invalid_input("search with beams", cause))
}

/// The analysis must never promise less than a run takes.
fn check_stack(sizes: &Sizes, transcript: &Transcript) -> Result<(), Failure> {
    let (bound, used) = (sizes.stack_bytes, transcript.stack_used_bytes);
    if used <= bound {
        return Ok(());
    }
    let cause = anyhow!("the run took {used} bytes where the analysis found {bound}: the analysis is wrong");
    Err(Failure::failed("bound the stack", cause))
}

fn tell(sizes: &Sizes, transcript: &Transcript, console: &Console) {
    let steps = transcript.instructions.get(1..).unwrap_or_default();
    let mean = steps.iter().sum::<u64>() / steps.len().max(1) as u64;
    let draws = &transcript.draw_instructions;
    let draw = draws.iter().sum::<u64>() / draws.len().max(1) as u64;
    console.note(format_args!(
        "{} prompt tokens, {} new at {mean} instructions each, {draw} of them to choose it; logits {}\nflash {} bytes, RAM {}, stack {} (this run {})",
        transcript.n_prompt_tokens,
        transcript.tokens.len(),
        transcript.logits_hash,
        sizes.flash_bytes,
        sizes.ram_bytes,
        sizes.stack_bytes,
        transcript.stack_used_bytes
    ));
}

fn reply(sizes: Sizes, transcript: Transcript) -> RunReply {
    RunReply {
        text: transcript.text,
        tokens: transcript.tokens,
        n_prompt_tokens: transcript.n_prompt_tokens,
        logits_hash: transcript.logits_hash,
        score: transcript.score,
        end: transcript.end,
        instructions: transcript.instructions,
        draw_instructions: transcript.draw_instructions,
        prompt_instructions: transcript.prompt_instructions,
        flash_bytes: sizes.flash_bytes,
        ram_bytes: sizes.ram_bytes,
        stack_bytes: sizes.stack_bytes,
        stack_used_bytes: transcript.stack_used_bytes,
    }
}

/// A packed model that fits a board, and what makes firmware of the two.
struct Job {
    tools: BoardTools,
    file: PackedFile,
}

impl Job {
    fn prepare(
        board: &str,
        file: &std::path::Path,
        boards_dir: &BoardsDirArgs,
        console: &Console,
    ) -> Result<Self, Failure> {
        let dir = boards_dir.find_board(board)?;
        let tools = BoardTools::new(&dir).or_failed(|| "find the tools that build firmware".to_owned())?;
        let board = Board::load(&dir).or_invalid_input(|| format!("read the board {board}"))?;
        let file = input::open_packed(file)?;
        let model = file.model();
        packing::check_fits(&model, &board, &MemoryReport::new(&model, &board), console)?;
        note_layout(&model, &board, console);
        Ok(Self { tools, file })
    }

    fn build(
        &self,
        file: &std::path::Path,
        adapter_bytes: usize,
        elf: &std::path::Path,
        console: &Console,
    ) -> Result<Sizes, Failure> {
        console.note("building the firmware");
        self.tools.build(file, &self.file.model(), adapter_bytes, elf).or_failed(|| "build the firmware".to_owned())
    }
}

fn note_layout(model: &PackedModel<'_>, board: &Board, console: &Console) {
    if model.header().layout != board.layout {
        console.note(format_args!(
            "the model is packed for another core: it gives the same results, slowly; `siskin compile --board {}` packs it for this one",
            board.name
        ));
    }
}
