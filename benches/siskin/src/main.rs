//! Siskin's side of `cargo xtask bench train` and `bench decode`: training steps, tokens of a packed model, and what the machine can do at
//! most: multiply-adds, and reading that model.
//!
//! ```text
//! bench-siskin train FAMILY DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB BATCH CONTEXT
//! bench-siskin decode FORMAT DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB CONTEXT
//! bench-siskin read FORMAT DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB CONTEXT
//! bench-siskin peak
//! ```
//! All speak the protocol of benches/README.md; `RAYON_NUM_THREADS` says how many threads they use.

mod decode;
mod peak;
mod read;
mod train;

use std::io::Write as _;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["train", family, numbers @ ..] => train::run(family, numbers),
        ["decode", format, numbers @ ..] => decode::run(format, numbers),
        ["read", format, numbers @ ..] => read::run(format, numbers),
        ["peak"] => peak::run(),
        _ => bail!(
            "expected `train` with a family and eight numbers, `decode` or `read` with a format and seven, or `peak`"
        ),
    }
}

/// Says `ready`, then answers each line of the standard input, a count, with a line of numbers.
///
/// # Errors
/// A line is not a count, or the other side is gone.
fn serve(ready: &str, mut answer: impl FnMut(usize) -> Vec<f64>) -> Result<()> {
    println!("ready {ready}");
    for line in std::io::stdin().lines() {
        let numbers = answer(line?.trim().parse()?);
        println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
        std::io::stdout().flush()?;
    }
    Ok(())
}
