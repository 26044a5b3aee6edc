//! `cargo xtask sizes`: the firmware of every board against the budgets in its board.toml.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::board::{Board, Budget};
use crate::{random_model, repo};

/// What to do with the measurements.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Make what was measured the budgets of code and statics.
    #[arg(long)]
    bless: bool,
}

/// What `siskin board build` prints, as far as it matters here.
#[derive(Deserialize)]
struct Reply {
    code_bytes: u64,
    static_ram_bytes: u64,
    stack_bytes: u64,
}

/// Prints a line a figure, and fails where one is over budget.
pub fn run(args: &Args) -> Result<()> {
    let siskin = repo::release_siskin()?;
    let mut n_over = 0;
    for board in Board::all()? {
        let measured = measure(&siskin, &board)?;
        n_over += report(&board, &measured);
        if args.bless {
            bless(&board.name, &measured)?;
        }
    }
    if n_over > 0 && !args.bless {
        bail!(
            "{n_over} sizes are over budget; make the firmware smaller, or accept them with `cargo xtask sizes --bless`"
        );
    }
    Ok(())
}

fn measure(siskin: &Path, board: &Board) -> Result<Budget> {
    let packed = random_model::pack(siskin, board)?;
    let mut build = Command::new(siskin);
    build.args(["board", "build", &board.name]).arg(&packed).args(["--format", "json"]).current_dir(repo::root());
    let reply: Reply =
        serde_json::from_str(&repo::output(&mut build)?).context("siskin board build printed no such reply")?;
    let Reply { code_bytes, static_ram_bytes, stack_bytes } = reply;
    Ok(Budget { code_bytes, static_ram_bytes, stack_bytes })
}

/// Prints the board's figures; gives the number that are over budget.
fn report(board: &Board, measured: &Budget) -> usize {
    let budget = &board.firmware;
    let figures = [
        ("code", measured.code_bytes, budget.code_bytes),
        ("static RAM", measured.static_ram_bytes, budget.static_ram_bytes),
        ("stack", measured.stack_bytes, budget.stack_bytes),
    ];
    let mut n_over = 0;
    for (name, bytes, budget_bytes) in figures {
        let change = i128::from(bytes) - i128::from(budget_bytes);
        let verdict = if change > 0 { "OVER BUDGET" } else { "ok" };
        println!("{:<16}{name:<12}{bytes:>8} bytes, budget {budget_bytes:>8} ({change:+}) {verdict}", board.name);
        n_over += usize::from(change > 0);
    }
    n_over
}

/// Rewrites the figures in the board's description. The stack's is the linker's reserve in memory.x, so it stays.
fn bless(name: &str, measured: &Budget) -> Result<()> {
    let path = Board::path(name);
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let line = |line: &str| match line.split_once(" = ") {
        Some(("code_bytes", _)) => format!("code_bytes = {}", measured.code_bytes),
        Some(("static_ram_bytes", _)) => format!("static_ram_bytes = {}", measured.static_ram_bytes),
        _ => line.to_owned(),
    };
    let lines: Vec<String> = text.lines().map(line).collect();
    fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("failed to write {}", path.display()))
}
