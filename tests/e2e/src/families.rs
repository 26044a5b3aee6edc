//! Tiny models of other families than Llama, written byte by byte in Hugging Face's form by no code of ours: random weights, and the
//! [`fixture`](crate::fixture)'s tokenizer.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::{CONTEXT_LEN, DIM, HIDDEN_DIM, N_LAYERS, USUAL, VOCAB_SIZE, safetensors, tokenizer};

const N_HEADS: usize = 4;
const N_BUCKETS: usize = 8;
/// A classifier's labels.
pub const LABELS: [&str; 3] = ["calm", "glad", "cross"];

type Shapes = Vec<(String, Vec<usize>)>;

/// A kind of tiny model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// BERT with a classifier.
    Classifier,
    /// BERT with a label for each token.
    Tagger,
    /// BERT alone, whose states make a vector.
    Vector,
    /// T5 with a gate.
    T5,
    /// GPT-2.
    Gpt2,
    /// A GRU language model.
    Gru,
}

/// Writes a checkpoint folder whose weights follow from `seed`.
///
/// # Panics
/// If `folder` cannot be written.
pub fn write_family(folder: &Path, family: Family, seed: u64) {
    fs::create_dir_all(folder).expect("a writable folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a writable file");
    let (mut config, shapes) = match family {
        Family::Classifier => bert("BertForSequenceClassification"),
        Family::Tagger => bert("BertForTokenClassification"),
        Family::Vector => bert("BertModel"),
        Family::T5 => t5(),
        Family::Gpt2 => gpt2(),
        Family::Gru => gru(),
    };
    config["vocab_size"] = json!(VOCAB_SIZE);
    (config["bos_token_id"], config["eos_token_id"]) = (json!(0), json!(1));
    write("config.json", config.to_string().as_bytes());
    write("tokenizer.json", tokenizer(&USUAL).to_string().as_bytes());
    write("model.safetensors", &safetensors(seed, shapes));
}

/// A matrix and its bias.
fn linear(name: &str, outputs: usize, inputs: usize) -> Shapes {
    vec![(format!("{name}.weight"), vec![outputs, inputs]), (format!("{name}.bias"), vec![outputs])]
}

/// A LayerNorm's gain and bias.
fn norm(name: &str) -> Shapes {
    vec![(format!("{name}.weight"), vec![DIM]), (format!("{name}.bias"), vec![DIM])]
}

fn matrix(name: &str, outputs: usize, inputs: usize) -> (String, Vec<usize>) {
    (format!("{name}.weight"), vec![outputs, inputs])
}

fn bert(class: &str) -> (Value, Shapes) {
    let mut config = json!({
        "architectures": [class], "model_type": "bert", "hidden_act": "gelu", "hidden_size": DIM,
        "intermediate_size": HIDDEN_DIM, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS,
        "max_position_embeddings": CONTEXT_LEN, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "tie_word_embeddings": true,
    });
    let embeddings =
        [("word_embeddings", VOCAB_SIZE), ("position_embeddings", CONTEXT_LEN), ("token_type_embeddings", 2)];
    let mut shapes: Shapes =
        embeddings.iter().map(|(name, rows)| matrix(&format!("bert.embeddings.{name}"), *rows, DIM)).collect();
    shapes.extend(norm("bert.embeddings.LayerNorm"));
    for layer in 0..N_LAYERS {
        let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            shapes.extend(linear(&name(&format!("attention.{part}")), DIM, DIM));
        }
        shapes.extend(norm(&name("attention.output.LayerNorm")));
        shapes.extend(linear(&name("intermediate.dense"), HIDDEN_DIM, DIM));
        shapes.extend(linear(&name("output.dense"), DIM, HIDDEN_DIM));
        shapes.extend(norm(&name("output.LayerNorm")));
    }
    if class != "BertModel" {
        let by_id = |(i, label): (usize, &&str)| (i.to_string(), json!(label));
        config["id2label"] = Value::Object(LABELS.iter().enumerate().map(by_id).collect());
        shapes.extend(linear("classifier", LABELS.len(), DIM));
    }
    if class == "BertForSequenceClassification" {
        shapes.extend(linear("bert.pooler.dense", DIM, DIM));
    }
    (config, shapes)
}

fn t5() -> (Value, Shapes) {
    let config = json!({
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": DIM, "d_ff": HIDDEN_DIM,
        "d_kv": DIM / N_HEADS, "num_heads": N_HEADS, "num_layers": N_LAYERS, "num_decoder_layers": N_LAYERS,
        "n_positions": CONTEXT_LEN, "relative_attention_num_buckets": N_BUCKETS, "relative_attention_max_distance": 24,
        "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6, "is_encoder_decoder": true,
        "tie_word_embeddings": true, "decoder_start_token_id": 0,
    });
    let mut shapes = vec![matrix("shared", VOCAB_SIZE, DIM)];
    let gain = |name: String| (format!("{name}.weight"), vec![DIM]);
    for stack in ["encoder", "decoder"] {
        let blocks = if stack == "encoder" { &["SelfAttention"][..] } else { &["SelfAttention", "EncDecAttention"] };
        for layer in 0..N_LAYERS {
            let name = |sublayer: usize, part: &str| format!("{stack}.block.{layer}.layer.{sublayer}.{part}");
            for (sublayer, block) in blocks.iter().enumerate() {
                shapes.extend(
                    ["q", "k", "v", "o"].map(|part| matrix(&name(sublayer, &format!("{block}.{part}")), DIM, DIM)),
                );
                shapes.push(gain(name(sublayer, "layer_norm")));
            }
            let last = blocks.len();
            shapes.extend(
                ["wi_0", "wi_1"].map(|part| matrix(&name(last, &format!("DenseReluDense.{part}")), HIDDEN_DIM, DIM)),
            );
            shapes.push(matrix(&name(last, "DenseReluDense.wo"), DIM, HIDDEN_DIM));
            shapes.push(gain(name(last, "layer_norm")));
        }
        let table = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias");
        shapes.push(matrix(&table, N_BUCKETS, N_HEADS));
        shapes.push(gain(format!("{stack}.final_layer_norm")));
    }
    (config, shapes)
}

fn gpt2() -> (Value, Shapes) {
    let config = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": DIM, "n_inner": HIDDEN_DIM,
        "n_layer": N_LAYERS, "n_head": N_HEADS, "n_positions": CONTEXT_LEN, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
    });
    let mut shapes = vec![matrix("transformer.wte", VOCAB_SIZE, DIM), matrix("transformer.wpe", CONTEXT_LEN, DIM)];
    // Projections are stored inputs first.
    let projection = |name: &str, inputs: usize, outputs: usize| {
        [(format!("{name}.weight"), vec![inputs, outputs]), (format!("{name}.bias"), vec![outputs])]
    };
    for layer in 0..N_LAYERS {
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        shapes.extend(norm(&name("ln_1")));
        shapes.extend(projection(&name("attn.c_attn"), DIM, 3 * DIM));
        shapes.extend(projection(&name("attn.c_proj"), DIM, DIM));
        shapes.extend(norm(&name("ln_2")));
        shapes.extend(projection(&name("mlp.c_fc"), DIM, HIDDEN_DIM));
        shapes.extend(projection(&name("mlp.c_proj"), HIDDEN_DIM, DIM));
    }
    shapes.extend(norm("transformer.ln_f"));
    (config, shapes)
}

fn gru() -> (Value, Shapes) {
    let config = json!({
        "architectures": ["SiskinGru"], "model_type": "siskin-gru",
        "architecture": {
            "family": "gru", "dim": DIM, "embedding_dim": DIM, "hidden_dim": 0, "n_encoder_layers": 0,
            "n_decoder_layers": N_LAYERS, "shared_layers": false, "n_heads": 0, "n_kv_heads": 0, "head_dim": 0,
            "vocab_size": VOCAB_SIZE, "context_len": CONTEXT_LEN, "norm": "layer", "norm_eps": 1e-5, "norm_place": "pre",
            "positions": "learned", "feed_forward": "gelu", "biases": true, "tied_head": true, "n_token_types": 0,
            "head": "language",
        },
    });
    let mut shapes = vec![matrix("embedding", VOCAB_SIZE, DIM)];
    for layer in 0..N_LAYERS {
        for kind in ["ih", "hh"] {
            shapes.push((format!("decoder.weight_{kind}_l{layer}"), vec![3 * DIM, DIM]));
            shapes.push((format!("decoder.bias_{kind}_l{layer}"), vec![3 * DIM]));
        }
    }
    (config, shapes)
}
