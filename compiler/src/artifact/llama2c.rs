//! llama2.c checkpoints: the legacy `.bin` without a version, and versions 1 (`f32`) and 2 (`int8` groups).
//!
//! The files hold no tokenizer and no token ids beyond the convention of the SentencePiece vocabularies they were
//! trained with: 1 begins a text, and 2, or the 1 of the next text, ends it.

use siskin_runtime::ModelConfig;

use super::bytes::ByteReader;
use super::interleaved::half_split_rows;
use super::{Checkpoint, NamedWeights, Problem, Weight, names};

/// `ak42`, little-endian: begins files of version 1 and up.
const MAGIC: u32 = 0x616b_3432;
/// Bytes of the header of version 1 and up, padding included.
const HEADER_BYTES: u64 = 256;
/// What llama2.c adds inside every norm's root; the files do not say.
const NORM_EPS: f32 = 1e-5;
/// Base of llama2.c's rotary frequencies; the files do not say.
const ROPE_THETA: f32 = 10000.0;

/// How a file's weights are stored.
#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    /// No version: `f32`, the norms apart from the matrices, old rotary tables after the last norm.
    Legacy,
    /// Version 1: `f32`, norms first.
    Float,
    /// Version 2: norms first in `f32`, matrices in `i8` with one `f32` scale a group.
    Int8 { group_size: usize },
}

/// Reads a llama2.c checkpoint's bytes.
///
/// # Errors
/// [`Problem`]: another version, a header that makes no sense, or a length that is not what the header implies.
pub fn parse(bytes: &[u8]) -> Result<Checkpoint, Problem> {
    let mut reader = ByteReader::new(bytes);
    let magic = reader.clone().u32("the header")?;
    let (config, encoding) = if magic == MAGIC { read_header(&mut reader)? } else { read_legacy_header(&mut reader)? };
    let needed_bytes = body_bytes(&config, encoding);
    let had_bytes = reader.remaining() as u64;
    if needed_bytes > had_bytes {
        return Err(Problem::Truncated { what: "the weights".to_owned(), needed_bytes, had_bytes });
    }
    if needed_bytes < had_bytes {
        return Err(Problem::TrailingBytes { extra_bytes: had_bytes - needed_bytes });
    }
    let tensors = read_tensors(&mut reader, &config, encoding)?;
    let mut checkpoint = Checkpoint::new(config, tensors)?;
    if config.vocab_size > 2 {
        checkpoint.bos_id = Some(1);
        checkpoint.eos_ids = vec![1, 2];
    }
    Ok(checkpoint)
}

/// Whether `bytes` may be a llama2.c checkpoint: the files of the first version have no magic number.
pub(super) fn is_plausible(bytes: &[u8]) -> bool {
    let mut reader = ByteReader::new(bytes);
    reader.clone().u32("the header").is_ok_and(|magic| magic == MAGIC) || read_legacy_header(&mut reader).is_ok()
}

fn read_header(reader: &mut ByteReader<'_>) -> Result<(ModelConfig, Encoding), Problem> {
    let mut header = ByteReader::new(reader.take(HEADER_BYTES, "the header")?);
    header.u32("the magic number")?;
    let version = header.i32("the version")?;
    let numbers = read_counts(&mut header)?;
    let tied_head = header.array::<1>("the header")?[0] != 0;
    let config = config_of(numbers, tied_head)?;
    match version {
        1 => Ok((config, Encoding::Float)),
        2 => {
            let group_size = header.i32("the group size")?;
            // Groups run through the flat matrix; `dim` is a factor of every matrix's size.
            match usize::try_from(group_size) {
                Ok(size) if size > 0 && config.dim.is_multiple_of(size) => {
                    Ok((config, Encoding::Int8 { group_size: size }))
                }
                _ => Err(Problem::bad_field("group_size", format!("is {group_size}, which does not divide dim"))),
            }
        }
        _ => Err(Problem::UnsupportedVersion { found: version.into(), supported: "none (legacy), 1 and 2" }),
    }
}

/// A negative vocabulary marks a head of its own.
fn read_legacy_header(reader: &mut ByteReader<'_>) -> Result<(ModelConfig, Encoding), Problem> {
    let mut numbers = read_counts(reader)?;
    let tied_head = numbers[5] > 0;
    numbers[5] = numbers[5].saturating_abs();
    Ok((config_of(numbers, tied_head)?, Encoding::Legacy))
}

/// dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context_len.
fn read_counts(reader: &mut ByteReader<'_>) -> Result<[i32; 7], Problem> {
    let mut numbers = [0; 7];
    for number in &mut numbers {
        *number = reader.i32("the header")?;
    }
    Ok(numbers)
}

fn config_of(numbers: [i32; 7], tied_head: bool) -> Result<ModelConfig, Problem> {
    // A negative number becomes 0, which `validate` refuses.
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context_len] =
        numbers.map(|number| usize::try_from(number).unwrap_or(0));
    if n_heads == 0 || !dim.is_multiple_of(n_heads) {
        return Err(Problem::bad_field("n_heads", format!("is {n_heads}, which does not divide dim = {dim}")));
    }
    let config = ModelConfig {
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim: dim / n_heads,
        vocab_size,
        context_len,
        norm_eps: NORM_EPS,
        rope_theta: ROPE_THETA,
        tied_head,
        parts: siskin_runtime::Parts::LLAMA,
    };
    config.validate()?;
    Ok(config)
}

/// The matrices of a block in the order of every version's file.
const MATRICES: [&str; 7] =
    [names::Q_PROJ, names::K_PROJ, names::V_PROJ, names::O_PROJ, names::GATE_PROJ, names::DOWN_PROJ, names::UP_PROJ];

/// Bytes after the header. Cannot overflow: `config` was validated.
fn body_bytes(config: &ModelConfig, encoding: Encoding) -> u64 {
    let n_gains = (2 * config.n_layers as u64 + 1) * config.dim as u64;
    let n_matrix = config.n_params() - n_gains;
    match encoding {
        Encoding::Legacy => 4 * (n_gains + n_matrix + legacy_rope_len(config) as u64),
        Encoding::Float => 4 * (n_gains + n_matrix),
        Encoding::Int8 { group_size } => 4 * n_gains + n_matrix + n_matrix / group_size as u64 * 4,
    }
}

/// Numbers in the rotary tables of a legacy file, which nothing reads any more.
fn legacy_rope_len(config: &ModelConfig) -> usize {
    config.context_len * config.head_dim
}

/// What comes next in a file's body.
enum Part {
    /// A weight, by its Hugging Face name.
    Weight(String, Encoding),
    /// `f32` numbers that are not needed.
    Skipped(usize),
}

/// A file's body from its first byte to its last.
fn layout(config: &ModelConfig, encoding: Encoding) -> Vec<Part> {
    let per_layer = |part: &'static str, encoding: Encoding| {
        (0..config.n_layers).map(move |layer_idx| Part::Weight(names::layer(layer_idx, part), encoding))
    };
    let matrices = |range: core::ops::Range<usize>| MATRICES[range].iter().flat_map(|part| per_layer(part, encoding));
    let embedding = Part::Weight(names::EMBEDDING.to_owned(), encoding);
    let final_norm = Part::Weight(names::FINAL_NORM.to_owned(), Encoding::Float);
    let mut parts = Vec::new();
    if encoding == Encoding::Legacy {
        parts.push(embedding);
        parts.extend(per_layer(names::ATTENTION_NORM, encoding));
        parts.extend(matrices(0..4));
        parts.extend(per_layer(names::MLP_NORM, encoding));
        parts.extend(matrices(4..7));
        parts.push(final_norm);
        parts.push(Part::Skipped(legacy_rope_len(config)));
    } else {
        parts.extend(per_layer(names::ATTENTION_NORM, Encoding::Float));
        parts.extend(per_layer(names::MLP_NORM, Encoding::Float));
        parts.push(final_norm);
        parts.push(embedding);
        parts.extend(matrices(0..7));
    }
    if !config.tied_head {
        parts.push(Part::Weight(names::OUTPUT_HEAD.to_owned(), encoding));
    }
    parts
}

fn read_tensors(
    reader: &mut ByteReader<'_>,
    config: &ModelConfig,
    encoding: Encoding,
) -> Result<NamedWeights, Problem> {
    let shapes = names::expected_shapes(config);
    let mut tensors = NamedWeights::new();
    for part in layout(config, encoding) {
        match part {
            Part::Skipped(n_numbers) => drop(reader.take(4 * n_numbers as u64, "the rotary tables")?),
            Part::Weight(name, encoding) => {
                let shape = shapes[&name].clone();
                let mut data = read_numbers(reader, &name, shape.iter().product(), encoding)?;
                if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
                    data = half_split_rows(&data, config.head_dim, config.dim);
                }
                tensors.insert(name, Weight { shape, data });
            }
        }
    }
    Ok(tensors)
}

/// Allocates only after the bytes were found to be there.
fn read_numbers(
    reader: &mut ByteReader<'_>,
    name: &str,
    n_numbers: usize,
    encoding: Encoding,
) -> Result<Vec<f32>, Problem> {
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect::<Vec<_>>();
    match encoding {
        Encoding::Legacy | Encoding::Float => Ok(floats(reader.take(4 * n_numbers as u64, name)?)),
        Encoding::Int8 { group_size } => {
            let quants = reader.take(n_numbers as u64, name)?;
            let scales = floats(reader.take(4 * (n_numbers / group_size) as u64, name)?);
            let groups = quants.chunks_exact(group_size).zip(scales);
            Ok(groups.flat_map(|(group, scale)| group.iter().map(move |&q| f32::from(q as i8) * scale)).collect())
        }
    }
}
