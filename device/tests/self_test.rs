//! The self-test on a host: golden answers that were recorded are checked, and every difference is told.

use siskin_device::self_test::{ANSWERS_MAX, Fault, Golden, GoldenError, check_kernels, record};
use siskin_device::{Aligned, Error, Memory, Model, Options, Shape, TokenId, model};
use siskin_runtime::format::{SectionEntry, SectionKind, checksum};
use siskin_runtime::{FormatError, Kernels, PackedModel, StepError};

model! {
    static SHAKESPEARE = "../../tests/golden/shakespeare-260k.siskin",
}
model! {
    static SHAKESPEARE_AGAIN = "../../tests/golden/shakespeare-260k.siskin",
}
model! {
    static OTHER = "../../tests/golden/shakespeare-260k.siskin",
}

/// "ROMEO:"
const PROMPT: [TokenId; 6] = [51, 48, 46, 38, 48, 27];
/// Words of the section before the prompt.
const HEADER: usize = 6;

fn recorded(model: &PackedModel<'_>, arena: &mut [u8], room: &mut [u32]) -> Result<Vec<u32>, GoldenError> {
    let mut section = Vec::new();
    record(model, Kernels::detect(), arena, &PROMPT, room, |bytes| section.extend_from_slice(bytes))?;
    Ok(section.chunks(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect())
}

fn bytes_of(words: &[u32]) -> &[u8] {
    bytemuck::cast_slice(words)
}

#[test]
fn what_was_recorded_is_checked() -> Result<(), Error> {
    let model = SHAKESPEARE.parse()?;
    let arena = SHAKESPEARE.arena()?;
    let section = recorded(&model, arena, &mut [0; 4]).expect("it fits");
    let mut check = |section: &[u8]| Golden::parse(section).and_then(|g| g.check(&model, Kernels::detect(), arena));
    // The tokens are those of a run of the command line.
    assert_eq!(section[HEADER + PROMPT.len()..], [200, 42, 85, 328]);
    assert_eq!(check(bytes_of(&section)), Ok(()));

    let mut check_with = |at: usize, word: u32| {
        let mut changed = section.clone();
        changed[at] = word;
        check(bytes_of(&changed))
    };
    let second = HEADER + PROMPT.len() + 1;
    assert_eq!(check_with(second, 43), Err(GoldenError::Answer { place: 1, expected: 43, found: 42 }));
    assert_eq!(check_with(5, section[5] ^ 1), Err(GoldenError::Logits));
    let unknown = StepError::UnknownToken { token: 600, vocab_size: 512 };
    assert_eq!(check_with(HEADER, 600), Err(GoldenError::Step(unknown)));
    for at in 0..4 {
        assert_eq!(check_with(at, 77), Err(GoldenError::Unreadable), "word {at}");
    }
    let bytes = bytes_of(&section);
    for len in 0..bytes.len() {
        assert_eq!(Golden::parse(&bytes[..len]), Err(GoldenError::Unreadable), "{len} bytes");
    }
    Ok(())
}

#[test]
fn as_many_answers_are_recorded_as_there_is_room_for() -> Result<(), Error> {
    let (model, arena) = (OTHER.parse()?, OTHER.arena()?);
    let n_answers = |model: &PackedModel<'_>, arena: &mut [u8], room: usize| {
        let section = recorded(model, arena, &mut vec![0; room]).expect("it fits");
        Golden::parse(bytes_of(&section)).expect("what was written").answers().len()
    };
    assert_eq!(n_answers(&model, arena, ANSWERS_MAX), ANSWERS_MAX);
    // The last token need not be read.
    assert_eq!(n_answers(&model, arena, 1000), model.config().context_len - PROMPT.len() + 1);
    Ok(())
}

const FILE: &Aligned<[u8; include_bytes!("../../tests/golden/shakespeare-260k.siskin").len()]> =
    &Aligned(*include_bytes!("../../tests/golden/shakespeare-260k.siskin"));
const SHAPE: Shape = Shape::read(&FILE.0);

/// The golden file with one more section, where nothing changes it.
fn with_section(kind: SectionKind, section: &[u8]) -> &'static mut [u8] {
    const TABLE: usize = 128;
    let word = |at: usize| u32::from_le_bytes(FILE.0[at..at + 4].try_into().expect("four bytes"));
    let table_end = TABLE + 32 * word(12) as usize;
    let (head, sections) = FILE.0.split_at(table_end);
    let entry = SectionEntry {
        kind: kind as u32,
        crc: checksum(section),
        offset: (FILE.0.len() + 32).next_multiple_of(16) as u64,
        bytes: section.len() as u64,
    };
    let mut file = [head, &entry.encode(), sections].concat();
    file.resize(entry.offset as usize, 0);
    file.extend(section);
    file[12] += 1;
    let file_bytes = file.len() as u64;
    file[16..24].copy_from_slice(&file_bytes.to_le_bytes());
    for at in (TABLE + 8..table_end).step_by(32) {
        file[at..at + 4].copy_from_slice(&(word(at) + 32).to_le_bytes());
    }
    let crc = checksum(&file[..124]);
    file[124..128].copy_from_slice(&crc.to_le_bytes());
    // At a multiple of 16.
    let words: &mut [u128] = vec![0; file.len().div_ceil(16)].leak();
    let aligned = &mut bytemuck::cast_slice_mut(words)[..file.len()];
    aligned.copy_from_slice(&file);
    aligned
}

#[test]
fn a_model_tests_itself_and_gives_its_memory_back() -> Result<(), Error> {
    // This file is as old as the format.
    assert_eq!(SHAKESPEARE_AGAIN.self_test(), Err(Fault::Golden(GoldenError::Missing)));
    assert_eq!(check_kernels(&SHAKESPEARE_AGAIN.parse()?, Kernels::detect()), Ok(()));

    static ARENA: Memory<Aligned<[u8; SHAPE.arena_bytes]>> = Memory::new(Aligned([0; SHAPE.arena_bytes]));
    static TOKENS: Memory<[TokenId; SHAPE.context_len]> = Memory::new([0; SHAPE.context_len]);
    let model = SHAKESPEARE_AGAIN.parse()?;
    let section = recorded(&model, SHAKESPEARE_AGAIN.arena()?, &mut [0; ANSWERS_MAX]).expect("it fits");
    let file: &'static [u8] = with_section(SectionKind::Golden, bytes_of(&section));
    let model: &'static Model = Box::leak(Box::new(Model::new(file, SHAPE, &ARENA, &TOKENS)));
    assert_eq!([model.self_test(), model.self_test()], [Ok(()); 2]);
    let mut writer = model.writer()?;
    assert_eq!(model.self_test(), Err(Fault::File(Error::Taken)));
    let mut text = writer.begin("ROMEO:", &Options::greedy(24))?;
    assert_eq!(text.step(|_| ()), Some(section[HEADER + PROMPT.len()]));

    // A bit of a weight that flash has lost.
    let damaged = with_section(SectionKind::Golden, bytes_of(&section));
    damaged[277_000] ^= 1;
    let model: &'static Model = Box::leak(Box::new(Model::new(damaged, SHAPE, &ARENA, &TOKENS)));
    let weights = FormatError::SectionChecksum { kind: SectionKind::Weights as u32 };
    assert_eq!(model.self_test(), Err(Fault::File(Error::Format(weights))));
    assert!(Fault::File(Error::Format(weights)).to_string().contains("the weights section"));
    Ok(())
}
