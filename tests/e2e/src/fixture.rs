//! A tiny model written byte by byte in Hugging Face's form, by no code of ours: random weights and a byte-level BPE tokenizer.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Shape of the tiny model.
pub const DIM: usize = 64;
/// Width of its feed-forward blocks.
pub const HIDDEN_DIM: usize = 96;
/// Its blocks.
pub const N_LAYERS: usize = 2;
/// Its positions.
pub const CONTEXT_LEN: usize = 64;
/// Its tokens: two special ones, the 256 bytes, and the merges.
pub const VOCAB_SIZE: usize = 2 + 256 + MERGES.len();

/// What the weights' shapes follow from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward blocks.
    pub hidden_dim: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Heads of the queries.
    pub n_heads: usize,
    /// Heads of the keys and values.
    pub n_kv_heads: usize,
    /// Positions.
    pub context_len: usize,
    /// Merges of the tokenizer: the first ones of a fixed list.
    pub n_merges: usize,
}

/// The shape of the model that most tests run.
pub const USUAL: Shape = Shape {
    dim: DIM,
    hidden_dim: HIDDEN_DIM,
    n_layers: N_LAYERS,
    n_heads: 4,
    n_kv_heads: 2,
    context_len: CONTEXT_LEN,
    n_merges: MERGES.len(),
};

/// A shape for boards with a few kilobytes of RAM.
pub const TINY: Shape =
    Shape { dim: 32, hidden_dim: 48, n_layers: 2, n_heads: 4, n_kv_heads: 1, context_len: 32, n_merges: 0 };

impl Shape {
    fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Two special tokens, the 256 bytes, and the merges.
    pub(crate) fn vocab_size(&self) -> usize {
        2 + 256 + self.n_merges
    }
}

/// `Ġ` is how byte-level BPE spells a space.
const MERGES: [(&str, &str); 8] =
    [("t", "h"), ("Ġ", "th"), ("Ġth", "e"), ("i", "n"), ("e", "r"), ("Ġ", "a"), ("o", "n"), ("Ġ", "s")];

/// A text in several scripts, longer than one context.
pub const TEXT: &str = "The siskin is a small bird that sings in the alder trees.\n\
    Der Erlenzeisig singt; le tarin des aulnes chante. マヒワが歌う。 🐦\n\
    In the morning the others are on the river, and then they are gone; nothing stirs.\n";

/// Writes a checkpoint folder whose weights follow from `seed`.
///
/// # Panics
/// If `folder` cannot be written.
pub fn write_checkpoint(folder: &Path, seed: u64) {
    write_shape(folder, seed, &USUAL);
}

/// Writes a checkpoint folder with this shape, whose weights follow from `seed`.
///
/// # Panics
/// If `folder` cannot be written.
pub fn write_shape(folder: &Path, seed: u64, shape: &Shape) {
    fs::create_dir_all(folder).expect("a writable folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a writable file");
    write("config.json", config(shape).to_string().as_bytes());
    write("tokenizer.json", tokenizer(shape).to_string().as_bytes());
    write("model.safetensors", &safetensors(seed, shapes(shape)));
}

fn config(shape: &Shape) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden_dim,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_dim(),
        "vocab_size": shape.vocab_size(),
        "max_position_embeddings": shape.context_len,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    })
}

/// The tokenizer of a tiny model.
pub(crate) fn tokenizer(shape: &Shape) -> Value {
    let specials = ["<s>", "</s>"];
    let bytes = (0..=255).map(|byte| char_of_byte(byte).to_string());
    let merges = &MERGES[..shape.n_merges];
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let tokens = specials.iter().map(|&special| special.to_owned()).chain(bytes).chain(merged);
    let vocab: Map<String, Value> = tokens.enumerate().map(|(id, token)| (token, Value::from(id))).collect();
    let added = specials.iter().enumerate().map(|(id, content)| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab,
            "merges": merges.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
        },
    })
}

/// GPT-2's printable stand-in for a byte.
fn char_of_byte(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if is_printable(byte) {
        return char::from(byte);
    }
    let n_before = (0..byte).filter(|&other| !is_printable(other)).count();
    char::from_u32(0x100 + n_before as u32).expect("a letter with a diacritic")
}

/// The bytes of model.safetensors: the header's length, the header, the numbers. Vectors are gains, near 1, but for biases.
pub(crate) fn safetensors(seed: u64, shapes: Vec<(String, Vec<usize>)>) -> Vec<u8> {
    let mut state = seed;
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape) in shapes {
        let start = data.len();
        let is_gain = shape.len() == 1 && !name.contains("bias");
        let scale = if shape.len() == 1 { 0.2 } else { 2.0 / (shape[1] as f32).sqrt() };
        for _ in 0..shape.iter().product::<usize>() {
            let value = uniform(&mut state) * scale + if is_gain { 1.0 } else { 0.0 };
            data.extend(value.to_le_bytes());
        }
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// Makes `folder` one that PEFT saved: a LoRA of rank 2 on the outputs of the attention of `n_layers` layers, `dim` wide, with random numbers.
pub fn write_lora(folder: &Path, seed: u64, n_layers: usize, dim: usize) {
    let pair = |layer: usize| {
        let name = |part| format!("base_model.model.model.layers.{layer}.self_attn.o_proj.{part}.weight");
        [(name("lora_A"), vec![2, dim]), (name("lora_B"), vec![dim, 2])]
    };
    let config = json!({
        "peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["o_proj"], "bias": "none", "task_type": "CAUSAL_LM",
    });
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).expect("a file");
    let weights = safetensors(seed, (0..n_layers).flat_map(pair).collect());
    std::fs::write(folder.join("adapter_model.safetensors"), weights).expect("a file");
}

fn shapes(shape: &Shape) -> Vec<(String, Vec<usize>)> {
    let (q_dim, kv_dim) = (shape.dim, shape.n_kv_heads * shape.head_dim());
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![shape.vocab_size(), shape.dim])];
    for layer in 0..shape.n_layers {
        let of_layer = [
            ("input_layernorm", vec![shape.dim]),
            ("self_attn.q_proj", vec![q_dim, shape.dim]),
            ("self_attn.k_proj", vec![kv_dim, shape.dim]),
            ("self_attn.v_proj", vec![kv_dim, shape.dim]),
            ("self_attn.o_proj", vec![shape.dim, q_dim]),
            ("post_attention_layernorm", vec![shape.dim]),
            ("mlp.gate_proj", vec![shape.hidden_dim, shape.dim]),
            ("mlp.up_proj", vec![shape.hidden_dim, shape.dim]),
            ("mlp.down_proj", vec![shape.dim, shape.hidden_dim]),
        ];
        shapes.extend(of_layer.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    shapes.push(("model.norm.weight".to_owned(), vec![shape.dim]));
    shapes
}

/// A number in -1..1 from a linear congruential generator (Knuth's MMIX constants).
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}
