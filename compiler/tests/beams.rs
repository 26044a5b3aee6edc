//! Beam search over packed models, against one that keeps whole texts and reads each from the start: the same texts and the same bits.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_compiler::artifact::{SpecialIds, TokenizerSource, TrainedModel, named_weights};
use siskin_compiler::model;
use siskin_compiler::model::Head;
use siskin_compiler::pack::{AlignedBytes, PackOptions, PackedFile, pack_trained, with_beams, with_kv};
use siskin_compiler::recipe::ModelSection;
use siskin_runtime::beam::BeamError;
use siskin_runtime::{
    BeamOptions, BeamSearch, EarlyStopping, End, Kernels, KvFormat, PackedModel, Session, Snapshot, TokenId,
    WeightFormat, WeightLayout, math,
};

const VOCAB: usize = 37;
const CONTEXT: usize = 20;
const START: TokenId = 3;
const END: TokenId = 1;
const GOLDEN: &[u8] = include_bytes!("../../tests/golden/shakespeare-260k.siskin");

/// A random model of a family, without room for beams.
fn family(name: &str, prefill_batch: usize) -> PackedFile {
    let sizes = if name.starts_with("gru") { "" } else { "hidden_dim = 70\nn_heads = 3\n" };
    let text = format!("architecture = '{name}'\ndim = 36\nn_layers = 2\ncontext_len = {CONTEXT}\n{sizes}");
    let section: ModelSection = toml::from_str(&text).expect("a model section");
    let architecture = section.architecture(VOCAB, Head::Language);
    let built = model::build(&architecture).expect("a valid architecture");
    let mut params = built.init(5);
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    params.values.iter_mut().for_each(|value| *value += rng.random_range(-0.2..0.2));
    let specials = SpecialIds { bos: Some(0), eos: Some(END), pad: None, decoder_start: Some(START) };
    let (tensors, tokenizer, labels) = (named_weights(&params), TokenizerSource::None, Vec::new());
    let model = TrainedModel { architecture, tensors, tokenizer, specials, labels };
    let (format, layout, exceptions, sections) = (WeightFormat::Int8, WeightLayout::RowMajor, Vec::new(), Vec::new());
    let (context_len, keep_zero_blocks) = (None, false);
    let options = PackOptions { format, exceptions, layout, context_len, prefill_batch, keep_zero_blocks, sections };
    PackedFile::from_bytes(pack_trained(&model, &options, None).expect("a packed model")).expect("a packed file")
}

fn with_room(file: &PackedFile, n_beams: usize) -> PackedFile {
    PackedFile::from_bytes(with_beams(file, n_beams).expect("room for beams")).expect("a packed file")
}

/// The memory that the header asks for, not zeroed.
fn arena(model: &PackedModel<'_>) -> AlignedBytes {
    let mut arena = AlignedBytes::zeroed(model.header().arena_bytes as usize);
    arena.fill(0xa5);
    arena
}

/// What goes in before the search.
fn begin(session: &mut Session<'_>) -> Vec<TokenId> {
    match session.model().config().parts.has_source() {
        true => {
            session.read_source(&[5, 9, 2, 17, 3, 30]).expect("a source");
            vec![START]
        }
        false => vec![4, 19, 8, 2],
    }
}

#[derive(Debug, PartialEq)]
struct Text {
    tokens: Vec<TokenId>,
    score: u32,
    end: End,
}

fn search(file: &PackedFile, kernels: Kernels, options: BeamOptions) -> Text {
    let model = file.model();
    let mut arena = arena(&model);
    let mut session = Session::new(&model, &mut arena, kernels).expect("a session");
    let prompt = begin(&mut session);
    let mut search = BeamSearch::start(&mut session, &prompt, options).expect("a search");
    while search.compute(|logits| assert_eq!(logits.len(), model.config().vocab_size)) {
        search.choose();
    }
    let best = search.finish();
    let text = Text { tokens: best.tokens.to_vec(), score: best.score.to_bits(), end: best.end };
    // The session is fit for use again.
    let after = session.prefill(&prompt).expect("room").to_vec();
    session.reset();
    assert_eq!(session.prefill(&prompt).expect("room"), after);
    text
}

/// A hypothesis of the naive search.
#[derive(Clone)]
struct Hypothesis {
    sum: f32,
    tokens: Vec<TokenId>,
}

/// The same search as one would write it down: whole texts, whole rankings.
fn naive(file: &PackedFile, options: BeamOptions) -> Text {
    let model = file.model();
    let mut arena = arena(&model);
    let mut session = Session::new(&model, &mut arena, Kernels::generic()).expect("a session");
    let BeamOptions { n_beams, end_token, .. } = options;
    let mut log_probs = |tokens: &[TokenId]| -> Vec<f32> {
        session.reset();
        let prompt = begin(&mut session);
        let logits = session.prefill(&[&prompt, tokens].concat()).expect("room").to_vec();
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let weight =
            |&logit: &f32| if max - logit < 28.0 { (math::exp(logit - max) * 2f32.powi(40)) as u64 } else { 0 };
        let total: u64 = logits.iter().map(weight).sum();
        let log_sum = math::ln(total as f32 / 2f32.powi(40));
        logits.iter().map(|logit| (logit - max) - log_sum).collect()
    };
    let prompt_len = if model.config().parts.has_source() { 1 } else { 4 };
    let n_tokens_max = options.max_new_tokens.min(CONTEXT - prompt_len + 1);
    // Only whole penalties here, whose powers are products.
    let divisor = |length: usize| (0..options.length_penalty as u32).fold(1.0, |power, _| power * length as f32);
    let (mut running, mut ended) =
        (vec![Hypothesis { sum: 0.0, tokens: Vec::new() }], Vec::<(f32, Vec<TokenId>)>::new());
    for length in 1..=n_tokens_max {
        let mut candidates: Vec<Hypothesis> = Vec::new();
        for Hypothesis { sum, tokens } in &running {
            let longer = |(token, log_prob): (usize, f32)| Hypothesis {
                sum: sum + log_prob,
                tokens: [&tokens[..], &[token as TokenId]].concat(),
            };
            candidates.extend(log_probs(tokens).into_iter().enumerate().map(longer));
        }
        candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        candidates.truncate(2 * n_beams);
        let is_whole = |it: &Hypothesis| length == n_tokens_max || it.tokens.last().copied() == end_token;
        let new = candidates.iter().take(n_beams).filter(|it| is_whole(it));
        ended.extend(new.map(|it| (it.sum / divisor(length), it.tokens.clone())));
        ended.sort_by(|a, b| b.0.total_cmp(&a.0));
        ended.truncate(n_beams);
        running = candidates.into_iter().filter(|it| !is_whole(it)).take(n_beams).collect();
        let Some(best) = running.first() else { break };
        let longest = if options.early_stopping == EarlyStopping::Never { options.max_new_tokens } else { length };
        let is_full = ended.len() == n_beams;
        if is_full
            && (options.early_stopping == EarlyStopping::Full || best.sum / divisor(longest) <= ended[n_beams - 1].0)
        {
            break;
        }
    }
    let (score, tokens) = ended.swap_remove(0);
    let end = match tokens.last() {
        Some(&token) if Some(token) == end_token => End::EndToken(token),
        _ if n_tokens_max < options.max_new_tokens => End::ContextFull,
        _ => End::MaxNewTokens,
    };
    Text { tokens, score: score.to_bits(), end }
}

fn options(n_beams: usize, length_penalty: f32, early_stopping: EarlyStopping, max_new_tokens: usize) -> BeamOptions {
    BeamOptions { n_beams, length_penalty, early_stopping, end_token: Some(END), max_new_tokens }
}

#[test]
fn caches_that_move_give_what_reading_anew_gives() {
    let mut ends = Vec::new();
    for name in ["t5", "transformer", "gpt2", "gru", "gru_seq2seq"] {
        // A token that the model likes to write, but not at once.
        let endless = BeamOptions { end_token: None, ..options(3, 1.0, EarlyStopping::Never, 8) };
        let likely = naive(&family(name, 3), endless).tokens[5];
        for (n_beams, penalty, stopping, max_new_tokens) in [
            (1, 1.0, EarlyStopping::Likely, 9),
            (2, 0.0, EarlyStopping::Never, 40),
            (3, 1.0, EarlyStopping::Never, 12),
            (5, 2.0, EarlyStopping::Full, 11),
            (11, 1.0, EarlyStopping::Likely, 8),
        ] {
            let end_token = Some(if n_beams % 2 == 0 { END } else { likely });
            let options = BeamOptions { end_token, ..options(n_beams, penalty, stopping, max_new_tokens) };
            let wanted = naive(&family(name, 3), options);
            ends.push(wanted.end);
            for (prefill_batch, kernels) in [(1, Kernels::generic()), (32, Kernels::detect()), (3, Kernels::detect())] {
                // Room for more than is asked for changes nothing.
                let file = with_room(&family(name, prefill_batch), n_beams + prefill_batch % 2);
                assert_eq!(search(&file, kernels, options), wanted, "{name}, {options:?}");
            }
        }
    }
    let count = |is_so: fn(&End) -> bool| ends.iter().filter(|end| is_so(end)).count();
    assert!(count(|end| matches!(end, End::EndToken(_))) >= 5, "{ends:?}");
    assert!(count(|end| *end == End::MaxNewTokens) >= 2 && count(|end| *end == End::ContextFull) >= 2, "{ends:?}");
}

#[test]
fn one_beam_is_greedy_and_more_find_what_is_likelier() {
    let file = PackedFile::from_bytes(AlignedBytes::copy_of(GOLDEN)).expect("the golden model");
    let found = |kv, n_beams| {
        let file = PackedFile::from_bytes(with_kv(&file, kv).expect("another format")).expect("a packed file");
        search(&with_room(&file, n_beams), Kernels::detect(), options(n_beams, 0.0, EarlyStopping::Never, 12))
    };
    let model = file.model();
    let mut arena = arena(&model);
    let mut session = Session::new(&model, &mut arena, Kernels::detect()).expect("a session");
    let prompt = begin(&mut session);
    let mut last = session.most_probable_after(&prompt).expect("room");
    let mut greedy = vec![last];
    while greedy.len() < 12 {
        last = session.most_probable_after(&[last]).expect("room");
        greedy.push(last);
    }
    let one = found(KvFormat::Int8, 1);
    assert_eq!(one.tokens, greedy);
    for kv in KvFormat::ALL {
        let [one, eight] = [1, 8].map(|n_beams| found(kv, n_beams));
        assert!(f32::from_bits(eight.score) > f32::from_bits(one.score), "{kv:?}: {one:?}, {eight:?}");
    }
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let file = family("gpt2", 2);
    let refused = |file: &PackedFile, options: BeamOptions| {
        let model = file.model();
        let mut arena = arena(&model);
        let mut session = Session::new(&model, &mut arena, Kernels::generic()).expect("a session");
        let refusal = BeamSearch::start(&mut session, &[4], options).err().expect("a refusal");
        assert_eq!(session.position(), 0);
        refusal
    };
    let two = options(2, 1.0, EarlyStopping::Likely, 4);
    assert_eq!(refused(&file, two), BeamError::Beams { n_beams: 2, most: 0 });
    let file = with_room(&file, 2);
    assert_eq!(refused(&file, BeamOptions { n_beams: 3, ..two }), BeamError::Beams { n_beams: 3, most: 2 });
    assert_eq!(refused(&file, BeamOptions { n_beams: 0, ..two }), BeamError::Beams { n_beams: 0, most: 2 });
    for length_penalty in [f32::NAN, 4.1, f32::NEG_INFINITY] {
        assert_eq!(refused(&file, BeamOptions { length_penalty, ..two }), BeamError::LengthPenalty);
    }
    assert!(with_beams(&file, 65).is_err());
}

#[test]
fn a_snapshot_is_of_one_beam() {
    let file = family("gpt2", 2);
    let taken = |file: &PackedFile| {
        let model = file.model();
        let mut arena = arena(&model);
        let mut session = Session::new(&model, &mut arena, Kernels::generic()).expect("a session");
        session.prefill(&[4, 9, 8]).expect("room");
        let mut snapshot = Vec::new();
        session.snapshot(|bytes| snapshot.extend_from_slice(bytes)).expect("a snapshot");
        assert_eq!(Snapshot::parse(&snapshot, &model).expect("a snapshot").n_tokens(), 3);
        session.reset();
        session.restore(&snapshot).expect("it is of this model");
        (snapshot, session.decode_step(5).expect("room").to_vec())
    };
    assert_eq!(taken(&file), taken(&with_room(&file, 3)));
}
