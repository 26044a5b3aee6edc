//! The instructions that a board may take: the last section of its `board.toml`, written by `--bless`.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::measure::Measurement;
use crate::board::Board;

/// How much more than its budget a count may be, in parts of it: compilers' minor versions differ by less.
const TOLERANCE: f64 = 0.01;
const HEADER: &str = "[instructions]";

/// What is in the section.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Budget {
    /// The compiler that the others are counts of.
    compiler: String,
    /// Matrix-vector products, in the order in which the firmware computes them.
    products: Vec<u64>,
    /// The token at the first position.
    first_token: u64,
    /// The mean over all positions of the context.
    mean_token: u64,
}

/// What is over budget, in words. Nothing is where the board has no budget or another compiler made the firmware.
pub fn exceeded(board: &Board, measured: &Measurement) -> Vec<String> {
    let Some(budget) = &board.instructions else { return Vec::new() };
    if budget.compiler != measured.compiler {
        eprintln!("{} has budgets for {}, not for {}: not compared", board.name, budget.compiler, measured.compiler);
        return Vec::new();
    }
    let products = measured.products.iter().zip(&budget.products).map(|(product, &allowed)| {
        let what = format!("{} product of {} by {}", product.format, product.rows, product.cols);
        (what, product.instructions, allowed)
    });
    let tokens = [
        ("first token".to_owned(), measured.tokens.by_position[0], budget.first_token),
        ("mean token".to_owned(), measured.tokens.mean(), budget.mean_token),
    ];
    let over = products.chain(tokens).filter(|(_, count, allowed)| *count as f64 > *allowed as f64 * (1.0 + TOLERANCE));
    over.map(|(what, count, allowed)| format!("{}'s {what} takes {count} instructions, budget {allowed}", board.name))
        .collect()
}

/// Makes the counts the board's budgets.
pub fn bless(measured: &Measurement) -> Result<()> {
    let path = Board::path(&measured.board);
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    fs::write(&path, with_section(&text, &section(measured)))
        .with_context(|| format!("failed to write {}", path.display()))
}

fn section(measured: &Measurement) -> String {
    let products: Vec<String> = measured.products.iter().map(|product| product.instructions.to_string()).collect();
    let (first, mean) = (measured.tokens.by_position[0], measured.tokens.mean());
    format!(
        "compiler = {:?}\nproducts = [{}]\nfirst_token = {first}\nmean_token = {mean}\n",
        measured.compiler,
        products.join(", ")
    )
}

/// `text` with its last section, or a new one, made `section`.
fn with_section(text: &str, section: &str) -> String {
    let comment = "# Written by `cargo xtask bench device --bless`, which otherwise fails above.";
    let before = text.split_once(comment).map_or(text, |(before, _)| before).trim_end();
    format!("{before}\n\n{comment}\n{HEADER}\n{section}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_added_then_replaced() {
        let once = with_section("name = \"x\"\n", "products = [1]\n");
        assert!(once.starts_with("name = \"x\"\n\n# Written"), "{once}");
        let twice = with_section(&once, "products = [2]\n");
        assert!(twice.ends_with("[instructions]\nproducts = [2]\n") && !twice.contains("[1]"), "{twice}");
        assert_eq!(twice.matches(HEADER).count(), 1);
    }
}
