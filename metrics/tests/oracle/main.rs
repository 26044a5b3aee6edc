//! Every metric against the package that defines it, to 1e-9.
//!
//! `cargo xtask oracles` runs `tests/oracles/metrics.py` at pinned versions and leaves what it says in
//! `.cache/oracles/metrics`; it is part of `cargo xtask test`. Without it these tests fail, rather than pass unseen.

mod labels;
mod resampling;
mod rouge;
mod sacrebleu;

use std::path::Path;

use serde::de::DeserializeOwned;

/// How far a score may be from the reference's.
const TOLERANCE: f64 = 1e-9;

/// A text and what it is compared with.
#[derive(serde::Deserialize)]
struct Pair {
    hypothesis: String,
    references: Vec<String>,
}

/// What the oracle wrote under this name.
fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/oracles/metrics").join(name);
    let file = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("cannot read {}: {error}. Run `cargo xtask oracles` first, which makes it", path.display())
    });
    serde_json::from_slice(&file).expect("the oracle writes what its tests read")
}

/// Compares with the reference.
#[track_caller]
fn check(ours: f64, theirs: f64, what: impl FnOnce() -> String) {
    assert!((ours - theirs).abs() <= TOLERANCE, "{}: {ours} is not {theirs}", what());
}
