//! The number formats of GGUF tensors, each decoded to `f32` with the operations and the order of the reference.

use half::{bf16, f16};

/// How a row's numbers are stored, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    /// 32 numbers: scale `f16`, then nibbles less 8.
    Q4_0,
    /// 32 numbers: scale and minimum `f16`, then nibbles.
    Q4_1,
    /// 32 numbers: scale `f16`, fifth bits, then nibbles; less 16.
    Q5_0,
    /// 32 numbers: scale and minimum `f16`, fifth bits, then nibbles.
    Q5_1,
    /// 32 numbers: scale `f16`, then `i8`.
    Q8_0,
    /// 256 numbers in 8 runs, each with a 6-bit scale and minimum.
    Q4K,
    /// As `Q4K`, with fifth bits.
    Q5K,
    /// 256 numbers in 16 runs, each with an 8-bit scale.
    Q6K,
}

impl BlockType {
    /// The formats that can be read, for messages.
    pub const SUPPORTED: &'static str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K";

    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// What to call a format that cannot be read.
    pub fn name_of(id: u32) -> String {
        match id {
            10 => "Q2_K".to_owned(),
            11 => "Q3_K".to_owned(),
            15 => "Q8_K".to_owned(),
            16..=23 | 29 => format!("an IQ format (number {id})"),
            _ => format!("format number {id}"),
        }
    }

    /// Numbers in a block.
    pub const fn n_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    /// If `bytes` is not a whole number of blocks.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        assert!(bytes.len().is_multiple_of(self.n_bytes()), "whole blocks");
        let mut out = vec![0.0; bytes.len() / self.n_bytes() * self.n_elements()];
        let blocks = bytes.chunks_exact(self.n_bytes()).zip(out.chunks_exact_mut(self.n_elements()));
        let decode_block: fn(&[u8], &mut [f32]) = match self {
            Self::F32 => |block, out| out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Self::F16 => |block, out| out[0] = f16_at(block, 0),
            Self::Bf16 => |block, out| out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Self::Q4_0 => decode_q4_0,
            Self::Q4_1 => decode_q4_1,
            Self::Q5_0 => decode_q5_0,
            Self::Q5_1 => decode_q5_1,
            Self::Q8_0 => decode_q8_0,
            Self::Q4K => decode_q4_k,
            Self::Q5K => decode_q5_k,
            Self::Q6K => decode_q6_k,
        };
        for (block, out) in blocks {
            decode_block(block, out);
        }
        out
    }
}

fn f16_at(block: &[u8], pos: usize) -> f32 {
    f16::from_le_bytes([block[pos], block[pos + 1]]).to_f32()
}

/// Nibble `idx` of a run of 32: the first 16 numbers are the low nibbles, the others the high ones.
fn nibble(bytes: &[u8], idx: usize) -> u8 {
    if idx < 16 { bytes[idx] & 15 } else { bytes[idx - 16] >> 4 }
}

/// The fifth bit of number `idx`, in its place.
fn fifth_bit(bytes: &[u8], idx: usize) -> u8 {
    (bytes[idx / 8] >> (idx % 8) & 1) << 4
}

fn decode_q4_0(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    for (idx, out) in out.iter_mut().enumerate() {
        *out = scale * (f32::from(nibble(&block[2..], idx)) - 8.0);
    }
}

fn decode_q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, min) = (f16_at(block, 0), f16_at(block, 2));
    for (idx, out) in out.iter_mut().enumerate() {
        *out = scale * f32::from(nibble(&block[4..], idx)) + min;
    }
}

fn decode_q5_0(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    for (idx, out) in out.iter_mut().enumerate() {
        let quant = nibble(&block[6..], idx) | fifth_bit(&block[2..], idx);
        *out = scale * (f32::from(quant) - 16.0);
    }
}

fn decode_q5_1(block: &[u8], out: &mut [f32]) {
    let (scale, min) = (f16_at(block, 0), f16_at(block, 2));
    for (idx, out) in out.iter_mut().enumerate() {
        let quant = nibble(&block[8..], idx) | fifth_bit(&block[4..], idx);
        *out = scale * f32::from(quant) + min;
    }
}

fn decode_q8_0(block: &[u8], out: &mut [f32]) {
    let scale = f16_at(block, 0);
    for (&quant, out) in block[2..].iter().zip(out) {
        *out = f32::from(quant as i8) * scale;
    }
}

/// The 6-bit scale and minimum of run `run_idx`, from the 12 bytes that hold 8 of each.
fn scale_min_k(packed: &[u8], run_idx: usize) -> (f32, f32) {
    let (scale, min) = if run_idx < 4 {
        (packed[run_idx] & 63, packed[run_idx + 4] & 63)
    } else {
        let both = packed[run_idx + 4];
        (both & 15 | packed[run_idx - 4] >> 6 << 4, both >> 4 | packed[run_idx] >> 6 << 4)
    };
    (scale.into(), min.into())
}

fn decode_q4_k(block: &[u8], out: &mut [f32]) {
    let (scale, min) = (f16_at(block, 0), f16_at(block, 2));
    for (run_idx, run) in out.chunks_exact_mut(32).enumerate() {
        let (run_scale, run_min) = scale_min_k(&block[4..16], run_idx);
        let (step, offset) = (scale * run_scale, min * run_min);
        let bytes = &block[16 + run_idx / 2 * 32..][..32];
        for (&byte, out) in bytes.iter().zip(run) {
            *out = step * f32::from(byte >> (run_idx % 2 * 4) & 15) - offset;
        }
    }
}

fn decode_q5_k(block: &[u8], out: &mut [f32]) {
    let (scale, min) = (f16_at(block, 0), f16_at(block, 2));
    let high = &block[16..48];
    for (run_idx, run) in out.chunks_exact_mut(32).enumerate() {
        let (run_scale, run_min) = scale_min_k(&block[4..16], run_idx);
        let (step, offset) = (scale * run_scale, min * run_min);
        let low = &block[48 + run_idx / 2 * 32..][..32];
        for ((&low, &high), out) in low.iter().zip(high).zip(run) {
            let quant = low >> (run_idx % 2 * 4) & 15 | (high >> run_idx & 1) << 4;
            *out = step * f32::from(quant) - offset;
        }
    }
}

fn decode_q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = f16_at(block, 208);
    for (run_idx, run) in out.chunks_exact_mut(32).enumerate() {
        // Each half of the block holds four runs in 64 low bytes and 32 high bytes.
        let (half, quarter) = (run_idx / 4, run_idx % 4);
        let low = &low[half * 64 + quarter % 2 * 32..][..32];
        let high = &high[half * 32..][..32];
        for (idx, out) in run.iter_mut().enumerate() {
            let quant = low[idx] >> (quarter / 2 * 4) & 15 | (high[idx] >> (quarter * 2) & 3) << 4;
            let run_scale = scale * f32::from(scales[run_idx * 2 + idx / 16] as i8);
            *out = run_scale * (f32::from(quant) - 32.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::BlockType;

    #[derive(Deserialize)]
    struct Recorded {
        name: String,
        type_id: u32,
        bytes: String,
        floats: String,
    }

    fn from_hex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|pos| u8::from_str_radix(&hex[pos..pos + 2], 16).unwrap()).collect()
    }

    /// `tests/oracles/gguf_blocks.py` recorded what the `gguf` package makes of random blocks.
    #[test]
    fn every_type_decodes_bit_for_bit_as_the_reference() {
        let recorded: Vec<Recorded> =
            serde_json::from_str(include_str!("../../../../tests/golden/gguf_blocks.json")).unwrap();
        assert_eq!(recorded.len(), BlockType::SUPPORTED.replace(" and ", ", ").split(", ").count());
        for Recorded { name, type_id, bytes, floats } in recorded {
            let block_type = BlockType::from_id(type_id).unwrap_or_else(|| panic!("{name} cannot be read"));
            let decoded: Vec<u8> =
                block_type.decode(&from_hex(&bytes)).iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(decoded == from_hex(&floats), "{name} decodes differently");
        }
    }
}
