//! How far predictions are off, as a section of boards/BENCH.md.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::Outcome;
use crate::board::boards_dir;

/// The section's title; it is the last of the page.
const TITLE: &str = "## Predicted";

/// The section as it stands in the page, with a line before it; empty where there is none yet.
pub fn section_of(page: &str) -> String {
    page.find(TITLE).and_then(|at| page.get(at..)).map_or(String::new(), |section| format!("\n{section}"))
}

/// Lines of a table: a board's models, counted and predicted.
pub fn rows(outcome: &Outcome) -> String {
    let mut text = String::new();
    for one in &outcome.held_out {
        let (predicted, off) = (one.predicted(&outcome.costs), 100.0 * one.error(&outcome.costs));
        let _ =
            writeln!(text, "| {} | {} | {:.0} | {predicted:.0} | {off:+.1}% |", outcome.board, one.name, one.counted);
    }
    text
}

/// Puts the section in the place of the one that is there; boards that were not tried keep their lines.
pub fn write(outcomes: &[Outcome]) -> Result<()> {
    let path = boards_dir().join("BENCH.md");
    let page = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let (before, old) = page.split_once(TITLE).unwrap_or((&page, ""));
    let board_of = |row: &str| row.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_new = |row: &str| outcomes.iter().any(|outcome| outcome.board == board_of(row));
    let new: String = outcomes.iter().map(rows).collect();
    let old = old.lines().filter(|row| row.ends_with("% |") && !is_new(row));
    let mut rows: Vec<&str> = old.chain(new.lines()).collect();
    rows.sort_by_key(|row| board_of(row));
    let (before, rows) = (before.trim_end(), rows.join("\n"));
    let section = format!(
        "{TITLE}\n\n\
         Written by `cargo xtask bench costs --bless`. Models whose shapes no cost was fitted to, in firmware built around them: what was counted,\n\
         and what `siskin plan` had said. A name is the family, dim, hidden width, layers, heads, key heads, vocabulary, context and format;\n\
         `reading` is the prompt, the source or the text, `early` and `late` are means over halves of the context.\n\n\
         | board | model | counted | predicted | off by |\n| --- | --- | --- | --- | --- |\n{rows}\n"
    );
    fs::write(&path, format!("{before}\n\n{section}")).with_context(|| format!("failed to write {}", path.display()))
}
