//! Packing against the runtime that reads it.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_runtime::{FormatError, Kernels, PackedModel, Session};

use super::*;
use crate::artifact::{Checkpoint, NamedWeights, Weight, names};

pub(crate) fn config(tied_head: bool) -> ModelConfig {
    ModelConfig {
        dim: 36,
        hidden_dim: 70,
        n_layers: 2,
        n_heads: 6,
        n_kv_heads: 2,
        head_dim: 8,
        vocab_size: 61,
        context_len: 24,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        tied_head,
        parts: siskin_runtime::Parts::LLAMA,
    }
}

/// A model with random weights.
pub(crate) fn random_checkpoint(config: ModelConfig, seed: u64) -> Checkpoint {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let tensors: NamedWeights = names::expected_shapes(&config)
        .into_iter()
        .map(|(name, shape)| {
            let n: usize = shape.iter().product();
            let spread = if shape.len() == 1 { 1.2 } else { 1.7 / (shape[1] as f32).sqrt() };
            let data = (0..n).map(|_| rng.random_range(-spread..spread)).collect();
            (name, Weight { shape, data })
        })
        .collect();
    Checkpoint::new(config, tensors).expect("the shapes are the expected ones")
}

pub(crate) fn options(format: WeightFormat, layout: WeightLayout, prefill_batch: usize) -> PackOptions {
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

/// Logits of every position, as bits.
pub(crate) fn logits(file: &[u8], kernels: Kernels, tokens: &[u32]) -> Vec<Vec<u32>> {
    let model = PackedModel::parse(file).expect("a packed file parses");
    let mut arena = AlignedBytes::zeroed(model.header().arena_bytes as usize);
    arena.fill(0xa5);
    let mut session = Session::new(&model, &mut arena, kernels).expect("the arena is as large as the header says");
    let mut rows = Vec::new();
    let mut unread = tokens;
    while !unread.is_empty() {
        let n = session.read_batch(unread).expect("the tokens fit");
        rows.extend((0..n).map(|i| session.predict_after(i).iter().map(|x| x.to_bits()).collect::<Vec<_>>()));
        unread = &unread[n..];
    }
    rows
}

#[test]
fn every_layout_batch_and_backend_gives_the_same_bits() {
    let tokens: Vec<u32> = (0..24).map(|i| i * 7 % 61).collect();
    for tied in [true, false] {
        let checkpoint = random_checkpoint(config(tied), 5);
        for format in WeightFormat::ALL {
            let first = pack(&checkpoint, &options(format, WeightLayout::RowMajor, 1)).unwrap();
            let want = logits(&first, Kernels::generic(), &tokens);
            assert!(want.iter().flatten().any(|&bits| bits != 0));
            for layout in WeightLayout::ALL {
                for prefill_batch in [1, 5, 32] {
                    let file = pack(&checkpoint, &options(format, layout, prefill_batch)).unwrap();
                    for kernels in Kernels::available() {
                        let got = logits(&file, kernels, &tokens);
                        assert!(got == want, "{format:?} {layout:?} batch {prefill_batch} {}", kernels.name());
                    }
                    let model = PackedModel::parse(&first).unwrap();
                    let moved = relayout(&model, layout, prefill_batch).unwrap();
                    assert!(*moved == *file, "relayout to {layout:?} differs from packing for it");
                }
            }
        }
    }
}

#[test]
fn formats_that_differ_give_the_same_bits_in_every_layout() {
    let tokens: Vec<u32> = (0..24).map(|i| i * 7 % 61).collect();
    let checkpoint = random_checkpoint(config(false), 5);
    for (format, exceptions) in [
        (WeightFormat::Int4G32, ["embedding=int8-g32", "layers.0=int8", "head=int8-g32"]),
        (WeightFormat::Int8, ["layers.0.down=int8-g32", "qkv=int8-g32", "head=int4-g32"]),
    ] {
        let exceptions: Vec<FormatException> = exceptions.map(|text| text.parse().unwrap()).into();
        let options = |layout, batch| PackOptions { exceptions: exceptions.clone(), ..options(format, layout, batch) };
        let first = pack(&checkpoint, &options(WeightLayout::RowMajor, 1)).unwrap();
        let model = PackedModel::parse(&first).unwrap();
        for (id, data) in model.raw_tensors() {
            if let siskin_runtime::format::TensorData::Matrix(w) = data {
                assert_eq!(w.format(), FormatException::format_of(&exceptions, format, id), "{id:?}");
            }
        }
        let want = logits(&first, Kernels::generic(), &tokens);
        for layout in WeightLayout::ALL {
            let file = pack(&checkpoint, &options(layout, 5)).unwrap();
            for kernels in Kernels::available() {
                assert!(logits(&file, kernels, &tokens) == want, "{format:?} {layout:?} {}", kernels.name());
            }
            assert!(
                *relayout(&model, layout, 5).unwrap() == *file,
                "relayout to {layout:?} differs from packing for it"
            );
        }
    }
    let idle = PackOptions {
        exceptions: vec!["pooler=int8".parse().unwrap()],
        ..options(WeightFormat::Int8, WeightLayout::RowMajor, 1)
    };
    assert!(matches!(pack(&checkpoint, &idle), Err(PackError::IdleException { .. })));
}

#[test]
fn packed_logits_are_close_to_the_f32_model() {
    let tokens: Vec<u32> = (0..24).map(|i| i * 11 % 61).collect();
    let checkpoint = random_checkpoint(config(false), 6);
    let file = pack(&checkpoint, &options(WeightFormat::Int8G32, WeightLayout::RowMajor, 8)).unwrap();
    let packed = logits(&file, Kernels::generic(), &tokens);
    let exact = crate::reference::ReferenceModel::new(&checkpoint).logits(&tokens).unwrap();
    let (mut off, mut power) = (0.0, 0.0);
    for (packed, exact) in packed.iter().flatten().zip(&exact) {
        off += f64::from(f32::from_bits(*packed) - exact).powi(2);
        power += f64::from(*exact).powi(2);
    }
    let relative = (off / power).sqrt();
    assert!(relative < 0.02, "packed logits are off by {relative}");
}

#[test]
fn a_session_goes_on_from_prefill_slides_and_refuses_what_does_not_fit() {
    let checkpoint = random_checkpoint(config(true), 7);
    let file = pack(&checkpoint, &options(WeightFormat::Int8, WeightLayout::RowMajor, 4)).unwrap();
    let model = PackedModel::parse(&file).unwrap();
    let mut arena = AlignedBytes::zeroed(model.header().arena_bytes as usize);
    let mut session = Session::new(&model, &mut arena, Kernels::generic()).unwrap();
    let tokens: Vec<u32> = (0..24).collect();
    session.prefill(&tokens[..10]).unwrap();
    for &token in &tokens[10..] {
        session.decode_step(token).unwrap();
    }
    let stepped = session.logits().to_vec();
    let full = siskin_runtime::StepError::ContextFull { context_len: 24, position: 24, n_tokens: 1 };
    assert_eq!(session.decode_step(1).unwrap_err(), full);
    session.reset();
    assert_eq!(session.prefill(&tokens).unwrap(), &stepped[..]);
    assert_eq!(session.prefill(&[]).unwrap_err(), siskin_runtime::StepError::EmptyPrompt);

    session.slide(6);
    assert_eq!((session.position(), session.history()), (6, &tokens[18..]));
    let slid = session.logits().to_vec();
    session.reset();
    assert_eq!(session.prefill(&tokens[18..]).unwrap(), &slid[..]);

    // With sinks: as if the conversation had been the first and the newest tokens.
    session.reset();
    session.prefill(&tokens).unwrap();
    session.slide_behind(3, 6);
    let kept = [&tokens[..3], &tokens[18..]].concat();
    assert_eq!((session.position(), session.history()), (9, &kept[..]));
    let slid = session.logits().to_vec();
    session.slide_behind(3, 6);
    session.slide_behind(9, 1);
    assert_eq!((session.position(), session.logits().to_vec()), (9, slid.clone()), "nothing to forget");
    session.reset();
    assert_eq!(session.prefill(&kept).unwrap(), &slid[..]);
    let unknown = siskin_runtime::StepError::UnknownToken { token: 61, vocab_size: 61 };
    assert_eq!(session.decode_step(61).unwrap_err(), unknown);
}

#[test]
fn damaged_files_each_get_their_own_error() {
    let checkpoint = random_checkpoint(config(true), 8);
    let file = pack(&checkpoint, &options(WeightFormat::Int8, WeightLayout::Rows8, 4)).unwrap();
    let parse = |bytes: &[u8]| PackedModel::parse(&AlignedBytes::copy_of(bytes)).map(|_| ()).unwrap_err();
    let changed = |at: usize| {
        let mut bytes = file.to_vec();
        bytes[at] ^= 1;
        parse(&bytes)
    };
    assert_eq!(parse(b"GGUF and more"), FormatError::NotAPackedModel);
    assert_eq!(parse(&[]), FormatError::NotAPackedModel);
    assert_eq!(changed(8), FormatError::UnsupportedVersion { found: 0 });
    assert_eq!(changed(40), FormatError::HeaderChecksum);
    assert_eq!(changed(file.len() - 1), FormatError::SectionChecksum { kind: SectionKind::Rope as u32 });
    for len in [64, 200, file.len() - 1] {
        assert!(matches!(parse(&file[..len]), FormatError::Truncated { .. }), "{len}");
    }
    let mut shifted = AlignedBytes::zeroed(file.len() + 16);
    shifted[1..=file.len()].copy_from_slice(&file);
    assert_eq!(PackedModel::parse(&shifted[1..=file.len()]).unwrap_err(), FormatError::Misaligned);
}

/// Damages bytes, then mends the checksums, so that the damage gets past them.
pub(crate) fn mend(bytes: &mut [u8]) {
    use siskin_runtime::format::{ENTRY_BYTES, HEADER_BYTES, checksum};
    let n_sections = bytes[12] as usize;
    for i in 0..n_sections.min(8) {
        let at = HEADER_BYTES + i * ENTRY_BYTES;
        let field = |from: usize| u64::from_le_bytes(bytes[at + from..at + from + 8].try_into().unwrap()) as usize;
        let (offset, len) = (field(8), field(16));
        if let Some(section) = bytes.get(offset..offset.saturating_add(len)) {
            let crc = checksum(section);
            bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let crc = checksum(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn ten_thousand_mutated_files_neither_parse_nor_run_into_a_panic() {
    let small = ModelConfig {
        dim: 8,
        hidden_dim: 12,
        n_layers: 1,
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 4,
        vocab_size: 9,
        context_len: 5,
        ..config(true)
    };
    let checkpoint = random_checkpoint(small, 9);
    let files: Vec<AlignedBytes> = WeightFormat::ALL
        .into_iter()
        .flat_map(|format| WeightLayout::ALL.map(|layout| pack(&checkpoint, &options(format, layout, 2)).unwrap()))
        .collect();
    let n_run = run_mutants(&files, 10, 10_000);
    assert!(n_run > 1000, "only {n_run} mutants got past the parser: the damage is too crude to test what follows");
}

/// Damages `files` in turn and runs what still parses; gives how many did.
pub(crate) fn run_mutants(files: &[AlignedBytes], seed: u64, n_rounds: usize) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut n_run = 0;
    for round in 0..n_rounds {
        let mut bytes = files[round % files.len()].clone();
        for _ in 0..rng.random_range(1..4) {
            // Most damage goes where structure is: the header and the tables.
            let end = if rng.random_bool(0.7) { 400 } else { bytes.len() };
            let at = rng.random_range(0..end);
            bytes[at] = if rng.random_bool(0.5) { rng.random() } else { bytes[at] ^ (1 << rng.random_range(0..8)) };
        }
        if rng.random_bool(0.9) {
            mend(&mut bytes);
        }
        let cut = if rng.random_bool(0.1) { rng.random_range(0..bytes.len()) } else { bytes.len() };
        let Ok(model) = PackedModel::parse(&bytes[..cut]) else { continue };
        let arena_bytes = model.header().arena_bytes as usize;
        if arena_bytes > 1 << 20 {
            continue;
        }
        n_run += 1;
        let mut arena = AlignedBytes::zeroed(arena_bytes);
        for kernels in Kernels::available() {
            let mut session = Session::new(&model, &mut arena, kernels).unwrap();
            for token in 0..4 {
                let _ = session.prefill(&[token, token + 1]);
            }
        }
    }
    n_run
}

/// A packed random model in a format of the cache, with a prefix.
fn prefixed(kv: siskin_runtime::KvFormat, layout: WeightLayout, prefix: &[u32]) -> PackedFile {
    let checkpoint = random_checkpoint(config(true), 9);
    let file = pack(&checkpoint, &options(WeightFormat::Int8, layout, 4)).unwrap();
    let file = PackedFile::from_bytes(file).unwrap();
    let file = PackedFile::from_bytes(with_kv(&file, kv).unwrap()).unwrap();
    PackedFile::from_bytes(with_prefix(&file, Kernels::generic(), prefix).unwrap()).unwrap()
}

#[test]
fn a_session_goes_on_from_a_prefix_as_if_it_had_read_it() {
    let (prefix, prompt) = ((0..9).collect::<Vec<u32>>(), [40, 3, 17]);
    for kv in siskin_runtime::KvFormat::ALL {
        let file = prefixed(kv, WeightLayout::RowMajor, &prefix);
        let model = file.model();
        let section = model.section(SectionKind::Prefix).unwrap();
        assert_eq!(section, prefixed(kv, WeightLayout::Rows8, &prefix).model().section(SectionKind::Prefix).unwrap());
        let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
        let mut session = Session::new(&model, &mut arena, Kernels::detect()).unwrap();
        session.prefill(&[prefix.clone(), prompt.to_vec()].concat()).unwrap();
        let mut read = session.logits().to_vec();
        read.extend_from_slice(session.decode_step(5).unwrap());
        session.slide(4);
        read.extend_from_slice(session.logits());
        session.restore(section).unwrap();
        assert_eq!((session.position(), session.history()), (9, &prefix[..]));
        let mut restored = session.prefill(&prompt).unwrap().to_vec();
        restored.extend_from_slice(session.decode_step(5).unwrap());
        session.slide(4);
        restored.extend_from_slice(session.logits());
        assert!(read == restored, "{kv:?}");
        // Sliding behind the prefix reads none of it again.
        session.restore(section).unwrap();
        session.prefill(&prompt).unwrap();
        session.slide_behind(9, 2);
        let slid = session.logits().to_vec();
        session.reset();
        assert_eq!(session.prefill(&[&prefix[..], &prompt[1..]].concat()).unwrap(), slid);
    }
}

#[test]
fn a_damaged_prefix_is_refused_by_name() {
    use siskin_runtime::{KvFormat, SnapshotError};

    let file = prefixed(KvFormat::Int8, WeightLayout::RowMajor, &[1, 2, 3]);
    let model = file.model();
    let good = model.section(SectionKind::Prefix).unwrap();
    let mut arena = AlignedBytes::zeroed(model.memory_plan().arena_bytes);
    let mut session = Session::new(&model, &mut arena, Kernels::generic()).unwrap();
    session.prefill(&[7]).unwrap();
    let mut refused = |bytes: &[u8]| {
        let error = session.restore(bytes).unwrap_err();
        assert_eq!(session.history(), [7], "the session is as it was");
        error
    };
    let with = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(refused(&with(0, b'X')), SnapshotError::NotASnapshot);
    assert_eq!(refused(&with(4, 9)), SnapshotError::NotASnapshot);
    assert_eq!(refused(&with(8, 1)), SnapshotError::OtherKvFormat);
    assert_eq!(refused(&with(12, 0)), SnapshotError::TokenCount);
    assert_eq!(refused(&with(12, 24)), SnapshotError::TokenCount);
    assert_eq!(refused(&with(12, 4)), SnapshotError::UnknownToken);
    assert_eq!(refused(&with(12, 2)), SnapshotError::Length);
    assert_eq!(refused(&with(16, 61)), SnapshotError::UnknownToken);
    assert_eq!(refused(&[good, &[0]].concat()), SnapshotError::Length);
    for len in 0..good.len() {
        refused(&good[..len]);
    }
    let error = with_prefix(&file, Kernels::generic(), &[0; 24]).unwrap_err();
    assert!(matches!(error, PrefixError::Snapshot(SnapshotError::TokenCount)), "{error}");
    assert!(matches!(with_prefix(&file, Kernels::generic(), &[]).unwrap_err(), PrefixError::Step(_)));
}
