//! A model with random weights, as a Hugging Face folder: measurements need a model's shape, not its knowledge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::repo;

/// The shape of the well-known 260-thousand-parameter story model.
const DIM: usize = 64;
const HIDDEN_DIM: usize = 172;
const N_LAYERS: usize = 5;
const N_HEADS: usize = 8;
const N_KV_HEADS: usize = 4;
const VOCAB_SIZE: usize = 512;
const CONTEXT_LEN: usize = 256;

/// Packs a random model of that shape for `board`; gives the file's path.
pub fn pack(siskin: &Path, board: &str) -> Result<PathBuf> {
    let folder = repo::root().join("target/random-model");
    write(&folder).with_context(|| format!("failed to write {}", folder.display()))?;
    let packed = repo::root().join(format!("target/random-model-{board}.siskin"));
    let mut compile = Command::new(siskin);
    compile.args(["compile", "--quiet", "--board", board, "--weights", "int8", "-o"]).arg(&packed).arg(&folder);
    repo::output(compile.current_dir(repo::root()))?;
    Ok(packed)
}

fn write(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": DIM,
        "intermediate_size": HIDDEN_DIM, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV_HEADS, "head_dim": DIM / N_HEADS, "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": CONTEXT_LEN, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "hidden_act": "silu", "torch_dtype": "float32",
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    fs::write(folder.join("tokenizer.json"), tokenizer().to_string())?;
    fs::write(folder.join("model.safetensors"), safetensors())?;
    Ok(())
}

/// Byte-level BPE without a merge: the 256 bytes, in the characters that stand for them.
fn tokenizer() -> Value {
    let is_printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..256).filter(|&byte| !is_printable(byte)).zip(256..);
    let codes = (0..256).filter(|&byte| is_printable(byte)).map(|byte| (byte, byte)).chain(others);
    let vocab: Map<String, Value> =
        codes.filter_map(|(byte, code)| Some((char::from_u32(code)?.to_string(), json!(byte)))).collect();
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": [],
        },
    })
}

/// The tensors' names and shapes `(rows, columns)`; a norm has one row.
fn shapes() -> Vec<(String, [usize; 2])> {
    let head_dim = DIM / N_HEADS;
    let mut shapes =
        vec![("model.embed_tokens.weight".to_owned(), [VOCAB_SIZE, DIM]), ("model.norm.weight".to_owned(), [1, DIM])];
    for layer in 0..N_LAYERS {
        let parts = [
            ("input_layernorm", [1, DIM]),
            ("post_attention_layernorm", [1, DIM]),
            ("self_attn.q_proj", [N_HEADS * head_dim, DIM]),
            ("self_attn.k_proj", [N_KV_HEADS * head_dim, DIM]),
            ("self_attn.v_proj", [N_KV_HEADS * head_dim, DIM]),
            ("self_attn.o_proj", [DIM, N_HEADS * head_dim]),
            ("mlp.gate_proj", [HIDDEN_DIM, DIM]),
            ("mlp.up_proj", [HIDDEN_DIM, DIM]),
            ("mlp.down_proj", [DIM, HIDDEN_DIM]),
        ];
        shapes.extend(parts.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    shapes
}

fn safetensors() -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    let mut state = 1u64;
    for (name, [rows, columns]) in shapes() {
        let start = data.len();
        let spread = if rows == 1 { 1.0 } else { 1.7 / (columns as f32).sqrt() };
        for _ in 0..rows * columns {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            let weight = if rows == 1 { 1.0 + 0.2 * uniform } else { spread * uniform };
            data.extend(weight.to_le_bytes());
        }
        let shape = if rows == 1 { vec![columns] } else { vec![rows, columns] };
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.extend(data);
    file
}
