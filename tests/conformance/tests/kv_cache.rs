//! Formats of the KV cache on a trained model: the same bits with every backend, and little lost; a file with another one is refused.

mod aligned;

use aligned::Aligned;
use siskin_runtime::format::{HEADER_BYTES, checksum};
use siskin_runtime::kernels::Serial;
use siskin_runtime::{Kernels, KvFormat, LogitsHash, PackedModel, Session, TokenId};

/// Of each other format the hash of all predictions within the text, and a bound of the divergence from int8's, in nats.
const FORMATS: [(KvFormat, &str, f64); 3] = [
    (KvFormat::Int8Ue5m3, "96a0fbd83fa31dd7", 1e-3),
    (KvFormat::Int4, "5c8e8270089eecce", 0.1),
    (KvFormat::F16, "8116e87cb262dd03", 1e-3),
];

/// The golden model with its cache in another format.
fn golden(kv: KvFormat) -> Aligned {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
    let mut file = Aligned::new(&std::fs::read(path).expect("the golden model"));
    let mut header = *PackedModel::parse(file.bytes()).expect("a packed model").header();
    header.kv = kv;
    header.arena_bytes = header.memory_plan().expect("a plan").arena_bytes as u64;
    file.bytes_mut()[..HEADER_BYTES].copy_from_slice(&header.encode());
    file
}

/// The logits of each prediction within `text`.
fn predictions(file: &Aligned, kernels: Kernels, text: &[TokenId]) -> Vec<Vec<f32>> {
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let mut memory = Aligned::new(&vec![0; model.memory_plan().arena_bytes]);
    let arena = memory.bytes_mut();
    let mut session = Session::with_join(&model, arena, kernels, Serial).expect("an arena of the model's size");
    text.iter().map(|&token| session.decode_step(token).expect("a text that fits").to_vec()).collect()
}

fn hash(predictions: &[Vec<f32>]) -> String {
    let mut hash = LogitsHash::EMPTY;
    predictions.iter().for_each(|logits| hash.add(logits));
    hash.to_string()
}

fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f64::MIN, |most, &logit| most.max(f64::from(logit)));
    let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - most - total.ln()).collect()
}

/// The mean divergence from predictions to others, in nats.
fn divergence(from: &[Vec<f32>], to: &[Vec<f32>]) -> f64 {
    let of_pair = |(from, to): (&Vec<f32>, &Vec<f32>)| {
        let (p, q) = (log_probabilities(from), log_probabilities(to));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    };
    from.iter().zip(to).map(of_pair).sum::<f64>() / from.len() as f64
}

/// What the model itself writes after a few tokens, so that its predictions are of a text as it knows them.
fn text(file: &Aligned) -> Vec<TokenId> {
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let mut memory = Aligned::new(&vec![0; model.memory_plan().arena_bytes]);
    let mut session = Session::new(&model, memory.bytes_mut(), Kernels::generic()).expect("an arena");
    let mut text: Vec<TokenId> = vec![51, 48, 46, 38, 48, 27];
    let mut next = session.most_probable_after(&text).expect("a prompt that fits");
    while text.len() < 128 {
        text.push(next);
        next = session.most_probable_after(&[next]).expect("a context that is not full");
    }
    text
}

#[test]
fn other_formats_lose_little_and_give_the_same_bits_everywhere() {
    let usual = golden(KvFormat::Int8);
    let text = text(&usual);
    let want = predictions(&usual, Kernels::generic(), &text);
    for (kv, wanted_hash, most) in FORMATS {
        let file = golden(kv);
        let nats = divergence(&want, &predictions(&file, Kernels::generic(), &text));
        assert!(nats > 0.0 && nats < most, "{kv:?} diverges by {nats} nats");
        for kernels in Kernels::available() {
            assert_eq!(hash(&predictions(&file, kernels, &text)), wanted_hash, "{kv:?} {}", kernels.name());
        }
    }
}

/// Why a file is refused whose header says that its cache has the format of this code.
fn refused(mut file: Aligned, code: u8) -> String {
    file.bytes_mut()[120] = code;
    let crc = checksum(&file.bytes()[..124]);
    file.bytes_mut()[124..128].copy_from_slice(&crc.to_le_bytes());
    PackedModel::parse(file.bytes()).map(|_| ()).expect_err("another format").to_string()
}

#[test]
fn a_file_whose_cache_has_an_unknown_format_is_refused() {
    for code in [4, 5, 100, 255] {
        let error = refused(golden(KvFormat::Int8), code);
        assert!(error.contains("kv") && error.contains(&code.to_string()), "{error}");
    }
    // A format that is known has another size, which the header must agree with.
    let error = refused(golden(KvFormat::Int4), KvFormat::F16 as u8);
    assert!(error.contains("arena"), "{error}");
}

#[test]
fn a_snapshot_is_the_same_with_every_backend_and_goes_on_as_the_text_does() {
    for kv in KvFormat::ALL {
        let file = golden(kv);
        let model = PackedModel::parse(file.bytes()).expect("a packed model");
        let mut memory = Aligned::new(&vec![0; model.memory_plan().arena_bytes]);
        let (prefix, prompt) = ([51, 48, 46, 38, 48, 27, 200], [42, 85]);
        let mut first: Option<Vec<u8>> = None;
        for kernels in Kernels::available() {
            let arena = memory.bytes_mut();
            let mut session = Session::new(&model, arena, kernels).expect("an arena of the model's size");
            session.prefill(&prefix).expect("a prefix that fits");
            let mut bytes = vec![];
            session.snapshot(|part| bytes.extend_from_slice(part)).expect("a snapshot");
            let bytes = &*first.get_or_insert_with(|| bytes.clone());
            let read = session.prefill(&prompt).expect("a prompt that fits").to_vec();
            session.reset();
            session.prefill(&[1, 2, 3]).expect("something else");
            session.restore(bytes).expect("its own snapshot");
            assert_eq!(session.history(), prefix);
            assert_eq!(session.prefill(&prompt).expect("a prompt that fits"), read, "{} {kv:?}", kernels.name());
        }
    }
}
