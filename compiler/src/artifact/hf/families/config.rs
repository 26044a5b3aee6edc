//! `config.json` of each family, both ways.

use crate::artifact::{Problem, SpecialIds, TrainedModel};
use crate::model::{Architecture, Family, FeedForward, Head, NormKind, NormPlace, Positions};
use serde_json::{Map, Value, json};
use siskin_runtime::TokenId;

/// `model_type` of recurrent models, which transformers has no class for.
const RECURRENT: &str = "siskin-gru";

/// What `config.json` says of a model: its parts, its special tokens, its labels.
pub(super) type Parsed = (Architecture, SpecialIds, Vec<String>);

/// The transformers class of a family with a head.
fn class_of(a: &Architecture) -> Result<String, Problem> {
    let base = match a.family {
        Family::Llama => "Llama",
        Family::Gpt2 => "GPT2",
        Family::Bert => "Bert",
        Family::Albert => "Albert",
        Family::T5 => "T5",
        Family::Transformer => "Marian",
        Family::Gru | Family::GruSeq2seq => return Ok("SiskinGru".to_owned()),
    };
    Ok(match (a.family, a.head) {
        (_, Head::None) => format!("{base}Model"),
        (Family::Llama, Head::Language) => "LlamaForCausalLM".to_owned(),
        (Family::Gpt2, Head::Language) => "GPT2LMHeadModel".to_owned(),
        (Family::T5, Head::Language) => "T5ForConditionalGeneration".to_owned(),
        (Family::Transformer, Head::Language) => "MarianMTModel".to_owned(),
        (_, Head::MaskedLanguage) => format!("{base}ForMaskedLM"),
        (_, Head::Classifier { .. }) => format!("{base}ForSequenceClassification"),
        (_, Head::TokenClassifier { .. }) => format!("{base}ForTokenClassification"),
        (family, Head::Language) => {
            return Err(Problem::unsupported(format!("a causal head on {}", family.name())));
        }
    })
}

fn activation_name(feed_forward: FeedForward) -> &'static str {
    match feed_forward {
        FeedForward::SwiGlu | FeedForward::Silu => "silu",
        FeedForward::GeGlu | FeedForward::GeluTanh => "gelu_new",
        FeedForward::Gelu => "gelu",
        FeedForward::Relu => "relu",
    }
}

/// `config.json` as transformers reads it.
pub(super) fn to_json(model: &TrainedModel) -> Result<Value, Problem> {
    let a = &model.architecture;
    let mut fields = match a.family {
        Family::Llama => llama_fields(a),
        Family::Gpt2 => gpt2_fields(a),
        Family::Bert | Family::Albert => encoder_fields(a),
        Family::T5 => t5_fields(a)?,
        Family::Transformer => marian_fields(a)?,
        Family::Gru | Family::GruSeq2seq => json!({ "model_type": RECURRENT, "architecture": a }),
    };
    fields["architectures"] = json!([class_of(a)?]);
    fields["vocab_size"] = json!(a.vocab_size);
    fields["tie_word_embeddings"] = json!(a.tied_head);
    fields["dtype"] = json!("float32");
    let SpecialIds { bos, eos, pad, decoder_start } = model.specials;
    for (name, id) in [("bos_token_id", bos), ("eos_token_id", eos), ("pad_token_id", pad)] {
        fields[name] = json!(id);
    }
    if let Some(id) = decoder_start {
        fields["decoder_start_token_id"] = json!(id);
    }
    if let Head::Classifier { n_labels } | Head::TokenClassifier { n_labels } = a.head {
        let name = |label: usize| model.labels.get(label).cloned().unwrap_or_else(|| format!("LABEL_{label}"));
        let by_id: Map<String, Value> = (0..n_labels).map(|label| (label.to_string(), json!(name(label)))).collect();
        let by_name: Map<String, Value> = (0..n_labels).map(|label| (name(label), json!(label))).collect();
        (fields["id2label"], fields["label2id"]) = (json!(by_id), json!(by_name));
    }
    Ok(fields)
}

fn llama_fields(a: &Architecture) -> Value {
    let Positions::Rope { theta } = a.positions else { return json!({}) };
    json!({
        "model_type": "llama", "hidden_size": a.dim, "intermediate_size": a.hidden_dim, "hidden_act": "silu",
        "num_hidden_layers": a.n_decoder_layers, "num_attention_heads": a.n_heads, "num_key_value_heads": a.n_kv_heads,
        "head_dim": a.head_dim, "max_position_embeddings": a.context_len, "rms_norm_eps": shortest(a.norm_eps),
        "rope_theta": shortest(theta), "attention_bias": false, "mlp_bias": false,
    })
}

fn gpt2_fields(a: &Architecture) -> Value {
    json!({
        "model_type": "gpt2", "n_embd": a.dim, "n_inner": a.hidden_dim, "n_layer": a.n_decoder_layers, "n_head": a.n_heads,
        "n_positions": a.context_len, "activation_function": activation_name(a.feed_forward),
        "layer_norm_epsilon": shortest(a.norm_eps), "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
    })
}

fn encoder_fields(a: &Architecture) -> Value {
    let mut fields = json!({
        "model_type": a.family.name(), "hidden_size": a.dim, "intermediate_size": a.hidden_dim,
        "num_hidden_layers": a.n_encoder_layers, "num_attention_heads": a.n_heads,
        "hidden_act": activation_name(a.feed_forward), "max_position_embeddings": a.context_len,
        "type_vocab_size": a.n_token_types, "layer_norm_eps": shortest(a.norm_eps),
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    });
    if a.family == Family::Albert {
        fields["embedding_size"] = json!(a.embedding_dim);
        fields["num_hidden_groups"] = json!(1);
        fields["inner_group_num"] = json!(1);
        fields["classifier_dropout_prob"] = json!(0.0);
    }
    fields
}

fn t5_fields(a: &Architecture) -> Result<Value, Problem> {
    let Positions::RelativeBias { n_buckets, max_distance } = a.positions else {
        return Err(Problem::unsupported("T5 without relative positions"));
    };
    let feed_forward = match a.feed_forward {
        FeedForward::GeGlu => "gated-gelu",
        FeedForward::Relu => "relu",
        _ => return Err(Problem::unsupported("T5 with another feed-forward function than ge_glu or relu")),
    };
    Ok(json!({
        "model_type": "t5", "d_model": a.dim, "d_ff": a.hidden_dim, "d_kv": a.head_dim, "num_heads": a.n_heads,
        "num_layers": a.n_encoder_layers, "num_decoder_layers": a.n_decoder_layers, "n_positions": a.context_len,
        "relative_attention_num_buckets": n_buckets, "relative_attention_max_distance": max_distance,
        "feed_forward_proj": feed_forward, "layer_norm_epsilon": shortest(a.norm_eps), "dropout_rate": 0.0,
        "is_encoder_decoder": true,
    }))
}

fn marian_fields(a: &Architecture) -> Result<Value, Problem> {
    if a.norm_eps != 1e-5 {
        return Err(Problem::unsupported("a Transformer whose norm_eps is not 1e-5, which Marian's is"));
    }
    if a.head_dim * a.n_heads != a.dim || a.n_kv_heads != a.n_heads {
        return Err(Problem::unsupported("a Transformer whose heads do not divide its width evenly"));
    }
    Ok(json!({
        "model_type": "marian", "d_model": a.dim, "encoder_layers": a.n_encoder_layers,
        "decoder_layers": a.n_decoder_layers, "encoder_attention_heads": a.n_heads, "decoder_attention_heads": a.n_heads,
        "encoder_ffn_dim": a.hidden_dim, "decoder_ffn_dim": a.hidden_dim,
        "activation_function": activation_name(a.feed_forward), "max_position_embeddings": a.context_len,
        "scale_embedding": true, "share_encoder_decoder_embeddings": true, "decoder_vocab_size": a.vocab_size,
        "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "is_encoder_decoder": true,
    }))
}

/// A number with no more digits than make it the same `f32`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// Reads `config.json`.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Problem> {
    let raw: Value = serde_json::from_slice(bytes)?;
    let fields = Fields(&raw);
    let class = raw["architectures"][0].as_str().unwrap_or_default();
    let labels = labels(&raw);
    let architecture = match raw["model_type"].as_str() {
        Some(RECURRENT) => serde_json::from_value(raw["architecture"].clone())?,
        Some("llama") => llama(&fields, head_of(class, &labels, Head::Language))?,
        Some("gpt2") => gpt2(&fields, head_of(class, &labels, Head::Language))?,
        Some("bert") => encoder(&fields, Family::Bert, head_of(class, &labels, Head::None))?,
        Some("albert") => encoder(&fields, Family::Albert, head_of(class, &labels, Head::None))?,
        Some("t5") => t5(&fields)?,
        Some("marian") => marian(&fields)?,
        Some(name) => {
            let known = "llama, gpt2, bert, albert, t5, marian";
            return Err(Problem::unsupported(format!("model_type `{name}`; known are {known}")));
        }
        None => return Err(Problem::missing("model_type")),
    };
    architecture.validate()?;
    let id = |name: &str| raw[name].as_u64().and_then(|id| TokenId::try_from(id).ok());
    let specials = SpecialIds {
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        pad: id("pad_token_id"),
        decoder_start: id("decoder_start_token_id"),
    };
    let is_classifier = matches!(architecture.head, Head::Classifier { .. } | Head::TokenClassifier { .. });
    Ok((architecture, specials, if is_classifier { labels } else { Vec::new() }))
}

/// The head that a transformers class has.
fn head_of(class: &str, labels: &[String], otherwise: Head) -> Head {
    let n_labels = if labels.is_empty() { 2 } else { labels.len() };
    match class {
        _ if class.ends_with("ForMaskedLM") => Head::MaskedLanguage,
        _ if class.ends_with("ForSequenceClassification") => Head::Classifier { n_labels },
        _ if class.ends_with("ForTokenClassification") => Head::TokenClassifier { n_labels },
        _ if class.ends_with("Model") && !class.ends_with("LMHeadModel") => Head::None,
        _ => otherwise,
    }
}

/// `id2label` in the order of its numbers.
fn labels(raw: &Value) -> Vec<String> {
    let Some(by_id) = raw["id2label"].as_object() else { return Vec::new() };
    (0..by_id.len()).map_while(|label| Some(by_id.get(&label.to_string())?.as_str()?.to_owned())).collect()
}

/// The fields of a file, with errors that name them.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn count(&self, name: &str) -> Result<usize, Problem> {
        match &self.0[name] {
            Value::Null => Err(Problem::missing(name)),
            value => value
                .as_u64()
                .and_then(|value| usize::try_from(value).ok())
                .ok_or_else(|| Problem::bad_field(name, format!("is {value}, not a count"))),
        }
    }

    fn count_or(&self, name: &str, otherwise: usize) -> Result<usize, Problem> {
        if self.0[name].is_null() { Ok(otherwise) } else { self.count(name) }
    }

    fn number_or(&self, name: &str, otherwise: f32) -> Result<f32, Problem> {
        match &self.0[name] {
            Value::Null => Ok(otherwise),
            value => value
                .as_f64()
                .map(|value| value as f32)
                .ok_or_else(|| Problem::bad_field(name, format!("is {value}, not a number"))),
        }
    }

    fn flag_or(&self, name: &str, otherwise: bool) -> bool {
        self.0[name].as_bool().unwrap_or(otherwise)
    }

    fn activation(&self, name: &str, otherwise: &str) -> Result<FeedForward, Problem> {
        match self.0[name].as_str().unwrap_or(otherwise) {
            "gelu" => Ok(FeedForward::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(FeedForward::GeluTanh),
            "relu" => Ok(FeedForward::Relu),
            "silu" | "swish" => Ok(FeedForward::Silu),
            other => Err(Problem::unsupported(format!("{name} `{other}`"))),
        }
    }

    /// Refuses a model that has something which its family here has not.
    fn refuse(&self, name: &str, unless: Value) -> Result<(), Problem> {
        match &self.0[name] {
            Value::Null => Ok(()),
            value if *value == unless => Ok(()),
            value => Err(Problem::unsupported(format!("`{name}`: {value}"))),
        }
    }

    fn head_dim(&self, dim: usize, n_heads: usize) -> Result<usize, Problem> {
        match n_heads > 0 && dim.is_multiple_of(n_heads) {
            true => Ok(dim / n_heads),
            false => Err(Problem::bad_field("hidden_size", format!("is {dim}, not a multiple of {n_heads} heads"))),
        }
    }
}

fn llama(fields: &Fields<'_>, head: Head) -> Result<Architecture, Problem> {
    let (dim, n_heads) = (fields.count("hidden_size")?, fields.count("num_attention_heads")?);
    fields.refuse("attention_bias", json!(false))?;
    fields.refuse("mlp_bias", json!(false))?;
    fields.refuse("rope_scaling", Value::Null)?;
    fields.refuse("hidden_act", json!("silu"))?;
    let head_dim = match fields.0["head_dim"].is_null() {
        true => fields.head_dim(dim, n_heads)?,
        false => fields.count("head_dim")?,
    };
    Ok(Architecture {
        family: Family::Llama,
        dim,
        embedding_dim: dim,
        hidden_dim: fields.count("intermediate_size")?,
        n_encoder_layers: 0,
        n_decoder_layers: fields.count("num_hidden_layers")?,
        shared_layers: false,
        n_heads,
        n_kv_heads: fields.count_or("num_key_value_heads", n_heads)?,
        head_dim,
        vocab_size: fields.count("vocab_size")?,
        context_len: fields.count("max_position_embeddings")?,
        norm: NormKind::Rms,
        norm_eps: fields.number_or("rms_norm_eps", 1e-6)?,
        norm_place: NormPlace::Pre,
        positions: Positions::Rope { theta: fields.number_or("rope_theta", 10_000.0)? },
        feed_forward: FeedForward::SwiGlu,
        biases: false,
        tied_head: fields.flag_or("tie_word_embeddings", false),
        n_token_types: 0,
        head,
    })
}

fn gpt2(fields: &Fields<'_>, head: Head) -> Result<Architecture, Problem> {
    let (dim, n_heads) = (fields.count("n_embd")?, fields.count("n_head")?);
    fields.refuse("scale_attn_by_inverse_layer_idx", json!(false))?;
    fields.refuse("scale_attn_weights", json!(true))?;
    Ok(Architecture {
        family: Family::Gpt2,
        dim,
        embedding_dim: dim,
        hidden_dim: fields.count_or("n_inner", 4 * dim)?,
        n_encoder_layers: 0,
        n_decoder_layers: fields.count("n_layer")?,
        shared_layers: false,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: fields.head_dim(dim, n_heads)?,
        vocab_size: fields.count("vocab_size")?,
        context_len: fields.count("n_positions")?,
        norm: NormKind::Layer,
        norm_eps: fields.number_or("layer_norm_epsilon", 1e-5)?,
        norm_place: NormPlace::Pre,
        positions: Positions::Learned,
        feed_forward: fields.activation("activation_function", "gelu_new")?,
        biases: true,
        tied_head: fields.flag_or("tie_word_embeddings", true),
        n_token_types: 0,
        head,
    })
}

fn encoder(fields: &Fields<'_>, family: Family, head: Head) -> Result<Architecture, Problem> {
    let (dim, n_heads) = (fields.count("hidden_size")?, fields.count("num_attention_heads")?);
    fields.refuse("position_embedding_type", json!("absolute"))?;
    fields.refuse("is_decoder", json!(false))?;
    let is_albert = family == Family::Albert;
    if is_albert {
        fields.refuse("num_hidden_groups", json!(1))?;
        fields.refuse("inner_group_num", json!(1))?;
    }
    Ok(Architecture {
        family,
        dim,
        embedding_dim: if is_albert { fields.count_or("embedding_size", 128)? } else { dim },
        hidden_dim: fields.count("intermediate_size")?,
        n_encoder_layers: fields.count("num_hidden_layers")?,
        n_decoder_layers: 0,
        shared_layers: is_albert,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: fields.head_dim(dim, n_heads)?,
        vocab_size: fields.count("vocab_size")?,
        context_len: fields.count("max_position_embeddings")?,
        norm: NormKind::Layer,
        norm_eps: fields.number_or("layer_norm_eps", 1e-12)?,
        norm_place: NormPlace::Post,
        positions: Positions::Learned,
        feed_forward: fields.activation("hidden_act", if is_albert { "gelu_new" } else { "gelu" })?,
        biases: true,
        tied_head: fields.flag_or("tie_word_embeddings", true),
        n_token_types: fields.count_or("type_vocab_size", 2)?,
        head,
    })
}

fn t5(fields: &Fields<'_>) -> Result<Architecture, Problem> {
    let (dim, n_heads) = (fields.count("d_model")?, fields.count("num_heads")?);
    let n_encoder_layers = fields.count("num_layers")?;
    let feed_forward = match fields.0["feed_forward_proj"].as_str().unwrap_or("relu") {
        "relu" => FeedForward::Relu,
        "gated-gelu" => FeedForward::GeGlu,
        other => return Err(Problem::unsupported(format!("feed_forward_proj `{other}`"))),
    };
    Ok(Architecture {
        family: Family::T5,
        dim,
        embedding_dim: dim,
        hidden_dim: fields.count("d_ff")?,
        n_encoder_layers,
        n_decoder_layers: fields.count_or("num_decoder_layers", n_encoder_layers)?,
        shared_layers: false,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: fields.count("d_kv")?,
        vocab_size: fields.count("vocab_size")?,
        context_len: fields.count_or("n_positions", 512)?,
        norm: NormKind::Rms,
        norm_eps: fields.number_or("layer_norm_epsilon", 1e-6)?,
        norm_place: NormPlace::Pre,
        positions: Positions::RelativeBias {
            n_buckets: fields.count_or("relative_attention_num_buckets", 32)?,
            max_distance: fields.count_or("relative_attention_max_distance", 128)?,
        },
        feed_forward,
        biases: false,
        tied_head: fields.flag_or("tie_word_embeddings", true),
        n_token_types: 0,
        head: Head::Language,
    })
}

fn marian(fields: &Fields<'_>) -> Result<Architecture, Problem> {
    let (dim, n_heads) = (fields.count("d_model")?, fields.count("encoder_attention_heads")?);
    fields.refuse("decoder_attention_heads", json!(n_heads))?;
    let hidden_dim = fields.count("encoder_ffn_dim")?;
    fields.refuse("decoder_ffn_dim", json!(hidden_dim))?;
    fields.refuse("scale_embedding", json!(true))?;
    fields.refuse("share_encoder_decoder_embeddings", json!(true))?;
    fields.refuse("static_position_embeddings", json!(true))?;
    fields.refuse("normalize_before", json!(false))?;
    Ok(Architecture {
        family: Family::Transformer,
        dim,
        embedding_dim: dim,
        hidden_dim,
        n_encoder_layers: fields.count("encoder_layers")?,
        n_decoder_layers: fields.count("decoder_layers")?,
        shared_layers: false,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: fields.head_dim(dim, n_heads)?,
        vocab_size: fields.count("vocab_size")?,
        context_len: fields.count("max_position_embeddings")?,
        norm: NormKind::Layer,
        norm_eps: 1e-5,
        norm_place: NormPlace::Post,
        positions: Positions::Sinusoidal,
        feed_forward: fields.activation("activation_function", "gelu")?,
        biases: true,
        tied_head: fields.flag_or("tie_word_embeddings", true),
        n_token_types: 0,
        head: Head::Language,
    })
}
