//! `cargo xtask sizes`: the firmware of every board against the budgets in its board.toml.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::board::{Board, Budget, ImageBudget};
use crate::firmware::{self, App};
use crate::image::Image;
use crate::{random_model, repo};

/// What to do with the measurements.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Make what was measured the budgets of code and statics.
    #[arg(long)]
    bless: bool,
    /// Only tell what this image for Cortex-M is made of.
    #[arg(long, value_name = "ELF")]
    image: Option<PathBuf>,
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
    if let Some(image) = &args.image {
        return describe(image);
    }
    let siskin = repo::release_siskin()?;
    let mut n_over = 0;
    for board in Board::all()? {
        let (measured, packed) = measure(&siskin, &board)?;
        n_over += report(&board, &measured);
        if let Some(budget) = board.image {
            n_over += report_image(&board, budget, &packed)?;
        }
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

/// The figures and the model.
fn measure(siskin: &Path, board: &Board) -> Result<(Budget, PathBuf)> {
    let packed = random_model::pack(siskin, board)?;
    let mut build = Command::new(siskin);
    build.args(["board", "build", &board.name]).arg(&packed).args(["--format", "json"]).current_dir(repo::root());
    let reply: Reply =
        serde_json::from_str(&repo::output(&mut build)?).context("siskin board build printed no such reply")?;
    let Reply { code_bytes, static_ram_bytes, stack_bytes } = reply;
    Ok((Budget { code_bytes, static_ram_bytes, stack_bytes }, packed))
}

/// Links the firmware and the greedy build without a panic handler, and prints how large they are but for model and start-up; gives the
/// number that are over budget.
fn report_image(board: &Board, budget: ImageBudget, packed: &Path) -> Result<usize> {
    let bytes = |app: Option<App>, name: &str| {
        let elf = repo::root().join(format!("target/firmware/{}-{name}.elf", board.name));
        firmware::build_panic_free(board, Some(packed), app, &elf)?;
        Ok::<u64, anyhow::Error>(Image::read(&elf)?.engine_bytes())
    };
    let figures = [
        ("engine", bytes(None, "panic-free")?, budget.engine_bytes),
        ("greedy", bytes(Some(App::Greedy), "greedy")?, budget.greedy_bytes),
    ];
    Ok(figures.iter().map(|&(name, found, allowed)| line(board, name, found, allowed)).sum())
}

/// Prints the parts of an image, and the functions from which a panic could begin.
fn describe(path: &Path) -> Result<()> {
    let image = Image::read(path)?;
    println!("| part | bytes |\n| --- | --- |");
    image.parts.iter().for_each(|(part, bytes)| println!("| {part} | {bytes} |"));
    println!("| all but the model | {} |", image.flash_bytes());
    println!("| all but the model and start-up | {} |", image.engine_bytes());
    println!("| of them the runtime, without what the application inlines | {} |", image.runtime_bytes());
    println!("\n{} panic sites", image.panic_sites.values().sum::<u32>());
    image.panic_sites.iter().for_each(|(caller, n_sites)| println!("{n_sites:>4} {caller}"));
    Ok(())
}

/// Prints the board's figures; gives the number that are over budget.
fn report(board: &Board, measured: &Budget) -> usize {
    let budget = &board.firmware;
    let figures = [
        ("code", measured.code_bytes, budget.code_bytes),
        ("static RAM", measured.static_ram_bytes, budget.static_ram_bytes),
        ("stack", measured.stack_bytes, budget.stack_bytes),
    ];
    figures.iter().map(|&(name, bytes, budget_bytes)| line(board, name, bytes, budget_bytes)).sum()
}

/// Prints one figure; gives 1 where it is over budget.
fn line(board: &Board, name: &str, found: u64, budget: u64) -> usize {
    let change = i128::from(found) - i128::from(budget);
    let verdict = if change > 0 { "OVER BUDGET" } else { "ok" };
    println!("{:<16}{name:<13}{found:>8}, budget {budget:>8} ({change:+}) {verdict}", board.name);
    usize::from(change > 0)
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
