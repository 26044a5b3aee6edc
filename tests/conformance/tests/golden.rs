//! A trained model, mapped into memory as a user's is, gives the same tokens and logits with every backend and number of threads.
//! Cross-built by `cargo xtask linux`, this is also what Linux on Arm is held to.

mod aligned;

use std::fs::File;

use aligned::Aligned;
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

/// Memory for an arena in which so many threads have a share.
fn memory(model: &PackedModel<'_>, threads: usize) -> Aligned {
    Aligned::new(&vec![0xa5; model.memory_plan().arena_bytes_for(threads)])
}

/// 48 tokens, always the most probable.
fn generate(model: &PackedModel<'_>, kernels: Kernels, threads: usize) -> (Vec<TokenId>, LogitsHash) {
    let mut memory = memory(model, threads);
    let arena = memory.bytes_mut();
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

/// The hash of what is predicted after each of the last tokens of a text that fills the context; the first are read at once.
fn read_long(model: &PackedModel<'_>, kernels: Kernels, threads: usize, lanes: usize) -> LogitsHash {
    let mut memory = memory(model, lanes);
    let arena = memory.bytes_mut();
    let mut session =
        Session::with_join(model, arena, kernels, Threads(threads)).expect("an arena of the model's size");
    let text: Vec<TokenId> = (0..256u32).map(|i| i * 37 % model.config().vocab_size as u32).collect();
    let (read_at_once, rest) = text.split_at(250);
    let mut hash = LogitsHash::EMPTY;
    hash.add(session.prefill(read_at_once).expect("a text that fits"));
    for &token in rest {
        hash.add(session.decode_step(token).expect("a token that fits"));
    }
    hash
}

#[test]
fn threads_share_long_texts_and_batches_without_a_trace() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
    let file = std::fs::read(path).expect("the golden model");
    let file = Aligned::new(&file);
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let want = read_long(&model, Kernels::generic(), 1, 1);
    for kernels in Kernels::available() {
        // Too little memory for all of the threads is none for some of them.
        for (threads, lanes) in [(2, 2), (2, 1), (5, 3)] {
            let hash = read_long(&model, kernels, threads, lanes);
            assert_eq!(hash, want, "{} on {threads} threads with {lanes} lanes", kernels.name());
        }
    }
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
