//! A trained model, mapped into memory as a user's is, gives the same tokens and logits with every backend and number of threads.
//! Cross-built by `cargo xtask linux`, this is also what Linux on Arm is held to.

use std::fs::File;

use memmap2::Mmap;
use siskin_runtime::{Join, Kernels, LogitsHash, PackedModel, Session, TokenId};

/// `ROMEO:`.
const PROMPT: [TokenId; 6] = [51, 48, 46, 38, 48, 27];
/// What `siskin run --prompt ROMEO: --greedy --max-new-tokens 48` gives.
const FIRST: [TokenId; 8] = [200, 42, 85, 328, 260, 290, 80, 272];
const LOGITS_HASH: &str = "844ba083989b9ac9";

/// So many threads, started as there is work for them.
struct Threads(usize);

impl Join for Threads {
    fn n_threads(&self) -> usize {
        self.0
    }

    fn join(&self, a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(a);
            b();
        });
    }
}

/// 48 tokens, always the most probable.
fn generate(model: &PackedModel<'_>, kernels: Kernels, threads: usize) -> (Vec<TokenId>, LogitsHash) {
    let arena_bytes = usize::try_from(model.header().arena_bytes).expect("an arena that fits the address space");
    let mut memory = vec![0u8; arena_bytes + 16];
    let start = memory.as_ptr().align_offset(16);
    let arena = &mut memory[start..];
    let mut session =
        Session::with_join(model, arena, kernels, Threads(threads)).expect("an arena of the model's size");
    let (mut tokens, mut hash) = (vec![], LogitsHash::EMPTY);
    let mut logits = session.prefill(&PROMPT).expect("a prompt that fits");
    while tokens.len() < 48 {
        hash.add(logits);
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let token = logits.iter().position(|&logit| logit == most).expect("one is the greatest") as TokenId;
        tokens.push(token);
        logits = session.decode_step(token).expect("a context that is not full");
    }
    (tokens, hash)
}

#[test]
fn a_mapped_model_gives_the_golden_tokens_and_logits() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
    let file = File::open(path).expect("the golden model");
    // SAFETY: nobody writes to the file while it is mapped.
    let mapped = unsafe { Mmap::map(&file) }.expect("a file that can be mapped");
    let model = PackedModel::parse(&mapped).expect("a packed model");
    for kernels in Kernels::available() {
        for threads in [1, 2] {
            let (tokens, hash) = generate(&model, kernels, threads);
            assert_eq!(tokens[..FIRST.len()], FIRST, "{} on {threads} threads", kernels.name());
            assert_eq!(hash.to_string(), LOGITS_HASH, "{} on {threads} threads", kernels.name());
        }
    }
}
