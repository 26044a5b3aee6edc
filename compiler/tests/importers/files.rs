//! Writers of the formats we only read, as small as the tests need, and the model that goes into the files.

use siskin_compiler::artifact::{Checkpoint, Weight, names};
use siskin_runtime::ModelConfig;

/// A model small enough for ten thousand loads; GGUF blocks of 32 divide its rows.
pub fn small_checkpoint(tied_head: bool) -> Checkpoint {
    let config = ModelConfig {
        dim: 32,
        hidden_dim: 64,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        vocab_size: 40,
        context_len: 16,
        norm_eps: 1e-5,
        rope_theta: 10000.0,
        tied_head,
        parts: siskin_runtime::Parts::LLAMA,
    };
    let mut checkpoint = Checkpoint::random(config, 11).unwrap();
    checkpoint.bos_id = Some(1);
    checkpoint.eos_ids = vec![2];
    checkpoint
}

/// From half-split to interleaved rotation: the inverse of what importers do.
fn interleave(rows: &[f32], head_dim: usize, row_len: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let n_rows = rows.len() / row_len;
    let source = |row: usize| {
        let (head, element) = (row / head_dim * head_dim, row % head_dim);
        head + element / 2 + element % 2 * half
    };
    (0..n_rows).flat_map(|row| rows[source(row) * row_len..][..row_len].to_vec()).collect()
}

/// A weight's numbers as GGUF and llama2.c order them.
fn in_file_order(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let Weight { shape, data } = &checkpoint.tensors[name];
    if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
        return interleave(data, checkpoint.config.head_dim, shape[1]);
    }
    data.clone()
}

fn to_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// How [`gguf`] stores matrices; gains are always F32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MatrixType {
    F32,
    F16,
    Bf16,
    Q8_0,
}

impl MatrixType {
    fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 30,
            Self::Q8_0 => 8,
        }
    }

    fn encode(self, numbers: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => to_bytes(numbers),
            Self::F16 => numbers.iter().flat_map(|&number| half::f16::from_f32(number).to_le_bytes()).collect(),
            Self::Bf16 => numbers.iter().flat_map(|&number| half::bf16::from_f32(number).to_le_bytes()).collect(),
            Self::Q8_0 => numbers.chunks(32).flat_map(q8_0_block).collect(),
        }
    }

    /// `number` after a trip through the type, in a block whose largest magnitude is `largest`.
    pub fn rounded(self, number: f32, largest: f32) -> f32 {
        match self {
            Self::F32 => number,
            Self::F16 => half::f16::from_f32(number).to_f32(),
            Self::Bf16 => half::bf16::from_f32(number).to_f32(),
            Self::Q8_0 => {
                let scale = half::f16::from_f32(largest / 127.0).to_f32();
                (number / scale).round() * scale
            }
        }
    }
}

fn q8_0_block(block: &[f32]) -> Vec<u8> {
    let largest = block.iter().fold(0f32, |max, number| max.max(number.abs()));
    let scale = half::f16::from_f32(largest / 127.0);
    let quants = block.iter().map(|number| (number / scale.to_f32()).round() as i8 as u8);
    scale.to_le_bytes().into_iter().chain(quants).collect()
}

/// Metadata and tensors of a GGUF, to be changed before it is written.
pub struct Gguf {
    pub version: u32,
    /// Key, type number, encoded value.
    pub values: Vec<(String, u32, Vec<u8>)>,
    /// Name, extents as stored (fastest first), type number, encoded numbers; without any, those of the first tensor.
    pub tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn text_array(texts: &[String]) -> Vec<u8> {
    let head = [8u32.to_le_bytes().to_vec(), (texts.len() as u64).to_le_bytes().to_vec()].concat();
    texts.iter().fold(head, |bytes, entry| [bytes, text(entry)].concat())
}

impl Gguf {
    /// `checkpoint` with a vocabulary of made-up pieces.
    pub fn new(checkpoint: &Checkpoint, matrix_type: MatrixType) -> Self {
        let config = &checkpoint.config;
        let mut gguf = Self { version: 3, values: Vec::new(), tensors: Vec::new() };
        gguf.set("general.architecture", 8, text("llama"));
        let counts = [
            ("llama.block_count", config.n_layers),
            ("llama.context_length", config.context_len),
            ("llama.embedding_length", config.dim),
            ("llama.feed_forward_length", config.hidden_dim),
            ("llama.attention.head_count", config.n_heads),
            ("llama.attention.head_count_kv", config.n_kv_heads),
            ("llama.rope.dimension_count", config.head_dim),
            ("tokenizer.ggml.bos_token_id", 1),
            ("tokenizer.ggml.eos_token_id", 2),
        ];
        for (key, count) in counts {
            gguf.set(key, 4, (count as u32).to_le_bytes().to_vec());
        }
        gguf.set("llama.attention.layer_norm_rms_epsilon", 6, config.norm_eps.to_le_bytes().to_vec());
        gguf.set("llama.rope.freq_base", 6, config.rope_theta.to_le_bytes().to_vec());
        gguf.set("tokenizer.ggml.model", 8, text("gpt2"));
        gguf.set("tokenizer.ggml.add_bos_token", 7, vec![1]);
        let pieces: Vec<String> = (0..config.vocab_size).map(|id| format!("piece{id}")).collect();
        gguf.set("tokenizer.ggml.tokens", 9, text_array(&pieces));
        gguf.set("tokenizer.ggml.merges", 9, text_array(&["p i".to_owned(), "pi e".to_owned()]));
        let scores: Vec<f32> = (0..config.vocab_size).map(|id| -(id as f32)).collect();
        let head = [6u32.to_le_bytes().to_vec(), (scores.len() as u64).to_le_bytes().to_vec()].concat();
        gguf.set("tokenizer.ggml.scores", 9, [head, to_bytes(&scores)].concat());
        for (name, weight) in &checkpoint.tensors {
            let matrix_type = if weight.shape.len() == 1 { MatrixType::F32 } else { matrix_type };
            let dims = weight.shape.iter().rev().map(|&dim| dim as u64).collect();
            let bytes = matrix_type.encode(&in_file_order(checkpoint, name));
            gguf.tensors.push((gguf_name(name), dims, matrix_type.id(), bytes));
        }
        gguf
    }

    /// Sets a value, replacing what the key had.
    pub fn set(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        self.values.retain(|(known, _, _)| known != key);
        self.values.push((key.to_owned(), kind, value));
    }

    pub fn set_text(&mut self, key: &str, value: &str) {
        self.set(key, 8, text(value));
    }

    /// The whole file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.values.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.values {
            bytes.extend(text(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        let mut data = Vec::new();
        for (name, dims, kind, content) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((dims.len() as u32).to_le_bytes());
            bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            let offset_bytes = if content.is_empty() { 0 } else { data.len() as u64 };
            bytes.extend(offset_bytes.to_le_bytes());
            data.extend(content);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        [bytes, data].concat()
    }
}

fn gguf_name(name: &str) -> String {
    let whole = match name {
        names::EMBEDDING => Some("token_embd.weight"),
        names::FINAL_NORM => Some("output_norm.weight"),
        names::OUTPUT_HEAD => Some("output.weight"),
        _ => None,
    };
    let parts = [
        (names::ATTENTION_NORM, "attn_norm"),
        (names::Q_PROJ, "attn_q"),
        (names::K_PROJ, "attn_k"),
        (names::V_PROJ, "attn_v"),
        (names::O_PROJ, "attn_output"),
        (names::MLP_NORM, "ffn_norm"),
        (names::GATE_PROJ, "ffn_gate"),
        (names::UP_PROJ, "ffn_up"),
        (names::DOWN_PROJ, "ffn_down"),
    ];
    whole.map(str::to_owned).unwrap_or_else(|| {
        parts.iter().fold(name.replace("model.layers.", "blk."), |name, (ours, theirs)| name.replace(ours, theirs))
    })
}

/// Which llama2.c format [`llama2c`] writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Llama2cVersion {
    Legacy,
    Float,
    Int8 { group_size: usize },
}

/// A whole llama2.c file.
pub fn llama2c(checkpoint: &Checkpoint, version: Llama2cVersion) -> Vec<u8> {
    let config = &checkpoint.config;
    let is_legacy = version == Llama2cVersion::Legacy;
    let mut counts = [
        config.dim,
        config.hidden_dim,
        config.n_layers,
        config.n_heads,
        config.n_kv_heads,
        config.vocab_size,
        config.context_len,
    ]
    .map(|count| count as i32);
    if is_legacy && !config.tied_head {
        counts[5] = -counts[5];
    }
    let mut bytes = Vec::new();
    if !is_legacy {
        bytes.extend(0x616b_3432u32.to_le_bytes());
        bytes.extend(if version == Llama2cVersion::Float { 1i32 } else { 2 }.to_le_bytes());
    }
    bytes.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
    if !is_legacy {
        bytes.push(config.tied_head.into());
        if let Llama2cVersion::Int8 { group_size } = version {
            bytes.extend((group_size as i32).to_le_bytes());
        }
        bytes.resize(256, 0);
    }
    let every_layer = |part| (0..config.n_layers).map(move |layer_idx| names::layer(layer_idx, part));
    let gains = |part| every_layer(part).flat_map(|name| to_bytes(&in_file_order(checkpoint, &name)));
    let matrix = |name: &str| llama2c_matrix(&in_file_order(checkpoint, name), version);
    let matrices = |part| every_layer(part).flat_map(|name| matrix(&name));
    let first_parts = [names::Q_PROJ, names::K_PROJ, names::V_PROJ, names::O_PROJ];
    let last_parts = [names::GATE_PROJ, names::DOWN_PROJ, names::UP_PROJ];
    if is_legacy {
        bytes.extend(matrix(names::EMBEDDING));
        bytes.extend(gains(names::ATTENTION_NORM));
        bytes.extend(first_parts.into_iter().flat_map(matrices));
        bytes.extend(gains(names::MLP_NORM));
        bytes.extend(last_parts.into_iter().flat_map(matrices));
        bytes.extend(to_bytes(checkpoint.final_norm()));
        bytes.extend(vec![0; 4 * config.context_len * config.head_dim]);
    } else {
        bytes.extend(gains(names::ATTENTION_NORM));
        bytes.extend(gains(names::MLP_NORM));
        bytes.extend(to_bytes(checkpoint.final_norm()));
        bytes.extend(matrix(names::EMBEDDING));
        bytes.extend(first_parts.into_iter().chain(last_parts).flat_map(matrices));
    }
    if !config.tied_head {
        bytes.extend(matrix(names::OUTPUT_HEAD));
    }
    bytes
}

fn llama2c_matrix(numbers: &[f32], version: Llama2cVersion) -> Vec<u8> {
    let Llama2cVersion::Int8 { group_size } = version else { return to_bytes(numbers) };
    let largest = |group: &[f32]| group.iter().fold(0f32, |max, number| max.max(number.abs()));
    let scales: Vec<f32> = numbers.chunks(group_size).map(|group| largest(group) / 127.0).collect();
    let quants =
        numbers.iter().enumerate().map(|(idx, number)| (number / scales[idx / group_size]).round() as i8 as u8);
    quants.chain(to_bytes(&scales)).collect()
}
