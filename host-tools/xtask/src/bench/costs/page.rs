//! How far predictions are off, as a section of boards/BENCH.md.

use std::fmt::Write as _;

use anyhow::Result;

use super::Outcome;
use crate::bench::page::BOARDS;

const TITLE: &str = "Predicted";

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
    let old = BOARDS.section(TITLE);
    let board_of = |row: &str| row.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_new = |row: &str| outcomes.iter().any(|outcome| outcome.board == board_of(row));
    let new: String = outcomes.iter().map(rows).collect();
    let old = old.lines().filter(|row| row.ends_with("% |") && !is_new(row));
    let mut rows: Vec<&str> = old.chain(new.lines()).collect();
    rows.sort_by_key(|row| board_of(row));
    let section = format!(
        "Written by `cargo xtask bench costs --bless`. Models whose shapes no cost was fitted to, in firmware built around them: what was counted,\n\
         and what `siskin plan` had said. A name is the family, dim, hidden width, layers, heads, key heads, vocabulary, context and format;\n\
         `reading` is the prompt, the source or the text, `early` and `late` are means over halves of the context.\n\n\
         | board | model | counted | predicted | off by |\n| --- | --- | --- | --- | --- |\n{}\n",
        rows.join("\n")
    );
    BOARDS.replace_section(TITLE, &section)
}
