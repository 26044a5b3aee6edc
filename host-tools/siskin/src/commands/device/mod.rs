//! `siskin device`: asks a device at the other end of a serial line, whose firmware is the application `serial`.

mod check;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;
use siskin_device::serial::{Event, Generate, Request, STOPS_MAX, Settings};
use siskin_runtime::sampler::Sampling;
use siskin_runtime::{LogitsHash, TokenId};

use crate::boards::BoardsDirArgs;
use crate::console::Console;
use crate::device::{Device, Line};
use crate::failure::{Failure, OrFail as _};
use crate::firmware::BoardTools;
use crate::generation::GenerationArgs;

const AFTER_HELP: &str = "\
The firmware is built with `cargo xtask firmware --app serial`.

Examples:
  siskin device hello --port /dev/ttyACM0
  siskin device run --port /dev/ttyACM0 --prompt 'ROMEO:' --temperature 0.8
  siskin device run --qemu mps2-an386 --elf serial.elf --prompt 'ROMEO:' --greedy
  siskin device check shakespeare.siskin --port /dev/ttyACM0 --prompt 'ROMEO:' --texts 100";

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
    /// Say what the device is.
    Hello(LineArgs),
    /// Continue a prompt on the device.
    Run(Box<RunArgs>),
    /// Compare texts that the device writes with those that this machine writes: tokens, logits and ends.
    Check(Box<check::Args>),
}

/// Where the device is.
#[derive(clap::Args)]
struct LineArgs {
    /// The port that the device is at.
    #[arg(long, value_name = "PATH", required_unless_present = "qemu", conflicts_with = "qemu")]
    port: Option<PathBuf>,
    /// The port's speed.
    #[arg(long, value_name = "N", default_value_t = 115_200, value_parser = clap::value_parser!(u32).range(1..))]
    baud: u32,
    /// Emulate this board instead, a folder of boards/.
    #[arg(long, value_name = "BOARD", requires = "elf")]
    qemu: Option<String>,
    /// The firmware for the emulated board.
    #[arg(long, value_name = "ELF", requires = "qemu")]
    elf: Option<PathBuf>,
    /// Give up after S seconds in which the device says nothing.
    #[arg(long, value_name = "S", default_value_t = 60)]
    timeout: u64,
}

#[derive(clap::Args)]
struct RunArgs {
    #[command(flatten)]
    line: LineArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Write with the device's adapter NAME, switched to without a reset [default: none].
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    match &args.action {
        Action::Hello(line_args) => {
            let mut device = open(line_args, &args.boards_dir)?;
            console.reply(&hello(&mut device, console)?)
        }
        Action::Run(run_args) => continue_prompt(run_args, &args.boards_dir, console),
        Action::Check(check_args) => check::run(check_args, &args.boards_dir, console),
    }
}

/// What the device says of itself.
#[derive(Serialize)]
struct HelloReply {
    board: String,
    model_bytes: u32,
    /// CRC-32 of the packed file, 8 hexadecimal digits.
    model_crc: String,
    context_len: u32,
    /// The longest frame that the device receives.
    frame_bytes: u32,
}

impl fmt::Display for HelloReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { board, model_bytes, model_crc, context_len, frame_bytes } = self;
        write!(f, "{board} with a model of {model_bytes} bytes, CRC-32 {model_crc}, context {context_len}; ")?;
        write!(f, "requests of up to {frame_bytes} bytes")
    }
}

/// What came of a prompt, with the keys of `run`.
#[derive(Serialize)]
pub(super) struct RunReply {
    pub(super) text: String,
    pub(super) tokens: Vec<TokenId>,
    n_prompt_tokens: usize,
    logits_hash: String,
    /// As of `run`, or `interrupted`.
    end: String,
}

fn open(args: &LineArgs, boards_dir: &BoardsDirArgs) -> Result<Device, Failure> {
    let doing = || "reach the device".to_owned();
    let line = match (&args.port, &args.qemu, &args.elf) {
        (None, Some(board), Some(elf)) => {
            let tools = BoardTools::new(&boards_dir.find_board(board)?).or_failed(doing)?;
            tools.emulate_serial(elf).and_then(Line::of_emulator).or_failed(doing)?
        }
        (Some(port), ..) => Line::open(port, args.baud).or_failed(doing)?,
        _ => return Err(Failure::command_line(anyhow!("name the device with --port, or --qemu and --elf"))),
    };
    Ok(Device::new(line, Duration::from_secs(args.timeout)))
}

fn hello(device: &mut Device, console: &Console) -> Result<HelloReply, Failure> {
    let doing = || "ask the device what it is".to_owned();
    device.send(&Request::Hello).or_failed(doing)?;
    let reply = device.receive(
        |said| console.note(said),
        |event| match event {
            Event::Hello { board, model_bytes, model_crc, context_len, frame_bytes_max } => Some(Ok(HelloReply {
                board: board.to_owned(),
                model_bytes,
                model_crc: format!("{model_crc:08x}"),
                context_len,
                frame_bytes: frame_bytes_max,
            })),
            Event::Error(text) => Some(Err(anyhow!("{text}"))),
            _ => None,
        },
    );
    reply.or_failed(doing)?.or_failed(doing)
}

fn continue_prompt(args: &RunArgs, boards_dir: &BoardsDirArgs, console: &Console) -> Result<(), Failure> {
    let request = request(&args.generation, args.adapter.as_deref())?;
    let mut device = open(&args.line, boards_dir)?;
    hello(&mut device, console)?;
    let reply = ask(&mut device, request, console, |piece| console.stream(piece))?;
    console.stream("\n")?;
    console.reply_after_stream(&reply)
}

/// What the flags ask of a device.
fn request<'r>(generation: &'r GenerationArgs, adapter: Option<&'r str>) -> Result<Generate<'r>, Failure> {
    let sampling = generation.sampling()?;
    let given = generation.stops()?;
    if generation.chat || generation.has_biases() {
        let cause = "--chat, --logit-bias and --ban need the packed file, which is on the device";
        return Err(Failure::command_line(anyhow!(cause)));
    }
    let wanted = generate(&generation.prompt, generation.max_new_tokens, &sampling, &given)?;
    Ok(Generate { seed: generation.seed, adapter, ..wanted })
}

/// A text, asked for with a seed of 0 and no adapter.
pub(super) fn generate<'r>(
    prompt: &'r str,
    max_new_tokens: usize,
    sampling: &Sampling,
    given: &[&'r str],
) -> Result<Generate<'r>, Failure> {
    let mut stops = [""; STOPS_MAX];
    let Some(places) = stops.get_mut(..given.len()) else {
        return Err(Failure::command_line(anyhow!("a device takes at most {STOPS_MAX} stop sequences")));
    };
    places.copy_from_slice(given);
    Ok(Generate {
        prompt,
        continues: false,
        max_new_tokens: u32::try_from(max_new_tokens).unwrap_or(u32::MAX),
        settings: Settings::from(sampling),
        seed: 0,
        adapter: None,
        stops,
    })
}

/// Has the device write a text, and shows each piece of it as it comes.
pub(super) fn ask(
    device: &mut Device,
    request: Generate<'_>,
    console: &Console,
    show: impl Fn(&str) -> Result<(), Failure>,
) -> Result<RunReply, Failure> {
    let doing = || "continue the prompt on the device".to_owned();
    device.send(&Request::Generate(request)).or_failed(doing)?;
    let (mut text, mut tokens, mut n_prompt_tokens) = (String::new(), Vec::new(), 0);
    let end = device.receive(
        |said| console.note(said),
        |event| {
            match event {
                Event::Prompt { n_tokens } => n_prompt_tokens = n_tokens as usize,
                Event::Token(token) => tokens.push(token),
                Event::Text(piece) => {
                    text.push_str(piece);
                    if let Err(failure) = show(piece) {
                        return Some(Err(failure.into_cause()));
                    }
                }
                Event::End { reason, logits_hash, .. } => return Some(Ok((reason, LogitsHash(logits_hash)))),
                Event::Error(cause) => return Some(Err(anyhow!("{cause}"))),
                Event::Hello { .. } | Event::Log(_) => {}
            }
            None
        },
    );
    let (end, hash) = end.or_failed(doing)?.or_failed(doing)?;
    let end = end.as_str().to_owned();
    Ok(RunReply { text, tokens, n_prompt_tokens, logits_hash: hash.to_string(), end })
}
