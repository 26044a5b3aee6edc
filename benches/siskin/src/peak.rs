//! The machine's limit: fused multiply-adds on registers alone, on every thread at once.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context as _, Result};
use siskin_compiler::tensor::simd::{Vector, WideKernel, dispatch_wide};

/// Independent sums: enough to hide an addition's latency, few enough for 16 registers.
const N_SUMS: usize = 12;
/// Rounds of all sums between two looks at the clock: about 10 ms.
const N_ROUNDS: usize = 5_000_000;

struct MultiplyAdds;

impl WideKernel for MultiplyAdds {
    /// Numbers in a vector.
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        let (factor, addend) = (V::splat(black_box(0.999)), V::splat(black_box(0.001)));
        let mut sums = [V::splat(black_box(1.0)); N_SUMS];
        for _ in 0..N_ROUNDS {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, addend);
            }
        }
        black_box(sums);
        V::WIDTH
    }
}

/// Answers with the operations a second of each of `n` measurements, all threads together.
pub fn run() -> Result<()> {
    let n_threads: usize = std::env::var("RAYON_NUM_THREADS").context("RAYON_NUM_THREADS is not set")?.parse()?;
    let flops = (2 * dispatch_wide(MultiplyAdds) * N_SUMS * N_ROUNDS * n_threads) as f64;
    crate::serve(&format!("{flops}"), |n| (0..n).map(|_| flops / slowest_thread(n_threads)).collect())
}

/// Seconds from the common start to the end of the last thread.
fn slowest_thread(n_threads: usize) -> f64 {
    let barrier = Barrier::new(n_threads);
    let seconds = || {
        barrier.wait();
        let start = Instant::now();
        black_box(dispatch_wide(MultiplyAdds));
        start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(seconds)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
    })
}
