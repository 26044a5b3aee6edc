//! The limit of generation: reading a packed model's bytes, which each token has to.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use siskin_compiler::threads::with_threads;
use siskin_runtime::Join;

use crate::decode;

/// Answers with 0, then with the seconds of each of `n` times that all threads together read the model that `decode` would run.
pub fn run(format: &str, numbers: &[&str]) -> Result<()> {
    let file = decode::packed(format, numbers)?;
    with_threads(decode::n_threads()?, |join| {
        crate::serve(&file.len().to_string(), |n| {
            // As cold as that of those who compute, who warm it first.
            read(&join, join.n_threads(), &file);
            let seconds = (0..n).map(|_| {
                let start = Instant::now();
                read(&join, join.n_threads(), &file);
                start.elapsed().as_secs_f64()
            });
            std::iter::once(0.0).chain(seconds).collect()
        })
    })?
}

/// Reads `bytes` with so many threads.
fn read(join: &(impl Join + Sync), n_threads: usize, bytes: &[u8]) {
    if n_threads < 2 {
        black_box(sum(bytes));
        return;
    }
    let n_left = n_threads / 2;
    let (left, right) = bytes.split_at(bytes.len() / 64 * n_left / n_threads * 64);
    join.join(|| read(join, n_left, left), || read(join, n_threads - n_left, right));
}

/// The least that can be done with all bytes: sums in as many lanes as a cache line has numbers.
fn sum(bytes: &[u8]) -> [u64; 8] {
    let mut sums = [0u64; 8];
    for line in bytes.as_chunks::<64>().0 {
        for (sum, number) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*number));
        }
    }
    sums
}
