//! Weights as a family's files hold them, and as the model's parameter layout names them.

use crate::artifact::trained::shape_of;
use crate::artifact::{NamedWeights, Problem, Weight};
use crate::model::{Architecture, Family, Head};
use crate::tensor::ParamLayout;

/// GPT-2's joint matrix, and its parts in their order.
const JOINT: (&str, [&str; 3]) = ("c_attn", ["q", "k", "v"]);

/// Whether a file's tensor is a constant that older files keep among the weights: position numbers, causal masks, sines, and a
/// table of T5's that no version reads.
pub(super) fn is_constant(architecture: &Architecture, name: &str) -> bool {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    match architecture.family {
        Family::Bert | Family::Albert => ends(&["embeddings.position_ids"]),
        Family::Gpt2 => ends(&[".attn.bias", ".attn.masked_bias"]),
        Family::T5 => ends(&["EncDecAttention.relative_attention_bias.weight"]),
        Family::Transformer => ends(&["embed_positions.weight"]),
        Family::Llama => ends(&["rotary_emb.inv_freq"]),
        Family::Gru | Family::GruSeq2seq => false,
    }
}

/// The weights of the layout, named, shaped and joined as the family's files have them.
pub(super) fn to_file(architecture: &Architecture, tensors: &NamedWeights) -> NamedWeights {
    match architecture.family {
        Family::Gpt2 => tensors.iter().fold(NamedWeights::new(), |mut file, (name, weight)| {
            join_gpt2(&mut file, name, weight);
            file
        }),
        Family::Transformer => {
            let mut file = tensors.clone();
            let (shape, data) = (vec![1, architecture.vocab_size], vec![0.0; architecture.vocab_size]);
            file.insert("final_logits_bias".to_owned(), Weight { shape, data });
            file
        }
        _ => tensors.clone(),
    }
}

/// Adds one weight: projections are stored inputs first, queries, keys and values side by side.
fn join_gpt2(file: &mut NamedWeights, name: &str, weight: &Weight) {
    let is_projection = name.contains(".attn.") || name.contains(".mlp.");
    let stored = if is_projection { transposed(weight) } else { weight.clone() };
    let Some((block, part, kind)) = joint_part(name) else {
        file.insert(name.to_owned(), stored);
        return;
    };
    let joint = format!("{block}{}.{kind}", JOINT.0);
    let n_parts = JOINT.1.len();
    let (rows, cols) = (stored.data.len() / stored.shape[stored.shape.len() - 1], stored.shape[stored.shape.len() - 1]);
    let entry = file.entry(joint).or_insert_with(|| {
        let mut shape = stored.shape.clone();
        *shape.last_mut().unwrap_or(&mut 0) = cols * n_parts;
        Weight { shape, data: vec![0.0; rows * cols * n_parts] }
    });
    for (to, from) in entry.data.chunks_exact_mut(cols * n_parts).zip(stored.data.chunks_exact(cols)) {
        to[part * cols..(part + 1) * cols].copy_from_slice(from);
    }
}

/// Splits `…attn.c_attn.q.weight` into what stands before `c_attn`, the part's number, and `weight` or `bias`.
fn joint_part(name: &str) -> Option<(&str, usize, &str)> {
    let (block, rest) = name.split_once(&format!("{}.", JOINT.0))?;
    let (part, kind) = rest.split_once('.')?;
    Some((block, JOINT.1.iter().position(|known| *known == part)?, kind))
}

fn transposed(weight: &Weight) -> Weight {
    let &[rows, cols] = weight.shape.as_slice() else { return weight.clone() };
    let data = (0..rows * cols).map(|at| weight.data[at % rows * cols + at / rows]).collect();
    Weight { shape: vec![cols, rows], data }
}

/// The layout's weights out of a file's.
///
/// A file may leave out the family's prefix (`bert.`), as the models without a head do, and may hold what is not needed here: copies
/// of tied matrices, counters of positions, heads of other tasks.
pub(super) fn from_file(
    architecture: &Architecture,
    layout: &ParamLayout,
    mut file: NamedWeights,
) -> Result<NamedWeights, Problem> {
    let mut tensors = NamedWeights::new();
    if architecture.family == Family::Gpt2 {
        file = split_gpt2(file)?;
    }
    for spec in layout.specs() {
        let bare = spec.name.split_once('.').map_or("", |(_, bare)| bare);
        let weight = file.remove(&spec.name).or_else(|| file.remove(bare));
        let weight = weight.ok_or_else(|| Problem::MissingTensor { name: spec.name.clone() })?;
        let expected = shape_of(spec);
        if weight.shape != expected {
            return Err(Problem::WrongShape { name: spec.name.clone(), expected, found: weight.shape });
        }
        tensors.insert(spec.name.clone(), weight);
    }
    match file.into_keys().find(|name| !is_dispensable(architecture, name)) {
        Some(name) => Err(Problem::UnexpectedTensor { name }),
        None => Ok(tensors),
    }
}

fn split_gpt2(file: NamedWeights) -> Result<NamedWeights, Problem> {
    let mut split = NamedWeights::new();
    for (name, weight) in file {
        let is_projection = name.contains("attn.c_") || name.contains("mlp.c_");
        let stored = if is_projection { transposed(&weight) } else { weight };
        let Some((block, kind)) = name.split_once(&format!("{}.", JOINT.0)) else {
            split.insert(name, stored);
            continue;
        };
        let rows = stored.shape[0];
        if !rows.is_multiple_of(JOINT.1.len()) {
            return Err(Problem::bad_field(&name, "does not divide into queries, keys and values"));
        }
        let (part_rows, part_len) = (rows / JOINT.1.len(), stored.data.len() / JOINT.1.len());
        for (part, data) in JOINT.1.iter().zip(stored.data.chunks_exact(part_len.max(1))) {
            let mut shape = stored.shape.clone();
            shape[0] = part_rows;
            split.insert(format!("{block}{}.{part}.{kind}", JOINT.0), Weight { shape, data: data.to_vec() });
        }
    }
    Ok(split)
}

/// Whether a tensor that the model has no place for may be left out.
fn is_dispensable(architecture: &Architecture, name: &str) -> bool {
    let is_tied_copy = architecture.tied_head
        && ["lm_head.weight", "predictions.decoder.weight", "predictions.decoder.bias", "embed_tokens.weight"]
            .iter()
            .any(|copy| name.ends_with(copy));
    let is_fixed_bias = name.ends_with("final_logits_bias");
    let is_other_head = ["pooler.", "seq_relationship.", "sop_classifier."].iter().any(|head| name.contains(head))
        || (architecture.head == Head::None && (name.starts_with("cls.") || name.starts_with("predictions.")));
    is_tied_copy || is_fixed_bias || is_other_head
}
