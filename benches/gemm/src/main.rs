//! The training engine's matrix products beside those of other crates, for `cargo xtask bench gemm`.
//!
//! ```text
//! bench-gemm THREADS ROUNDS KIND:ROWS:INPUTS:OUTPUTS ...
//! ```
//! For a linear layer with weights `(outputs, inputs)` over `rows` tokens, `forward` is `Y = X Wᵀ`, `dx` is `dX = dY W` and `dw` is
//! `dW += dYᵀ X`. For each product a line is printed for each contestant: the product, the contestant, and the GFLOP/s of each
//! round. In a round everyone has a turn of some milliseconds; who begins changes from round to round.
//!
//! On several threads, each computes a product of its own, as the engine's threads do. A contestant that can also share one
//! product among threads appears a second time, as `… shared`.

mod contestants;
mod product;

use std::error::Error;
use std::time::Instant;

use contestants::Contestant;
use product::Product;
use siskin_compiler::tensor::Buffer;

/// About how long a turn takes.
const TURN_SECONDS: f64 = 4e-3;
/// What a thread does in a second, about: enough to choose how often a product is repeated in a turn.
const FLOPS_GUESS: f64 = 5e10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut count = || args.next().and_then(|text| text.parse::<usize>().ok()).filter(|n| *n > 0);
    let (n_threads, n_rounds) = count().zip(count()).ok_or("expected a number of threads and one of rounds")?;
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build_global()?;
    for text in args {
        let product = Product::parse(&text).ok_or_else(|| format!("{text} is not a product"))?;
        measure(&text, &product, n_threads, n_rounds)?;
    }
    Ok(())
}

fn measure(name: &str, product: &Product, n_threads: usize, n_rounds: usize) -> Result<(), Box<dyn Error>> {
    let contestants = Contestant::all(n_threads);
    // One destination a thread: the operands are only read.
    let mut results = vec![Buffer::zeros(product.m * product.n); n_threads];
    check(product, &contestants, &mut results[0])?;
    let flops = 2.0 * (product.m * product.n * product.k) as f64;
    let n_repeats = (TURN_SECONDS * FLOPS_GUESS / flops).ceil() as usize;
    let mut rates = vec![Vec::with_capacity(n_rounds); contestants.len()];
    for round in 0..n_rounds {
        for turn in 0..contestants.len() {
            let who = (round + turn) % contestants.len();
            let start = Instant::now();
            let n_products = contestants[who].run(product, n_repeats, &mut results);
            rates[who].push(flops * n_products as f64 / start.elapsed().as_secs_f64() / 1e9);
        }
    }
    for (contestant, rates) in contestants.iter().zip(rates) {
        let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:.2}")).collect();
        println!("{name} {} {}", contestant.name().replace(' ', "_"), rates.join(" "));
    }
    Ok(())
}

/// Makes sure that everyone computes the same product: a fast wrong one would win.
fn check(product: &Product, contestants: &[Contestant], to: &mut [f32]) -> Result<(), Box<dyn Error>> {
    let mut first = Vec::new();
    for contestant in contestants {
        to.fill(0.5);
        contestant.once(product, to);
        if first.is_empty() {
            first = to.to_vec();
        }
        let bound = 1e-5 * product.k as f32;
        if let Some((a, b)) = first.iter().zip(&*to).find(|(a, b)| (*a - *b).abs() > bound) {
            return Err(format!("{} gives {b} where {} gives {a}", contestant.name(), contestants[0].name()).into());
        }
    }
    Ok(())
}
