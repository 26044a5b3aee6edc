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

const N_HEADS: usize = 4;
const N_KV_HEADS: usize = 2;
const HEAD_DIM: usize = DIM / N_HEADS;

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
    fs::create_dir_all(folder).expect("a writable folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a writable file");
    write("config.json", config().to_string().as_bytes());
    write("tokenizer.json", tokenizer().to_string().as_bytes());
    write("model.safetensors", &safetensors(seed));
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": DIM,
        "intermediate_size": HIDDEN_DIM,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": CONTEXT_LEN,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    })
}

fn tokenizer() -> Value {
    let specials = ["<s>", "</s>"];
    let bytes = (0..=255).map(|byte| char_of_byte(byte).to_string());
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
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
            "merges": MERGES.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
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

/// The bytes of model.safetensors: the header's length, the header, the numbers.
fn safetensors(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape) in shapes() {
        let start = data.len();
        let is_gain = shape.len() == 1;
        let scale = if is_gain { 0.2 } else { 2.0 / (shape[1] as f32).sqrt() };
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

fn shapes() -> Vec<(String, Vec<usize>)> {
    let (q_dim, kv_dim) = (N_HEADS * HEAD_DIM, N_KV_HEADS * HEAD_DIM);
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB_SIZE, DIM])];
    for layer in 0..N_LAYERS {
        let of_layer = [
            ("input_layernorm", vec![DIM]),
            ("self_attn.q_proj", vec![q_dim, DIM]),
            ("self_attn.k_proj", vec![kv_dim, DIM]),
            ("self_attn.v_proj", vec![kv_dim, DIM]),
            ("self_attn.o_proj", vec![DIM, q_dim]),
            ("post_attention_layernorm", vec![DIM]),
            ("mlp.gate_proj", vec![HIDDEN_DIM, DIM]),
            ("mlp.up_proj", vec![HIDDEN_DIM, DIM]),
            ("mlp.down_proj", vec![DIM, HIDDEN_DIM]),
        ];
        shapes.extend(of_layer.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    shapes.push(("model.norm.weight".to_owned(), vec![DIM]));
    shapes
}

/// A number in -1..1 from a linear congruential generator (Knuth's MMIX constants).
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}
