//! Tiny models of other families than Llama, written byte by byte in Hugging Face's form by no code of ours: random weights, and the
//! [`fixture`](crate::fixture)'s tokenizer.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::{Shape, USUAL, safetensors, tokenizer, write_shape};

const N_BUCKETS: usize = 8;
/// Stands for a token to be filled in.
const MASK: &str = "[MASK]";
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
    /// BERT that fills in what `[MASK]` stands for.
    Masked,
    /// BERT alone, whose states make a vector.
    Vector,
    /// Llama.
    Llama,
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
    write_family_of(folder, family, seed, &USUAL);
}

/// Writes a checkpoint folder with this shape, whose weights follow from `seed`. There are as many heads of keys as of queries.
///
/// # Panics
/// If `folder` cannot be written.
pub fn write_family_of(folder: &Path, family: Family, seed: u64, shape: &Shape) {
    fs::create_dir_all(folder).expect("a writable folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a writable file");
    let mut vocab_size = shape.vocab_size();
    let mut tokens = tokenizer(shape);
    if family == Family::Masked {
        tokens["model"]["vocab"][MASK] = json!(vocab_size);
        let mut mask = tokens["added_tokens"][0].clone();
        (mask["id"], mask["content"]) = (json!(vocab_size), json!(MASK));
        tokens["added_tokens"].as_array_mut().expect("a list").push(mask);
        vocab_size += 1;
    }
    let tables =
        [("word_embeddings", vocab_size), ("position_embeddings", shape.context_len), ("token_type_embeddings", 2)];
    let (mut config, shapes) = match family {
        Family::Classifier => bert("BertForSequenceClassification", shape, &tables),
        Family::Tagger => bert("BertForTokenClassification", shape, &tables),
        Family::Masked => bert("BertForMaskedLM", shape, &tables),
        Family::Vector => bert("BertModel", shape, &tables),
        Family::T5 => t5(shape),
        Family::Gpt2 => gpt2(shape),
        Family::Gru => gru(shape),
        Family::Llama => return write_shape(folder, seed, shape),
    };
    config["vocab_size"] = json!(vocab_size);
    (config["bos_token_id"], config["eos_token_id"]) = (json!(0), json!(1));
    write("config.json", config.to_string().as_bytes());
    write("tokenizer.json", tokens.to_string().as_bytes());
    write("model.safetensors", &safetensors(seed, shapes));
}

/// Writes an adapter folder as PEFT does: low-rank pairs beside some matrices of the Llama of this shape, random from `seed`.
///
/// # Panics
/// If `folder` cannot be written.
pub fn write_lora(folder: &Path, seed: u64, shape: &Shape) {
    const RANK: usize = 3;
    let &Shape { dim, hidden_dim, n_layers, n_heads, n_kv_heads, .. } = shape;
    let kv_dim = dim / n_heads * n_kv_heads;
    let targets =
        [("self_attn.q_proj", dim, dim), ("self_attn.v_proj", kv_dim, dim), ("mlp.down_proj", dim, hidden_dim)];
    let mut shapes = Shapes::new();
    for layer in 0..n_layers {
        for (target, outputs, inputs) in targets {
            let name = |part: &str| format!("base_model.model.model.layers.{layer}.{target}.{part}");
            shapes.extend([matrix(&name("lora_A"), RANK, inputs), matrix(&name("lora_B"), outputs, RANK)]);
        }
    }
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "bias": "none",
        "target_modules": ["q_proj", "v_proj", "down_proj"],
    });
    fs::create_dir_all(folder).expect("a writable folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a writable file");
    write("adapter_config.json", config.to_string().as_bytes());
    write("adapter_model.safetensors", &safetensors(seed, shapes));
}

/// A matrix and its bias.
fn linear(name: &str, outputs: usize, inputs: usize) -> Shapes {
    vec![(format!("{name}.weight"), vec![outputs, inputs]), (format!("{name}.bias"), vec![outputs])]
}

/// A LayerNorm's gain and bias.
fn norm(name: &str, dim: usize) -> Shapes {
    vec![(format!("{name}.weight"), vec![dim]), (format!("{name}.bias"), vec![dim])]
}

fn matrix(name: &str, outputs: usize, inputs: usize) -> (String, Vec<usize>) {
    (format!("{name}.weight"), vec![outputs, inputs])
}

/// `tables` are the embeddings: a name and the number of rows.
fn bert(class: &str, shape: &Shape, tables: &[(&str, usize)]) -> (Value, Shapes) {
    let &Shape { dim, hidden_dim, n_layers, n_heads, context_len, .. } = shape;
    let mut config = json!({
        "architectures": [class], "model_type": "bert", "hidden_act": "gelu", "hidden_size": dim,
        "intermediate_size": hidden_dim, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
        "max_position_embeddings": context_len, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "tie_word_embeddings": true,
    });
    let mut shapes: Shapes =
        tables.iter().map(|(name, rows)| matrix(&format!("bert.embeddings.{name}"), *rows, dim)).collect();
    shapes.extend(norm("bert.embeddings.LayerNorm", dim));
    for layer in 0..n_layers {
        let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            shapes.extend(linear(&name(&format!("attention.{part}")), dim, dim));
        }
        shapes.extend(norm(&name("attention.output.LayerNorm"), dim));
        shapes.extend(linear(&name("intermediate.dense"), hidden_dim, dim));
        shapes.extend(linear(&name("output.dense"), dim, hidden_dim));
        shapes.extend(norm(&name("output.LayerNorm"), dim));
    }
    if class == "BertForMaskedLM" {
        shapes.extend(linear("cls.predictions.transform.dense", dim, dim));
        shapes.extend(norm("cls.predictions.transform.LayerNorm", dim));
        shapes.push(("cls.predictions.bias".to_owned(), vec![tables[0].1]));
    }
    if matches!(class, "BertForSequenceClassification" | "BertForTokenClassification") {
        let by_id = |(i, label): (usize, &&str)| (i.to_string(), json!(label));
        config["id2label"] = Value::Object(LABELS.iter().enumerate().map(by_id).collect());
        shapes.extend(linear("classifier", LABELS.len(), dim));
    }
    if class == "BertForSequenceClassification" {
        shapes.extend(linear("bert.pooler.dense", dim, dim));
    }
    (config, shapes)
}

fn t5(shape: &Shape) -> (Value, Shapes) {
    let &Shape { dim, hidden_dim, n_layers, n_heads, context_len, .. } = shape;
    let vocab_size = shape.vocab_size();
    let config = json!({
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": dim, "d_ff": hidden_dim,
        "d_kv": dim / n_heads, "num_heads": n_heads, "num_layers": n_layers, "num_decoder_layers": n_layers,
        "n_positions": context_len, "relative_attention_num_buckets": N_BUCKETS, "relative_attention_max_distance": 24,
        "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6, "is_encoder_decoder": true,
        "tie_word_embeddings": true, "decoder_start_token_id": 0,
    });
    let mut shapes = vec![matrix("shared", vocab_size, dim)];
    let gain = |name: String| (format!("{name}.weight"), vec![dim]);
    for stack in ["encoder", "decoder"] {
        let blocks = if stack == "encoder" { &["SelfAttention"][..] } else { &["SelfAttention", "EncDecAttention"] };
        for layer in 0..n_layers {
            let name = |sublayer: usize, part: &str| format!("{stack}.block.{layer}.layer.{sublayer}.{part}");
            for (sublayer, block) in blocks.iter().enumerate() {
                shapes.extend(
                    ["q", "k", "v", "o"].map(|part| matrix(&name(sublayer, &format!("{block}.{part}")), dim, dim)),
                );
                shapes.push(gain(name(sublayer, "layer_norm")));
            }
            let last = blocks.len();
            shapes.extend(
                ["wi_0", "wi_1"].map(|part| matrix(&name(last, &format!("DenseReluDense.{part}")), hidden_dim, dim)),
            );
            shapes.push(matrix(&name(last, "DenseReluDense.wo"), dim, hidden_dim));
            shapes.push(gain(name(last, "layer_norm")));
        }
        let table = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias");
        shapes.push(matrix(&table, N_BUCKETS, n_heads));
        shapes.push(gain(format!("{stack}.final_layer_norm")));
    }
    (config, shapes)
}

fn gpt2(shape: &Shape) -> (Value, Shapes) {
    let &Shape { dim, hidden_dim, n_layers, n_heads, context_len, .. } = shape;
    let vocab_size = shape.vocab_size();
    let config = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": dim, "n_inner": hidden_dim,
        "n_layer": n_layers, "n_head": n_heads, "n_positions": context_len, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
    });
    let mut shapes = vec![matrix("transformer.wte", vocab_size, dim), matrix("transformer.wpe", context_len, dim)];
    // Projections are stored inputs first.
    let projection = |name: &str, inputs: usize, outputs: usize| {
        [(format!("{name}.weight"), vec![inputs, outputs]), (format!("{name}.bias"), vec![outputs])]
    };
    for layer in 0..n_layers {
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        shapes.extend(norm(&name("ln_1"), dim));
        shapes.extend(projection(&name("attn.c_attn"), dim, 3 * dim));
        shapes.extend(projection(&name("attn.c_proj"), dim, dim));
        shapes.extend(norm(&name("ln_2"), dim));
        shapes.extend(projection(&name("mlp.c_fc"), dim, hidden_dim));
        shapes.extend(projection(&name("mlp.c_proj"), hidden_dim, dim));
    }
    shapes.extend(norm("transformer.ln_f", dim));
    (config, shapes)
}

fn gru(shape: &Shape) -> (Value, Shapes) {
    let &Shape { dim, n_layers, context_len, .. } = shape;
    let vocab_size = shape.vocab_size();
    let config = json!({
        "architectures": ["SiskinGru"], "model_type": "siskin-gru",
        "architecture": {
            "family": "gru", "dim": dim, "embedding_dim": dim, "hidden_dim": 0, "n_encoder_layers": 0,
            "n_decoder_layers": n_layers, "shared_layers": false, "n_heads": 0, "n_kv_heads": 0, "head_dim": 0,
            "vocab_size": vocab_size, "context_len": context_len, "norm": "layer", "norm_eps": 1e-5, "norm_place": "pre",
            "positions": "learned", "feed_forward": "gelu", "biases": true, "tied_head": true, "n_token_types": 0,
            "head": "language",
        },
    });
    let mut shapes = vec![matrix("embedding", vocab_size, dim)];
    for layer in 0..n_layers {
        for kind in ["ih", "hh"] {
            shapes.push((format!("decoder.weight_{kind}_l{layer}"), vec![3 * dim, dim]));
            shapes.push((format!("decoder.bias_{kind}_l{layer}"), vec![3 * dim]));
        }
    }
    (config, shapes)
}
