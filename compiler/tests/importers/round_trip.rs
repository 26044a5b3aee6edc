//! What the writers wrote is what the importers read.

use std::fs;

use siskin_compiler::artifact::{
    Checkpoint, LoadOptions, Problem, RopeScaling, TokenizerSource, gguf, llama2c, load_model,
};

use super::files::{self, Gguf, Llama2cVersion, MatrixType, small_checkpoint};

/// Asserts that `found` holds `expected`'s weights, each matrix's run of `group_size` numbers rounded by `round(number, largest)`.
fn assert_weights(found: &Checkpoint, expected: &Checkpoint, group_size: usize, round: impl Fn(f32, f32) -> f32) {
    assert_eq!(found.config, expected.config);
    assert_eq!(found.tensors.len(), expected.tensors.len());
    for (name, weight) in &expected.tensors {
        let found = &found.tensors[name];
        assert_eq!(found.shape, weight.shape, "{name}");
        for (found, group) in found.data.chunks(group_size).zip(weight.data.chunks(group_size)) {
            let largest = group.iter().fold(0f32, |max, number| max.max(number.abs()));
            for (&found, &number) in found.iter().zip(group) {
                let expected = if weight.shape.len() == 1 { number } else { round(number, largest) };
                assert!((found - expected).abs() <= 1e-6 * largest, "{name}: {found} is not {expected}");
            }
        }
    }
}

#[test]
fn gguf_of_every_matrix_type_and_version() {
    for (matrix_type, tied_head, version) in [
        (MatrixType::F32, true, 3),
        (MatrixType::F32, false, 2),
        (MatrixType::F16, false, 3),
        (MatrixType::Bf16, true, 3),
        (MatrixType::Q8_0, false, 3),
    ] {
        let expected = small_checkpoint(tied_head);
        let mut file = Gguf::new(&expected, matrix_type);
        file.version = version;
        let found = gguf::parse(&file.to_bytes()).unwrap();
        assert_weights(&found, &expected, 32, |number, largest| matrix_type.rounded(number, largest));
        assert_eq!((found.bos_id, &found.eos_ids[..]), (Some(1), &[2][..]));
        let TokenizerSource::Gguf(vocab) = found.tokenizer else { panic!("no vocabulary") };
        assert_eq!(vocab.tokens[39], b"piece39");
        assert_eq!(vocab.merges, [b"p i".to_vec(), b"pi e".to_vec()]);
        assert_eq!((vocab.scores[7], vocab.add_bos, vocab.model.as_str()), (-7.0, Some(true), "gpt2"));
    }
}

#[test]
fn gguf_rotary_scaling() {
    let mut file = Gguf::new(&small_checkpoint(true), MatrixType::F32);
    file.set_text("llama.rope.scaling.type", "linear");
    file.set("llama.rope.scaling.factor", 6, 4f32.to_le_bytes().to_vec());
    assert_eq!(gguf::parse(&file.to_bytes()).unwrap().rope, RopeScaling::Linear { factor: 4.0 });

    let mut file = Gguf::new(&small_checkpoint(true), MatrixType::F32);
    let divisors = [1f32, 2.0, 4.0, 8.0];
    let bytes = divisors.iter().flat_map(|divisor| divisor.to_le_bytes()).collect();
    file.tensors.push(("rope_freqs.weight".to_owned(), vec![4], 0, bytes));
    let checkpoint = gguf::parse(&file.to_bytes()).unwrap();
    assert_eq!(checkpoint.rope, RopeScaling::Divisors(divisors.to_vec()));
    let frequencies = checkpoint.rope.frequencies(&checkpoint.config);
    assert!((frequencies[3] - 0.001 / 8.0).abs() < 1e-12);
}

#[test]
fn llama2c_of_every_version() {
    for tied_head in [true, false] {
        let expected = small_checkpoint(tied_head);
        for version in [Llama2cVersion::Legacy, Llama2cVersion::Float] {
            let found = llama2c::parse(&files::llama2c(&expected, version)).unwrap();
            assert_weights(&found, &expected, 32, |number, _| number);
            assert_eq!((found.bos_id, &found.eos_ids[..]), (Some(1), &[1, 2][..]));
        }
        let version = Llama2cVersion::Int8 { group_size: 16 };
        let found = llama2c::parse(&files::llama2c(&expected, version)).unwrap();
        let round = |number: f32, largest: f32| (number / (largest / 127.0)).round() * (largest / 127.0);
        assert_weights(&found, &expected, 16, round);
    }
}

#[test]
fn a_path_is_recognised_and_takes_another_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = small_checkpoint(false);
    let (bin, gguf) = (dir.path().join("model.bin"), dir.path().join("model"));
    fs::write(&bin, files::llama2c(&checkpoint, Llama2cVersion::Legacy)).unwrap();
    fs::write(&gguf, Gguf::new(&checkpoint, MatrixType::F32).to_bytes()).unwrap();
    let [json, other] = ["tokenizer.json", "notes.txt"].map(|name| dir.path().join(name));
    fs::write(&json, " {}").unwrap();
    fs::write(&other, "no tokenizer").unwrap();
    for path in [&bin, &gguf] {
        let options = LoadOptions { tokenizer: Some(json.clone()) };
        let loaded = load_model(path, &options).unwrap();
        assert_eq!(loaded.tensors, checkpoint.tensors);
        assert_eq!(loaded.tokenizer, TokenizerSource::HuggingFace(b" {}".to_vec()));
    }
    let error = load_model(&bin, &LoadOptions { tokenizer: Some(other.clone()) }).unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::WrongMagic { .. })), "{error}");
    let error = load_model(&other, &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("is no model"), "{error}");
}
