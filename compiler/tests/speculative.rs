//! A draft changes nothing but the number of passes: tokens, logits and end are those of the model alone, for every sampler.

use siskin_compiler::artifact::Checkpoint;
use siskin_compiler::pack::{AlignedBytes, PackOptions, PackedFile, pack};
use siskin_runtime::speculative::{Draft, DraftError, Guesses};
use siskin_runtime::{
    End, Generation, Kernels, Limits, LogitsHash, ModelConfig, Parts, Sampler, Sampling, Serial, Session, StopMatcher,
    TokenId, WeightFormat, Window,
};

const VOCAB: usize = 96;
const PROMPT: [TokenId; 5] = [3, 1, 4, 1, 5];

fn packed(seed: u64, dim: usize, vocab_size: usize, context_len: usize, format: WeightFormat) -> PackedFile {
    let config = ModelConfig {
        dim,
        hidden_dim: 2 * dim,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: dim / 4,
        vocab_size,
        context_len,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        tied_head: true,
        parts: Parts::LLAMA,
    };
    let layout = Kernels::detect().preferred_layout();
    let options = PackOptions {
        format,
        layout,
        context_len: None,
        prefill_batch: 8,
        keep_zero_blocks: false,
        sections: Vec::new(),
        exceptions: Vec::new(),
    };
    PackedFile::from_bytes(pack(&Checkpoint::random(config, seed).unwrap(), &options).unwrap()).unwrap()
}

/// What a text is, but for what it cost.
#[derive(Debug, PartialEq)]
struct Outcome {
    tokens: Vec<TokenId>,
    logits: LogitsHash,
    end: Option<End>,
}

fn limits(slide_to: Option<Window>) -> Limits<'static> {
    Limits { max_new_tokens: 60, end_tokens: &[], slide_to }
}

/// Runs a text to its end, whatever moves it on.
macro_rules! outcome {
    ($generation:expr) => {{
        $generation.read(&PROMPT).unwrap();
        let (mut tokens, mut logits) = (vec![], LogitsHash::EMPTY);
        while $generation.compute(|_| ()) {
            logits.add($generation.logits());
            tokens.extend($generation.draw(|_| ()));
        }
        Outcome { tokens, logits, end: $generation.end() }
    }};
}

fn alone(file: &PackedFile, sampler: &Sampler<'_>, slide_to: Option<Window>) -> Outcome {
    let model = file.model();
    let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
    let mut session = Session::new(&model, &mut arena, Kernels::detect()).unwrap();
    let stops = StopMatcher::new(&[]).unwrap();
    let mut generation = Generation::new(&mut session, None, sampler.clone(), stops, limits(slide_to));
    outcome!(generation)
}

fn guessed(
    file: &PackedFile,
    draft: &PackedFile,
    n_guesses: usize,
    sampler: &Sampler<'_>,
    slide_to: Option<Window>,
) -> (Outcome, Guesses) {
    let (model, draft_model) = (file.model(), draft.model());
    let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
    let mut session = Session::new(&model, &mut arena, Kernels::detect()).unwrap();
    let mut draft_arena = AlignedBytes::zeroed(draft_model.memory_plan().arena_bytes);
    let mut draft_session = Session::new(&draft_model, &mut draft_arena, Kernels::detect()).unwrap();
    // What a session held before must not matter.
    draft_session.prefill(&[9, 9, 9]).unwrap();
    let mut logits = vec![0.0; Draft::<Serial>::logits_len(&model, n_guesses)];
    let draft = Draft::new(&mut draft_session, &model, n_guesses, &mut logits).unwrap();
    let stops = StopMatcher::new(&[]).unwrap();
    let generation = Generation::new(&mut session, None, sampler.clone(), stops, limits(slide_to));
    let mut generation = generation.guessed_by(draft);
    (outcome!(generation), generation.guesses().unwrap())
}

fn samplers() -> [Sampler<'static>; 4] {
    let random = Sampling::random(1.0).unwrap();
    let filtered = random.with_top_k(20).and_then(|s| s.with_top_p(0.9)).and_then(|s| s.with_repetition_penalty(1.3));
    let steered = random.with_mirostat(3.0, 0.2).and_then(|s| s.with_frequency_penalty(0.5));
    [Sampling::greedy(), random, filtered.unwrap(), steered.unwrap()].map(|sampling| Sampler::new(sampling, 11))
}

#[test]
fn a_draft_changes_no_token_and_no_logit() {
    let target = packed(1, 64, VOCAB, 40, WeightFormat::Int8G32);
    let like_it = packed(1, 64, VOCAB, 40, WeightFormat::Int8);
    let unlike_it = packed(2, 32, VOCAB, 64, WeightFormat::Int8);
    let of_short_memory = packed(1, 64, VOCAB, 20, WeightFormat::Int8);
    for sampler in samplers() {
        for slide_to in [None, Some(Window { n_sinks: 2, n_newest: 15 })] {
            let want = alone(&target, &sampler, slide_to);
            assert!(want.tokens.len() > 20, "a text that is long enough to tell: {want:?}");
            for n_guesses in [1, 3, 7] {
                for draft in [&target, &like_it, &unlike_it, &of_short_memory] {
                    let (got, guesses) = guessed(&target, draft, n_guesses, &sampler, slide_to);
                    assert_eq!(got, want, "{n_guesses} guesses");
                    assert!(guesses.n_right <= guesses.n_made && guesses.n_made <= n_guesses * guesses.n_passes);
                    // Each token but the first was guessed right or had a pass of its own; the last need not be read.
                    let n_read = guesses.n_right + guesses.n_passes;
                    assert!(n_read == want.tokens.len() || n_read + 1 == want.tokens.len(), "{guesses:?}");
                }
                let (_, guesses) = guessed(&target, &target, n_guesses, &sampler, None);
                let n_unseen = guesses.n_made - guesses.n_right;
                assert!(n_unseen <= n_guesses, "a model guesses itself, but for what comes after the end: {guesses:?}");
                let (_, guesses) = guessed(&target, &like_it, n_guesses, &sampler, None);
                assert!(guesses.n_right > 0, "its like guesses some of it: {guesses:?}");
            }
        }
    }
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let target = packed(1, 64, VOCAB, 40, WeightFormat::Int8);
    let check = |draft: &PackedFile, n_guesses: usize, n_logits: usize| {
        let (model, draft) = (target.model(), draft.model());
        let mut arena = AlignedBytes::zeroed(draft.memory_plan().arena_bytes);
        let mut session = Session::new(&draft, &mut arena, Kernels::generic()).unwrap();
        Draft::new(&mut session, &model, n_guesses, &mut vec![0.0; n_logits]).map(|_| ()).unwrap_err()
    };
    let other = packed(1, 64, VOCAB - 1, 40, WeightFormat::Int8);
    assert_eq!(check(&other, 3, 4 * VOCAB), DraftError::OtherVocabulary { target_vocab: 96, draft_vocab: 95 });
    for n_guesses in [0, 8] {
        assert_eq!(check(&target, n_guesses, 9 * VOCAB), DraftError::Guesses { n_guesses, most: 7 });
    }
    assert_eq!(check(&target, 3, 3 * VOCAB), DraftError::Memory { needed: 4 * VOCAB, given: 3 * VOCAB });
}
