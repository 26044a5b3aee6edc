//! The random models that costs are fitted to, and those that predictions are tried on: of every family, in every format.

use serde_json::{Value, json};

use crate::random_model::Tensor;

/// A kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    Gpt2,
    Gru,
    T5,
    /// BERT with a label for the text, a label for each token, or no head.
    Classifier,
    Tagger,
    Vector,
}

/// One model.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub family: Family,
    pub dim: usize,
    pub hidden_dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub vocab_size: usize,
    pub context_len: usize,
    /// How `siskin compile` is to store weights, keys and values.
    pub weights: &'static str,
    pub kv: &'static str,
    /// Tokens of the prompt, the source or the text.
    pub prompt_tokens: usize,
}

const INT8: &str = "int8";
const GROUPS: &str = "int8-g32";
const INT4: &str = "int4-g32";
const UE5M3: &str = "int8-ue5m3";

/// A Llama: dim, hidden_dim, layers, heads, key heads, vocabulary, context.
const fn llama(shape: [usize; 7], weights: &'static str, prompt_tokens: usize) -> Model {
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context_len] = shape;
    let (family, kv) = (Family::Llama, INT8);
    Model {
        family,
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        vocab_size,
        context_len,
        weights,
        kv,
        prompt_tokens,
    }
}

/// Another model in int8: dim, hidden_dim, layers, heads, vocabulary, context.
const fn other(family: Family, shape: [usize; 6], prompt_tokens: usize) -> Model {
    let [dim, hidden_dim, n_layers, n_heads, vocab_size, context_len] = shape;
    let model = llama([dim, hidden_dim, n_layers, n_heads, n_heads, vocab_size, context_len], INT8, prompt_tokens);
    Model { family, ..model }
}

/// What costs are fitted to. Heads of 8, of 16 and more, of other multiples of 8, and of none; widths that fill a block of every layout and
/// widths that leave a rest. The one with the longest context is first: firmware has room for the first one's prompt.
pub const FITTED: &[Model] = &[
    llama([128, 128, 1, 16, 4, 256, 128], INT8, 1),
    llama([32, 48, 1, 4, 4, 256, 64], INT8, 1),
    llama([64, 96, 2, 8, 4, 256, 96], INT8, 17),
    llama([64, 256, 1, 4, 2, 512, 96], INT8, 8),
    llama([96, 64, 2, 3, 3, 256, 64], INT8, 1),
    llama([48, 200, 1, 4, 1, 320, 64], INT8, 11),
    llama([72, 100, 2, 3, 1, 384, 64], INT8, 9),
    llama([128, 320, 1, 2, 1, 256, 64], INT8, 24),
    llama([60, 90, 1, 3, 3, 300, 64], INT8, 1),
    Model { kv: UE5M3, ..llama([64, 96, 1, 8, 4, 256, 96], INT8, 1) },
    Model { kv: UE5M3, ..llama([64, 64, 1, 4, 2, 256, 96], INT8, 1) },
    llama([64, 92, 1, 8, 4, 256, 32], GROUPS, 1),
    llama([32, 192, 2, 4, 2, 512, 32], GROUPS, 16),
    llama([128, 72, 1, 8, 8, 256, 32], GROUPS, 9),
    llama([80, 144, 1, 5, 5, 256, 32], GROUPS, 1),
    llama([64, 92, 1, 8, 4, 256, 32], INT4, 1),
    llama([32, 192, 2, 4, 2, 512, 32], INT4, 16),
    llama([128, 72, 1, 8, 8, 256, 32], INT4, 9),
    llama([80, 144, 1, 5, 5, 256, 32], INT4, 1),
    other(Family::Gpt2, [64, 96, 1, 8, 256, 64], 1),
    other(Family::Gpt2, [48, 200, 2, 3, 320, 64], 9),
    other(Family::Gpt2, [128, 64, 1, 4, 256, 32], 1),
    other(Family::Gru, [64, 0, 1, 0, 256, 32], 1),
    other(Family::Gru, [32, 0, 2, 0, 512, 32], 9),
    other(Family::Gru, [96, 0, 1, 0, 320, 32], 16),
    other(Family::T5, [64, 96, 1, 4, 256, 64], 24),
    other(Family::T5, [32, 160, 2, 2, 320, 48], 9),
    other(Family::T5, [96, 48, 1, 12, 256, 64], 40),
    other(Family::Classifier, [64, 96, 1, 4, 256, 64], 24),
    other(Family::Classifier, [32, 160, 2, 4, 256, 64], 48),
    other(Family::Tagger, [96, 48, 1, 6, 256, 64], 17),
    other(Family::Vector, [48, 120, 1, 3, 256, 64], 32),
];

/// What costs are fitted to besides, in firmware that is built around each: it takes fewer instructions than one with room for all.
pub const FITTED_LINKED: &[Model] = &[
    llama([64, 172, 3, 8, 4, 512, 96], INT8, 1),
    llama([48, 120, 2, 3, 1, 300, 48], GROUPS, 9),
    other(Family::Gpt2, [72, 180, 2, 6, 320, 64], 9),
    other(Family::Gru, [72, 0, 2, 0, 320, 32], 9),
];

/// What predictions are tried on: shapes that no cost was fitted to.
pub const HELD_OUT: &[Model] = &[
    llama([104, 280, 3, 4, 2, 700, 128], INT8, 12),
    llama([64, 172, 5, 8, 4, 512, 256], INT8, 1),
    llama([96, 250, 2, 6, 3, 640, 64], GROUPS, 12),
    llama([112, 300, 2, 7, 7, 400, 64], INT4, 12),
    other(Family::Gpt2, [96, 260, 2, 6, 400, 80], 12),
    other(Family::Gru, [80, 0, 2, 0, 400, 40], 12),
    other(Family::T5, [80, 200, 2, 5, 400, 64], 30),
    other(Family::Classifier, [80, 200, 2, 5, 400, 64], 40),
];

/// For boards with a few kilobytes of RAM, an image each.
pub const SMALL_FITTED: &[Model] = &[
    llama([16, 24, 1, 2, 1, 256, 16], INT8, 1),
    llama([32, 24, 1, 4, 1, 256, 16], INT8, 1),
    llama([16, 64, 2, 2, 2, 256, 16], INT8, 1),
    llama([24, 40, 2, 3, 1, 256, 24], INT8, 1),
    llama([32, 48, 1, 2, 1, 256, 24], INT8, 1),
    llama([32, 32, 1, 4, 1, 256, 16], GROUPS, 1),
    llama([16, 64, 2, 2, 2, 256, 16], GROUPS, 1),
    llama([32, 32, 1, 4, 1, 256, 16], INT4, 1),
    llama([16, 64, 2, 2, 2, 256, 16], INT4, 1),
];

/// What predictions for those are tried on.
pub const SMALL_HELD_OUT: &[Model] = &[
    llama([32, 48, 2, 4, 1, 256, 32], INT8, 1),
    llama([24, 56, 2, 3, 1, 256, 16], GROUPS, 1),
    llama([32, 40, 1, 4, 2, 256, 20], INT4, 1),
];

impl Model {
    /// A name for files and tables.
    pub fn name(&self) -> String {
        let Self { family, dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context_len, .. } = self;
        let kv = if self.kv == INT8 { String::new() } else { format!("-{}", self.kv) };
        let family = format!("{family:?}").to_ascii_lowercase();
        let shape = format!("{dim}-{hidden_dim}-{n_layers}-{n_heads}-{n_kv_heads}-{vocab_size}-{context_len}");
        format!("{family}-{shape}-{}{kv}", self.weights)
    }

    /// Whether the runtime needs its code for other families.
    fn is_other_family(&self) -> bool {
        self.family != Family::Llama
    }

    /// Whether it says something about a text rather than writing one.
    pub fn is_encoder(&self) -> bool {
        matches!(self.family, Family::Classifier | Family::Tagger | Family::Vector)
    }

    /// Where the first token that is generated stands when the model reads it: an encoder-decoder has read one to start from.
    pub fn first_position(&self) -> usize {
        if self.family == Family::T5 { 1 } else { self.prompt_tokens }
    }

    /// Tokens that fill the context but for its last position.
    pub fn n_new_tokens(&self) -> usize {
        self.context_len - self.first_position() - 1
    }

    fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Its `config.json` and the shapes of its tensors.
    pub fn checkpoint(&self) -> (Value, Vec<Tensor>) {
        let (mut config, tensors) = match self.family {
            Family::Llama => self.llama(),
            Family::Gpt2 => self.gpt2(),
            Family::Gru => self.gru(),
            Family::T5 => self.t5(),
            Family::Classifier => self.bert("BertForSequenceClassification"),
            Family::Tagger => self.bert("BertForTokenClassification"),
            Family::Vector => self.bert("BertModel"),
        };
        config["vocab_size"] = json!(self.vocab_size);
        if self.is_other_family() {
            (config["bos_token_id"], config["eos_token_id"]) = (json!(0), json!(1));
        }
        (config, tensors)
    }

    fn llama(&self) -> (Value, Vec<Tensor>) {
        let &Self { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context_len, .. } = self;
        let kv_dim = n_kv_heads * self.head_dim();
        let config = json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": dim,
            "intermediate_size": hidden_dim, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
            "num_key_value_heads": n_kv_heads, "head_dim": self.head_dim(),
            "max_position_embeddings": context_len, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "hidden_act": "silu", "torch_dtype": "float32",
        });
        let mut tensors = vec![matrix("model.embed_tokens", vocab_size, dim), gain("model.norm", dim)];
        for layer in 0..n_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            tensors.extend(["input_layernorm", "post_attention_layernorm"].map(|part| gain(&name(part), dim)));
            for (part, rows, cols) in [
                ("self_attn.q_proj", dim, dim),
                ("self_attn.k_proj", kv_dim, dim),
                ("self_attn.v_proj", kv_dim, dim),
                ("self_attn.o_proj", dim, dim),
                ("mlp.gate_proj", hidden_dim, dim),
                ("mlp.up_proj", hidden_dim, dim),
                ("mlp.down_proj", dim, hidden_dim),
            ] {
                tensors.push(matrix(&name(part), rows, cols));
            }
        }
        (config, tensors)
    }

    fn gpt2(&self) -> (Value, Vec<Tensor>) {
        let &Self { dim, hidden_dim, n_layers, n_heads, vocab_size, context_len, .. } = self;
        let config = json!({
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": dim, "n_inner": hidden_dim,
            "n_layer": n_layers, "n_head": n_heads, "n_positions": context_len, "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
        });
        let mut tensors = vec![matrix("transformer.wte", vocab_size, dim), matrix("transformer.wpe", context_len, dim)];
        for layer in 0..n_layers {
            let name = |part: &str| format!("transformer.h.{layer}.{part}");
            for part in ["ln_1", "ln_2"] {
                tensors.extend([gain(&name(part), dim), bias(&name(part), dim)]);
            }
            for (part, inputs, outputs) in [
                ("attn.c_attn", dim, 3 * dim),
                ("attn.c_proj", dim, dim),
                ("mlp.c_fc", dim, hidden_dim),
                ("mlp.c_proj", hidden_dim, dim),
            ] {
                // Inputs first.
                tensors.extend([matrix(&name(part), inputs, outputs), bias(&name(part), outputs)]);
            }
        }
        tensors.extend([gain("transformer.ln_f", dim), bias("transformer.ln_f", dim)]);
        (config, tensors)
    }

    fn gru(&self) -> (Value, Vec<Tensor>) {
        let &Self { dim, n_layers, vocab_size, context_len, .. } = self;
        let config = json!({
            "architectures": ["SiskinGru"], "model_type": "siskin-gru",
            "architecture": {
                "family": "gru", "dim": dim, "embedding_dim": dim, "hidden_dim": 0, "n_encoder_layers": 0,
                "n_decoder_layers": n_layers, "shared_layers": false, "n_heads": 0, "n_kv_heads": 0, "head_dim": 0,
                "vocab_size": vocab_size, "context_len": context_len, "norm": "layer", "norm_eps": 1e-5,
                "norm_place": "pre", "positions": "learned", "feed_forward": "gelu", "biases": true, "tied_head": true,
                "n_token_types": 0, "head": "language",
            },
        });
        let mut tensors = vec![matrix("embedding", vocab_size, dim)];
        for layer in 0..n_layers {
            for kind in ["ih", "hh"] {
                tensors.push((format!("decoder.weight_{kind}_l{layer}"), vec![3 * dim, dim]));
                tensors.push((format!("decoder.bias_{kind}_l{layer}"), vec![3 * dim]));
            }
        }
        (config, tensors)
    }

    fn t5(&self) -> (Value, Vec<Tensor>) {
        const N_BUCKETS: usize = 8;
        let &Self { dim, hidden_dim, n_layers, n_heads, vocab_size, context_len, .. } = self;
        let config = json!({
            "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": dim, "d_ff": hidden_dim,
            "d_kv": self.head_dim(), "num_heads": n_heads, "num_layers": n_layers, "num_decoder_layers": n_layers,
            "n_positions": context_len, "relative_attention_num_buckets": N_BUCKETS,
            "relative_attention_max_distance": 24, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6,
            "is_encoder_decoder": true, "tie_word_embeddings": true, "decoder_start_token_id": 0,
        });
        let mut tensors = vec![matrix("shared", vocab_size, dim)];
        for (stack, blocks) in [("encoder", &["SelfAttention"][..]), ("decoder", &["SelfAttention", "EncDecAttention"])]
        {
            for layer in 0..n_layers {
                let name = |sublayer: usize, part: &str| format!("{stack}.block.{layer}.layer.{sublayer}.{part}");
                for (sublayer, block) in blocks.iter().enumerate() {
                    let projections = ["q", "k", "v", "o"].map(|part| format!("{block}.{part}"));
                    tensors.extend(projections.map(|part| matrix(&name(sublayer, &part), dim, dim)));
                    tensors.push(gain(&name(sublayer, "layer_norm"), dim));
                }
                let feed_forward = |part: &str| name(blocks.len(), &format!("DenseReluDense.{part}"));
                tensors.extend(["wi_0", "wi_1"].map(|part| matrix(&feed_forward(part), hidden_dim, dim)));
                tensors.push(matrix(&feed_forward("wo"), dim, hidden_dim));
                tensors.push(gain(&name(blocks.len(), "layer_norm"), dim));
            }
            let table = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias");
            tensors.extend([matrix(&table, N_BUCKETS, n_heads), gain(&format!("{stack}.final_layer_norm"), dim)]);
        }
        (config, tensors)
    }

    fn bert(&self, class: &str) -> (Value, Vec<Tensor>) {
        const N_LABELS: usize = 3;
        let &Self { dim, hidden_dim, n_layers, n_heads, vocab_size, context_len, .. } = self;
        let mut config = json!({
            "architectures": [class], "model_type": "bert", "hidden_act": "gelu", "hidden_size": dim,
            "intermediate_size": hidden_dim, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
            "max_position_embeddings": context_len, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
            "tie_word_embeddings": true,
        });
        let tables = [("word", vocab_size), ("position", context_len), ("token_type", 2)];
        let embedding = |part: &str| format!("bert.embeddings.{part}");
        let mut tensors: Vec<Tensor> =
            tables.map(|(part, rows)| matrix(&embedding(&format!("{part}_embeddings")), rows, dim)).into();
        tensors.extend([gain(&embedding("LayerNorm"), dim), bias(&embedding("LayerNorm"), dim)]);
        let linear = |name: &str, outputs, inputs| [matrix(name, outputs, inputs), bias(name, outputs)];
        for layer in 0..n_layers {
            let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                tensors.extend(linear(&name(&format!("attention.{part}")), dim, dim));
            }
            for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
                tensors.extend([gain(&name(part), dim), bias(&name(part), dim)]);
            }
            tensors.extend(linear(&name("intermediate.dense"), hidden_dim, dim));
            tensors.extend(linear(&name("output.dense"), dim, hidden_dim));
        }
        if class != "BertModel" {
            config["id2label"] = json!({ "0": "a", "1": "b", "2": "c" });
            tensors.extend(linear("classifier", N_LABELS, dim));
        }
        if class == "BertForSequenceClassification" {
            tensors.extend(linear("bert.pooler.dense", dim, dim));
        }
        (config, tensors)
    }
}

fn matrix(name: &str, rows: usize, cols: usize) -> Tensor {
    (format!("{name}.weight"), vec![rows, cols])
}

fn gain(name: &str, dim: usize) -> Tensor {
    (format!("{name}.weight"), vec![dim])
}

fn bias(name: &str, dim: usize) -> Tensor {
    (format!("{name}.bias"), vec![dim])
}
