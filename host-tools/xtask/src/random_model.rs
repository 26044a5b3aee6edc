//! A model with random weights, as a Hugging Face folder: measurements need a model's shape, not its knowledge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::board::Board;
use crate::repo;

/// What a model's weights have their shapes from.
#[derive(Debug)]
pub struct Shape {
    /// The name in `board.toml`.
    pub name: &'static str,
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    vocab_size: usize,
    /// Positions of the context.
    pub context_len: usize,
}

/// The shapes that boards are measured with.
const SHAPES: [Shape; 2] = [
    // The well-known story model of 260 thousand parameters.
    Shape {
        name: "stories260K",
        dim: 64,
        hidden_dim: 172,
        n_layers: 5,
        n_heads: 8,
        n_kv_heads: 4,
        vocab_size: 512,
        context_len: 256,
    },
    // For a few kilobytes of RAM.
    Shape {
        name: "tiny",
        dim: 32,
        hidden_dim: 48,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 1,
        vocab_size: 256,
        context_len: 32,
    },
];

impl Shape {
    /// The shape with this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        let names = SHAPES.map(|shape| shape.name).join(", ");
        SHAPES
            .iter()
            .find(|shape| shape.name == name)
            .with_context(|| format!("there is no model {name} to measure a board with; there are {names}"))
    }
}

/// Packs a random model of the board's shape for it; gives the file's path.
pub fn pack(siskin: &Path, board: &Board) -> Result<PathBuf> {
    let shape = Shape::named(&board.measured.model)?;
    let folder = repo::root().join(format!("target/random-model-{}", shape.name));
    write(&folder, shape).with_context(|| format!("failed to write {}", folder.display()))?;
    let packed = repo::root().join(format!("target/random-model-{}.siskin", board.name));
    let mut compile = Command::new(siskin);
    compile.args(["compile", "--quiet", "--board", &board.name, "--weights", "int8", "-o"]).arg(&packed).arg(&folder);
    repo::output(compile.current_dir(repo::root()))?;
    Ok(packed)
}

/// A tensor's name and its shape; a vector is a norm's gain or a bias.
pub type Tensor = (String, Vec<usize>);

fn write(folder: &Path, shape: &Shape) -> Result<()> {
    let Shape { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context_len, .. } = shape;
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": dim,
        "intermediate_size": hidden_dim, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads, "head_dim": dim / n_heads, "vocab_size": vocab_size,
        "max_position_embeddings": context_len, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "hidden_act": "silu", "torch_dtype": "float32",
    });
    write_checkpoint(folder, &config, &shapes(shape))
}

/// Writes a checkpoint of random weights: what `config.json` says, and the tensors that it has.
pub fn write_checkpoint(folder: &Path, config: &Value, tensors: &[Tensor]) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("config.json"), config.to_string())?;
    fs::write(folder.join("tokenizer.json"), tokenizer().to_string())?;
    fs::write(folder.join("model.safetensors"), safetensors(tensors))?;
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

/// The tensors' names and shapes.
fn shapes(shape: &Shape) -> Vec<Tensor> {
    let &Shape { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, .. } = shape;
    let kv_dim = n_kv_heads * (dim / n_heads);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab_size, dim]),
        ("model.norm.weight".to_owned(), vec![dim]),
    ];
    for layer in 0..n_layers {
        let parts = [
            ("input_layernorm", vec![dim]),
            ("post_attention_layernorm", vec![dim]),
            ("self_attn.q_proj", vec![dim, dim]),
            ("self_attn.k_proj", vec![kv_dim, dim]),
            ("self_attn.v_proj", vec![kv_dim, dim]),
            ("self_attn.o_proj", vec![dim, dim]),
            ("mlp.gate_proj", vec![hidden_dim, dim]),
            ("mlp.up_proj", vec![hidden_dim, dim]),
            ("mlp.down_proj", vec![dim, hidden_dim]),
        ];
        shapes.extend(parts.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    shapes
}

fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    let mut state = 1u64;
    for (name, shape) in tensors {
        let start = data.len();
        let (middle, spread) = match shape[..] {
            [_, columns] => (0.0, 1.7 / (columns as f32).sqrt()),
            _ if name.contains("bias") => (0.0, 0.05),
            _ => (1.0, 0.2),
        };
        for _ in 0..shape.iter().product() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            data.extend((middle + spread * uniform).to_le_bytes());
        }
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.extend(data);
    file
}
