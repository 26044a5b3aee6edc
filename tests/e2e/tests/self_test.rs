//! Firmware that tests itself: it passes on every kind of core and for every family, and what fails is named.

use std::fs;

use siskin_e2e::Program;
use siskin_e2e::device::{Image, boards_dir, records};
use siskin_e2e::families::Family::{self, *};
use siskin_e2e::families::write_family_of;
use siskin_e2e::fixture::{Shape, TINY, USUAL};

const FAMILIES: [Family; 8] = [Llama, Gpt2, Gru, T5, Classifier, Tagger, Masked, Vector];
const FORMATS: [&str; 2] = ["int8", "int4-g32"];

/// Packs a tiny model for a board, with what it answers to a text.
fn pack(program: &Program, board: &str, family: Family, weights: &str, shape: &Shape) -> Vec<u8> {
    let (folder, packed) = (program.path(&format!("{family:?}")), "self-test.siskin");
    if !folder.exists() {
        write_family_of(&folder, family, 3, shape);
    }
    let (folder, boards_dir) = (folder.display().to_string(), boards_dir());
    let text = if family == Masked { "the [MASK] sings" } else { "the siskin" };
    let flags =
        ["--board", board, "--boards-dir", &boards_dir, "--weights", weights, "--self-test", text, "-o", packed];
    program.text(&[&["compile", &folder], &flags[..]].concat());
    fs::read(program.path(packed)).expect("a packed model")
}

fn passes(image: &Image<'_>, what: &str) {
    let (said, code) = image.run(&[]);
    assert_eq!((records(&said, "passed"), code), (vec!["checksums", "kernels", "golden"], Some(0)), "{what}: {said}");
}

/// What failed, and the errors that say how.
fn failures(image: &Image<'_>) -> (Vec<String>, String) {
    let (said, code) = image.run(&[]);
    assert_eq!(code, Some(1), "{said}");
    let failed = records(&said, "failed").into_iter().map(str::to_owned).collect();
    (failed, records(&said, "error").join("; "))
}

/// One image for all models, then one model with every kind of damage.
fn board_tests_itself(board: &str) {
    let program = Program::new();
    let models = FAMILIES.map(|family| FORMATS.map(|weights| pack(&program, board, family, weights, &USUAL)));
    let models = models.as_flattened();
    let arena_bytes = models.iter().map(|model| word(model, 80)).max().expect("models");
    let room_bytes = models.iter().map(Vec::len).max().expect("models").next_multiple_of(1024);
    let room = Some((room_bytes, arena_bytes));
    let mut image = Image::that_tests_itself(&program, board, &models[0], room, &[]);
    for (model, family) in models.iter().zip(FAMILIES.iter().flat_map(|family| [family; FORMATS.len()])) {
        image.put(model);
        passes(&image, &format!("{family:?} on {board}"));
    }

    let good = &models[0];
    let (weights, golden) = (section(good, 2), section(good, 12));
    let n_prompt = word(good, golden + 8);
    let (n_answers, hash, answers) = (word(good, golden + 12), golden + 16, golden + 24 + 4 * n_prompt);
    assert_eq!(n_answers, 16, "{board}");
    let mut fails = |at: usize, is_mended: bool, name: &str, error: &str| {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        if is_mended {
            let end = golden + 24 + 4 * (n_prompt + n_answers);
            let crc = crc32(&damaged[golden..end]);
            let entry = entry(good, 12);
            damaged[entry + 4..entry + 8].copy_from_slice(&crc.to_le_bytes());
        }
        image.put(&damaged);
        let (failed, errors) = failures(&image);
        assert!(failed == [name] && errors.starts_with(error), "{name} on {board}: {failed:?}, {errors}");
    };
    fails(40, false, "checksums header", "the checksum of the model's header is wrong");
    fails(weights + 1000, false, "checksums weights", "the checksum of a section of the model is wrong");
    fails(answers + 8, false, "checksums golden", "the checksum of a section of the model is wrong");
    fails(answers + 8, true, "golden answer 2", "the model gives another answer than the golden one expected ");
    fails(hash, true, "golden logits", "the logits have other bits than the golden ones");
    fails(golden, true, "golden section", "the golden section is damaged");
}

/// The little-endian number at a place.
fn word(model: &[u8], at: usize) -> usize {
    u32::from_le_bytes(model[at..at + 4].try_into().expect("four bytes")) as usize
}

/// Where the section table has the section of this kind (runtime/FORMAT.md).
fn entry(model: &[u8], kind: usize) -> usize {
    (128..).step_by(32).take(word(model, 12)).find(|&at| word(model, at) == kind).expect("the section")
}

/// Where the section of this kind begins.
fn section(model: &[u8], kind: usize) -> usize {
    word(model, entry(model, kind) + 8)
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn a_cortex_m4_tests_itself() {
    board_tests_itself("mps2-an386");
}

#[test]
fn a_cortex_m55_tests_itself() {
    board_tests_itself("mps3-an547");
}

#[test]
fn risc_v_of_32_bits_tests_itself() {
    board_tests_itself("riscv32-virt");
}

#[test]
fn risc_v_of_64_bits_with_vectors_tests_itself() {
    board_tests_itself("riscv64-virt");
}

#[test]
fn aarch64_tests_itself() {
    board_tests_itself("aarch64-virt");
}

/// 16 KB of RAM: an image that knows its one model.
#[test]
fn a_cortex_m0_tests_itself() {
    let program = Program::new();
    let model = pack(&program, "microbit", Llama, "int8", &TINY);
    let mut image = Image::that_tests_itself(&program, "microbit", &model, None, &[]);
    passes(&image, "microbit");
    let mut damaged = model.clone();
    damaged[section(&model, 2) + 1000] ^= 1;
    image.put(&damaged);
    assert_eq!(failures(&image).0, ["checksums weights"]);
}

/// Flash is whole, and the core computes something else.
#[test]
fn an_fpu_in_another_mode_is_found_by_the_kernels() {
    let program = Program::new();
    let model = pack(&program, "mps2-an386", Llama, "int8", &USUAL);
    let image = Image::that_tests_itself(&program, "mps2-an386", &model, None, &[("SISKIN_FAULT", "rounding")]);
    let (failed, errors) = failures(&image);
    assert_eq!(failed.first().map(String::as_str), Some("kernels quantize"), "{failed:?}, {errors}");
    assert!(failed[1].starts_with("golden "), "{failed:?}, {errors}");
}

/// Answers go with the cache's format: a file that is packed again has those of its own.
#[test]
fn another_cache_has_answers_of_its_own() {
    let program = Program::new();
    let model = pack(&program, "host", Llama, "int8", &USUAL);
    for kv in ["int8-ue5m3", "int4", "f16"] {
        program.text(&["compile", "self-test.siskin", "--board", "host", "--kv", kv, "-o", "other.siskin"]);
        let other = fs::read(program.path("other.siskin")).expect("a packed model");
        let [of_model, of_other] = [&model, &other].map(|file| &file[section(file, 12)..]);
        assert_eq!(of_model[..16], of_other[..16], "{kv}");
        assert_ne!(of_model[16..24], of_other[16..24], "the hash, {kv}");
    }
    program.fails(
        &["compile", "Llama", "--board", "host", "--self-test", "", "-o", "x"],
        3,
        &["the prompt holds no token"],
    );
}
