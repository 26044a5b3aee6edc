//! Ten thousand damaged files for each importer: an error or a model, never a panic.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siskin_compiler::artifact::{ArtifactError, Checkpoint, Problem, gguf, hf, llama2c};

use super::files::{self, Gguf, Llama2cVersion, MatrixType, small_checkpoint};

const N_MUTATIONS: usize = 10_000;

/// A number below `end`, which is above zero.
fn below(rng: &mut ChaCha8Rng, end: usize) -> usize {
    rng.next_u32() as usize % end
}

/// Damages a copy of `bytes`: mostly within its first `header_len` bytes, where the structure is.
fn mutate(rng: &mut ChaCha8Rng, bytes: &[u8], header_len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(rng, 3) {
        let end = if below(rng, 8) == 0 { bytes.len() } else { header_len.min(bytes.len()) };
        if end < 9 {
            return bytes;
        }
        let pos = below(rng, end - 8);
        match below(rng, 7) {
            0 => bytes[pos] ^= 1 << below(rng, 8),
            1 => bytes[pos] = rng.next_u32() as u8,
            2 => bytes.truncate(pos),
            // A length field made huge, small, or off by one.
            3 => {
                let extreme = [u64::MAX, u64::MAX / 2, 1 << 63, 1 << 40, u32::MAX.into(), 1 << 31, 0, 1];
                let field = extreme[below(rng, extreme.len())].to_le_bytes();
                let width = [4, 8][below(rng, 2)];
                bytes[pos..pos + width].copy_from_slice(&field[..width]);
            }
            4 => bytes[pos] = bytes[pos].wrapping_add(if below(rng, 2) == 0 { 1 } else { u8::MAX }),
            // A piece moved elsewhere, in place of what is there or between.
            5 => {
                let from = below(rng, end - 8);
                let piece = bytes[from..(from + 1 + below(rng, 64)).min(end)].to_vec();
                let replaced = if below(rng, 2) == 0 { 0 } else { piece.len().min(bytes.len() - pos) };
                bytes.splice(pos..pos + replaced, piece);
            }
            _ => drop(bytes.drain(pos..(pos + 1 + below(rng, 16)).min(bytes.len()))),
        }
    }
    bytes
}

/// Feeds mutations of `seeds` to `parse`. Both outcomes must occur, or the mutations are too mild or too wild.
fn survive(name: &str, seeds: &[(Vec<u8>, usize)], mut parse: impl FnMut(usize, &[u8]) -> Option<Checkpoint>) {
    let mut rng = ChaCha8Rng::seed_from_u64(0x0051_5e17);
    let mut n_accepted = 0;
    for mutation_idx in 0..N_MUTATIONS {
        let seed_idx = mutation_idx % seeds.len();
        let (bytes, header_len) = &seeds[seed_idx];
        let mutated = mutate(&mut rng, bytes, *header_len);
        if let Some(checkpoint) = parse(seed_idx, &mutated) {
            assert!(checkpoint.validate().is_ok(), "{name}: an accepted model must be valid");
            n_accepted += 1;
        }
    }
    println!("{name}: {n_accepted} of {N_MUTATIONS} mutated files were still models");
    assert!(n_accepted > 0 && n_accepted < N_MUTATIONS / 2, "{name}: {n_accepted} accepted");
}

#[test]
fn gguf_survives() {
    let files =
        [Gguf::new(&small_checkpoint(true), MatrixType::F32), Gguf::new(&small_checkpoint(false), MatrixType::Q8_0)];
    let seeds = files.map(|file| {
        let bytes = file.to_bytes();
        let data_bytes: usize = file.tensors.iter().map(|(.., content)| content.len()).sum();
        let header_len = bytes.len() - data_bytes;
        (bytes, header_len)
    });
    survive("gguf", &seeds, |_, bytes| gguf::parse(bytes).ok());
}

#[test]
fn llama2c_survives() {
    let versions = [Llama2cVersion::Legacy, Llama2cVersion::Float, Llama2cVersion::Int8 { group_size: 16 }];
    let seeds = versions.map(|version| (files::llama2c(&small_checkpoint(false), version), 60));
    survive("llama2c", &seeds, |_, bytes| llama2c::parse(bytes).ok());
}

#[test]
fn hf_folders_survive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let mut checkpoint = small_checkpoint(true);
    checkpoint.chat_template = Some("{{ messages }}".to_owned());
    checkpoint.generation.temperature = Some(0.5);
    hf::save_folder(&path, &checkpoint).unwrap();
    let names = ["config.json", "model.safetensors", "tokenizer_config.json", "generation_config.json"];
    let whole = names.map(|name| std::fs::read(path.join(name)).unwrap());
    let header_len = 8 + u64::from_le_bytes(whole[1][..8].try_into().unwrap()) as usize;
    let mut seeds = whole.clone().map(|bytes| (bytes, usize::MAX)).to_vec();
    seeds[1].1 = header_len;
    survive("hugging face", &seeds, |mutated_idx, bytes| {
        let mut files = whole.each_ref().map(Vec::as_slice);
        files[mutated_idx] = bytes;
        let [config, weights, tokenizer_config, generation_config] = files;
        let loaded = hf::from_files(&hf::HfFiles {
            config,
            weights: vec![("model.safetensors".to_owned(), weights)],
            tokenizer_config: Some(tokenizer_config),
            generation_config: Some(generation_config),
            ..Default::default()
        });
        loaded.inspect_err(|error| assert!(error.problem().is_some(), "{error}")).ok()
    });
}

/// Contiguous tensors whose sizes add up beyond 64 bits: a sum that the reader must not overflow on.
#[test]
fn a_safetensors_header_of_impossible_sizes_is_refused() {
    let tensor_bytes = 1u64 << 61;
    let entries: Vec<String> = (0..8u64)
        .map(|idx| {
            let (start, end) = (idx * tensor_bytes, (idx + 1).saturating_mul(tensor_bytes));
            let n_elements = end - start;
            format!(r#""t{idx}":{{"dtype":"U8","shape":[{n_elements}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let checkpoint = small_checkpoint(true);
    let dir = tempfile::tempdir().unwrap();
    hf::save_folder(&dir.path().join("model"), &checkpoint).unwrap();
    let config = std::fs::read(dir.path().join("model/config.json")).unwrap();
    let weights = vec![("model.safetensors".to_owned(), &bytes[..])];
    let loaded = hf::from_files(&hf::HfFiles { config: &config, weights, ..Default::default() });
    let error: ArtifactError = loaded.unwrap_err();
    assert!(matches!(error.problem(), Some(Problem::Truncated { .. } | Problem::Json(_))), "{error}");
}
