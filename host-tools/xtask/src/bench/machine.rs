//! The machine that is measured on: what it is, and who else uses it.

use std::fs;
use std::time::{Duration, Instant};

/// The processor's name and the number of its threads.
pub fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim());
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let vectors = match () {
        () if has("avx512f") => ", AVX-512",
        () if has("avx2") && has("fma") => ", AVX2 and FMA",
        () => "",
    };
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} ({}{vectors}), {n_threads} hardware threads", name.unwrap_or("a processor"), std::env::consts::ARCH)
}

/// Ticks of all processors since the machine started, as the kernel counts them.
#[derive(Clone, Copy)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let counts: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        Some(Self { idle: counts.get(3)? + counts.get(4)?, all: counts.iter().sum() })
    }

    /// The share of the time since then that no program used; 1 where the system does not say.
    fn idle_share_since(start: Option<Self>) -> f64 {
        let (Some(start), Some(end)) = (start, Self::now()) else { return 1.0 };
        let all = end.all.saturating_sub(start.all);
        if all == 0 { 1.0 } else { end.idle.saturating_sub(start.idle) as f64 / all as f64 }
    }
}

/// Waits until the machine has been nine tenths idle for a second, or `at_most` has passed; gives the last idle share.
pub fn wait_until_quiet(at_most: Duration) -> f64 {
    let started = Instant::now();
    loop {
        let before = Ticks::now();
        std::thread::sleep(Duration::from_secs(1));
        let idle = Ticks::idle_share_since(before);
        if idle >= 0.9 || started.elapsed() >= at_most {
            return idle;
        }
    }
}
