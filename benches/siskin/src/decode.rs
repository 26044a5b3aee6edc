//! Tokens of a packed model: a prompt read at once, then one token after the other.

use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use siskin_compiler::artifact::Checkpoint;
use siskin_compiler::pack::{self, AlignedBytes, PackOptions};
use siskin_compiler::threads::with_threads;
use siskin_runtime::{Kernels, ModelConfig, PackedModel, Parts, Session, WeightFormat};

/// Tokens of the prompt.
const PROMPT_TOKENS: usize = 128;
/// Tokens that share a pass over the weights while the prompt is read.
const PREFILL_BATCH: usize = 128;
/// Tokens that are generated before the clock runs.
const WARM_UP_TOKENS: usize = 8;

/// A packed model with random weights, in the format and of the shape that the arguments say.
pub fn packed(format: &str, numbers: &[&str]) -> Result<AlignedBytes> {
    let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context_len] = numbers[..] else {
        bail!("expected seven numbers after the format");
    };
    let format = WeightFormat::ALL.into_iter().find(|known| known.name() == format).context("no such weight format")?;
    let config = ModelConfig {
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim: dim / n_heads,
        vocab_size,
        context_len,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        tied_head: true,
        parts: Parts::LLAMA,
    };
    let options = PackOptions {
        exceptions: Vec::new(),
        format,
        layout: Kernels::detect().preferred_layout(),
        context_len: None,
        prefill_batch: PREFILL_BATCH,
        keep_zero_blocks: false,
        sections: Vec::new(),
    };
    Ok(pack::pack(&Checkpoint::random(config, 1)?, &options)?)
}

/// How many threads are asked for.
pub fn n_threads() -> Result<NonZeroUsize> {
    Ok(std::env::var("RAYON_NUM_THREADS").context("RAYON_NUM_THREADS is not set")?.parse()?)
}

/// Answers with the seconds of reading the prompt, then of each of `n` tokens after an empty context.
pub fn run(format: &str, numbers: &[&str]) -> Result<()> {
    let (file, n_threads, kernels) = (packed(format, numbers)?, n_threads()?, Kernels::detect());
    let model = PackedModel::parse(&file)?;
    with_threads(n_threads, |join| {
        let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes_for(n_threads.get()));
        let mut session = Session::with_join(&model, &mut arena, kernels, join)?;
        let token = |i: usize| (i * 7919 % model.config().vocab_size) as u32;
        let prompt: Vec<u32> = (0..PROMPT_TOKENS).map(token).collect();
        crate::serve(&format!("{} {}", file.len(), kernels.name()), |n| {
            // Memory of a process that waited may be cold.
            session.reset();
            session.prefill(&prompt).expect("the prompt fits the context");
            session.reset();
            (0..WARM_UP_TOKENS).for_each(|i| _ = session.decode_step(token(i)).expect("the token fits the context"));
            session.reset();
            let start = Instant::now();
            session.prefill(&prompt).expect("the prompt fits the context");
            let mut seconds = vec![start.elapsed().as_secs_f64()];
            session.reset();
            for i in 0..n {
                let start = Instant::now();
                session.decode_step(token(i)).expect("the token fits the context");
                seconds.push(start.elapsed().as_secs_f64());
            }
            seconds
        })
    })?
}
