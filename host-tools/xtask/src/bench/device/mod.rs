//! `cargo xtask bench device`: instructions, counted exactly in the emulators, against the boards' budgets and recorded in boards/BENCH.md.

mod budget;
mod measure;
mod page;

pub use budget::Budget;
pub use measure::token_request;

use anyhow::{Result, bail};

use self::measure::Detail;
use super::page::BOARDS;
use crate::board::Board;
use crate::repo;

/// What to measure, and what to do with it.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Only this board; boards/BENCH.md stays as it is. May be given several times.
    #[arg(long)]
    board: Vec<String>,
    /// Make what was measured the budgets in board.toml.
    #[arg(long)]
    bless: bool,
}

/// Measures, and fails where a board takes over one per cent more instructions than its budget.
pub fn run(args: &Args) -> Result<()> {
    let siskin = repo::release_siskin()?;
    let boards = match args.board.as_slice() {
        [] => Board::emulated()?,
        names => names.iter().map(|name| Board::load(name)).collect::<Result<_>>()?,
    };
    let mut measured = Vec::new();
    let mut over = Vec::new();
    for board in boards {
        repo::announce(&format!("counting instructions on {}", board.name));
        let measurement = measure::measure(&siskin, &board, Detail::Functions)?;
        eprintln!("{}", page::summary(&measurement));
        match args.bless {
            true => budget::bless(&measurement)?,
            false => over.extend(budget::exceeded(&board, &measurement)),
        }
        measured.push(measurement);
    }
    if args.board.is_empty() {
        BOARDS.replace_front(&page::page(&measured))?;
    }
    fail_over_budget(&over)
}

/// What the tests run: one board of each core against its budgets, with the programs that a build of the workspace left.
pub fn check() -> Result<()> {
    let siskin = repo::debug_siskin();
    let (mut cores, mut over) = (Vec::new(), Vec::new());
    for board in Board::emulated()? {
        let core = (board.target.triple.clone(), board.target.cpu.clone());
        if cores.contains(&core) {
            continue;
        }
        cores.push(core);
        let measurement = measure::measure(&siskin, &board, Detail::Totals)?;
        eprintln!("{}", page::summary(&measurement));
        over.extend(budget::exceeded(&board, &measurement));
    }
    fail_over_budget(&over)
}

fn fail_over_budget(over: &[String]) -> Result<()> {
    if !over.is_empty() {
        bail!("{}; make them fewer, or accept them with `cargo xtask bench device --bless`", over.join("; "));
    }
    Ok(())
}
