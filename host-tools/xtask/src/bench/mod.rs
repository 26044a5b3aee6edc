//! `cargo xtask bench`: how fast things are, measured and recorded in the repository.

mod contestant;
mod costs;
mod decode;
mod device;
mod gemm;
mod grammar;
mod machine;
mod metrics;
mod page;
mod peers;
mod statistics;
mod train;

pub use device::{Budget as InstructionBudget, check as check_instructions};
pub use peers::python_with;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Instructions of products and tokens on each emulated board, against its budgets, into boards/BENCH.md.
    Device(device::Args),
    /// What `siskin plan` predicts instructions by: costs fitted to counts of random models, and how far predictions of other models are off.
    Costs(costs::Args),
    /// Ten thousand texts within a JSON schema that an emulated board writes, half an hour: each the host's and valid, into boards/BENCH.md.
    Grammar(grammar::Args),
    /// Tokens a second of generation and of prompts beside llama.cpp and llama2.c, into compiler/BENCH.md. Wants an idle machine.
    Decode(decode::Args),
    /// Tokens a second of training beside PyTorch, candle, burn and llm.c, into compiler/BENCH.md. Wants an idle machine.
    Train(train::Args),
    /// The training engine's matrix products beside those of other crates, into compiler/BENCH.md. Wants an idle machine.
    Gemm(gemm::Args),
    /// BLEU, chrF and ROUGE beside sacrebleu and rouge-score, into metrics/BENCH.md. Wants an idle machine.
    Metrics(metrics::Args),
}

/// Measures.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Device(args) => device::run(args),
        Bench::Costs(args) => costs::run(args),
        Bench::Grammar(args) => grammar::run(args),
        Bench::Decode(args) => decode::run(args),
        Bench::Train(args) => train::run(args),
        Bench::Gemm(args) => gemm::run(args),
        Bench::Metrics(args) => metrics::run(args),
    }
}
