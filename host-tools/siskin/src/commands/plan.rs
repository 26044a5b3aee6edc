//! `siskin plan`: says what a model needs on a board, part by part, whether it fits, and what a token will take there.

use std::fmt;
use std::path::PathBuf;

use anyhow::{anyhow, ensure};
use serde::Serialize;
use siskin_compiler::plan::{Board, MemoryReport, Prediction, SpeedEstimate, Work};
use siskin_runtime::PackedModel;

use crate::boards::BoardArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::packing::{self, PackingArgs, ReportText};

/// Tokens of a prompt that nobody has said the length of.
const PROMPT_TOKENS: usize = 16;

const AFTER_HELP: &str = "\
Examples:
  siskin plan shakespeare.siskin --board netduinoplus2
  siskin plan shakespeare.siskin --board netduinoplus2 --clock 84MHz --prompt-tokens 40
  siskin plan runs/shakespeare --board netduinoplus2 --context 128 --format json";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A packed .siskin, or a model that compile takes.
    model: PathBuf,
    #[command(flatten)]
    board: BoardArgs,
    #[command(flatten)]
    packing: PackingArgs,
    /// Tokens of the prompt, of an encoder's text or of the source that a decoder writes from [default: 16].
    #[arg(long, value_name = "N")]
    prompt_tokens: Option<usize>,
    /// Also say what the token at this position of the context takes.
    #[arg(long, value_name = "N")]
    position: Option<usize>,
    /// Estimate time and energy at this clock, such as 168MHz [default: the one in board.toml].
    #[arg(long, value_name = "HZ", value_parser = parse_clock)]
    clock: Option<u64>,
    /// Print the work of reading the prompt and of the token at each of these positions instead: what costs are fitted to.
    #[arg(long, value_name = "POSITIONS", value_delimiter = ',', hide = true)]
    work_at: Vec<usize>,
}

/// Hertz, from a number and `Hz`, `kHz`, `MHz` or `GHz`.
fn parse_clock(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let units = [("ghz", 1e9), ("mhz", 1e6), ("khz", 1e3), ("hz", 1.0)];
    let with_unit = units.into_iter().find_map(|(unit, hertz)| Some((lower.strip_suffix(unit)?, hertz)));
    let parsed = with_unit.and_then(|(number, unit)| Some(number.trim().parse::<f64>().ok()? * unit));
    match parsed {
        Some(hertz) if (1.0..=1e12).contains(&hertz) => Ok(hertz.round() as u64),
        _ => Err("a clock must be a number and its unit, such as 168MHz".to_owned()),
    }
}

#[derive(Serialize)]
struct Reply {
    #[serde(flatten)]
    report: MemoryReport,
    /// What a token will take; `None` where that is not known.
    prediction: Option<Prediction>,
    /// Kinds of the model's work that were never counted on the board, where that is why there is no prediction.
    uncounted: Vec<String>,
    speed: Option<SpeedEstimate>,
}

impl Reply {
    fn new(args: &Args, model: &PackedModel<'_>, board: &Board, report: MemoryReport) -> Self {
        let n_tokens = args.prompt_tokens(model);
        let predicted = board
            .costs
            .as_ref()
            .map(|(counted_on, costs)| Prediction::new(model, costs, counted_on, n_tokens, args.position));
        let (prediction, uncounted) = match predicted {
            None => (None, Vec::new()),
            Some(Ok(prediction)) => (Some(prediction), Vec::new()),
            Some(Err(uncounted)) => (None, uncounted),
        };
        let estimate = |prediction: &Prediction| {
            Some(board.speed.as_ref()?.estimate(prediction.mean_token, prediction.prompt, args.clock))
        };
        let speed = prediction.as_ref().and_then(estimate);
        Self { report, prediction, uncounted, speed }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ReportText(&self.report).fmt(f)?;
        if !self.uncounted.is_empty() {
            let kinds = self.uncounted.join(", ");
            write!(f, "\nno prediction of instructions: the board was never counted with {kinds}")?;
        }
        let Some(prediction) = &self.prediction else { return Ok(()) };
        write!(f, "\ninstructions, predicted from counts on {}", prediction.counted_on)?;
        let read = format!("reading {} tokens", prediction.prompt_tokens);
        let lines = [
            (read.as_str(), prediction.prompt),
            ("the first token", prediction.first_token),
            ("a token, on average", prediction.mean_token),
        ];
        for (what, instructions) in lines {
            write!(f, "\n  {what:<20} {instructions:>12}")?;
        }
        if let Some(at) = &prediction.at_position {
            write!(f, "\n  {:<20} {:>12}", format!("at position {}", at.position), at.instructions)?;
        }
        let Some(speed) = &self.speed else { return Ok(()) };
        let SpeedEstimate { cycles_per_instruction, cycles_source, tokens_per_second, prompt_seconds, .. } = speed;
        write!(f, "\nestimate at {} MHz, not measured", speed.clock_hz as f64 / 1e6)?;
        write!(f, "\n  {tokens_per_second:.1} tokens a second, {prompt_seconds:.3} s until the prompt is read")?;
        write!(f, "\n    by {cycles_per_instruction} cycles an instruction: {cycles_source}")?;
        if let (Some(energy), Some(milliamperes), Some(source)) =
            (speed.microjoules_per_token, speed.milliamperes, &speed.power_source)
        {
            write!(f, "\n  {energy:.0} µJ a token\n    at {milliamperes:.1} mA: {source}")?;
        }
        Ok(())
    }
}

/// The amounts that costs are fitted to.
#[derive(Serialize)]
struct WorkReply {
    reading: Work,
    tokens: Vec<Work>,
}

impl fmt::Display for WorkReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.tokens.iter().chain([&self.reading]).flat_map(Work::amounts);
        kinds.into_iter().try_for_each(|(kind, amount)| writeln!(f, "{kind} {amount}"))
    }
}

impl Args {
    fn prompt_tokens(&self, model: &PackedModel<'_>) -> usize {
        self.prompt_tokens.unwrap_or(PROMPT_TOKENS.min(model.config().context_len))
    }

    /// Checks that what was asked about lies in the context.
    fn check(&self, model: &PackedModel<'_>) -> anyhow::Result<()> {
        let context_len = model.config().context_len;
        let asked = self.work_at.iter().chain(&self.position).copied().max();
        ensure!(
            asked.is_none_or(|position| position < context_len),
            "there is no such position: the context has {context_len}, the first is 0"
        );
        let n_tokens = self.prompt_tokens(model);
        ensure!((1..=context_len).contains(&n_tokens), "a prompt of {n_tokens} tokens: the context has {context_len}");
        Ok(())
    }
}

pub(crate) fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let board = args.board.load()?;
    let file = args.packing.pack(&args.model, &board, console)?;
    let model = file.model();
    args.check(&model).map_err(Failure::command_line)?;
    if !args.work_at.is_empty() {
        let n_tokens = args.prompt_tokens(&model);
        let token = |&position: &usize| Work::of_token(&model, position, n_tokens);
        let tokens = args.work_at.iter().map(token).collect();
        return console.reply(&WorkReply { reading: Work::of_reading(&model, n_tokens), tokens });
    }
    if args.clock.is_some() && board.speed.is_none() {
        let cause = anyhow!("board.toml of {} has no [speed], which says what its part makes of a clock", board.name);
        return Err(Failure::command_line(cause));
    }
    let report = MemoryReport::new(&model, &board);
    packing::check_fits(&model, &board, &report, console)?;
    console.reply(&Reply::new(args, &model, &board, report))
}
