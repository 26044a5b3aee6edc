//! `cargo xtask bench costs`: what `siskin plan` predicts instructions by. Random models of many shapes are counted on each emulated board; the cost
//! of each kind of work is fitted to the counts, and tried on models of other shapes in firmware that is built around them.

mod count;
mod fit;
mod models;
mod page;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use self::count::Counter;
use self::fit::{Observation, Work};
use self::models::Model;
use crate::board::{Board, CostsOf, boards_dir};
use crate::emulate::Tools;
use crate::repo;
use crate::toolchain::Toolchain;

/// How far a prediction may be from the count.
const ERROR_MAX: f64 = 0.05;
const COSTS_FILE: &str = "costs.toml";

/// What to fit, and what to do with it.
#[derive(clap::Args)]
pub struct Args {
    /// Only this board. May be given several times.
    #[arg(long)]
    board: Vec<String>,
    /// Write the costs to costs.toml of each board, and how far predictions are off to boards/BENCH.md.
    #[arg(long)]
    bless: bool,
}

/// What was found on one board.
pub struct Outcome {
    /// The board.
    pub board: String,
    /// Its compiler, without which costs mean nothing.
    pub compiler: String,
    /// Instructions of a unit of each kind of work.
    pub costs: Work,
    /// What they were tried on.
    pub held_out: Vec<Observation>,
}

/// Counts, fits and tries; fails where a prediction is over five per cent off.
pub fn run(args: &Args) -> Result<()> {
    repo::run(&mut repo::cargo(["build", "--package", "siskin"]))?;
    let siskin = repo::debug_siskin();
    let boards = match args.board.as_slice() {
        [] => Board::emulated()?,
        names => names.iter().map(|name| Board::load(name)).collect::<Result<_>>()?,
    };
    // Those that others are like come first.
    let (own, like): (Vec<_>, Vec<_>) = boards.iter().partition(|board| board.costs.is_none());
    let mut outcomes: Vec<Outcome> = Vec::new();
    for board in own.into_iter().chain(like) {
        repo::announce(&format!("counting models on {}", board.name));
        let outcome = outcome(&siskin, board, &outcomes)?;
        eprint!("{}", page::rows(&outcome));
        if args.bless && board.costs.is_none() {
            let path = boards_dir().join(&board.name).join(COSTS_FILE);
            fs::write(&path, costs_toml(&outcome)).with_context(|| format!("failed to write {}", path.display()))?;
        }
        outcomes.push(outcome);
    }
    if args.bless {
        page::write(&outcomes)?;
    }
    let off = outcomes.iter().flat_map(|outcome| outcome.held_out.iter().map(move |one| (outcome, one)));
    // What an encoder finds takes a thousandth of its reading, and is listed only.
    let off = off.filter(|(_, one)| !one.name.ends_with(" finding"));
    let off = off.filter(|(outcome, one)| one.error(&outcome.costs).abs() > ERROR_MAX);
    let off: Vec<String> = off.map(|(outcome, one)| format!("{} on {}", one.name, outcome.board)).collect();
    if !off.is_empty() {
        bail!("predictions are over five per cent off for {}", off.join(", "));
    }
    Ok(())
}

/// What is found on `board`, after the boards that were `tried`.
fn outcome(siskin: &Path, board: &Board, tried: &[Outcome]) -> Result<Outcome> {
    let dir = repo::root().join("runs").join(format!("costs-{}", board.name));
    fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let tools = Tools::ready(board)?;
    let counter = Counter { siskin, board, tools: &tools, dir };
    let is_small = board.firmware.static_ram_bytes < 1024;
    let costs = match &board.costs {
        None => fitted(&counter, is_small)?,
        Some(CostsOf { like }) => match tried.iter().find(|outcome| outcome.board == *like) {
            Some(outcome) => outcome.costs.clone(),
            None => written(like)?,
        },
    };
    let held_out = match (is_small, &board.costs) {
        (true, _) => models::SMALL_HELD_OUT,
        (false, None) => models::HELD_OUT,
        // The core is one that was tried: a few are enough.
        (false, Some(_)) => &models::HELD_OUT[..2],
    };
    let held_out = each(&counter, held_out)?;
    let compiler = Toolchain::find(&board.target.triple)?.version()?;
    Ok(Outcome { board: board.name.clone(), compiler, costs, held_out })
}

/// The costs of a board's own counts.
fn fitted(counter: &Counter<'_>, is_small: bool) -> Result<Work> {
    let observations = match is_small {
        true => each(counter, models::SMALL_FITTED)?,
        false => {
            let models = models::FITTED.iter().map(|model| counter.pack(model)).collect::<Result<Vec<_>>>()?;
            let mut observations = counter.count_all(&models)?;
            observations.extend(each(counter, models::FITTED_LINKED)?);
            observations
        }
    };
    let path = counter.dir.join("observations.json");
    fs::write(&path, serde_json::to_string(&observations)?)
        .with_context(|| format!("failed to write {}", path.display()))?;
    let mut costs = fit::fit(&observations);
    let worst = observations.iter().max_by(|a, b| a.error(&costs).abs().total_cmp(&b.error(&costs).abs()));
    if let Some(worst) = worst {
        eprintln!(
            "{} counts; the fit is {:+.1}% off at most, for {}",
            observations.len(),
            100.0 * worst.error(&costs),
            worst.name
        );
    }
    costs.retain(|kind, _| !kind.starts_with(count::ROOM));
    Ok(costs)
}

/// Counts of firmware that is built around each model.
fn each(counter: &Counter<'_>, models: &[Model]) -> Result<Vec<Observation>> {
    let counted = models.iter().map(|model| counter.count_linked(&counter.pack(model)?)).collect::<Result<Vec<_>>>()?;
    Ok(counted.into_iter().flatten().collect())
}

/// The file in a board's folder.
#[derive(Deserialize)]
struct CostsFile {
    instructions: Work,
}

/// The costs in a board's folder.
fn written(board: &str) -> Result<Work> {
    let path = boards_dir().join(board).join(COSTS_FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let file: CostsFile = toml::from_str(&text).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(file.instructions)
}

fn costs_toml(outcome: &Outcome) -> String {
    let mut text = format!(
        "# Written by `cargo xtask bench costs --bless`: instructions of a unit of each kind of work, fitted to counts.\n\
         compiler = {:?}\n\n[instructions]\n",
        outcome.compiler
    );
    for (kind, cost) in &outcome.costs {
        let _ = writeln!(text, "{kind} = {cost:.4}");
    }
    text
}
