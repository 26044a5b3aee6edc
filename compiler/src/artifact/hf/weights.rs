//! Safetensors files: bytes to named `f32` weights.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::artifact::{NamedWeights, Problem, Weight, names};

/// Longest JSON header accepted; a model of a thousand blocks needs under 2 MB.
const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Most files a sharded model may have.
const SHARDS_MAX: usize = 1024;

/// Reads from the safetensors file `bytes` every weight that `expected` names, into `out`.
///
/// Leaves out what Llama files carry without need: a head that is tied (`lm_head.weight` not expected) and rotary frequencies.
pub(super) fn read_safetensors(
    bytes: &[u8],
    expected: &BTreeMap<String, Vec<usize>>,
    out: &mut NamedWeights,
) -> Result<(), Problem> {
    let is_wanted = |name: &str, found: &[usize]| {
        if name.ends_with(".rotary_emb.inv_freq") || (name == names::OUTPUT_HEAD && !expected.contains_key(name)) {
            return Ok(false);
        }
        let name = name.to_owned();
        match expected.get(&name) {
            None => Err(Problem::UnexpectedTensor { name }),
            Some(shape) if shape != found => {
                Err(Problem::WrongShape { name, expected: shape.clone(), found: found.to_vec() })
            }
            Some(_) => Ok(true),
        }
    };
    read_safetensors_with(bytes, is_wanted, out)
}

/// Reads from the safetensors file `bytes` the weights that `is_wanted`, told name and shape, asks for, into `out`.
pub(super) fn read_safetensors_with(
    bytes: &[u8],
    is_wanted: impl Fn(&str, &[usize]) -> Result<bool, Problem>,
    out: &mut NamedWeights,
) -> Result<(), Problem> {
    let (header, data) = split_header(bytes)?;
    for (name, info) in header.tensors() {
        if !is_wanted(&name, &info.shape)? {
            continue;
        }
        // In range: `split_header` checked that the tensors fill `data` exactly.
        let values = to_f32(&name, info, &data[info.data_offsets.0..info.data_offsets.1])?;
        out.insert(name, Weight { shape: info.shape.clone(), data: values });
    }
    Ok(())
}

/// Parses the header and checks that its tensors lie one after the other and fill the rest of the file.
fn split_header(bytes: &[u8]) -> Result<(Metadata, &[u8]), Problem> {
    let truncated = |what: &str, needed_bytes: u64, had_bytes: usize| Problem::Truncated {
        what: what.to_owned(),
        needed_bytes,
        had_bytes: had_bytes as u64,
    };
    let Some((header_len, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(truncated("the header's length", 8, bytes.len()));
    };
    let header_bytes = u64::from_le_bytes(*header_len);
    if header_bytes > HEADER_BYTES_MAX || rest.first().is_some_and(|&byte| byte != b'{') {
        return Err(Problem::WrongMagic { expected: "safetensors" });
    }
    let Some((header, data)) = rest.split_at_checked(header_bytes as usize) else {
        return Err(truncated("the header", header_bytes, rest.len()));
    };
    let header: Metadata = serde_json::from_slice(header)?;
    match header.data_len() {
        len if len > data.len() => Err(truncated("the tensors' data", len as u64, data.len())),
        len if len < data.len() => Err(Problem::TrailingBytes { extra_bytes: (data.len() - len) as u64 }),
        _ => Ok((header, data)),
    }
}

fn to_f32(name: &str, info: &TensorInfo, bytes: &[u8]) -> Result<Vec<f32>, Problem> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match info.dtype {
        Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect()),
        Dtype::F16 => Ok(pairs().map(|&word| f16::from_le_bytes(word).to_f32()).collect()),
        Dtype::BF16 => Ok(pairs().map(|&word| bf16::from_le_bytes(word).to_f32()).collect()),
        other => Err(Problem::UnsupportedDtype {
            name: name.to_owned(),
            found: format!("{other:?}"),
            supported: "F32, F16 and BF16",
        }),
    }
}

/// File names in `model.safetensors.index.json`, each once, in order.
pub(super) fn shard_names(index: &[u8]) -> Result<Vec<String>, Problem> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index)?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort();
    shards.dedup();
    if shards.len() > SHARDS_MAX {
        let (what, count, max) = ("the number of shards".to_owned(), shards.len() as u64, SHARDS_MAX as u64);
        return Err(Problem::TooLarge { what, count, max });
    }
    // A name that leads out of the folder is an attack, not a model.
    match shards.iter().find(|name| !name.ends_with(".safetensors") || name.contains(['/', '\\'])) {
        Some(name) => {
            Err(Problem::bad_field("weight_map", format!("names `{name}`, which is no shard of this folder")))
        }
        None => Ok(shards),
    }
}
