//! Adapters beside a trained model: switched by name, received by themselves, damaged; the same bits with every backend and batch.

mod aligned;

use aligned::Aligned;
use siskin_runtime::adapter::{
    Adapter, AdapterError, HEAD_BYTES, MAGIC, PAIR_BYTES, PairEntry, VERSION, rank_max, weights_crc,
};
use siskin_runtime::format::{ENTRY_BYTES, HEADER_BYTES, SectionEntry, SectionKind, checksum};
use siskin_runtime::tensor::activation_stride;
use siskin_runtime::{Kernels, LogitsHash, PackedModel, Session, TokenId, WeightFormat, WeightLayout};

const TEXT: [TokenId; 9] = [51, 48, 46, 38, 48, 27, 200, 42, 85];

fn golden() -> Aligned {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/shakespeare-260k.siskin");
    Aligned::new(&std::fs::read(path).expect("the golden model"))
}

/// The bytes of a matrix of int8 values with a scale a row, and what fills them up.
fn matrix(layout: WeightLayout, (rows, cols): (usize, usize), row: impl Fn(usize) -> (Vec<i8>, f32)) -> Vec<u8> {
    let mut data = vec![0; layout.data_bytes(rows, cols)];
    let mut scales = Vec::new();
    for row_idx in 0..rows {
        let (values, scale) = row(row_idx);
        values.iter().enumerate().for_each(|(col, &value)| layout.set(&mut data, cols, row_idx, col, value));
        scales.extend(scale.to_le_bytes());
    }
    data.resize(data.len().next_multiple_of(16), 0);
    data.extend(scales);
    data.resize(data.len() - 4 * rows + 4 * rows.next_multiple_of(layout.row_block()), 0);
    data.resize(data.len().next_multiple_of(16), 0);
    data
}

/// Numbers that look random, the same for the same seed.
fn noise(seed: usize, row: usize, len: usize, scale: f32) -> (Vec<i8>, f32) {
    // In 64 bits, so that it is the same on 32-bit machines.
    let value = |i: usize| ((seed + 31 * row + 7 * i) * (i + row + 13)) as u64 * 2654435761 % 255;
    ((0..len).map(|i| (value(i) as i32 - 127) as i8).collect(), scale)
}

/// The tensors of the golden model's second layer: q, k and v stacked, gate and up stacked, down.
const QKV: usize = 8;
const GATE_UP: usize = 11;
const DOWN: usize = 12;

/// Tensor, first row, rows, rank.
const PAIRS: [(usize, usize, usize, usize); 4] =
    [(QKV, 0, 64, 3), (QKV, 96, 32, 8), (GATE_UP, 172, 172, 5), (DOWN, 0, 64, 40)];

/// An adapter of the golden model; `strength` scales B, `prompt` are tokens whose embeddings go before every prompt.
fn adapter(model: &PackedModel<'_>, name: &str, strength: f32, prompt: &[TokenId]) -> Vec<u8> {
    let layout = model.header().layout;
    let pairs = if strength < 0.0 { &[][..] } else { &PAIRS };
    let mut bytes = vec![0; HEAD_BYTES + pairs.len() * PAIR_BYTES];
    for (i, &(tensor_idx, first_row, rows, rank)) in pairs.iter().enumerate() {
        let cols = model.adaptable(tensor_idx).expect("a product").cols();
        let a_offset = bytes.len() as u32;
        bytes.extend(matrix(layout, (rank, cols), |row| noise(i, row, cols, 0.002)));
        let b_offset = bytes.len() as u32;
        bytes.extend(matrix(layout, (rows, rank), |row| noise(i + 50, row, rank, 0.004 * strength)));
        let [tensor_idx, first_row, rows, rank] = [tensor_idx, first_row, rows, rank].map(|count| count as u32);
        let entry = PairEntry { tensor_idx, first_row, rows, rank, a_offset, b_offset };
        bytes[HEAD_BYTES + i * PAIR_BYTES..][..PAIR_BYTES].copy_from_slice(&entry.encode());
    }
    let prompt_offset = bytes.len() as u32;
    let embedding = model.embedding();
    let row = |i: usize| {
        let token = prompt[i] as usize;
        ((0..embedding.cols()).map(|col| embedding.value(token, col)).collect(), embedding.scale(token, 0))
    };
    bytes.extend(matrix(layout, (prompt.len(), embedding.cols()), row));
    let n_bytes = bytes.len() as u32;
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &MAGIC);
    let words = [weights_crc(model), layout as u32, pairs.len() as u32, prompt.len() as u32];
    put(4, &VERSION.to_le_bytes());
    put(8, &n_bytes.to_le_bytes());
    words.iter().enumerate().for_each(|(i, word)| put(16 + 4 * i, &word.to_le_bytes()));
    put(32, name.as_bytes());
    put(64, &prompt_offset.to_le_bytes());
    mend(&mut bytes);
    bytes
}

fn mend(adapter: &mut [u8]) {
    let crc = checksum(&adapter[16..]);
    adapter[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// The golden model with an adapter in place of its tokenizer.
fn with_adapter(file: &[u8], adapter: &[u8]) -> Aligned {
    let mut bytes = file.to_vec();
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let entry = SectionEntry {
        kind: SectionKind::Adapter as u32,
        crc: checksum(adapter),
        offset: bytes.len() as u64,
        bytes: adapter.len() as u64,
    };
    bytes.extend(adapter);
    // The tokenizer is the fourth section.
    bytes[HEADER_BYTES + 3 * ENTRY_BYTES..][..ENTRY_BYTES].copy_from_slice(&entry.encode());
    let file_bytes = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&file_bytes.to_le_bytes());
    let crc = checksum(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    Aligned::new(&bytes)
}

fn arena(model: &PackedModel<'_>) -> Aligned {
    Aligned::new(&vec![0x24; model.header().arena_bytes as usize])
}

/// The hash of the logits after each token of [`TEXT`], read `batch` at a time.
fn hash(session: &mut Session<'_>, batch: usize) -> LogitsHash {
    session.reset();
    let mut hash = LogitsHash::EMPTY;
    for tokens in TEXT.chunks(batch) {
        hash.add(session.prefill(tokens).expect("a text that fits"));
    }
    hash
}

#[test]
fn a_session_switches_between_adapters_and_none() {
    let file = golden();
    let plain = PackedModel::parse(file.bytes()).expect("a packed model");
    let file = with_adapter(file.bytes(), &adapter(&plain, "poet", 1.0, &[]));
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    assert_eq!(model.adapters().iter().map(|adapter| adapter.name()).collect::<Vec<_>>(), ["poet"]);
    let mut results = Vec::new();
    for kernels in Kernels::available() {
        let (mut memory, mut plain_memory) = (arena(&model), arena(&model));
        let mut session = Session::new(&model, memory.bytes_mut(), kernels).expect("an arena of the right size");
        let mut plain = Session::new(&plain, plain_memory.bytes_mut(), kernels).expect("an arena of the right size");
        let without = hash(&mut plain, 3);
        assert_eq!(hash(&mut session, 3), without);
        session.use_adapter(Some("poet")).expect("a known adapter");
        assert_eq!(session.position(), 0);
        let with = [3, 9].map(|batch| hash(&mut session, batch));
        assert_ne!(with[0], without);
        // What was at work before stays so after an unknown name.
        let error = session.use_adapter(Some("peot")).expect_err("no such adapter").to_string();
        assert_eq!(error, "the model has no adapter \"peot\"; it has poet");
        assert_eq!([3, 9].map(|batch| hash(&mut session, batch)), with);
        session.use_adapter(None).expect("no adapter is always there");
        assert_eq!(hash(&mut session, 3), without);
        results.push(with);
    }
    assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
    let mut memory = arena(&plain);
    let session = Session::new(&plain, memory.bytes_mut(), Kernels::detect());
    let error = session.expect("an arena of the right size").use_adapter(Some("poet")).expect_err("no adapter at all");
    assert_eq!(error.to_string(), "the model has no adapter \"poet\"; it has none at all");
}

#[test]
fn an_adapter_whose_updates_are_zero_changes_no_bit() {
    let file = golden();
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let zero = Aligned::new(&adapter(&model, "zero", 0.0, &[]));
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.bytes_mut(), Kernels::detect()).expect("an arena of the right size");
    let without = hash(&mut session, 4);
    session.use_received_adapter(zero.bytes()).expect("an adapter of this model");
    assert_eq!(session.adapter().map(Adapter::name), Some("zero"));
    assert_eq!(hash(&mut session, 4), without);
}

#[test]
fn a_soft_prompt_of_embeddings_is_a_prompt_of_their_tokens() {
    let file = golden();
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let soft = Aligned::new(&adapter(&model, "soft", -1.0, &TEXT[..5]));
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.bytes_mut(), Kernels::detect()).expect("an arena of the right size");
    let wanted = session.prefill(&TEXT).expect("a text that fits").to_vec();
    session.use_received_adapter(soft.bytes()).expect("an adapter of this model");
    for _ in 0..2 {
        assert_eq!((session.position(), session.history()), (5, &[][..]));
        assert_eq!(session.prefill(&TEXT[5..]).expect("a text that fits"), wanted);
        assert_eq!((session.position(), session.history()), (9, &TEXT[5..]));
        session.reset();
    }
    // Sliding keeps the soft prompt and forgets tokens behind it.
    session.prefill(&[&[7, 8, 9], &TEXT[5..]].concat()).expect("a text that fits");
    session.slide(4);
    assert_eq!((session.position(), session.history()), (9, &TEXT[5..]));
    assert_eq!(session.logits(), wanted);
}

#[test]
fn what_is_wrong_with_a_received_adapter_is_named() {
    let file = golden();
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let good = adapter(&model, "good", 1.0, &TEXT);
    let problem = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Adapter::parse(Aligned::new(&bytes).bytes(), &model).map(|adapter| adapter.checksum())
    };
    let crc = checksum(&good[16..]);
    assert_eq!(problem(|_| ()), Ok(crc));
    assert_eq!(problem(|bytes| bytes.extend([1, 2, 3])), Ok(crc));
    assert_eq!(problem(|bytes| bytes[0] = 0), Err(AdapterError::NotAnAdapter));
    assert_eq!(problem(|bytes| bytes[4] = 2), Err(AdapterError::UnsupportedVersion { found: 2 }));
    let (needed_bytes, given_bytes) = (good.len(), good.len() - 1);
    assert_eq!(
        problem(|bytes| bytes.truncate(bytes.len() - 1)),
        Err(AdapterError::Truncated { needed_bytes, given_bytes })
    );
    assert_eq!(problem(|bytes| bytes[2000] ^= 4), Err(AdapterError::Checksum));
    let mended = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        mend(&mut bytes);
        Adapter::parse(Aligned::new(&bytes).bytes(), &model).map(|adapter| adapter.checksum())
    };
    let wanted = weights_crc(&model);
    assert_eq!(mended(16, !good[16]), Err(AdapterError::OtherModel { found: wanted ^ 0xff, wanted }));
    let (found, wanted) = (Some(WeightLayout::Rows8), WeightLayout::RowPairs);
    assert_eq!(mended(20, 2), Err(AdapterError::OtherLayout { found, wanted }));
    assert_eq!(mended(32, 0), Err(AdapterError::BadName));
    assert_eq!(mended(32, 0xff), Err(AdapterError::BadName));
    // The second pair at the first's rows, the third outside its tensor, the fourth of a higher rank than can be applied.
    let pair = |idx: usize, word: usize| HEAD_BYTES + idx * PAIR_BYTES + 4 * word;
    assert_eq!(mended(pair(1, 1), 63), Err(AdapterError::BadPair { pair_idx: 1 }));
    assert_eq!(mended(pair(2, 1), 173), Err(AdapterError::BadPair { pair_idx: 2 }));
    assert_eq!(mended(pair(3, 3), 115), Err(AdapterError::BadPair { pair_idx: 3 }));
    assert_eq!(mended(pair(0, 0), 7), Err(AdapterError::BadPair { pair_idx: 0 }));
    assert_eq!(mended(29, 1), Err(AdapterError::BadPrompt));
    let shifted = [&[0; 4][..], &good].concat();
    assert_eq!(Adapter::parse(&Aligned::new(&shifted).bytes()[4..], &model).err(), Some(AdapterError::Misaligned));
}

#[test]
fn damaged_adapters_run_or_are_refused_but_never_panic() {
    let file = golden();
    let model = PackedModel::parse(file.bytes()).expect("a packed model");
    let good = adapter(&model, "good", 1.0, &TEXT[..2]);
    let mut n_run = 0;
    for round in 0..600usize {
        let mut bytes = good.clone();
        let (at, value) = noise(round, round % 97, 4, 1.0)
            .0
            .iter()
            .fold((0, 0), |(at, _), &n| (at * 200 + usize::from(n.unsigned_abs()), n as u8));
        let end = if round % 3 == 0 { bytes.len() } else { HEAD_BYTES + PAIRS.len() * PAIR_BYTES };
        bytes[at % end] = value;
        mend(&mut bytes);
        let damaged = Aligned::new(&bytes);
        if Adapter::parse(damaged.bytes(), &model).is_err() {
            continue;
        }
        n_run += 1;
        let mut memory = arena(&model);
        let mut session =
            Session::new(&model, memory.bytes_mut(), Kernels::detect()).expect("an arena of the right size");
        session.use_received_adapter(damaged.bytes()).expect("it was just parsed");
        session.prefill(&TEXT[..2]).expect("a text that fits");
    }
    assert!(n_run > 100, "only {n_run} got past the parser");
}

#[test]
fn the_highest_rank_fits_and_one_more_does_not() {
    for format in WeightFormat::ALL {
        for cols in 1..600 {
            let needs = |rank: usize| activation_stride(rank) / 2 + format.groups(rank) + rank;
            let most = rank_max(format, cols);
            assert!(most == 0 || needs(most) <= cols, "{cols}");
            assert!((most + 1..=cols).all(|rank| needs(rank) > cols), "{cols}");
        }
    }
    assert_eq!(rank_max(WeightFormat::Int8, 64), 41);
}
