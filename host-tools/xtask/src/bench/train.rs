//! `cargo xtask bench train`: tokens a second of training, everyone in turn, on the same shapes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::contestant::{Contestant, Program};
use super::peers::{self, Peer};
use super::statistics::{median, rounded};
use super::{machine, page};
use crate::repo;

/// What to measure, and how long.
#[derive(clap::Args)]
pub struct Args {
    /// Model and sequences in a batch: 260k:8, 260k:32, 15m:8, …
    #[arg(long, value_delimiter = ',', default_value = "260k:8,260k:32,15m:8")]
    cases: Vec<String>,
    /// Who takes part beside Siskin [default: all].
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<Peer>>,
    /// Sources of llm.c, the folder with train_gpt2.c.
    #[arg(long, value_name = "DIR")]
    llmc: Option<PathBuf>,
    /// Threads of everyone.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Times that everyone has a turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds to wait, at most, for the machine to be idle before each round.
    #[arg(long, value_name = "S", default_value_t = 20)]
    wait: u64,
    /// Print the tables and leave compiler/BENCH.md as it is.
    #[arg(long)]
    dry_run: bool,
}

/// Positions of every sequence.
const CONTEXT_LEN: usize = 256;
/// About how long a turn should take.
const TURN_SECONDS: f64 = 1.5;
/// Most steps of a turn.
const TURN_STEPS_MAX: f64 = 60.0;
/// Measurements of the machine's limit in a turn, each of some 10 ms.
const PEAK_MEASUREMENTS: usize = 15;

/// Numbers of a model, without the batch.
#[derive(Clone, Copy)]
pub struct Shape {
    pub dim: usize,
    pub hidden_dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub vocab_size: usize,
}

/// The models that are trained, by name.
const MODELS: [(&str, Shape); 2] = [
    ("260k", Shape { dim: 64, hidden_dim: 172, n_layers: 5, n_heads: 8, n_kv_heads: 4, vocab_size: 512 }),
    ("15m", Shape { dim: 288, hidden_dim: 768, n_layers: 6, n_heads: 6, n_kv_heads: 6, vocab_size: 32_000 }),
];

impl Shape {
    /// The GPT-2 of the same width and depth, for those who have nothing else.
    fn as_gpt2(self) -> Self {
        Self { hidden_dim: 4 * self.dim, n_kv_heads: self.n_heads, ..self }
    }

    fn arguments(self, batch_size: usize) -> Vec<String> {
        let Self { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size } = self;
        let numbers = [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, batch_size, CONTEXT_LEN];
        numbers.map(|number| number.to_string()).into()
    }

    /// Floating-point operations of a token: two a parameter forward and four backward, and as many again for the products of
    /// causal attention, `6 * layers * width * context` (Kaplan et al. 2020; llm.c counts the same).
    fn flops_per_token(self, n_params: u64) -> f64 {
        6.0 * n_params as f64 + (6 * self.n_layers * self.dim * CONTEXT_LEN) as f64
    }
}

/// A model and a batch.
struct Case {
    model: String,
    shape: Shape,
    batch_size: usize,
}

impl Case {
    fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once(':').and_then(|(model, batch_size)| {
            let (_, shape) = MODELS.iter().find(|(name, _)| *name == model)?;
            let batch_size = batch_size.parse().ok().filter(|n| (1..=1024).contains(n))?;
            Some(Self { model: model.to_owned(), shape: *shape, batch_size })
        });
        parsed.with_context(|| format!("{text} is not a model and a batch size, like 260k:8 or 15m:8"))
    }
}

/// A program of the field and what it is measured on.
struct Entry {
    program: Program,
    is_gpt2: bool,
}

/// Who takes part, and who does not and why.
struct Field {
    siskin: PathBuf,
    entries: Vec<Entry>,
    missing: Vec<String>,
}

/// Measures and writes the section.
pub fn run(args: &Args) -> Result<()> {
    let cases = args.cases.iter().map(|case| Case::parse(case)).collect::<Result<Vec<_>>>()?;
    let mut field = Field::gather(args.peers.as_deref(), args.llmc.as_deref())?;
    let mut body = format!(
        "`cargo xtask bench train`: forward, backward and AdamW in `f32` on {} threads of {}, {} rounds in which everyone has \
         a turn, medians of the rounds. Batches are of sequences of {CONTEXT_LEN} tokens. A CPU second is one of any thread: \
         it shows what is left of a rate when others use the machine too. The limit is what fused multiply-adds on registers \
         reach on as many threads in the same rounds; a token counts as 6 operations a parameter and `6 * layers * width * \
         context` for attention. Peers are built for this very processor, Siskin for any.\n",
        args.threads,
        machine::describe(),
        args.rounds,
    );
    for case in &cases {
        repo::announce(&format!("training {}, {} sequences a batch", case.model, case.batch_size));
        let table = measure(args, case, &mut field)?;
        eprintln!("{table}");
        write!(body, "\n{table}")?;
    }
    for missing in &field.missing {
        write!(body, "\nNot measured: {missing}\n")?;
    }
    if args.dry_run { Ok(()) } else { page::HOST.replace_section("Training", &body) }
}

impl Field {
    /// Builds or finds everyone.
    fn gather(peers: Option<&[Peer]>, llmc_dir: Option<&Path>) -> Result<Self> {
        let siskin = peers::siskin()?;
        let (mut entries, mut missing) = (Vec::new(), Vec::new());
        for peer in peers.unwrap_or(&[Peer::Torch, Peer::Candle, Peer::Burn, Peer::Llmc]) {
            match peer.programs(llmc_dir) {
                Ok(programs) => {
                    let is_gpt2 = *peer == Peer::Llmc;
                    entries.extend(programs.into_iter().map(|program| Entry { program, is_gpt2 }));
                }
                Err(error) => {
                    eprintln!("{peer:?} does not take part: {error:#}");
                    missing.push(format!("{peer:?}: {error:#}"));
                }
            }
        }
        for is_gpt2 in [true, false] {
            if is_gpt2 && !entries.iter().any(|entry| entry.is_gpt2) {
                continue;
            }
            let (name, family) = if is_gpt2 { ("Siskin, GPT-2", "gpt2") } else { ("Siskin", "llama") };
            let command = vec![siskin.clone(), "train".into(), family.into()];
            entries.insert(0, Entry { program: Program { name: name.into(), command, options: Vec::new() }, is_gpt2 });
        }
        Ok(Self { siskin, entries, missing })
    }
}

/// A program that runs, and what it reached in each round.
struct Runner<'f> {
    entry: &'f Entry,
    contestant: Contestant,
    shape: Shape,
    n_steps: usize,
    first_loss: f64,
    last_loss: f64,
    tokens_per_second: Vec<f64>,
    tokens_per_cpu_second: Vec<f64>,
}

impl<'f> Runner<'f> {
    fn start(entry: &'f Entry, case: &Case, n_threads: usize) -> Result<Self> {
        eprintln!("starting {}", entry.program.name);
        let shape = if entry.is_gpt2 { case.shape.as_gpt2() } else { case.shape };
        let mut contestant = Contestant::start(&entry.program, &shape.arguments(case.batch_size), n_threads)?;
        let trial = contestant.turn(1)?;
        let (&[first_loss, _], last_loss) = (&trial.numbers[..], f64::NAN) else {
            bail!("it does not answer a step's")
        };
        let n_steps = (TURN_SECONDS / trial.seconds).clamp(1.0, TURN_STEPS_MAX) as usize;
        let (tokens_per_second, tokens_per_cpu_second) = (Vec::new(), Vec::new());
        Ok(Self { entry, contestant, shape, n_steps, first_loss, last_loss, tokens_per_second, tokens_per_cpu_second })
    }

    fn turn(&mut self, case: &Case) -> Result<()> {
        let turn = self.contestant.turn(self.n_steps)?;
        let (loss, seconds) = turn.numbers.split_first().context("it answered nothing")?;
        self.last_loss = *loss;
        let tokens = (case.batch_size * CONTEXT_LEN) as f64;
        self.tokens_per_second.push(tokens / median(seconds.iter().copied()).context("it made no step")?);
        if turn.cpu_seconds > 0.0 {
            self.tokens_per_cpu_second.push(tokens * seconds.len() as f64 / turn.cpu_seconds);
        }
        Ok(())
    }
}

/// Gives everyone their turns and makes the table of a case. Who fails is noted among the missing.
fn measure(args: &Args, case: &Case, field: &mut Field) -> Result<String> {
    let mut runners = Vec::new();
    for entry in &field.entries {
        match Runner::start(entry, case, args.threads) {
            Ok(runner) => runners.push(runner),
            Err(error) if entry.program.name.starts_with("Siskin") => return Err(error),
            Err(error) => field.missing.push(format!("{} at {}: {error:#}", entry.program.name, case.model)),
        }
    }
    let mut peaks = BTreeMap::new();
    for n_threads in [1, args.threads] {
        let command = vec![field.siskin.clone(), "peak".into()];
        let program = Program { name: "the limit".into(), command, options: Vec::new() };
        peaks.insert(n_threads, (Contestant::start(&program, &[], n_threads)?, Vec::new()));
    }
    let mut idle_shares = Vec::new();
    for round in 0..args.rounds {
        idle_shares.push(machine::wait_until_quiet(Duration::from_secs(args.wait)));
        eprintln!("round {} of {}, machine {:.0}% idle", round + 1, args.rounds, 100.0 * idle_shares[round]);
        for (contestant, rates) in peaks.values_mut() {
            rates.push(median(contestant.turn(PEAK_MEASUREMENTS)?.numbers).context("no limit was measured")?);
        }
        for runner in &mut runners {
            runner.turn(case).with_context(|| format!("{} failed", runner.entry.program.name))?;
        }
    }
    for runner in &runners {
        let (first, last) = (runner.first_loss, runner.last_loss);
        if last >= first {
            bail!("{} does not learn: its loss went from {first} to {last}", runner.entry.program.name);
        }
    }
    let peaks = peaks.into_iter().map(|(n_threads, (_, rates))| (n_threads, rates)).collect();
    Ok(table(case, args.threads, &runners, &peaks, &idle_shares))
}

fn table(
    case: &Case,
    n_threads: usize,
    runners: &[Runner<'_>],
    peaks: &BTreeMap<usize, Vec<f64>>,
    idle_shares: &[f64],
) -> String {
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.0}%", 100.0 * share));
    let limits = peaks
        .iter()
        .map(|(n, rates)| format!("{} on {n}", rounded(median(rates.iter().copied()).unwrap_or(0.0) / 1e9)));
    let mut text = format!(
        "**{}, batches of {}.** Limit in GFLOP/s: {}. Idle before a round: {}.\n\n\
         | | parameters | tokens/s | tokens/CPU s | of the limit | Siskin is |\n| --- | --- | --- | --- | --- | --- |\n",
        case.model.to_uppercase(),
        case.batch_size,
        limits.collect::<Vec<_>>().join(", "),
        percent(median(idle_shares.iter().copied())),
    );
    for runner in runners {
        let flops = runner.shape.flops_per_token(runner.contestant.n_params);
        let shares = runner.tokens_per_second.iter().zip(&peaks[&n_threads]).map(|(rate, peak)| rate * flops / peak);
        let ours = runners.iter().find(|other| other.entry.is_gpt2 == runner.entry.is_gpt2);
        let ratio = ours.filter(|ours| !std::ptr::eq(*ours, runner)).and_then(|ours| {
            median(ours.tokens_per_second.iter().zip(&runner.tokens_per_second).map(|(ours, theirs)| ours / theirs))
        });
        let rate = |rates: &[f64]| median(rates.iter().copied()).map_or("-".to_owned(), rounded);
        text += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            runner.entry.program.name,
            rounded(runner.contestant.n_params as f64),
            rate(&runner.tokens_per_second),
            rate(&runner.tokens_per_cpu_second),
            percent(median(shares)),
            ratio.map_or(String::new(), |ratio| format!("{} times as fast", rounded(ratio))),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_a_model_and_a_batch() {
        let case = Case::parse("15m:32").unwrap();
        assert_eq!((case.shape.dim, case.batch_size), (288, 32));
        for wrong in ["15m", "15m:0", "7b:8", "260k:x", ""] {
            assert!(Case::parse(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn operations_of_a_token_are_those_published() {
        let [(_, small), (_, large)] = MODELS;
        assert_eq!(small.flops_per_token(260_032) as u64, 2_051_712);
        assert_eq!(large.flops_per_token(15_191_712) as u64, 93_804_480);
    }
}
