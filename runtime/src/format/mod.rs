//! The packed model file, `*.siskin`: byte-exact in FORMAT.md, read by [`PackedModel`], written from the entries here.
//!
//! All numbers are little-endian. A file is a header, a table of sections, and the sections, each at a multiple of 16 bytes,
//! so that weights are used where they lie, in flash or in a mapped file.

mod contents;
mod error;
mod header;
mod layers;
mod order;
mod packed;

pub(crate) use contents::Contents;
pub use error::FormatError;
pub use header::Header;
pub use layers::{AttentionWeights, GateWeights, HeadWeights, LayerWeights, Linear, Norm, Projections};
pub use order::{BIAS, Role, Storage, TensorId, tensor_order};
#[cfg(feature = "adapters")]
pub(crate) use packed::SectionTable;
pub use packed::{PackedModel, TensorData};

use crate::tensor::WeightFormat;

#[cfg(target_endian = "big")]
compile_error!("packed models are read in place, so the target must be little-endian");

/// The first eight bytes of a file. The line end and the high byte show a transfer that was not binary.
pub const MAGIC: [u8; 8] = *b"SISKIN\r\x9a";
/// The version this crate reads and writes.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// Bytes of an entry of the section table, and of an entry of the tensor table.
pub const ENTRY_BYTES: usize = 32;
/// Sections start at multiples of this, and so must the file's first byte in memory.
pub const SECTION_ALIGN: usize = 16;
/// Most sections a file may have.
pub const SECTIONS_MAX: usize = 64;
/// Most tokens of a prefill batch.
pub const PREFILL_BATCH_MAX: usize = 1 << 10;

/// The checksum of a section or a header: CRC-32 as in zlib and PNG. The host trades 16 KB of tables for speed.
#[cfg(feature = "std")]
pub fn checksum(bytes: &[u8]) -> u32 {
    static CRC: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISO_HDLC);
    CRC.checksum(bytes)
}

/// The checksum of a section or a header: CRC-32 as in zlib and PNG, half a byte at a time from a table of 64 bytes.
#[cfg(not(feature = "std"))]
pub fn checksum(bytes: &[u8]) -> u32 {
    checksum_by_halves(bytes)
}

#[cfg(any(test, not(feature = "std"), feature = "linked-model"))]
pub(crate) const fn checksum_by_halves(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut idx = 0;
        while idx < 16 {
            let (mut crc, mut bit) = (idx as u32, 0);
            while bit < 4 {
                crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
                bit += 1;
            }
            table[idx] = crc;
            idx += 1;
        }
        table
    };
    let (mut crc, mut rest) = (!0, bytes);
    while let [byte, others @ ..] = rest {
        crc ^= *byte as u32;
        crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
        crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
        rest = others;
    }
    !crc
}

/// What a section holds. A reader skips kinds it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// The tensor table: one [`TensorEntry`] a tensor, in canonical order.
    Tensors = 1,
    /// The tensors' bytes.
    Weights = 2,
    /// RoPE cosines and sines, f32 `(context_len, 2, head_dim / 2)`.
    Rope = 3,
    /// The tokenizer.
    Tokenizer = 4,
    /// The chat template as plain segments.
    Chat = 5,
    /// Where the model comes from: UTF-8 JSON.
    Provenance = 6,
    /// The names of a classifier's labels: UTF-8, one a line.
    Labels = 7,
    /// The grammar that generated text keeps to.
    Grammar = 8,
    /// What was trained beside the model; a file may have several.
    Adapter = 9,
    /// What a session holds after the text that every other begins with: a [`crate::snapshot`].
    Prefix = 10,
    /// A whole packed model of the same vocabulary, for speculative decoding.
    Draft = 11,
    /// What the model is known to say, for a self-test.
    Golden = 12,
}

impl SectionKind {
    /// Every kind, in the order of their codes.
    pub const ALL: [Self; 12] = [
        Self::Tensors,
        Self::Weights,
        Self::Rope,
        Self::Tokenizer,
        Self::Chat,
        Self::Provenance,
        Self::Labels,
        Self::Grammar,
        Self::Adapter,
        Self::Prefix,
        Self::Draft,
        Self::Golden,
    ];

    /// The kind with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == code)
    }

    /// The name in reports and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tensors => "tensors",
            Self::Weights => "weights",
            Self::Rope => "rope",
            Self::Tokenizer => "tokenizer",
            Self::Chat => "chat",
            Self::Provenance => "provenance",
            Self::Labels => "labels",
            Self::Grammar => "grammar",
            Self::Adapter => "adapter",
            Self::Prefix => "prefix",
            Self::Draft => "draft",
            Self::Golden => "golden",
        }
    }
}

/// One section's place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionEntry {
    /// Code of a [`SectionKind`], or one that this version does not know.
    pub kind: u32,
    /// CRC-32 of the section's bytes.
    pub crc: u32,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl SectionEntry {
    /// The bytes of the entry.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let [kind, crc] = [self.kind, self.crc].map(u32::to_le_bytes);
        let [offset, bytes] = [self.offset, self.bytes].map(u64::to_le_bytes);
        entry_of(&[&kind, &crc, &offset, &bytes])
    }

    const fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        Self { kind: u32_at(bytes, 0), crc: u32_at(bytes, 4), offset: u64_at(bytes, 8), bytes: u64_at(bytes, 16) }
    }
}

/// Added to a tensor's own format where its zero blocks are not stored: readers of files without such tensors take it for no format.
pub const SPARSE: u32 = 256;

/// One tensor's place in the weights section. Its layout is the header's, and so is its format, where it has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Code of a [`Role`], and [`BIAS`] where it is that role's bias.
    pub role: u16,
    /// Layer, or 0 outside the layers.
    pub layer_idx: u16,
    /// Output elements.
    pub rows: u32,
    /// Input elements.
    pub cols: u32,
    /// First byte of the values (or of the f32 or i32 numbers) in the weights section; a multiple of 16.
    pub data_offset: u32,
    /// First byte of the scales; a multiple of 16. 0 where there are none.
    pub scales_offset: u32,
    /// 0 where a matrix has the header's format, else one more than its own's code, which is below the header's; [`SPARSE`] added where its
    /// zero blocks are not stored.
    pub own_format: u32,
    /// First byte of the index of the blocks that are stored; a multiple of 16. 0 where all are.
    pub index_offset: u32,
    /// Blocks that are stored; 0 where all are.
    pub n_blocks: u32,
}

impl TensorEntry {
    /// The bytes of the entry.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let [role, layer_idx] = [self.role, self.layer_idx].map(u16::to_le_bytes);
        let [rows, cols] = [self.rows, self.cols].map(u32::to_le_bytes);
        let [data_offset, scales_offset] = [self.data_offset, self.scales_offset].map(u32::to_le_bytes);
        let [format, index_offset, n_blocks] =
            [self.own_format, self.index_offset, self.n_blocks].map(u32::to_le_bytes);
        let fields: [&[u8]; 9] =
            [&role, &layer_idx, &rows, &cols, &data_offset, &scales_offset, &format, &index_offset, &n_blocks];
        entry_of(&fields)
    }

    const fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let role_and_layer = u32_at(bytes, 0);
        Self {
            role: role_and_layer as u16,
            layer_idx: (role_and_layer >> 16) as u16,
            rows: u32_at(bytes, 4),
            cols: u32_at(bytes, 8),
            data_offset: u32_at(bytes, 12),
            scales_offset: u32_at(bytes, 16),
            own_format: u32_at(bytes, 20),
            index_offset: u32_at(bytes, 24),
            n_blocks: u32_at(bytes, 28),
        }
    }

    /// The format of a matrix in a file whose header says `format`; `None` where the entry's own is not below it.
    pub const fn format(&self, format: WeightFormat) -> Option<WeightFormat> {
        match (self.own_format & !SPARSE).checked_sub(1) {
            None => Some(format),
            Some(code) if code < format as u32 => WeightFormat::from_code(code),
            Some(_) => None,
        }
    }

    /// Whether zero blocks are not stored.
    pub const fn is_sparse(&self) -> bool {
        self.own_format & SPARSE != 0
    }
}

/// An entry whose fields follow one another; the rest is 0.
fn entry_of(fields: &[&[u8]]) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    for (to, &from) in bytes.iter_mut().zip(fields.iter().copied().flatten()) {
        *to = from;
    }
    bytes
}

/// The number at byte `at`; 0 outside `bytes`.
pub(crate) const fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let Some((_, rest)) = bytes.split_at_checked(at) else { return 0 };
    match rest.first_chunk() {
        Some(&four) => u32::from_le_bytes(four),
        None => 0,
    }
}

/// The number at byte `at`; 0 outside `bytes`.
const fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let Some((_, rest)) = bytes.split_at_checked(at) else { return 0 };
    match rest.first_chunk() {
        Some(&eight) => u64::from_le_bytes(eight),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_checksum_is_crc_32() {
        // The check value that catalogues of CRCs give.
        assert_eq!(checksum_by_halves(b"123456789"), 0xcbf4_3926);
        assert_eq!(checksum_by_halves(b""), 0);
        let bytes: [u8; 256] = core::array::from_fn(|i| i as u8);
        assert_eq!(checksum_by_halves(&bytes), crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&bytes));
    }
}
