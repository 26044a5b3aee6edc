//! From a GGUF's header to a checkpoint, and nothing but the `llama` architecture.

use siskin_runtime::{ModelConfig, TokenId};

use super::GgufVocab;
use super::metadata::{Header, TensorInfo};
use crate::artifact::interleaved::half_split_rows;
use crate::artifact::{
    Checkpoint, GenerationDefaults, NamedWeights, Problem, RopeScaling, TokenizerSource, Weight, names,
};

/// Reads a GGUF file's bytes.
///
/// # Errors
/// [`Problem`]: it is no GGUF, of another version or architecture, truncated, or its tensors do not fit its metadata.
pub fn parse(bytes: &[u8]) -> Result<Checkpoint, Problem> {
    let header = Header::parse(bytes)?;
    let config = read_config(&header)?;
    let vocab = read_vocab(&header)?;
    let mut eos_ids: Vec<TokenId> = vocab.eos_id.into_iter().collect();
    eos_ids.extend(token_id(&header, "tokenizer.ggml.eot_token_id")?.filter(|id| Some(*id) != vocab.eos_id));
    let checkpoint = Checkpoint {
        rope: read_rope(&header)?,
        tensors: read_tensors(&header, &config)?,
        config,
        chat_template: header.text("tokenizer.chat_template")?,
        bos_id: vocab.bos_id,
        eos_ids,
        tokenizer: if vocab.tokens.is_empty() { TokenizerSource::None } else { TokenizerSource::Gguf(Box::new(vocab)) },
        generation: GenerationDefaults::default(),
    };
    checkpoint.validate()?;
    Ok(checkpoint)
}

/// Reads only the tokenizer of a GGUF file's bytes, of any architecture.
///
/// # Errors
/// [`Problem`]: it is no GGUF, of another version, truncated, or its arrays do not fit each other.
pub fn parse_vocab(bytes: &[u8]) -> Result<GgufVocab, Problem> {
    read_vocab(&Header::parse(bytes)?)
}

fn read_config(header: &Header<'_>) -> Result<ModelConfig, Problem> {
    let architecture = header.text("general.architecture")?.ok_or_else(|| Problem::missing("general.architecture"))?;
    if architecture != "llama" {
        return Err(Problem::unsupported(format!("architecture `{architecture}`; only llama is")));
    }
    if header.count("llama.expert_count")?.is_some_and(|count| count > 0) {
        return Err(Problem::unsupported("a mixture of experts (llama.expert_count)"));
    }
    let optional =
        |key: &str| header.count(key).map(|count| count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)));
    let required = |key: &str| optional(key)?.ok_or_else(|| Problem::missing(key));
    let (dim, n_heads) = (required("llama.embedding_length")?, required("llama.attention.head_count")?);
    let head_dim = match optional("llama.attention.key_length")? {
        Some(head_dim) => head_dim,
        None if n_heads > 0 && dim.is_multiple_of(n_heads) => dim / n_heads,
        None => {
            return Err(Problem::bad_field(
                "llama.attention.head_count",
                format!("is {n_heads}, which does not divide {dim}"),
            ));
        }
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if let Some(width) = optional(key)?.filter(|&width| width != head_dim) {
            return Err(Problem::unsupported(format!("`{key}` = {width} where heads are {head_dim} wide")));
        }
    }
    let embedding = find(header, "token_embd.weight")?;
    let config = ModelConfig {
        dim,
        hidden_dim: required("llama.feed_forward_length")?,
        n_layers: required("llama.block_count")?,
        n_heads,
        n_kv_heads: optional("llama.attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        vocab_size: embedding.shape.first().copied().unwrap_or(0),
        context_len: required("llama.context_length")?.min(ModelConfig::CONTEXT_MAX),
        norm_eps: header
            .number("llama.attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| Problem::missing("llama.attention.layer_norm_rms_epsilon"))?,
        rope_theta: header.number("llama.rope.freq_base")?.unwrap_or(10000.0),
        tied_head: !header.tensors.iter().any(|tensor| tensor.name == "output.weight"),
        parts: siskin_runtime::Parts::LLAMA,
    };
    config.validate()?;
    Ok(config)
}

fn find<'h, 'a>(header: &'h Header<'a>, name: &str) -> Result<&'h TensorInfo<'a>, Problem> {
    let found = header.tensors.iter().find(|tensor| tensor.name == name);
    found.ok_or_else(|| Problem::MissingTensor { name: name.to_owned() })
}

fn read_rope(header: &Header<'_>) -> Result<RopeScaling, Problem> {
    let scaling = match header.text("llama.rope.scaling.type")?.as_deref() {
        None | Some("none") => match header.number("llama.rope.scale_linear")? {
            Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
            _ => RopeScaling::None,
        },
        Some("linear") => {
            let key = "llama.rope.scaling.factor";
            RopeScaling::Linear { factor: header.number(key)?.ok_or_else(|| Problem::missing(key))? }
        }
        Some(name) => return Err(Problem::unsupported(format!("rope scaling `{name}`"))),
    };
    match (find(header, "rope_freqs.weight"), &scaling) {
        (Err(_), _) => Ok(scaling),
        // Bounded: the tensor lies inside the file. Its length is checked with the checkpoint.
        (Ok(tensor), RopeScaling::None) => Ok(RopeScaling::Divisors(tensor.block_type.decode(tensor.bytes))),
        (Ok(_), _) => Err(Problem::unsupported("rope_freqs together with linear rope scaling")),
    }
}

fn read_tensors(header: &Header<'_>, config: &ModelConfig) -> Result<NamedWeights, Problem> {
    let expected = names::expected_shapes(config);
    let mut tensors = NamedWeights::new();
    for tensor in header.tensors.iter().filter(|tensor| tensor.name != "rope_freqs.weight") {
        let unexpected = || Problem::UnexpectedTensor { name: tensor.name.to_owned() };
        let name = hugging_face_name(tensor.name).ok_or_else(unexpected)?;
        let shape = expected.get(&name).ok_or_else(unexpected)?;
        if tensor.shape != *shape {
            let (name, expected, found) = (tensor.name.to_owned(), shape.clone(), tensor.shape.clone());
            return Err(Problem::WrongShape { name, expected, found });
        }
        let mut data = tensor.block_type.decode(tensor.bytes);
        if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
            data = half_split_rows(&data, config.head_dim, config.dim);
        }
        if tensors.insert(name, Weight { shape: tensor.shape.clone(), data }).is_some() {
            return Err(Problem::bad_field(tensor.name, "appears twice"));
        }
    }
    Ok(tensors)
}

/// The name that Hugging Face gives a GGUF tensor; `None` for one that no Llama has.
fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some(names::EMBEDDING.to_owned()),
        "output_norm.weight" => return Some(names::FINAL_NORM.to_owned()),
        "output.weight" => return Some(names::OUTPUT_HEAD.to_owned()),
        _ => {}
    }
    let (layer_idx, part) = name.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
    let part = match part {
        "attn_norm" => names::ATTENTION_NORM,
        "attn_q" => names::Q_PROJ,
        "attn_k" => names::K_PROJ,
        "attn_v" => names::V_PROJ,
        "attn_output" => names::O_PROJ,
        "ffn_norm" => names::MLP_NORM,
        "ffn_gate" => names::GATE_PROJ,
        "ffn_up" => names::UP_PROJ,
        "ffn_down" => names::DOWN_PROJ,
        _ => return None,
    };
    Some(names::layer(layer_idx.parse().ok()?, part))
}

fn token_id(header: &Header<'_>, key: &str) -> Result<Option<TokenId>, Problem> {
    // 0xffff_ffff and -1 are how some writers say "none".
    match header.get(key) {
        Some(super::metadata::Value::Signed(-1)) => Ok(None),
        _ => match header.count(key)? {
            Some(id) => match TokenId::try_from(id) {
                Ok(TokenId::MAX) => Ok(None),
                Ok(id) => Ok(Some(id)),
                Err(_) => Err(Problem::bad_field(key, format!("is {id}, which is no token id"))),
            },
            None => Ok(None),
        },
    }
}

fn read_vocab(header: &Header<'_>) -> Result<GgufVocab, Problem> {
    let tokens = header.texts("tokenizer.ggml.tokens")?;
    let scores = header.words("tokenizer.ggml.scores", 6)?;
    let token_types = header.words("tokenizer.ggml.token_type", 5)?;
    for (key, len) in [("tokenizer.ggml.scores", scores.len()), ("tokenizer.ggml.token_type", token_types.len())] {
        if len != 0 && len != tokens.len() {
            return Err(Problem::bad_field(key, format!("has {len} entries for {} tokens", tokens.len())));
        }
    }
    Ok(GgufVocab {
        model: header.text("tokenizer.ggml.model")?.unwrap_or_default(),
        pre: header.text("tokenizer.ggml.pre")?,
        tokens,
        scores: scores.iter().map(|&word| f32::from_le_bytes(word)).collect(),
        token_types: token_types.iter().map(|&word| i32::from_le_bytes(word)).collect(),
        merges: header.texts("tokenizer.ggml.merges")?,
        bos_id: token_id(header, "tokenizer.ggml.bos_token_id")?,
        eos_id: token_id(header, "tokenizer.ggml.eos_token_id")?,
        unknown_id: token_id(header, "tokenizer.ggml.unknown_token_id")?,
        padding_id: token_id(header, "tokenizer.ggml.padding_token_id")?,
        add_bos: header.bool("tokenizer.ggml.add_bos_token")?,
        add_eos: header.bool("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: header.bool("tokenizer.ggml.add_space_prefix")?,
    })
}
