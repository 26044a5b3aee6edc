//! Models of every family packed and run by the runtime: close to the float model, and the same bits in every layout, batch and
//! backend.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_compiler::artifact::{SpecialIds, TokenizerSource, TrainedModel, named_weights};
use siskin_compiler::data::Example;
use siskin_compiler::model::{self, Family, FeedForward, Head, Model};
use siskin_compiler::pack::{AlignedBytes, PackOptions, pack_trained, relayout};
use siskin_compiler::recipe::ModelSection;
use siskin_compiler::tensor::{Params, Tape};
use siskin_runtime::parts::Kind;
use siskin_runtime::{Encoder, Kernels, PackedModel, Session, StepError, WeightFormat, WeightLayout};

const VOCAB: usize = 37;
const CONTEXT: usize = 20;
/// What an encoder-decoder's decoder reads first.
const START: u32 = 3;

struct Case {
    name: &'static str,
    model: TrainedModel,
    built: Box<dyn Model>,
    params: Params,
}

fn case(name: &'static str, family: &str, more: &str, head: Head, feed_forward: Option<FeedForward>) -> Case {
    let sizes = if family.starts_with("gru") { "" } else { "hidden_dim = 70\nn_heads = 3\n" };
    let text = format!("architecture = '{family}'\ndim = 36\nn_layers = 2\ncontext_len = {CONTEXT}\n{sizes}{more}");
    let section: ModelSection = toml::from_str(&text).expect("a model section");
    let mut architecture = section.architecture(VOCAB, head);
    architecture.feed_forward = feed_forward.unwrap_or(architecture.feed_forward);
    let built = model::build(&architecture).expect("a valid architecture");
    let mut params = built.init(5);
    // Nothing is left at a round number, so that every bias and gain matters.
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    params.values.iter_mut().for_each(|value| *value += rng.random_range(-0.1..0.1));
    let specials = SpecialIds { bos: Some(0), eos: Some(1), pad: None, decoder_start: Some(START) };
    let labels = ["red", "green", "blue"].map(str::to_owned).to_vec();
    let tensors = named_weights(&params);
    let model = TrainedModel { architecture, tensors, tokenizer: TokenizerSource::None, specials, labels };
    Case { name, model, built, params }
}

fn cases() -> Vec<Case> {
    let labels = Head::Classifier { n_labels: 3 };
    vec![
        case("gru", "gru", "embedding_dim = 11\ntied_head = false\n", Head::Language, None),
        case("gru-tied", "gru", "", Head::Language, None),
        case("gru-seq2seq", "gru_seq2seq", "", Head::Language, None),
        case("bert-classifier", "bert", "", labels, None),
        case("bert-relu-classifier", "bert", "", labels, Some(FeedForward::Relu)),
        case("bert-tokens", "bert", "", Head::TokenClassifier { n_labels: 3 }, None),
        case("bert-masked", "bert", "norm_eps = 1e-12\n", Head::MaskedLanguage, None),
        case("bert-vector", "bert", "", Head::None, None),
        case("albert-masked", "albert", "embedding_dim = 10\n", Head::MaskedLanguage, None),
        case("gpt2", "gpt2", "", Head::Language, None),
        case("gpt2-untied", "gpt2", "tied_head = false\n", Head::Language, None),
        case("t5", "t5", "relative_buckets = 8\nrelative_max_distance = 12\n", Head::Language, None),
        case(
            "t5-relu-untied",
            "t5",
            "tied_head = false\nn_decoder_layers = 1\nhead_dim = 6\n",
            Head::Language,
            Some(FeedForward::Relu),
        ),
        case("transformer", "transformer", "", Head::Language, None),
    ]
}

fn options(format: WeightFormat, layout: WeightLayout, prefill_batch: usize) -> PackOptions {
    PackOptions {
        format,
        exceptions: Vec::new(),
        layout,
        context_len: None,
        prefill_batch,
        keep_zero_blocks: false,
        sections: Vec::new(),
    }
}

fn tokens(n: u32, salt: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 5 + salt * 11 + i) % VOCAB as u32).collect()
}

/// What the model reads: a source where it has one, and the text.
fn inputs(case: &Case) -> (Vec<u32>, Vec<u32>) {
    let has_source = matches!(case.model.architecture.family, Family::T5 | Family::Transformer | Family::GruSeq2seq);
    let source = if has_source { tokens(17, 1) } else { Vec::new() };
    (source, [START].into_iter().chain(tokens(14, 2)).collect())
}

/// Everything that the packed model says of the inputs.
fn packed_outputs(file: &[u8], kernels: Kernels, source: &[u32], text: &[u32]) -> Vec<f32> {
    let model = PackedModel::parse(file).expect("a packed file parses");
    let parts = model.config().parts;
    let mut arena = AlignedBytes::zeroed(model.header().arena_bytes as usize);
    arena.fill(0xa5);
    if parts.kind == Kind::Encoder {
        let mut encoder = Encoder::new(&model, &mut arena, kernels).expect("the arena is as large as the header says");
        encoder.read(&tokens(5, 7)).expect("a text before");
        encoder.read(text).expect("the tokens fit");
        return match parts.head {
            siskin_runtime::parts::Head::None => encoder.vector().to_vec(),
            siskin_runtime::parts::Head::Classifier => encoder.predict(0).to_vec(),
            _ => (0..text.len()).flat_map(|i| encoder.predict(i).to_vec()).collect(),
        };
    }
    let mut session = Session::new(&model, &mut arena, kernels).expect("the arena is as large as the header says");
    if parts.has_source() {
        session.read_source(&tokens(5, 7)).expect("a source before");
        session.prefill(&[START, 4]).expect("a text before");
        session.read_source(source).expect("the source fits");
    }
    let (mut rows, mut unread) = (Vec::new(), text);
    while !unread.is_empty() {
        let n = session.read_batch(unread).expect("the tokens fit");
        rows.extend((0..n).flat_map(|i| session.predict_after(i).to_vec()));
        unread = &unread[n..];
    }
    rows
}

/// The same of the float model.
fn float_outputs(case: &Case, source: &[u32], text: &[u32]) -> Vec<f32> {
    let has_source = !source.is_empty();
    let example = Example {
        inputs: if has_source { source.to_vec() } else { text.to_vec() },
        decoder_inputs: if has_source { text.to_vec() } else { Vec::new() },
        ..Example::default()
    };
    let mut tape = Tape::default();
    let mut graph = tape.evaluate(&case.params);
    if case.model.architecture.head == Head::None {
        let transformer = model::Transformer::new(&case.model.architecture).expect("a transformer");
        let hidden = transformer.hidden(&mut graph, &[example], 0.0);
        let (n, dim) = graph.shape(hidden);
        let value = graph.value(hidden);
        return (0..dim).map(|i| (0..n).map(|row| value[row * dim + i]).sum::<f32>() / n as f32).collect();
    }
    let logits = case.built.logits(&mut graph, &[example]);
    graph.value(logits).to_vec()
}

/// The error's root mean square as a share of the outputs' deviation.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let mean = want.iter().map(|&x| f64::from(x)).sum::<f64>() / want.len() as f64;
    let power: f64 = want.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    let off: f64 = got.iter().zip(want).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    (off / power).sqrt()
}

#[test]
fn packed_outputs_are_close_to_the_float_models() {
    for case in cases() {
        let (source, text) = inputs(&case);
        let want = float_outputs(&case, &source, &text);
        for (format, limit) in [(WeightFormat::Int8, 0.035), (WeightFormat::Int8G32, 0.025)] {
            let file = pack_trained(&case.model, &options(format, WeightLayout::RowMajor, 4), None).unwrap();
            let got = packed_outputs(&file, Kernels::detect(), &source, &text);
            let off = relative_error(&got, &want);
            println!("{} {}: {off:.4}", case.name, format.name());
            assert!(off < limit, "{} {}: off by {off}", case.name, format.name());
        }
    }
}

#[test]
fn every_layout_batch_and_backend_gives_the_same_bits() {
    let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for case in cases() {
        let (source, text) = inputs(&case);
        for format in WeightFormat::ALL {
            let pack = |layout, batch| pack_trained(&case.model, &options(format, layout, batch), None).unwrap();
            let first = pack(WeightLayout::RowMajor, 1);
            let want = bits(packed_outputs(&first, Kernels::generic(), &source, &text));
            for layout in WeightLayout::ALL {
                for batch in [1, 5, 32] {
                    let file = pack(layout, batch);
                    for kernels in Kernels::available() {
                        let got = bits(packed_outputs(&file, kernels, &source, &text));
                        assert!(got == want, "{} {format:?} {layout:?} {batch} {}", case.name, kernels.name());
                    }
                    let moved = relayout(&PackedModel::parse(&first).unwrap(), layout, batch).unwrap();
                    assert!(*moved == *file, "{}: relayout to {layout:?} differs from packing for it", case.name);
                }
            }
        }
    }
}

#[test]
fn damaged_files_are_refused_and_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for case in cases() {
        let (source, text) = inputs(&case);
        let file = pack_trained(&case.model, &options(WeightFormat::Int8, WeightLayout::RowMajor, 4), None).unwrap();
        for _ in 0..300 {
            let mut damaged = file.clone();
            let at = rng.random_range(0..128 + 32 * 3);
            damaged[at] ^= 1 << rng.random_range(0..8);
            // The header's checksum is made right again, so that what it says is looked at.
            let crc = siskin_runtime::format::checksum(&damaged[..124]);
            damaged[124..128].copy_from_slice(&crc.to_le_bytes());
            if PackedModel::parse(&damaged).is_ok() {
                packed_outputs(&damaged, Kernels::generic(), &source, &text);
            }
        }
        for len in (0..file.len()).step_by(file.len() / 60) {
            assert!(PackedModel::parse(&AlignedBytes::copy_of(&file[..len])).is_err(), "{} cut at {len}", case.name);
        }
    }
}

#[test]
fn sessions_and_encoders_refuse_what_does_not_suit_them() {
    let pack = |case: &Case| pack_trained(&case.model, &options(WeightFormat::Int8, WeightLayout::RowMajor, 4), None);
    for case in cases() {
        let file = pack(&case).unwrap();
        let model = PackedModel::parse(&file).unwrap();
        let mut arena = AlignedBytes::zeroed(model.header().arena_bytes as usize);
        let parts = model.config().parts;
        if parts.kind == Kind::Encoder {
            assert!(Session::new(&model, &mut arena, Kernels::generic()).is_err());
            let mut encoder = Encoder::new(&model, &mut arena, Kernels::generic()).unwrap();
            assert_eq!(encoder.read(&[]), Err(StepError::EmptyPrompt));
            assert!(matches!(encoder.read(&[1; CONTEXT + 1]), Err(StepError::ContextFull { .. })));
            assert!(matches!(encoder.read(&[VOCAB as u32]), Err(StepError::UnknownToken { .. })));
            continue;
        }
        assert!(Encoder::new(&model, &mut arena, Kernels::generic()).is_err());
        let mut session = Session::new(&model, &mut arena, Kernels::generic()).unwrap();
        if parts.has_source() {
            assert_eq!(session.prefill(&[1]).unwrap_err(), StepError::NoSource);
            assert!(matches!(session.read_source(&[1; CONTEXT + 1]), Err(StepError::ContextFull { .. })));
            session.read_source(&[1, 2]).unwrap();
        } else {
            assert_eq!(session.read_source(&[1]), Err(StepError::NoEncoder));
        }
        // Stepping equals reading at once, also from the start again and after sliding.
        let text = tokens(CONTEXT as u32, 4);
        let whole = session.prefill(&text).unwrap().to_vec();
        assert!(matches!(session.decode_step(1), Err(StepError::ContextFull { .. })));
        session.reset();
        for &token in &text {
            session.decode_step(token).unwrap();
        }
        assert_eq!(session.logits(), whole, "{}", case.name);
        session.slide(7);
        let slid = session.logits().to_vec();
        session.reset();
        assert_eq!(session.prefill(&text[CONTEXT - 7..]).unwrap(), slid, "{}", case.name);
        session.reset();
        session.prefill(&text).unwrap();
        session.slide_behind(2, 7);
        let slid = session.logits().to_vec();
        session.reset();
        let kept = [&text[..2], &text[CONTEXT - 7..]].concat();
        assert_eq!(session.prefill(&kept).unwrap(), slid, "{} behind sinks", case.name);
    }
}

#[test]
fn an_encoder_keeps_keys_and_values_of_one_layer() {
    let case = &cases()[3];
    let plan = |layers: &str| {
        let deeper = case_with_layers(layers);
        let file = pack_trained(&deeper, &options(WeightFormat::Int8, WeightLayout::RowMajor, 1), None).unwrap();
        PackedModel::parse(&file).unwrap().memory_plan()
    };
    let plan_2 = plan("2");
    assert_eq!(plan_2.arena_bytes, plan("6").arena_bytes, "{}", case.name);
    assert_eq!(plan_2.logits.len(), 3 * 4);
    assert_eq!((plan_2.history.len(), plan_2.residual.len()), (0, CONTEXT * 36 * 4));
}

fn case_with_layers(n_layers: &str) -> TrainedModel {
    let text = format!(
        "architecture = 'bert'\ndim = 36\nn_layers = {n_layers}\ncontext_len = {CONTEXT}\nhidden_dim = 70\nn_heads = 3\n"
    );
    let section: ModelSection = toml::from_str(&text).expect("a model section");
    let architecture = section.architecture(VOCAB, Head::Classifier { n_labels: 3 });
    let params = model::build(&architecture).unwrap().init(1);
    let tensors = named_weights(&params);
    let specials = SpecialIds::default();
    TrainedModel { architecture, tensors, tokenizer: TokenizerSource::None, specials, labels: Vec::new() }
}
