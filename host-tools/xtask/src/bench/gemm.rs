//! `cargo xtask bench gemm`: the training engine's matrix products beside those of other crates, on its own shapes.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::statistics::{median, rounded};
use super::{machine, page, peers};
use crate::repo;

/// How long to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Threads that are measured on, each number in a table of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Times that everyone has a turn at each product.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Seconds to wait, at most, for the machine to be idle before each product.
    #[arg(long, value_name = "S", default_value_t = 10)]
    wait: u64,
    /// Print the tables and leave compiler/BENCH.md as it is.
    #[arg(long)]
    dry_run: bool,
}

/// A linear layer: its name, inputs, outputs, and the rows that the engine multiplies at a time.
type Layer = (&'static str, usize, usize, &'static [usize]);

/// The linear layers of both models. A layer runs over one sequence at a time, or over as many as make 1024 tokens; the head over as
/// many rows as its logits' buffer holds.
const LAYERS: [Layer; 9] = [
    ("260K q, o", 64, 64, &[256, 1024]),
    ("260K k, v", 64, 32, &[256, 1024]),
    ("260K gate, up", 64, 172, &[256, 1024]),
    ("260K down", 172, 64, &[256, 1024]),
    ("260K head", 64, 512, &[128]),
    ("15M q, k, v, o", 288, 288, &[256, 1024]),
    ("15M gate, up", 288, 768, &[256, 1024]),
    ("15M down", 768, 288, &[256, 1024]),
    ("15M head", 288, 32_000, &[512]),
];
/// The products of a layer, as the harness and as the table call them.
const KINDS: [(&str, &str); 3] = [("forward", "X Wᵀ"), ("dx", "dY W"), ("dw", "dYᵀ X")];
/// The other crates, in the order of the table.
const CRATES: [&str; 3] = ["gemm", "matrixmultiply", "faer"];

/// GFLOP/s of each round by contestant.
type Rates = BTreeMap<String, Vec<f64>>;

/// Measures and writes the section.
pub fn run(args: &Args) -> Result<()> {
    let harness = peers::build_crate("gemm")?;
    let versions = CRATES.iter().map(|name| Ok(format!("{name} {}", peers::locked_version("gemm", name)?)));
    let mut body = format!(
        "`cargo xtask bench gemm`: GFLOP/s of every product of the two models of the table above, on {}; medians of {} rounds in \
         which everyone has a turn of some milliseconds. A layer's products are `X Wᵀ` forward, `dY W` and `dYᵀ X` (added to \
         what is there) backward. Peers: {}. On 2 threads each computes a product of its own, as the engine's do, or both \
         share one where a crate can and that is faster. The ratio is the median over rounds of ours to the best peer's.\n",
        machine::describe(),
        args.rounds,
        versions.collect::<Result<Vec<_>>>()?.join(", "),
    );
    for n_threads in &args.threads {
        repo::announce(&format!("matrix products on {n_threads} threads"));
        body += &table(args, &harness, *n_threads)?;
    }
    if args.dry_run { Ok(()) } else { page::HOST.replace_section("Matrix products", &body) }
}

fn table(args: &Args, harness: &std::path::Path, n_threads: usize) -> Result<String> {
    let mut text = format!(
        "\n**{n_threads} thread{}**\n\n| layer | product | m × n × k | Siskin | {} | ratio |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
        if n_threads == 1 { "" } else { "s" },
        CRATES.join(" | "),
    );
    let (mut n_rows, mut n_behind) = (0, 0);
    for (layer, inputs, outputs, rows) in LAYERS {
        for rows in rows {
            for (kind, formula) in KINDS {
                machine::wait_until_quiet(Duration::from_secs(args.wait));
                let rates = measure(harness, n_threads, args.rounds, &format!("{kind}:{rows}:{inputs}:{outputs}"))?;
                let (m, n, k) = match kind {
                    "forward" => (*rows, outputs, inputs),
                    "dx" => (*rows, inputs, outputs),
                    _ => (outputs, inputs, *rows),
                };
                let (line, ratio) = line(&format!("{layer} | {formula} | {m} × {n} × {k}"), &rates)?;
                eprint!("{line}");
                text += &line;
                n_rows += 1;
                n_behind += usize::from(ratio < 1.0);
            }
        }
    }
    text += &format!("\nOurs is behind the best peer on {n_behind} of {n_rows} rows.\n");
    Ok(text)
}

/// Runs the harness on one product.
fn measure(harness: &std::path::Path, n_threads: usize, n_rounds: usize, product: &str) -> Result<Rates> {
    let counts = [n_threads.to_string(), n_rounds.to_string()];
    let answer = repo::output(Command::new(harness).args(counts).arg(product))?;
    let mut rates = Rates::new();
    for line in answer.lines() {
        let mut words = line.split_whitespace().skip(1);
        let name = words.next().context("the harness names a contestant")?;
        rates.insert(name.to_owned(), words.map(str::parse).collect::<Result<_, _>>()?);
    }
    Ok(rates)
}

/// A line of the table, and our rate as a share of the best peer's.
fn line(head: &str, rates: &Rates) -> Result<(String, f64)> {
    let middle = |rates: &Vec<f64>| median(rates.iter().copied()).unwrap_or(0.0);
    let ours = rates.get("siskin").context("the harness measures Siskin")?;
    let best_of = |name: &str| {
        let own = rates.iter().filter(|(other, _)| *other == name || **other == format!("{name}_shared"));
        own.map(|(_, rates)| rates).max_by(|a, b| middle(a).total_cmp(&middle(b)))
    };
    let others: Vec<&Vec<f64>> = CRATES
        .iter()
        .map(|name| best_of(name).with_context(|| format!("{name} was not measured")))
        .collect::<Result<_>>()?;
    let best = others.iter().max_by(|a, b| middle(a).total_cmp(&middle(b))).context("there are peers")?;
    let ratio = median(ours.iter().zip(best.iter()).map(|(ours, best)| ours / best)).unwrap_or(0.0);
    let cells: Vec<String> = others.iter().map(|rates| rounded(middle(rates))).collect();
    Ok((format!("| {head} | {} | {} | {ratio:.2} |\n", rounded(middle(ours)), cells.join(" | ")), ratio))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_counts_with_its_better_way_and_the_ratio_is_to_the_best() {
        let rates =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(name, rate)| ((*name).to_owned(), vec![*rate; 3])).collect();
        let rates: Rates =
            rates(&[("siskin", 90.0), ("gemm", 30.0), ("gemm_shared", 60.0), ("matrixmultiply", 45.0), ("faer", 50.0)]);
        let (line, ratio) = line("x", &rates).unwrap();
        assert_eq!(line, "| x | 90.0 | 60.0 | 45.0 | 50.0 | 1.50 |\n");
        assert_eq!(ratio, 1.5);
    }
}
