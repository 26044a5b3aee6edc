//! Each way a file can be wrong has its own error.

use siskin_compiler::artifact::{Problem, gguf, llama2c};

use super::files::{self, Gguf, Llama2cVersion, MatrixType, small_checkpoint};

/// The error that a small GGUF gives after `spoil`.
fn gguf_error(spoil: impl FnOnce(&mut Gguf)) -> Problem {
    let mut file = Gguf::new(&small_checkpoint(true), MatrixType::F32);
    spoil(&mut file);
    gguf::parse(&file.to_bytes()).expect_err("the file was spoilt")
}

#[test]
fn gguf_errors_are_told_apart() {
    let whole = Gguf::new(&small_checkpoint(true), MatrixType::F32).to_bytes();
    for len in [0, 3, 7, 20, 200, whole.len() - 1000] {
        let problem = gguf::parse(&whole[..len]).unwrap_err();
        assert!(matches!(problem, Problem::Truncated { .. } | Problem::TooLarge { .. }), "{len}: {problem}");
    }
    assert!(matches!(gguf::parse(b"GGML and more"), Err(Problem::WrongMagic { .. })));
    for version in [1u32, 4, 0x0300_0000] {
        let problem = gguf_error(|file| file.version = version);
        assert!(
            matches!(problem, Problem::UnsupportedVersion { found, .. } if found == i64::from(version)),
            "{problem}"
        );
    }
    let problem = gguf_error(|file| file.set_text("general.architecture", "qwen2"));
    assert!(matches!(&problem, Problem::Unsupported { feature } if feature.contains("qwen2")), "{problem}");
    let problem = gguf_error(|file| file.set("llama.expert_count", 4, 8u32.to_le_bytes().to_vec()));
    assert!(matches!(&problem, Problem::Unsupported { feature } if feature.contains("expert")), "{problem}");
    let problem = gguf_error(|file| file.set_text("llama.rope.scaling.type", "yarn"));
    assert!(matches!(&problem, Problem::Unsupported { feature } if feature.contains("yarn")), "{problem}");
    let problem = gguf_error(|file| file.values.retain(|(key, _, _)| key != "llama.block_count"));
    assert!(matches!(&problem, Problem::MissingField { field } if field == "llama.block_count"), "{problem}");
    let problem = gguf_error(|file| file.set_text("llama.block_count", "two"));
    assert!(matches!(&problem, Problem::BadField { field, .. } if field == "llama.block_count"), "{problem}");
    let problem = gguf_error(|file| file.set("llama.feed_forward_length", 4, 96u32.to_le_bytes().to_vec()));
    assert!(matches!(problem, Problem::WrongShape { .. }), "{problem}");
    let problem = gguf_error(|file| file.set("llama.attention.head_count_kv", 4, 3u32.to_le_bytes().to_vec()));
    assert!(matches!(problem, Problem::Config(_)), "{problem}");
    let problem = gguf_error(|file| file.set("tokenizer.ggml.bos_token_id", 4, 40u32.to_le_bytes().to_vec()));
    assert!(matches!(problem, Problem::BadField { .. }), "{problem}");
    let problem = gguf_error(|file| file.tensors.retain(|(name, ..)| name != "blk.1.ffn_up.weight"));
    assert!(matches!(&problem, Problem::MissingTensor { name } if name.contains("layers.1.mlp.up")), "{problem}");
    let problem = gguf_error(|file| file.tensors[1].0 = "blk.0.attn_q.bias".to_owned());
    assert!(matches!(&problem, Problem::UnexpectedTensor { name } if name == "blk.0.attn_q.bias"), "{problem}");
    let problem = gguf_error(|file| file.tensors[0].2 = 10);
    assert!(matches!(&problem, Problem::UnsupportedDtype { found, .. } if found == "Q2_K"), "{problem}");
}

#[test]
fn gguf_tensors_may_not_share_bytes() {
    let file_bytes = Gguf::new(&small_checkpoint(true), MatrixType::F32).to_bytes().len() as u64;
    let problem = gguf_error(|file| {
        let aliases = (0..8).map(|idx| (format!("alias{idx}"), vec![file_bytes / 4 / 4], 0, Vec::new()));
        file.tensors.extend(aliases);
    });
    assert!(matches!(&problem, Problem::Truncated { what, .. } if what == "the tensors' data"), "{problem}");
}

#[test]
fn llama2c_errors_are_told_apart() {
    let whole = files::llama2c(&small_checkpoint(true), Llama2cVersion::Float);
    for len in [0, 3, 100, whole.len() - 1] {
        let problem = llama2c::parse(&whole[..len]).unwrap_err();
        assert!(matches!(problem, Problem::Truncated { .. }), "{len}: {problem}");
    }
    let longer = [&whole[..], &[0; 4]].concat();
    assert!(matches!(llama2c::parse(&longer), Err(Problem::TrailingBytes { extra_bytes: 4 })));
    let with = |pos: usize, value: i32| {
        let mut bytes = whole.clone();
        bytes[pos..pos + 4].copy_from_slice(&value.to_le_bytes());
        llama2c::parse(&bytes).expect_err("the header was spoilt")
    };
    assert!(matches!(with(4, 3), Problem::UnsupportedVersion { found: 3, .. }));
    assert!(matches!(with(4, -1), Problem::UnsupportedVersion { found: -1, .. }));
    assert!(matches!(with(4, 2), Problem::BadField { .. }), "a group size of zero");
    assert!(matches!(with(8, -32), Problem::Config(_)), "a negative width");
    assert!(matches!(with(20, 5), Problem::BadField { .. }), "heads that do not divide the width");
    assert!(matches!(with(24, 3), Problem::Config(_)), "key heads that do not divide the heads");
    assert!(matches!(with(12, 128), Problem::Truncated { .. }), "a wider feed-forward block than the file holds");
    assert!(matches!(with(16, i32::MAX), Problem::Config(_)), "more layers than there can be");
}
