//! Rayon's threads for the runtime, which itself knows none.

use std::num::NonZeroUsize;

use siskin_runtime::Join;

/// Splits kernels' work over the rayon pool that the caller runs in. Results do not depend on the number of threads.
#[derive(Clone, Copy, Debug)]
pub struct RayonJoin {
    n_threads: usize,
}

impl Join for RayonJoin {
    fn n_threads(&self) -> usize {
        self.n_threads
    }

    fn join(&self, a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
        rayon::join(a, b);
    }
}

/// Runs `work` in a pool of `n_threads` threads of its own, and hands it the [`RayonJoin`] for them.
///
/// # Errors
/// The operating system does not give the threads.
pub fn with_threads<T: Send>(
    n_threads: NonZeroUsize,
    work: impl FnOnce(RayonJoin) -> T + Send,
) -> Result<T, rayon::ThreadPoolBuildError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads.get()).build()?;
    Ok(pool.install(|| work(RayonJoin { n_threads: n_threads.get() })))
}
