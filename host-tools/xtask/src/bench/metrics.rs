//! `cargo xtask bench metrics`: BLEU, chrF and ROUGE beside sacrebleu and rouge-score, on the same pairs in one run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::machine;
use super::statistics::rounded;
use crate::{oracles, repo};

/// How much to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Pairs of a hypothesis and a reference.
    #[arg(long, default_value_t = 100_000)]
    n: usize,
    /// Print the table and leave metrics/BENCH.md as it is.
    #[arg(long)]
    dry_run: bool,
}

/// What somebody took.
#[derive(Deserialize)]
struct Measured {
    /// Of the clock.
    seconds: f64,
    /// Of the processor, which others on the machine disturb less.
    cpu_seconds: f64,
    score: f64,
}

type Measurements = BTreeMap<String, Measured>;

/// Measures and writes the page.
pub fn run(args: &Args) -> Result<()> {
    oracles::run()?;
    let pairs = pairs(args.n)?;
    let build = ["build", "--release", "--package", "siskin-metrics", "--example", "throughput"];
    repo::run(&mut repo::cargo(build))?;
    let ours = repo::target_dir().join("release/examples/throughput");
    let idle = machine::wait_until_quiet(Duration::from_secs(30));
    repo::announce(&format!("scoring {} pairs", args.n));
    let on_threads = |n: &str| measure(Command::new(&ours).arg(&pairs).env("RAYON_NUM_THREADS", n));
    let (one, two) = (on_threads("1")?, on_threads("2")?);
    let script = repo::root().join("benches/metrics/score.py");
    let peer = measure(Command::new(oracles::python_for_metrics()?).arg(script).arg(&pairs))?;
    let page = page(args.n, idle, [&one, &two, &peer])?;
    print!("{page}");
    if args.dry_run {
        return Ok(());
    }
    let path = repo::root().join("metrics/BENCH.md");
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn measure(command: &mut Command) -> Result<Measurements> {
    let answer = repo::output(command)?;
    serde_json::from_str(answer.trim()).context("the answer is not what was expected")
}

/// Pairs of real text: the systems of WMT17 with their reference, and with each other.
fn pairs(n: usize) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Wmt17 {
        references: Vec<String>,
        systems: Vec<System>,
    }
    #[derive(Deserialize)]
    struct System {
        hypotheses: Vec<String>,
    }
    let texts = fs::read(repo::cache().join("oracles/metrics/wmt17.json"))?;
    let Wmt17 { references, systems } = serde_json::from_slice(&texts)?;
    let texts: Vec<&Vec<String>> = systems.iter().map(|system| &system.hypotheses).chain([&references]).collect();
    let mut lines = String::new();
    let with_others = (1..texts.len()).flat_map(|apart| {
        let texts = &texts;
        (0..texts.len()).flat_map(move |idx| texts[idx].iter().zip(texts[(idx + apart) % texts.len()]))
    });
    let mut n_written = 0;
    for pair in with_others.take(n) {
        writeln!(lines, "{}", serde_json::to_string(&pair)?)?;
        n_written += 1;
    }
    ensure!(n_written == n, "there are only {n_written} pairs");
    let path = repo::cache().join("oracles/metrics-pairs.jsonl");
    fs::write(&path, lines)?;
    Ok(path)
}

fn page(n: usize, idle: f64, [one, two, peer]: [&Measurements; 3]) -> Result<String> {
    let mut page = format!(
        "# Metrics, timed\n\n\
         `cargo xtask bench metrics`: seconds for {} pairs of WMT17's systems (German, 18 words on average), on {}; \
         {:.0}% idle before the run. Ours is the best of three on two threads and on one; Python's is one run. Seconds of \
         the processor say what the clock would without others on the machine, so ratios of one thread are of those. All \
         scores are equal to 1e-9.\n\n\
         | | ours, 2 threads | Python | times as fast | ours, 1 thread, of the processor | Python, of the processor \
         | times as fast |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
        rounded(n as f64),
        machine::describe(),
        100.0 * idle,
    );
    for (name, peer) in peer {
        let (one, two) = (one.get(name).context("a metric is missing")?, two.get(name).context("a metric is missing")?);
        check_scores(name, one.score, two.score, peer.score)?;
        let clock = [two.seconds, peer.seconds, peer.seconds / two.seconds];
        let processor = [one.cpu_seconds, peer.cpu_seconds, peer.cpu_seconds / one.cpu_seconds];
        let cells = [clock, processor].concat();
        let cells: Vec<String> = cells.into_iter().map(rounded).collect();
        writeln!(page, "| {name} | {} |", cells.join(" | "))?;
    }
    page += "\nPython is sacrebleu 2.6.0 and rouge-score 0.1.2, used as their documentation shows, in one process.\n";
    Ok(page)
}

fn check_scores(name: &str, one: f64, two: f64, peer: f64) -> Result<()> {
    ensure!(one == two, "{name} depends on the number of threads: {one} and {two}");
    ensure!((one - peer).abs() < 1e-9, "{name} is {one}, in Python {peer}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurements(seconds: f64, score: f64) -> Measurements {
        let measured = Measured { seconds, cpu_seconds: seconds / 2.0, score };
        BTreeMap::from([("BLEU".to_owned(), measured)])
    }

    #[test]
    fn a_line_has_its_ratios_and_other_scores_are_an_error() {
        let [one, two, peer] = [measurements(2.0, 31.5), measurements(1.0, 31.5), measurements(100.0, 31.5)];
        let page = page(10, 1.0, [&one, &two, &peer]).unwrap();
        assert!(page.contains("| BLEU | 1.00 | 100 | 100 | 1.00 | 50.0 | 50.0 |"), "{page}");
        assert!(super::page(10, 1.0, [&one, &two, &measurements(100.0, 31.6)]).is_err());
    }
}
