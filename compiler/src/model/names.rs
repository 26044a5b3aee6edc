//! What Hugging Face transformers calls each part of each family.
//!
//! A name here is a module's; its numbers are under `.weight` and `.bias`. GPT-2 alone keeps queries, keys and values in one
//! matrix: here they are three, `…c_attn.q` and so on, which its importer and exporter join.

use super::architecture::{Architecture, Family, Head};

/// The encoder or the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    Encoder,
    Decoder,
}

/// A part of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    AttentionNorm,
    Q,
    K,
    V,
    O,
    CrossNorm,
    CrossQ,
    CrossK,
    CrossV,
    CrossO,
    FeedForwardNorm,
    Gate,
    Up,
    Down,
}

/// A part of which there is one in a model, or one a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    Embedding,
    Positions,
    TokenTypes,
    EmbeddingNorm,
    /// From the embedding's width to the model's.
    EmbeddingProjection,
    RelativeBias(Stack),
    FinalNorm(Stack),
    /// The output matrix, where it is not the embedding.
    Head,
    /// A dense layer before a masked-language head, and its norm.
    HeadTransform,
    HeadNorm,
    /// A dense layer on the first position, before a classifier.
    Pooler,
    Classifier,
}

/// The name of a part of layer `layer_idx`.
pub(crate) fn layer(architecture: &Architecture, stack: Stack, layer_idx: usize, part: Part) -> String {
    match architecture.family {
        Family::Llama => format!("model.layers.{layer_idx}.{}", llama(part)),
        Family::Gpt2 => format!("transformer.h.{layer_idx}.{}", gpt2(part)),
        Family::Bert => format!("bert.encoder.layer.{layer_idx}.{}", bert(part)),
        Family::Albert => format!("albert.encoder.albert_layer_groups.0.albert_layers.0.{}", albert(part)),
        Family::T5 => t5(stack, layer_idx, part, architecture.feed_forward.is_gated()),
        Family::Transformer => {
            let stack = if stack == Stack::Encoder { "encoder" } else { "decoder" };
            format!("model.{stack}.layers.{layer_idx}.{}", marian(part))
        }
        Family::Gru | Family::GruSeq2seq => unreachable!("recurrent models name their own parts"),
    }
}

fn llama(part: Part) -> &'static str {
    match part {
        Part::AttentionNorm => "input_layernorm",
        Part::Q => "self_attn.q_proj",
        Part::K => "self_attn.k_proj",
        Part::V => "self_attn.v_proj",
        Part::O => "self_attn.o_proj",
        Part::FeedForwardNorm => "post_attention_layernorm",
        Part::Gate => "mlp.gate_proj",
        Part::Up => "mlp.up_proj",
        Part::Down => "mlp.down_proj",
        _ => unreachable!("no cross-attention"),
    }
}

fn gpt2(part: Part) -> &'static str {
    match part {
        Part::AttentionNorm => "ln_1",
        Part::Q => "attn.c_attn.q",
        Part::K => "attn.c_attn.k",
        Part::V => "attn.c_attn.v",
        Part::O => "attn.c_proj",
        Part::FeedForwardNorm => "ln_2",
        Part::Up => "mlp.c_fc",
        Part::Down => "mlp.c_proj",
        _ => unreachable!("no cross-attention, no gate"),
    }
}

fn bert(part: Part) -> &'static str {
    match part {
        Part::AttentionNorm => "attention.output.LayerNorm",
        Part::Q => "attention.self.query",
        Part::K => "attention.self.key",
        Part::V => "attention.self.value",
        Part::O => "attention.output.dense",
        Part::FeedForwardNorm => "output.LayerNorm",
        Part::Up => "intermediate.dense",
        Part::Down => "output.dense",
        _ => unreachable!("no cross-attention, no gate"),
    }
}

fn albert(part: Part) -> &'static str {
    match part {
        Part::AttentionNorm => "attention.LayerNorm",
        Part::Q => "attention.query",
        Part::K => "attention.key",
        Part::V => "attention.value",
        Part::O => "attention.dense",
        Part::FeedForwardNorm => "full_layer_layer_norm",
        Part::Up => "ffn",
        Part::Down => "ffn_output",
        _ => unreachable!("no cross-attention, no gate"),
    }
}

fn t5(stack: Stack, layer_idx: usize, part: Part, is_gated: bool) -> String {
    let (stack, feed_forward) = match stack {
        Stack::Encoder => ("encoder", 1),
        Stack::Decoder => ("decoder", 2),
    };
    let (sublayer, name) = match part {
        Part::AttentionNorm => (0, "layer_norm"),
        Part::Q => (0, "SelfAttention.q"),
        Part::K => (0, "SelfAttention.k"),
        Part::V => (0, "SelfAttention.v"),
        Part::O => (0, "SelfAttention.o"),
        Part::CrossNorm => (1, "layer_norm"),
        Part::CrossQ => (1, "EncDecAttention.q"),
        Part::CrossK => (1, "EncDecAttention.k"),
        Part::CrossV => (1, "EncDecAttention.v"),
        Part::CrossO => (1, "EncDecAttention.o"),
        Part::FeedForwardNorm => (feed_forward, "layer_norm"),
        Part::Gate => (feed_forward, "DenseReluDense.wi_0"),
        Part::Up if is_gated => (feed_forward, "DenseReluDense.wi_1"),
        Part::Up => (feed_forward, "DenseReluDense.wi"),
        Part::Down => (feed_forward, "DenseReluDense.wo"),
    };
    format!("{stack}.block.{layer_idx}.layer.{sublayer}.{name}")
}

fn marian(part: Part) -> &'static str {
    match part {
        Part::AttentionNorm => "self_attn_layer_norm",
        Part::Q => "self_attn.q_proj",
        Part::K => "self_attn.k_proj",
        Part::V => "self_attn.v_proj",
        Part::O => "self_attn.out_proj",
        Part::CrossNorm => "encoder_attn_layer_norm",
        Part::CrossQ => "encoder_attn.q_proj",
        Part::CrossK => "encoder_attn.k_proj",
        Part::CrossV => "encoder_attn.v_proj",
        Part::CrossO => "encoder_attn.out_proj",
        Part::FeedForwardNorm => "final_layer_norm",
        Part::Up => "fc1",
        Part::Down => "fc2",
        Part::Gate => unreachable!("no gate"),
    }
}

/// The name of a part that is not a layer's.
pub(crate) fn global(architecture: &Architecture, part: Global) -> String {
    let name = match architecture.family {
        Family::Llama => match part {
            Global::Embedding => "model.embed_tokens",
            Global::FinalNorm(_) => "model.norm",
            Global::Head => "lm_head",
            Global::Classifier => score_name(architecture),
            _ => unreachable!("no such part in a Llama: {part:?}"),
        },
        Family::Gpt2 => match part {
            Global::Embedding => "transformer.wte",
            Global::Positions => "transformer.wpe",
            Global::FinalNorm(_) => "transformer.ln_f",
            Global::Head => "lm_head",
            Global::Classifier => score_name(architecture),
            _ => unreachable!("no such part in GPT-2: {part:?}"),
        },
        Family::Bert => match part {
            Global::Embedding => "bert.embeddings.word_embeddings",
            Global::Positions => "bert.embeddings.position_embeddings",
            Global::TokenTypes => "bert.embeddings.token_type_embeddings",
            Global::EmbeddingNorm => "bert.embeddings.LayerNorm",
            Global::Head => "cls.predictions.decoder",
            Global::HeadTransform => "cls.predictions.transform.dense",
            Global::HeadNorm => "cls.predictions.transform.LayerNorm",
            Global::Pooler => "bert.pooler.dense",
            Global::Classifier => "classifier",
            _ => unreachable!("no such part in BERT: {part:?}"),
        },
        Family::Albert => match part {
            Global::Embedding => "albert.embeddings.word_embeddings",
            Global::Positions => "albert.embeddings.position_embeddings",
            Global::TokenTypes => "albert.embeddings.token_type_embeddings",
            Global::EmbeddingNorm => "albert.embeddings.LayerNorm",
            Global::EmbeddingProjection => "albert.encoder.embedding_hidden_mapping_in",
            Global::Head => "predictions.decoder",
            Global::HeadTransform => "predictions.dense",
            Global::HeadNorm => "predictions.LayerNorm",
            Global::Pooler => "albert.pooler",
            Global::Classifier => "classifier",
            _ => unreachable!("no such part in ALBERT: {part:?}"),
        },
        Family::T5 => match part {
            Global::Embedding => "shared",
            Global::RelativeBias(Stack::Encoder) => "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
            Global::RelativeBias(Stack::Decoder) => "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
            Global::FinalNorm(Stack::Encoder) => "encoder.final_layer_norm",
            Global::FinalNorm(Stack::Decoder) => "decoder.final_layer_norm",
            Global::Head => "lm_head",
            _ => unreachable!("no such part in T5: {part:?}"),
        },
        Family::Transformer => match part {
            Global::Embedding => "model.shared",
            Global::Head => "lm_head",
            _ => unreachable!("no such part in a Transformer: {part:?}"),
        },
        Family::Gru | Family::GruSeq2seq => unreachable!("recurrent models name their own parts"),
    };
    name.to_owned()
}

/// Decoders classify sequences by `score` and tokens by `score` or `classifier`.
fn score_name(architecture: &Architecture) -> &'static str {
    match (architecture.family, architecture.head) {
        (Family::Gpt2, Head::TokenClassifier { .. }) => "classifier",
        _ => "score",
    }
}

/// What a matrix is for: whether it is between layers' states, as a rule for matrices alone supposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatrixUse {
    /// A row for each token, position, bucket or label.
    Table,
    /// From one state to another; some that are multiplied together are stacked, row upon row.
    Hidden { n_stacked: usize },
}

/// What the matrix of a name is for.
pub(crate) fn matrix_use(name: &str) -> MatrixUse {
    const TABLES: [&str; 13] = [
        "embed_tokens",
        "wte",
        "wpe",
        "word_embeddings",
        "position_embeddings",
        "token_type_embeddings",
        "shared",
        "relative_attention_bias",
        "lm_head",
        "classifier",
        "score",
        "embedding",
        "head",
    ];
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let part = module.rsplit('.').next().unwrap_or(module);
    // The gates of a GRU: reset, update, new.
    let n_stacked = if part.starts_with("weight_ih_l") || part.starts_with("weight_hh_l") { 3 } else { 1 };
    match TABLES.contains(&part) || module.ends_with("predictions.decoder") {
        true => MatrixUse::Table,
        false => MatrixUse::Hidden { n_stacked },
    }
}
